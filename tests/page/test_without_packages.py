"""The engine in a browser: standard library alone, and the answers are the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from advisor.page.ask import ask
from tests.page.test_ask import RECIPE

ROOT = Path(__file__).resolve().parents[2]
MISSING = ("pydantic", "pydantic_core", "click", "rich", "platformdirs", "numpy", "huggingface_hub", "tokenizers")
TINY = {"model": "tinyllama-1.1b", "gpu": "rtx4090", "examples": "3000"}
OWN = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 512,
    "intermediate_size": 1024,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "vocab_size": 32000,
}
QUESTIONS: dict[str, dict[str, object]] = {
    "usual": {"kind": "advise", "flags": TINY},
    "bare size": {"kind": "advise", "flags": TINY | {"gpu": "24GB"}},
    "a size that no card has": {"kind": "advise", "flags": TINY | {"gpu": "25GB"}},
    "nothing fits": {"kind": "advise", "flags": TINY | {"model": "llama-70b", "gpu": "8GB"}},
    "only just": {"kind": "advise", "flags": TINY | {"model": "llama-8b", "gpu": "16GB", "method": "qlora"}},
    "numbers as people write them": {"kind": "advise", "flags": TINY | {"examples": "10,000", "seq_len": "2k"}},
    "a bad number": {"kind": "advise", "flags": TINY | {"rank": "many"}},
    "a number out of range": {"kind": "advise", "flags": TINY | {"dropout": "7"}},
    "a bad choice": {"kind": "advise", "flags": TINY | {"optimizer": "adamm"}},
    "an unknown model": {"kind": "advise", "flags": TINY | {"model": "lama-8b"}},
    "an unknown card": {"kind": "advise", "flags": TINY | {"gpu": "rtx409"}},
    "this machine": {"kind": "advise", "flags": TINY | {"gpu": "auto"}},
    "a model of the Hub": {"kind": "advise", "flags": TINY | {"model": "nobody/nothing-7b-x"}},
    "an own config": {"kind": "advise", "flags": {"gpu": "24GB"}, "config": json.dumps(OWN)},
    "a broken config": {"kind": "advise", "flags": {"gpu": "24GB"}, "config": json.dumps(OWN | {"vocab_size": "x"})},
    "several cards": {"kind": "advise", "flags": TINY | {"gpu": "2x24GB"}},
    "an engine": {"kind": "advise", "flags": TINY | {"gpus": "4", "sharding": "fsdp2"}},
    "a trainer": {"kind": "advise", "flags": TINY | {"trainer": "unsloth", "method": "qlora"}},
    "evaluation and price": {"kind": "advise", "flags": TINY | {"eval_examples": "100", "price_per_hour": "0.5"}},
    "contradictions": {"kind": "advise", "flags": TINY | {"mean_seq_len": "2000", "seq_len": "100"}},
    "the file": {"kind": "file", "flags": TINY, "target": "axolotl"},
    "a configuration": {"kind": "check", "flags": {"gpu": "24GB"}, "name": "a.yaml", "text": RECIPE},
    "a name": {"kind": "models", "query": "qwen 8b"},
    "a rule": {"kind": "explain", "code": "ADV003"},
}
ALONE = f"""
import json, sys
missing = {MISSING!r}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"no {{name}} here", name=name)
sys.meta_path.insert(0, Missing())
from advisor.page.ask import ask
print(json.dumps([ask(json.dumps(one)) for one in json.load(sys.stdin)]))
loaded = sorted(name for name in missing if name in sys.modules)
assert not loaded, loaded
"""


@pytest.mark.process
def test_24_kinds_of_question_need_the_standard_library_alone() -> None:
    assert len(QUESTIONS) == 24
    asked = json.dumps(list(QUESTIONS.values()))
    env = os.environ | {"FINETUNE_ADVISOR_DATA": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], input=asked, cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for (name, question), text in zip(QUESTIONS.items(), json.loads(done.stdout), strict=True):
        assert text == ask(json.dumps(question)), name


@pytest.mark.process
def test_the_probe_can_fail() -> None:
    line = ALONE.replace("from advisor.page.ask import ask", "import pydantic")
    command = [sys.executable, "-c", line]
    done = subprocess.run(command, input="[]", cwd=ROOT, capture_output=True, text=True, check=False)
    assert "no pydantic here" in done.stderr
