"""The generated parts of README.md and of docs/answer.md, docs/flags.md and docs/contributing-a-card.md.

Each is between `<!-- generated: NAME -->` and `<!-- end -->`.

    python -m benchmarks.readme            exits with 1 and names the parts that are out of date
    python -m benchmarks.readme --write    brings them up to date

The generated text is the same on every machine: it comes from the formulas, the catalog and the code's tables.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from click.testing import CliRunner

from advisor import answer
from advisor.answer import (
    Advice,
    Candidate,
    CardTime,
    Change,
    DataFile,
    DataSummary,
    GpuChoice,
    Plan,
    Reason,
    Recommendation,
    TrainerChoice,
)
from advisor.catalog import all_gpus, find_model, model_entries
from advisor.cli import cli
from advisor.frozen import Frozen
from advisor.interval import Interval
from advisor.knobs import KNOBS, Knob, range_of
from advisor.rules import RULES
from advisor.specs import Evidence, GpuSpec, MemoryEstimate, Moment, Recipe, Term, TimeEstimate, Workload
from advisor.units import format_count, format_gib
from calibrate.attention_rates import AttentionSample
from calibrate.burst_record import BurstFacts, Conditions, DeviceFacts, Run
from calibrate.measurement import Comparison, Environment, Figures
from calibrate.rates import Rates, Sample

README = Path(__file__).resolve().parent.parent / "README.md"
CARD = README.parent / "docs" / "contributing-a-card.md"
FLAGS = README.parent / "docs" / "flags.md"
ANSWER = README.parent / "docs" / "answer.md"
SCREEN = ("--model", "llama-8b", "--gpu", "24GB", "--examples", "3000")
PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "FORCE_COLOR": None, "PYTHONIOENCODING": "utf-8"}

_PART = re.compile(r"<!-- generated: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)
_EXAMPLE = re.compile(r"<!-- example: library -->\n```python\n(.*?)```", re.DOTALL)


def screen(_: str) -> str:
    """What the first command prints."""
    output = CliRunner(env=PLAIN).invoke(cli, list(SCREEN), catch_exceptions=False).stdout
    return _fenced("\n".join(line.rstrip() for line in output.splitlines()))


def flags(_: str) -> str:
    """The table of knobs."""
    rows = [(f"`{_spelling(knob)}`", _allowed(knob), knob.help) for knob in KNOBS]
    return _table(("flag", "allowed", "meaning"), rows)


def _spelling(knob: Knob) -> str:
    if knob.kind == "bool":
        return f"--[no-]{knob.flag[2:]}"
    return f"{knob.flag} {knob.metavar}"


def _allowed(knob: Knob) -> str:
    if knob.kind in ("int", "float"):
        return range_of(knob).text(knob.kind == "int").removeprefix("must be ").removeprefix("an integer from ")
    return ", ".join(f"`{choice}`" for choice in knob.choices)


def rules(_: str) -> str:
    """The table of rules, in the order in which they are applied, each with the first line of its docstring."""
    rows = [(rule.code, rule.kind, rule.explanation.strip().splitlines()[0].rstrip(".")) for rule in RULES]
    return _table(("code", "kind", "rule"), rows)


def catalog(_: str) -> str:
    """The number of models and cards by kind."""
    models, cards = model_entries(), all_gpus()
    kinds = Counter(find_model(entry.name).architecture for entry in models)
    sizes = sorted(entry.parameters for entry in models)
    memory = sorted(card.memory_bytes for card in cards)
    generations = dict.fromkeys(card.generation for card in sorted(cards, key=_order))
    return (
        f"**{len(models)} models**, {format_count(sizes[0])} to {format_count(sizes[-1])} parameters, of "
        f"{len(kinds)} architectures (transformers' `model_type`, with the number of models):\n"
        + _folded([f"`{kind}` {count}" for kind, count in sorted(kinds.items())])
        + f"\n\n**{len(cards)} GPUs**, {format_gib(memory[0])} to {format_gib(memory[-1])} GiB: "
        f"{', '.join(generations)}.\n"
    )


def _order(card: GpuSpec) -> tuple[bool, list[int], str]:
    """NVIDIA's generations by age, then AMD's by name."""
    return card.rocm, [] if card.rocm else [int(part) for part in card.compute_capability.split(".")], card.generation


def contract(_: str) -> str:
    """The objects in the output of `advise --json`, with their keys."""
    objects: tuple[type[Frozen], ...] = (
        Advice,
        GpuChoice,
        Workload,
        DataFile,
        DataSummary,
        TrainerChoice,
        Recommendation,
        Reason,
        Candidate,
        Plan,
        answer.Comparison,
        CardTime,
        Change,
        Recipe,
        MemoryEstimate,
        Moment,
        Term,
        TimeEstimate,
        Evidence,
    )
    rows = [(one.__name__, ", ".join(f"`{name}`" for name in one.model_fields)) for one in objects]
    rows.append((Interval.__name__, ", ".join(f"`{name}`" for name in Interval._fields)))
    return _table(("object", "keys"), rows)


def library(text: str) -> str:
    """What the README's library example prints."""
    found = _EXAMPLE.search(text)
    if found is None:
        raise SystemExit("README.md has no python block after <!-- example: library -->")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(found[1], "README.md", "exec"), {"__name__": "__main__"})
    return _fenced(printed.getvalue().rstrip())


def records(_: str) -> str:
    """The objects in a line of `calibrate export`, with their keys."""
    bursts = (Comparison, Figures, Environment, DeviceFacts, BurstFacts, Run, Conditions)
    objects = (*bursts, Rates, Sample, AttentionSample)
    rows = [(one.__name__, ", ".join(f"`{name}`" for name in one.model_fields)) for one in objects]
    return _table(("object", "keys"), rows)


PARTS: Mapping[str, Callable[[str], str]] = {part.__name__: part for part in (screen, library, rules, catalog)}

CARD_PARTS: Mapping[str, Callable[[str], str]] = {"records": records}
FLAGS_PARTS: Mapping[str, Callable[[str], str]] = {"flags": flags}
ANSWER_PARTS: Mapping[str, Callable[[str], str]] = {"contract": contract}
DOCUMENTS = ((README, PARTS), (CARD, CARD_PARTS), (FLAGS, FLAGS_PARTS), (ANSWER, ANSWER_PARTS))


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _folded(words: list[str], width: int = 110) -> str:
    lines = [""]
    for position, word in enumerate(words):
        text = word + ("," if position < len(words) - 1 else ".")
        if lines[-1] and len(lines[-1]) + 1 + len(text) > width:
            lines.append("")
        lines[-1] += f" {text}" if lines[-1] else text
    return "\n".join(lines)


def parts_of(text: str) -> dict[str, str]:
    """The generated parts that a README holds, by name."""
    return {found[1]: found[2] for found in _PART.finditer(text)}


def regenerate(text: str, parts: Mapping[str, Callable[[str], str]] = PARTS) -> str:
    """A document's text with every generated part regenerated. Raises KeyError for an unknown part."""
    return _PART.sub(lambda found: f"<!-- generated: {found[1]} -->\n{parts[found[1]](text)}<!-- end -->", text)


def main() -> int:
    """Compare, or with --write bring up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="bring them up to date")
    write = parser.parse_args().write
    changed: list[str] = []
    for path, parts in DOCUMENTS:
        old = path.read_text(encoding="utf-8")
        new = regenerate(old, parts)
        before, after = parts_of(old), parts_of(new)
        changed += [name for name in after if before[name] != after[name]]
        if write:
            path.write_text(new, encoding="utf-8")
    if changed:
        print(("rewritten: " if write else "out of date: ") + ", ".join(changed))
    return 1 if changed and not write else 0


if __name__ == "__main__":
    sys.exit(main())
