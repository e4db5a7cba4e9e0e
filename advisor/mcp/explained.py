"""One part of an answer in detail, short enough to be read by an agent: a record for each part."""

from __future__ import annotations

import json

from advisor.advice.breakdown import time_breakdown
from advisor.answer import Advice, Candidate, Reason
from advisor.costs.attention import attention_text
from advisor.errors import BadValue, InputError
from advisor.export.training_file import training_file
from advisor.frozen import Frozen
from advisor.interval import Interval
from advisor.rules import find_rule
from advisor.units import GIB

ABOUT = ("memory", "time", "rule", "script", "data")
"""What can be explained of an estimate."""
MOST_KERNELS = 6
SCRIPT_BYTES = 4_000
"""Of a part of a script, as JSON writes it."""
_LONGEST_TEXT = 1_500
_LEAST_MS = 0.01

Range = tuple[float, float, float]
"""Low, likely, high."""


class MemoryPart(Frozen):
    """What stands in memory at the peak, in GiB; ranges are low, likely, high."""

    about: str = "memory"
    method: str
    verdict: str
    card_gib: float
    needed_gib: Range  # must fit
    allocated_gib: Range  # torch.cuda.max_memory_allocated
    reserved_gib: Range  # torch.cuda.max_memory_reserved
    nvidia_smi_gib: Range  # where there is room
    peak_at: str
    terms_gib: tuple[tuple[str, float], ...]  # they add up to the likely need
    moments_gib: tuple[tuple[str, float], ...]  # likely need by moment of the job
    least_gib: float  # likely need of the smallest plan of this method
    host_gib: float
    attention: str
    based_on: str


class TimePart(Frozen):
    """Where the time of a step goes; ranges are low, likely, high."""

    about: str = "time"
    method: str
    total_s: Range
    step_s: Range
    steps: int
    tokens_per_s: float
    bound: str
    mfu: float
    card: str  # that the kernels are of
    parts_ms: tuple[tuple[str, float], ...]  # of a micro-step, likely
    kernels: tuple[tuple[str, int, float], ...]  # the most expensive: what, launches, ms of all
    missing: str  # why there are no kernels
    cards_s: tuple[tuple[str, float, float], ...]  # of several cards: total, low and high
    based_on: str


class RulePart(Frozen):
    """What a rule says, and where it comes from."""

    about: str = "rule"
    code: str
    title: str
    explanation: str
    sources: tuple[str, ...]
    here: tuple[str, ...]  # what it says of this very job


class ScriptPart(Frozen):
    """A part of the file that runs the recommended plan; its parts follow each other without anything between."""

    about: str = "script"
    name: str
    text: str
    part: int
    parts: int
    command: str
    beside: tuple[str, ...]  # names of other files that it needs, which follow it in the text


class DataPart(Frozen):
    """How long the rows of the data file are, in tokens."""

    about: str = "data"
    rows: int
    bad_lines: int
    counted_by: str
    mean_tokens: Range
    longest_tokens: Range
    percentiles: tuple[tuple[float, int], ...]
    seq_len: int
    rows_cut: int
    tokens_cut: float
    packed_rows: int
    padded_tokens: int
    real_tokens: int
    steps: int


Part = MemoryPart | TimePart | RulePart | ScriptPart | DataPart


def explained(about: str, advice: Advice, part: int = 1) -> Part:
    """One of ABOUT, of the recommended row; where nothing fits, of the first. Raises InputError for what is not there.

    `part` counts from 1; only scripts have several.
    """
    chosen = advice.recommendation
    row = advice.candidates[0] if chosen is None else advice.candidate(chosen.method)
    if about == "memory":
        return _memory(advice, row)
    if about == "time":
        return _time(advice, row)
    if about == "rule":
        return rule_part(chosen.rule if chosen else "", (*chosen.reasons, *chosen.warnings) if chosen else advice.notes)
    if about == "script":
        if chosen is None:
            raise InputError("nothing fits, so there is no script: ask advise_finetuning for what would_fit")
        return _script(advice, row, part)
    return _data(advice)


def rule_part(code: str, said: tuple[Reason, ...] = ()) -> RulePart:
    """A rule by its code, with what it says of a job. Raises UnknownName, InputError where no rule decided."""
    if not code:
        raise InputError("nothing fits, so no rule recommends a method; give a rule's code, for example ADV003")
    rule = find_rule(code)
    text = rule.explanation.strip()
    return RulePart(
        code=rule.code,
        title=rule.title,
        explanation=text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}...",
        sources=tuple(rule.sources[:12]),
        here=tuple(one.text for one in said if one.code == rule.code)[:4],
    )


def _gib(value: Interval) -> Range:
    return (round(value.low / GIB, 2), round(value.likely / GIB, 2), round(value.high / GIB, 2))


def _seconds(value: Interval) -> Range:
    return (round(value.low, 2), round(value.likely, 2), round(value.high, 2))


def _memory(advice: Advice, row: Candidate) -> MemoryPart:
    memory = row.memory
    return MemoryPart(
        method=row.method,
        verdict=row.verdict,
        card_gib=round(advice.gpu.memory_bytes / GIB, 2),
        needed_gib=_gib(memory.needed_bytes),
        allocated_gib=_gib(memory.peak_allocated_bytes),
        reserved_gib=_gib(memory.peak_reserved_bytes),
        nvidia_smi_gib=_gib(memory.device_bytes),
        peak_at=memory.peak_at,
        terms_gib=tuple((str(term.name), round(term.bytes / GIB, 3)) for term in memory.terms),
        moments_gib=tuple((one.name, round(one.needed_bytes.likely / GIB, 2)) for one in memory.moments),
        least_gib=round(row.least.memory.needed_bytes.likely / GIB, 2),
        host_gib=round(memory.host_bytes / GIB, 2),
        attention=attention_text(row.evidence.attention, row.recipe.stack) if row.evidence.attention else "",
        based_on=row.evidence.memory,
    )


def _time(advice: Advice, row: Candidate) -> TimePart:
    time = row.time
    if time is None:
        raise InputError(f"the speed of {advice.gpu.label} is not known: name a card that advise knows, as rtx4090")
    shown = time_breakdown(advice.model_copy(update={"candidates": (row,)}))
    step = shown.steps.get(row.method)
    kernels = () if step is None else tuple(step.kernels[:MOST_KERNELS])
    parts = {} if step is None else step.parts
    return TimePart(
        method=row.method,
        total_s=_seconds(time.total_s),
        step_s=_seconds(time.step_s),
        steps=time.steps,
        tokens_per_s=round(time.tokens_per_s, 1),
        bound=time.bound,
        mfu=round(time.mfu, 3),
        card=shown.card,
        parts_ms=tuple((name, round(s * 1e3, 2)) for name, s in parts.items() if s * 1e3 >= _LEAST_MS),
        kernels=tuple((f"{one.place}: {one.kind}", one.times, round(one.seconds * 1e3, 2)) for one in kernels),
        missing=shown.missing,
        cards_s=tuple((one.card, round(one.total_s.low, 1), round(one.total_s.high, 1)) for one in row.card_times),
        based_on=row.evidence.time,
    )


def _script(advice: Advice, row: Candidate, part: int) -> ScriptPart:
    file = training_file(advice, row)
    pieces = _pieces("".join((file.text, *(f"\n# ---- {name} ----\n{text}" for name, text in file.beside))))
    if not 1 <= part <= len(pieces):
        raise BadValue("part", part, f"must be from 1 to {len(pieces)}: this script has no more")
    return ScriptPart(
        name=file.name,
        text=pieces[part - 1],
        part=part,
        parts=len(pieces),
        command=file.command,
        beside=tuple(name for name, _ in file.beside),
    )


def _pieces(text: str) -> list[str]:
    """The text in pieces of whole lines, each of at most SCRIPT_BYTES as JSON."""
    pieces, size = [""], 0
    for line in text.splitlines(keepends=True):
        more = len(json.dumps(line)) - 2
        if pieces[-1] and size + more > SCRIPT_BYTES:
            pieces.append("")
            size = 0
        pieces[-1] += line
        size += more
    return pieces


def _data(advice: Advice) -> DataPart:
    data = advice.data
    if data is None:
        raise InputError("the question names no data file: give knobs {'data': 'train.jsonl'}, a file in the folder")
    same = {name: getattr(data, name) for name in DataPart.model_fields if name in type(data).model_fields}
    ranges = {name: _seconds(getattr(data, name)) for name in ("mean_tokens", "longest_tokens")}
    return DataPart(**{**same, **ranges})
