"""The page's answers beside the command line's: random questions under Pyodide and under this Python, byte for byte.

    python -m benchmarks.page_answers [--questions 500] [--seed 0] [--runtime DIR]

Needs Node. Prints how many answers are equal, and how long they took. Exits with 1 where one differs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from advisor.catalog import all_gpus, gpu_aliases, model_names
from advisor.knobs import BY_NAME, Knob
from advisor.page.ask import ask
from advisor.page.sheet import GROUPS
from advisor.site.engine import engine_text, readers_text
from advisor.site.runtime import runtime_files

ROOT = Path(__file__).resolve().parent.parent
SIZES = ("8GB", "12GB", "16GB", "24GB", "40GB", "48GB", "80GB", "25GB")
NUMBERS: dict[str, tuple[str, ...]] = {
    "gpus": ("1", "2", "4", "8"),
    "nodes": ("1", "2"),
    "epochs": ("1", "3", "0.5"),
    "rank": ("4", "8", "16", "64", "256"),
    "alpha": ("8", "16", "32"),
    "labels": ("2", "5"),
    "trained_layers": ("2", "4"),
    "dropout": ("0", "0.05", "0.1"),
    "quant_bits": ("4", "8"),
    "quant_group": ("64", "128"),
    "optimizer_rank": ("64", "128"),
    "neftune": ("5",),
    "micro_batch": ("1", "2", "4"),
    "batch_size": ("8", "16", "64"),
    "mean_seq_len": ("100", "300", "1k"),
    "pad_to_multiple_of": ("8", "64"),
    "images": ("1", "2"),
    "max_pixels": ("1000000",),
    "eval_examples": ("100", "2k"),
    "eval_batch": ("4", "8"),
    "eval_steps": ("50",),
    "bucket_elements": ("200000000",),
    "network_gbit": ("100",),
    "host_memory_gb": ("128", "1000"),
    "price_per_hour": ("0.79", "2.5"),
}
TEXTS = {
    "target_modules": ("all-linear", "attention", "q_proj,v_proj", "nothing"),
    "modules_to_save": ("embed_tokens", "lm_head,embed_tokens"),
    "kernels": ("liger", "none"),
    "stack": ("transformers-4.57", "peft-0.11"),
    "image_size": ("1024x768", "336"),
}
RARE = ("nodes", "task", "labels", "stack", "images", "image_size", "max_pixels", "variant", "offload", "gpus")


def questions(count: int, seed: int) -> list[dict[str, Any]]:
    """So many questions, the same for the same seed: any model on any card, with up to five other knobs."""
    chance = random.Random(seed)
    models, cards = model_names(), [*(card.name for card in all_gpus()), *gpu_aliases(), *SIZES * 12]
    others = [name for names in GROUPS.values() for name in names]
    found = []
    for _ in range(count):
        flags = {"model": chance.choice(models), "gpu": chance.choice(cards)}
        flags |= {"examples": chance.choice(("300", "3000", "20k", "1.5m", ""))}
        flags |= {"seq_len": chance.choice(("", "", "512", "1500", "8k", "32k"))}
        for name in chance.sample(others, chance.choice((0, 1, 2, 3, 5))):
            if name not in RARE or chance.random() < 0.4:
                flags[name] = chance.choice(_values(BY_NAME[name]))
        found.append({"kind": "advise", "flags": flags})
    return found


def _values(knob: Knob) -> tuple[str, ...]:
    if knob.kind == "bool":
        return ("on", "off")
    return NUMBERS.get(knob.name) or TEXTS.get(knob.name) or knob.choices


def answers_of_pyodide(asked: list[dict[str, Any]], runtime: dict[str, bytes], limit_s: int = 3600) -> dict[str, Any]:
    """What `page_answers.mjs` prints: version, answers, milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        texts = {"engine.json": engine_text(), "readers.json": readers_text(), "questions.json": json.dumps(asked)}
        for name, text in texts.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        for name, data in runtime.items():
            Path(folder, name).write_bytes(data)
        command = ["node", "benchmarks/page_answers.mjs", folder, folder, f"{folder}/questions.json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def differences(asked: list[dict[str, Any]], found: dict[str, Any]) -> list[dict[str, Any]]:
    """The questions whose answers are not the same bytes here."""
    return [one for one, text in zip(asked, found["answers"], strict=True) if _here(one) != text]


def _here(question: dict[str, Any]) -> str:
    """The answer of this Python; of a fault of the engine its kind."""
    try:
        return ask(json.dumps(question))
    except Exception as error:
        return type(error).__name__


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runtime", help="a folder with Pyodide's files")
    given = parser.parse_args()
    asked = questions(given.questions, given.seed)
    found = answers_of_pyodide(asked, runtime_files(given.runtime))
    unlike = differences(asked, found)
    answered = sum(text.startswith('{"ok":true') for text in found["answers"])
    for one in unlike[:10]:
        print("differs:", json.dumps(one["flags"]))
    print(f"{len(asked) - len(unlike)} of {len(asked)} answers equal to the byte ({answered} advice, others refused),")
    print(f"under Python {found['version']} in WebAssembly and {sys.version.split()[0]};")
    print(f"in WebAssembly {median(found['times']):.0f} ms each (median).")
    return 1 if unlike else 0


if __name__ == "__main__":
    sys.exit(main())
