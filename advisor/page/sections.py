"""An answer as HTML: the verdict, pictures, reasons with their sources, and every change as a button."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape, unescape

from advisor.advice.phrases import batch_text, price_text, value_text
from advisor.advice.sentence import verdict_line
from advisor.answer import Advice, Candidate, Change, Plan, Reason
from advisor.charts.answer import charts_of_methods, charts_of_plan
from advisor.charts.memory import HATCHES
from advisor.costs.attention import attention_text
from advisor.page.flags import texts_of
from advisor.page.markup import bullets, folded, grid, linked, paragraph, rule_button, section, setting
from advisor.recipes import flags_of
from advisor.rules.wording import DISPLAY, FORMULA, fits_text
from advisor.units import format_gib, format_seconds

FIRST = ("verdict", "methods", "why")
BELOW = ("changes", "pictures", "plans", "assumed")
PARTS = (*FIRST, *BELOW)
"""The parts of an answer, in the order in which they come: what is known first, and what follows while one reads."""
_WITH_CHANGE = {"fits": "fits", **dict(HATCHES)}


def state_of(advice: Advice) -> str:
    """The verdict on what is recommended: fits, tight or does_not_fit."""
    chosen = advice.recommendation
    return "does_not_fit" if chosen is None else advice.candidate(chosen.method).verdict


def first_sections(advice: Advice) -> dict[str, str]:
    """The HTML of each of FIRST, which a begun answer has already; '' for one that has nothing to say."""
    charts = "".join(_settable(chart.html()) for chart in charts_of_methods(advice))
    title = "What each method needs and how long it takes"
    return {
        "verdict": f'<p class="verdict {state_of(advice)}">{escape(verdict_line(advice))}</p>',
        "methods": section("methods-part", title, f'<div class="charts">{charts}</div>', _methods(advice)),
        "why": _why(advice),
    }


def sections_below(advice: Advice) -> dict[str, str]:
    """The HTML of each of BELOW; '' for one that has nothing to say."""
    charts = [_settable(chart.html()) for chart in charts_of_plan(advice, buttons=True)]
    return {
        "changes": _changes(advice),
        "pictures": section("step-part", "The step, and plans beside this one", _charts(charts)),
        "plans": _plans(advice),
        "assumed": _assumed(advice),
    }


def _settable(picture: str) -> str:
    """A chart whose points put the knobs of their flags into the question when they are pressed."""
    return re.sub(r'data-flags="([^"]*)"', lambda found: f'data-knobs="{_knobs(unescape(found[1]))}"', picture)


def _knobs(flags: str) -> str:
    return escape(json.dumps(texts_of([flags])))


def _charts(pictures: Iterable[str]) -> str:
    inner = "".join(pictures)
    return f'<div class="charts">{inner}</div>' if inner else ""


def reasons_html(reasons: Iterable[Reason]) -> str:
    """One item for each, with its rule and its source."""
    return bullets(f"{linked(one.text)} {_origin(one)}" for one in reasons)


def _origin(reason: Reason) -> str:
    code = f" {rule_button(reason.code)}" if reason.code.startswith("ADV") else ""
    return code if reason.source == FORMULA else f'{code} <cite class="source">{linked(reason.source)}</cite>'


def _methods(advice: Advice) -> str:
    """A row for each method: least, plan, verdict, batch, time, and how it compares."""
    chosen = advice.recommendation.method if advice.recommendation else None
    rows = [_method_row(advice, row) for row in advice.candidates]
    marked = next((place for place, row in enumerate(advice.candidates) if row.method == chosen), -1)
    head = ("method", "needs at least", "this plan (low to high)", "verdict", "batch", "total time", "beside it")
    caption = f"GiB on {advice.gpu.label}, which has {format_gib(advice.gpu.memory_bytes)}; c: checkpointing"
    return grid(caption, head, rows, marked)


def _mark(plan: Plan, advice: Advice) -> str:
    """Whether a plan fits, by word and by pattern."""
    return f'<span class="mark {plan.verdict}">{fits_text(plan, advice.gpu.memory_bytes)}</span>'


def _method_row(advice: Advice, row: Candidate) -> tuple[str, ...]:
    needed = row.memory.needed_bytes
    return (
        escape(DISPLAY[row.method]),
        format_gib(row.least.memory.needed_bytes.likely),
        f"{format_gib(needed.likely)} ({format_gib(needed.low)} to {format_gib(needed.high)})",
        _mark(row, advice),
        escape(batch_text(row.recipe).strip()),
        _span(row),
        escape(row.why),
    )


def _span(plan: Plan) -> str:
    if plan.time is None or plan.verdict == "does_not_fit":
        return "-"
    total = plan.time.total_s
    return f"{format_seconds(total.likely)} ({format_seconds(total.low)} to {format_seconds(total.high)})"


def _changes(advice: Advice) -> str:
    """What would fit, where nothing does, and what single changes of the plan bring."""
    fits = bullets(map(_change, advice.alternatives), "changes")
    prices = bullets(
        (
            linked(price_text(one)) if advice.recommendation and _spoils(one) else _change(one, price_text(one))
            for one in advice.prices
        ),
        "changes",
    )
    if advice.alternatives:
        title = "What would surely fit" if advice.recommendation else "What would make it fit"
        return section("changes-part", title, fits, folded("What one change brings", prices))
    return section("changes-part", "What one change brings", prices)


def _spoils(change: Change) -> bool:
    """Whether nothing fits with the change, as its text says: nobody presses that."""
    return change.plan is not None and change.plan.verdict == "does_not_fit"


def _change(change: Change, text: str = "") -> str:
    """The change, the verdict with it, and a button that makes it."""
    knobs = texts_of(change.flags)
    said = linked(text or change.text)
    if change.plan is not None:
        verdict = change.plan.verdict  # of a card that the change may have chosen
        said += f' <span class="mark {verdict}">{_WITH_CHANGE[verdict]}</span>'
    return f"{said} {setting('Use this', knobs)}" if knobs else said


def _why(advice: Advice) -> str:
    chosen = advice.recommendation
    if chosen is None:
        return ""
    warnings = reasons_html(chosen.warnings)
    said = f'<div class="warnings"><h3>Warnings</h3>{warnings}</div>' if warnings else ""
    return section("why-part", f"Why {DISPLAY[chosen.method]}", reasons_html(chosen.reasons), said)


def _plans(advice: Advice) -> str:
    """The plans that none beats in both memory and time, and the job under other engines and on other cards."""
    chosen = advice.recommendation
    if chosen is None:
        return ""
    row = advice.candidate(chosen.method)
    head = ("batch", "segments", "needs GiB (at most)", "verdict", "a step", "in all", "")
    plans = grid(
        f"Plans of {DISPLAY[row.method]}: none takes less memory and less time than one of these",
        head,
        [
            _plan_row(advice, plan, plan.recipe == row.recipe, setting("Use this", texts_of(flags_of(plan.recipe))))
            for plan in advice.frontier
        ],
        next((place for place, plan in enumerate(advice.frontier) if plan.recipe == row.recipe), -1),
    )
    spread = [
        (
            f"{one.gpus} x {escape(one.engine)}",
            *_plan_row(advice, one.plan, False, setting("Use this", _spread(one.gpus, one.engine))),
        )
        for one in (*advice.engines, *advice.scaling)
    ]
    several = grid("Other engines, and other numbers of cards", ("cards and engine", *head), spread) if spread else ""
    return folded("Plans beside this one, as a table", plans if advice.frontier else "", several)


def _spread(gpus: int, engine: str) -> dict[str, str]:
    return {"gpus": str(gpus), "sharding": engine} if gpus > 1 else {"gpus": "1", "sharding": ""}


def _plan_row(advice: Advice, plan: Plan, same: bool, button: str) -> tuple[str, ...]:
    needed, time = plan.memory.needed_bytes, plan.time
    return (
        escape(batch_text(plan.recipe).strip()),
        "expandable" if plan.recipe.expandable_segments else "fixed",
        f"{format_gib(needed.likely)} ({format_gib(needed.high)})",
        _mark(plan, advice),
        "-" if time is None else format_seconds(time.step_s.likely),
        "-" if time is None else format_seconds(time.total_s.likely),
        "this plan" if same else button,
    )


def _assumed(advice: Advice) -> str:
    """What was taken for granted, what the estimate stands on, and every byte of the peak."""
    chosen = advice.recommendation
    row = advice.candidate(chosen.method) if chosen else advice.candidates[0]
    terms = [(escape(term.name), f"{term.bytes:,}", format_gib(term.bytes)) for term in row.memory.terms]
    table = grid(f"The peak of {DISPLAY[row.method]}, at {row.memory.peak_at}", ("part", "bytes", "GiB"), terms)
    facts = [f"Memory: {row.evidence.memory}", f"Time: {row.evidence.time}"]
    if row.evidence.attention:
        facts.append(f"Attention: {attention_text(row.evidence.attention, row.recipe.stack)}")
    recipe = [(escape(name.replace("_", " ")), escape(value_text(value) or "none")) for name, value in row.recipe]
    return section(
        "assumed-part",
        "What this stands on",
        reasons_html(advice.notes),
        folded("Every byte of the peak", table),
        folded("Every knob of this plan", grid("The recipe of this plan", ("knob", "value"), recipe)),
        folded("Evidence", *(paragraph(f"{fact}.") for fact in facts)),
    )
