"""An Advice for people: a first screen of at most 45 lines of 80 columns, readable without color."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

from advisor.advice.phrases import price_text, value_text
from advisor.advice.sentence import verdict_line
from advisor.answer import Advice, Change
from advisor.catalog.trainers import DEFAULT_TRAINER
from advisor.export import TARGETS
from advisor.render.console import console_for, heading, new_table, print_table, say, wrapped
from advisor.render.room import Section, fitted
from advisor.render.table import ASCII, BLOCKS, Marks, candidate_table
from advisor.rules.context import Rule
from advisor.specs import CAUSAL, GpuSpec
from advisor.units import format_count, format_gib

if TYPE_CHECKING:
    from advisor.advice.breakdown import TimeBreakdown
    from advisor.export.run import TrainingFile

LINES = 45
"""Lines of the first screen."""
_PRICES_SHOWN = 3
_IF_SET = ("modules_to_save", "trained_layers")
_PLAN_KNOBS = ("rank", "target_modules", *_IF_SET, "base_dtype", "quant", "optimizer", "loss", "batch_size", "seq_len")
"""Knobs of the plan that the first screen names."""


def render(
    advice: Advice,
    file: TextIO,
    *,
    explain: bool = False,
    breakdown: TimeBreakdown | None = None,
    script: TrainingFile | None = None,
    next_step: bool = True,
) -> None:
    """Print the verdict, a row per method and what else matters, or with `explain` all there is; then the `script`."""
    console = console_for(file)
    end = ["", _next_command(advice)] if next_step else []
    used = _head(console, advice, pointer=not explain) + sum(len(wrapped(console, text)) or 1 for text in end)
    if explain:
        from advisor.render.details import render_details

        render_details(advice, file, hint=breakdown is None)
    else:
        _essentials(console, advice, LINES - used)
    if breakdown is not None:
        from advisor.render.time import render_times

        render_times(advice, breakdown, file)
    for text in end:
        say(console, text)
    if script is not None:
        heading(console, f"Run this ({script.name})")
        file.write(script.text)
        for name, text in script.beside:
            heading(console, f"Beside it ({name})")
            file.write(text)


def _head(console: Console, advice: Advice, pointer: bool) -> int:
    """Print the verdict, the table and what its marks mean; the number of lines."""
    marks = ASCII if console.options.ascii_only else BLOCKS
    table, bars = candidate_table(advice, console.width, marks)
    legend = _legend(advice, marks if bars else None, pointer)
    verdict = wrapped(console, verdict_line(advice), style="bold")
    below = [line for text in legend for line in wrapped(console, text, style="dim")]
    for line in verdict:
        console.print(line, soft_wrap=True)
    console.print()
    console.print(table)
    for line in below:
        console.print(line, soft_wrap=True)
    return len(verdict) + 1 + len(console.render_lines(table)) + len(below)


def _legend(advice: Advice, marks: Marks | None, pointer: bool) -> list[str]:
    """What the table's marks and columns mean, and which plan the recommended row stands for."""
    card = format_gib(advice.gpu.memory_bytes)
    parts = ["* recommended"] if advice.recommendation is not None and len(advice.candidates) > 1 else []
    parts += ["least = smallest plan"]
    if marks is not None:
        parts += [f"{marks.least} least {marks.plan} plan {marks.at_most} at most {marks.card} the card's {card} GiB"]
    parts += ["batch = micro-batch x accumulation", "c = gradient checkpointing"]
    found = ["; ".join(parts) + "."]
    if len(advice.gpu.cards) > 1:
        times = ", times cover all" if advice.recommendation else ""
        found.append(
            f"{len(advice.gpu.cards)} cards have this size: memory must fit the smallest{times}"
            + ("; --explain lists them." if pointer else ".")
        )
    return found


def _essentials(console: Console, advice: Advice, room: int) -> None:
    """Print what matters most in `room` lines, and where the rest is."""
    pointer = "--explain: sources, every byte, all knobs, plans and prices. {}`advise explain CODE`: a rule."
    longest = wrapped(console, pointer.format("99 more items are there. "))
    sections, left_out = fitted(console, _sections(advice), room - len(longest) - 1)
    for section in sections:
        console.print()
        console.print(Text(section.title, style="bold"))
        for text in section.items:
            say(console, f"- {text}", indent=2)
    more = f"{left_out} more item{'s are' if left_out > 1 else ' is'} there. " if left_out else ""
    console.print()
    say(console, pointer.format(more), style="dim")


def _sections(advice: Advice) -> list[Section]:
    """What there is to say, in the order in which it is read."""
    recommendation = advice.recommendation
    found = []
    if recommendation is not None:
        found += [
            Section("Why", tuple(f"{reason.text} [{reason.code}]" for reason in recommendation.reasons)),
            Section("Warnings", tuple(f"{one.text} [{one.code}]" for one in recommendation.warnings), first=True),
        ]
    found += [
        Section(
            "What would surely fit" if recommendation else "What would fit",
            tuple(f"{one.text} [{one.code}]" for one in advice.alternatives),
            first=recommendation is None,
        ),
        Section("Several cards", _card_lines(advice)),
        Section(
            "Recipe and assumptions" if recommendation else "Assumptions",
            (*_plan_lines(advice), *(note.text for note in advice.notes)),
        ),
        Section("What makes the allocator hold less", _remedies(advice)),
        Section("What one change brings", tuple(map(price_text, worth_knowing(advice.prices)))),
    ]
    return found


def _card_lines(advice: Advice) -> tuple[str, ...]:
    """What other engines and numbers of cards do; loaded only where there are several."""
    if not (advice.engines or advice.scaling):
        return ()
    from advisor.render.cards import card_lines

    return card_lines(advice)


def _remedies(advice: Advice) -> tuple[str, ...]:
    return tuple(map(price_text, advice.simulation.remedies)) if advice.simulation is not None else ()


def _plan_lines(advice: Advice) -> tuple[str, ...]:
    """The recommended plan's main knobs, and whose defaults the others are."""
    trainer = f"{advice.trainer.name} {advice.trainer.version}"
    if advice.recommendation is None:
        return (f"The defaults of {trainer}, unless a flag says otherwise.",)
    recipe = advice.candidate(advice.recommendation.method).recipe
    values = {**dict(advice.workload), **dict(recipe)}
    shown = [
        name
        for name in _PLAN_KNOBS
        if (name != "quant" or recipe.is_quantized) and (name not in _IF_SET or values[name])
    ]
    if not recipe.has_rank:
        shown.remove("rank")
    if not recipe.has_adapters:
        shown.remove("target_modules")
    knobs = ", ".join(f"{name.replace('_', '-')} {value_text(values[name])}" for name in shown)
    return (f"{knobs}; all other knobs are {trainer}'s defaults, or chosen.",)


def worth_knowing(prices: Iterable[Change]) -> tuple[Change, ...]:
    """At most three changes that fit: the one that saves the most memory, the most time, and the largest others.

    Of those that save memory, one that leaves the training as it is comes first.
    """
    fitting = [one for one in prices if one.plan is not None and one.plan.verdict != "does_not_fit"]
    smaller = sorted((one for one in fitting if one.memory_bytes < 0), key=lambda one: one.memory_bytes)
    faster = sorted((one for one in fitting if (one.time_s or 0) < 0), key=lambda one: one.time_s or 0)
    same = [one for one in smaller if not one.changes_training]
    found = [*(same or smaller)[:1], *faster[:1], *sorted(fitting, key=_effect, reverse=True)]
    return tuple(one for i, one in enumerate(found) if one not in found[:i])[:_PRICES_SHOWN]


def _effect(change: Change) -> float:
    """How much a change changes, as shares of the plan with it."""
    plan = change.plan
    if plan is None:
        return 0.0
    time = abs(change.time_s or 0) / plan.time.total_s.likely if plan.time is not None else 0.0
    return abs(change.memory_bytes) / plan.memory.needed_bytes.likely + time


def _next_command(advice: Advice) -> str:
    """What to do next, in one line."""
    if advice.recommendation is None:
        flags = next((one.flags for one in advice.alternatives if one.flags), ())
        return f"Next: add {' '.join(flags)}." if flags else "Next: `advise gpus` lists cards, `advise models` models."
    if advice.model.kind != CAUSAL:
        return f"Next: load it with {advice.model.kind}.from_pretrained and the knobs that --explain lists."
    if advice.trainer.name not in (DEFAULT_TRAINER, *TARGETS):
        return (
            f"Next: set in {advice.trainer.name}'s own file what --explain lists under Knobs. --write python writes "
            "the nearest script for transformers."
        )
    return f"Next: add --write auto to write the file for {advice.trainer.name}, --script to print it."


def render_models(entries: Iterable[tuple[str, int, str, tuple[str, ...]]], file: TextIO) -> None:
    """A table of catalog models: name, parameters, Hub id, aliases."""
    table = new_table()
    for name in ("model", "size", "Hub id", "aliases"):
        table.add_column(name, overflow="fold", justify="right" if name == "size" else "left")
    for name, parameters, hub_id, aliases in entries:
        short = [alias for alias in aliases if "/" not in alias][:3]
        table.add_row(Text(name), format_count(parameters), Text(hub_id), Text(", ".join(short)))
    print_table(file, table)


def render_gpus(cards: Iterable[GpuSpec], file: TextIO) -> None:
    """A table of catalog cards: driver's memory, bandwidth, dense 16-bit rate."""
    table = new_table()
    for name in ("card", "generation", "GiB", "GB/s", "16-bit TFLOP/s"):
        table.add_column(name, overflow="fold", justify="left" if name in ("card", "generation") else "right")
    for card in cards:
        half = card.bf16_flop_per_s or card.fp16_flop_per_s
        table.add_row(
            Text(card.name),
            Text(card.generation),
            format_gib(card.memory_bytes),
            f"{card.memory_bytes_per_s / 1e9:,.0f}" if card.memory_bytes_per_s else "?",
            f"{half / 1e12:,.0f}{'' if card.bf16_flop_per_s else ' fp16'}" if half else "?",
        )
    print_table(file, table)


def render_rules(rules: Iterable[Rule], file: TextIO) -> None:
    """A table of rules: code, kind, title."""
    table = new_table()
    for name in ("code", "kind", "rule"):
        table.add_column(name)
    for rule in rules:
        table.add_row(rule.code, rule.kind, Text(rule.title))
    print_table(file, table)


def render_rule(rule: Rule, file: TextIO) -> None:
    """One rule's explanation and sources."""
    console = console_for(file)
    say(console, f"{rule.code}: {rule.title}", style="bold")
    console.print()
    _, _, body = rule.explanation.strip().partition("\n\n")
    for paragraph in body.split("\n\n"):
        say(console, " ".join(paragraph.split()))
        console.print()
    for source in rule.sources:
        say(console, f"Source: {source}", indent=2)
