"""What a Python text states is found without running it; what only the run knows is not guessed."""

from __future__ import annotations

import ast
import time
from pathlib import Path
from typing import Any

import pytest

from advisor.configs.literals import Computed, Fields, value_of
from advisor.configs.python_text import python_tree
from advisor.configs.reading import read_config

KNOWN = {"n": 4, "base": "models", "many": Computed("many"), "table": {"rank": 16}, "args": Fields({"rank": 8})}


def folded(text: str) -> Any:
    return value_of(ast.parse(text, mode="eval").body, KNOWN)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n * 2 + 1", 9),
        ("2048 // n", 512),
        ("-n", -4),
        ("not n", False),
        ("f'{base}/llama-{n}b'", "models/llama-4b"),
        ("base + '/x'", "models/x"),
        ("os.path.join(base, 'x')", "models/x"),
        ("Path('a')", "a"),
        ("['q_proj'] + ['v_proj']", ["q_proj", "v_proj"]),
        ("dict(r=n, **table)", {"r": 4, "rank": 16}),
        ("table['rank']", 16),
        ("args.rank", 8),
        ("torch.bfloat16", "bfloat16"),
        ("8 if n > 2 else 16", 8),
        ("n in (1, 2) or 'x'", "x"),
        ("int('32')", 32),
        ("{'a': many}", {"a": "many"}),
    ],
)
def test_what_literals_say_is_folded(text: str, value: Any) -> None:
    assert folded(text) == value
    assert not isinstance(folded(text), Computed)


@pytest.mark.parametrize(
    "text",
    [
        *("many", "unknown", "many + 1", "f'{many}'", "pick()", "x.y.z", "table['alpha']", "n / 0", "[many]", "n[0]"),
        *("'a' * 10**9", "[0] * 999999", "'%9999999999d' % n", "9 ** 9 ** 9", "f'{n:>999999999}'", "'a' < n"),
        *("(lambda: 1)()", "__import__('os')", "base.format(n)", "int('9' * 4000)", "{[]: 1}", "~'a'"),
    ],
)
def test_what_only_the_run_knows_stays_computed(text: str) -> None:
    start = time.perf_counter()
    assert isinstance(folded(text), Computed)
    assert time.perf_counter() - start < 0.5


def adapters(text: str) -> dict[str, Any]:
    found: dict[str, Any] = python_tree(text, "a.py").values["adapters"]
    return found


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        ("r = 8\nif DEBUG:\n    r = 64\nLoraConfig(r=r)", Computed("r")),
        ("r = 8\nif DEBUG:\n    r = 8\nLoraConfig(r=r)", 8),
        ("BIG = False\nr = 64 if BIG else 8\nLoraConfig(r=r)", 8),
        ("BIG = False\nif BIG:\n    r = 64\nelse:\n    r = 8\nLoraConfig(r=r)", 8),
        ("r = 8\nfor r in (1, 2):\n    LoraConfig(r=r)", Computed("r")),
        ("r = 8\nwhile more():\n    r += 1\nLoraConfig(r=r)", Computed("r")),
        ("r = 8\nr += 8\nLoraConfig(r=r)", Computed("r")),
        ("r, a = 8, 16\nLoraConfig(r=r)", 8),
        ("r, a = pick()\nLoraConfig(r=r)", Computed("r")),
        ("a, r = pick(), 8\nLoraConfig(r=r)", 8),
        ("more = dict(r=8)\nLoraConfig(**more)", 8),
        ("more = {'r': 8}\nmore['r'] = 16\nLoraConfig(**more)", 16),
        ("c = LoraConfig(r=8)\nc.r = 16", 16),
        ("c = LoraConfig(r=8)\nm = get_peft_model(m, c)\nm.r = 16", 8),
        ("def go(r=8):\n    LoraConfig(r=r)\ngo()", 8),
        ("def go(r=8):\n    LoraConfig(r=r)\ngo(64)", Computed("r")),
        ("class C:\n    r: int = 8\nc = C()\nLoraConfig(r=c.r)", 8),
        ("class C:\n    r: int = 8\nc = C(r=16)\nLoraConfig(r=c.r)", 16),
        ("p = ArgumentParser()\np.add_argument('--r', type=int, default=8)\na = p.parse_args()\nLoraConfig(r=a.r)", 8),
        ("p.add_argument('--r', required=True)\na = p.parse_args()\nLoraConfig(r=a.r)", Computed("a.r")),
    ],
)
def test_a_name_stands_for_what_was_last_assigned(text: str, rank: Any) -> None:
    found = adapters(text)["r"]
    assert (found, type(found)) == (rank, type(rank))


def test_arguments_of_an_unknown_mapping_are_told() -> None:
    more = "more = {'r': 8}\nmore.update(read())\nLoraConfig(**more)"
    assert adapters(more) == {"**": "more"}


GPT = 'model = AutoModelForCausalLM.from_pretrained("gpt2")\n'


def test_defaults_of_flags_are_assumed_and_said(tmp_path: Path) -> None:
    text = "p.add_argument('--rows', default=4)\na = p.parse_args()\n"
    (tmp_path / "a.py").write_text(f"{text}{GPT}TrainingArguments(per_device_train_batch_size=a.rows)\nTrainer()\n")
    found = read_config(str(tmp_path / "a.py")).found
    assert (found.knobs["micro_batch"], found.unread) == (4, ())
    assert found.assumed == ("the script is started without flags: their defaults are taken",)


def test_a_trainer_that_loads_the_model_by_its_name(tmp_path: Path) -> None:
    text = """
settings = SFTConfig(model_init_kwargs={"attn_implementation": "eager"}, max_length=None, activation_offloading=True)
SFTTrainer(model="gpt2", args=settings, peft_config=LoraConfig(r=4), quantization_config=BitsAndBytesConfig(
    load_in_4bit=True)).train()
merged = AutoModelForCausalLM.from_pretrained("gpt2-merged")
"""
    (tmp_path / "a.py").write_text(text)
    found = read_config(str(tmp_path / "a.py")).found
    wanted = {"model": "gpt2", "method": "qlora", "attention": "eager", "offload": "activations", "seq_len": None}
    assert {key: found.knobs.get(key) for key in wanted} == wanted
    assert found.unread == ()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("GRPOTrainer(model='gpt2')", "classes.GRPOTrainer"),
        ("AutoModelForSequenceClassification.from_pretrained('gpt2')\nTrainer()", "loader"),
    ],
)
def test_another_objective_is_told(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "a.py").write_text(text)
    assert [one.key for one in read_config(str(tmp_path / "a.py")).found.other] == [key]


def test_a_model_that_sees_may_get_images(tmp_path: Path) -> None:
    text = 'Qwen3VLForConditionalGeneration.from_pretrained("Qwen/Qwen3-VL-4B-Instruct")\nSFTTrainer()\n'
    (tmp_path / "a.py").write_text(text)
    (one,) = read_config(str(tmp_path / "a.py")).found.unread
    assert (one.key, one.settled_by) == ("loader", ("images",))
