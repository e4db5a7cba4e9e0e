"""Every published row beside its prediction, and how good the predictions are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from advisor.advice.job import fit_of
from advisor.errors import UnknownName
from advisor.validation import huggingface, litgpt, qwen, torchtune
from advisor.validation.figures import Figure, Predicted, Row, Unanswered, published_rows

Predictor = Callable[[Row], "Predicted | Unanswered"]


class Source(NamedTuple):
    """A group of rows: the framework they were run with, and how they are predicted."""

    framework: str
    predict: Predictor


SOURCES = {
    "peft-mm": Source("huggingface", huggingface.method_comparison),
    "fsdp_qlora-nb": Source("huggingface", huggingface.notebook),
    "fsdp_qlora": Source("huggingface", huggingface.benchmarks),
    "litgpt-a100": Source("lit-gpt", litgpt.finetune_lora),
    "raschka": Source("lit-gpt", litgpt.finetune_lora),
    "torchtune": Source("torchtune", torchtune.full_finetune),
    "qwen1": Source("qwen", qwen.finetune),
}
FRAMEWORKS = tuple(dict.fromkeys(source.framework for source in SOURCES.values()))


class Line(NamedTuple):
    """One measured figure with its prediction, and where it comes from."""

    row: Row
    framework: str
    figure: Figure

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        row, figure = self.row, self.figure
        return {
            "id": row["id"],
            "group": row["group"],
            "framework": self.framework,
            "model": row["model_id"],
            "method": row["method"],
            "what": figure.what,
            "counter": row["mem_counter"],
            "unit": row["source_unit"],
            "completeness": row["completeness_mem"],
            "measured_bytes": round(figure.measured_bytes),
            "predicted_bytes": round(figure.predicted_bytes),
            "error": round(figure.error, 4),
            "url": row["url"],
        }


class FitCheck(NamedTuple):
    """Whether a run was rightly said to fit on its card."""

    row: Row
    ran: bool
    fits: str

    @property
    def right(self) -> bool:
        """A run that completed is not called too large; one that ran out of memory is not called safe."""
        return self.fits != "does_not_fit" if self.ran else self.fits == "does_not_fit"


class Quality(NamedTuple):
    """How far off the figures of one part of the table are; errors are prediction over measurement, minus 1."""

    part: str
    figures: int
    rows: int
    median: float
    worst_over: float
    worst_under: float


class Report(NamedTuple):
    """The evidence table."""

    lines: list[Line]
    unanswered: list[tuple[Row, str]]
    verdicts: list[FitCheck]

    def qualities(self) -> list[Quality]:
        """All lines, then by framework, by framework and completeness, and by method."""
        parts: dict[str, list[Line]] = {"all": list(self.lines)}
        for line in self.lines:
            parts.setdefault(f"framework {line.framework}", []).append(line)
        for line in self.lines:
            part = f"framework {line.framework}, completeness {line.row['completeness_mem']}"
            parts.setdefault(part, []).append(line)
        for line in self.lines:
            parts.setdefault(f"method {line.row['method']}", []).append(line)
        return [quality_of(part, lines) for part, lines in parts.items() if lines]

    def document(self) -> dict[str, Any]:
        """The whole table as one JSON document."""
        ended = [v for v in self.verdicts if v.ran]
        out = [v for v in self.verdicts if not v.ran]
        return {
            "schema_version": 1,
            "rows": len({line.row["id"] for line in self.lines} | {v.row["id"] for v in self.verdicts})
            + len(self.unanswered),
            "figures": [line.document() for line in self.lines],
            "quality": [quality._asdict() for quality in self.qualities()],
            "out_of_memory": [{"id": v.row["id"], "verdict": v.fits, "right": v.right} for v in out],
            "verdicts": {
                "ran_out_of_memory": {"rows": len(out), "right": sum(v.right for v in out)},
                "ended": {"rows": len(ended), "right": sum(v.right for v in ended)},
            },
            "not_predicted": [{"id": row["id"], "reason": reason} for row, reason in self.unanswered],
        }


def quality_of(part: str, lines: list[Line]) -> Quality:
    """Median and extremes of the errors of some lines, of which there is at least one."""
    errors = [line.figure.error for line in lines]
    sizes = sorted(map(abs, errors))
    middle = len(sizes) // 2
    median = sizes[middle] if len(sizes) % 2 else (sizes[middle - 1] + sizes[middle]) / 2
    return Quality(
        part, len(lines), len({line.row["id"] for line in lines}), median, max(0.0, *errors), min(0.0, *errors)
    )


def _chosen(value: str | None, known: Iterable[str], kind: str) -> str | None:
    names = list(known)
    if value is not None and value not in names:
        raise UnknownName(kind, value, names)
    return value


def validate(group: str | None = None, framework: str | None = None) -> Report:
    """Predict every published row of a group and a framework, or all. Raises UnknownName for others."""
    _chosen(group, SOURCES, "group")
    _chosen(framework, FRAMEWORKS, "framework")
    report = Report([], [], [])
    for row in published_rows():
        source = SOURCES.get(row["group"])
        if source is None:
            report.unanswered.append((row, "how its source trains is not described here"))
            continue
        if group not in (None, row["group"]) or framework not in (None, source.framework):
            continue
        found = source.predict(row)
        if isinstance(found, Unanswered):
            report.unanswered.append((row, found.reason))
            continue
        report.lines.extend(Line(row, source.framework, figure) for figure in found.figures)
        if found.memory is not None:
            verdict = fit_of(found.memory.needed_bytes, found.card_bytes)
            report.verdicts.append(FitCheck(row, row["status"] == "ok", verdict))
    return report
