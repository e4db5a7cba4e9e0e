"""Random command lines: each ends with a documented exit code, and an error is one line.

    python -m tests.test_any_command_line 10000 [first seed]

tries that many, for a look at more of them than a test has time for.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from advisor.catalog import gpu_aliases, model_names
from advisor.cli import cli
from advisor.knobs import BY_NAME, KNOBS, Knob

COUNT = 150
WORDS = "-1 0 nan inf 1e999 0x10 1_000 8k 8kk 1.5M 10,000 1,00 ½ none NULL true -- - ' a,b , q_proj, ٣ %s {}"
PATHS = "../.. / /dev/null ~ ~nobody/x.json x.toml missing.json owner/name"
ODD = (*WORDS.split(), *PATHS.split(), "", " ", "9" * 400, "a b", "\x00", "a\nb", "\x1b[31m", "é" * 50, "🦙" * 2000)
CARDS = ("24GB", "80 GiB", "7GB", "2x3090", "a100", "7900 XTX", "gb10", "mi300x", "8xH100")
NO_CARDS = ("auto", "0x3090", "4x", "x2", "m3", "1e9GB", "rtx")
MODELS = (*("llama-8b", "qwen2.5-0.5b", "gemma-2-2b", "gpt2", "phi-2") * 3, "mixtral-8x7b", "llama-4-scout")
GOOD = {
    "int": ("1", "2", "8", "16", "64", "512", "1024", "2048"),
    "float": ("0.05", "0.5", "0.9"),
    "names": ("all", "attention", "lm_head", "q_proj v_proj", "q_proj,x", "all,attention", "self_attn.q_proj"),
}
COMMANDS = ("models", "gpus", "rules", "trainers", "explain", "schema", "validate", "frobnicate")
CODES = {0, 2, 3, 4}


def value_of(knob: Knob, draw: random.Random, files: list[str], odd: float) -> str:
    """A value: with probability `odd` anything, else mostly one that the knob allows."""
    if draw.random() < odd:
        return draw.choice([*ODD, *files])
    if knob.name == "model":
        return draw.choice([*MODELS, draw.choice(model_names())])
    if knob.name == "gpu":
        cards = (*CARDS, *draw.sample(sorted(gpu_aliases()), 9))
        return draw.choice(cards if draw.random() < 0.9 else (*NO_CARDS, *files))
    if knob.kind == "choice":
        return draw.choice([*knob.choices, *knob.choices, *knob.choices, *knob.aliases, "nope"])
    return draw.choice([*GOOD[knob.kind]]) if knob.kind in GOOD else draw.choice(files)


def command_line(draw: random.Random, files: list[str], odd: float) -> list[str]:
    """A question, or sometimes a sub-command; flags in any order and number."""
    if draw.random() < 0.08:
        words = [
            draw.choice(COMMANDS),
            *(draw.choice([*ODD, "llama", "ADV003", "trl"]) for _ in range(draw.randint(0, 2))),
        ]
        return [*words, *draw.sample(["--json", "--time", "--help", "--rank"], draw.randint(0, 1))]
    knobs = [BY_NAME["model"], BY_NAME["gpu"], *draw.sample(KNOBS, draw.randint(0, 6))]
    line: list[str] = []
    for knob in knobs[draw.random() < 0.03 :]:
        if knob.kind == "bool":
            line.append(draw.choice(knob.option.split("/")))
        else:
            line += [knob.flag, value_of(knob, draw, files, odd)]
    return [
        *line,
        *draw.sample(["--json", "--explain", "--explain-time", "--help", "--nope", "stray"], draw.random() < 0.3),
    ]


def odd_files(folder: Path) -> list[str]:
    """Files that are nearly what a flag takes."""
    texts = {
        "empty.jsonl": "",
        "rows.jsonl": '{"text": "one"}\n{"text": "two words"}\n',
        "bad.jsonl": '{"text": 1}\n[\n',
        "rows.txt": "a\n" * 9,
        "config.json": '{"model_type": "llama", "hidden_size": 0}',
        "unknown.json": '{"model_type": "zzz"}',
        "list.json": "[]",
        "card.toml": "name = 'x'\nmarketed_gb = 24\nmemory_mib = 24000\n",
        "bad.toml": "name = ",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "bytes.json").write_bytes(b"\xff\xfe\x00")
    return [str(folder), *(str(path) for path in sorted(folder.iterdir()))]


def problem(line: list[str]) -> tuple[int, str]:
    """The exit code of a command line, and what is wrong with how it ended; '' for nothing."""
    result = CliRunner().invoke(cli, line)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return result.exit_code, f"raised {result.exception!r}"
    if result.exit_code not in CODES:
        return result.exit_code, f"exit code {result.exit_code}"
    if "Traceback" in result.output:
        return result.exit_code, "a traceback"
    if result.exit_code in (2, 4):
        lines = result.stderr.splitlines()
        if result.stdout or len(lines) != 1 or not lines[0].startswith("advise: error: ") or len(lines[0]) > 1300:
            return result.exit_code, f"no one-line error: {result.output[:400]!r}"
        if not lines[0].isprintable():
            return result.exit_code, f"an error that a terminal obeys: {lines[0][:300]!r}"
    return result.exit_code, ""


@pytest.mark.slow
def test_any_command_line_ends_as_documented(tmp_path: Path) -> None:
    files, draw, ended = odd_files(tmp_path), random.Random(20_261_128), Counter[int]()
    for _ in range(COUNT):
        line = command_line(draw, files, odd=0.08)
        code, wrong = problem(line)
        assert not wrong, (line, wrong)
        ended[code] += 1
    assert set(ended) == CODES
    assert ended[0] > COUNT // 4


def main(count: int, seed: int) -> int:
    """Try `count` command lines and print each that ends badly; the exit code says whether one did."""
    ended: Counter[int] = Counter()
    bad: list[tuple[list[str], str]] = []
    with tempfile.TemporaryDirectory() as folder:
        files, draw = odd_files(Path(folder)), random.Random(seed)
        for _ in range(count):
            line = command_line(draw, files, odd=0.3)
            code, wrong = problem(line)
            ended[code] += 1
            if wrong:
                bad.append((line, wrong))
                print(wrong, *(repr(word[:60]) for word in line), flush=True)
    print(f"{count:,} command lines: exit codes {dict(sorted(ended.items()))}; {len(bad)} ended badly")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0))
