"""`calibrate --method all`: plan, measure, show. Needs no torch itself."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import click

from advisor.errors import BadValue
from advisor.files.guarded import named_path
from advisor.knobs import read_question
from advisor.specs import Placement
from advisor.units import parse_seconds
from calibrate.batches import draw, rows_of, varies
from calibrate.checks import is_worst
from calibrate.cut import Whole
from calibrate.dry_run_cli import known_model, own_code
from calibrate.fit_cli import conclude, rates_of, speed_for
from calibrate.launch import launcher, rank_that_died
from calibrate.manager import TraceWorker
from calibrate.measurement import Comparison
from calibrate.options import config_of, methods_of, recipe_of
from calibrate.plan import DEFAULT_MODELS, Plan, Request, Rows, make_plan
from calibrate.progress import audience_for
from calibrate.ranks import placed
from calibrate.rates import Benchmarks
from calibrate.records_cli import store_at
from calibrate.records_show import print_records
from calibrate.runner import BurstRunner, Machine
from calibrate.session import Options, Summary, work
from calibrate.stacks import beside, gap_notes, installed_stack
from calibrate.store import Store

DEFAULT_BUDGET = {"cpu": "3min", "cuda": "8min"}
DEVICES = ("auto", "cpu", "cuda")
RATES_SHARE = 0.25
"""Largest share of the budget that the micro-benchmarks may take."""
CLOSING_S = 6.0
"""Seconds of the budget reserved for the fit at the end."""
LONGEST_S = 24 * 3600.0
DEFAULT_SEQ_LEN = {"cpu": 128, "cuda": 512}
"""Sequence length in tokens when only the micro-batch was given."""


class Asked(NamedTuple):
    """The values of the flags, as typed."""

    models: tuple[str, ...]
    method: str
    knobs: Mapping[str, Any]
    trainer: str
    device: str
    budget: str | None
    steps: int
    out: str | None
    again: bool
    timeout_s: float
    trust: bool
    as_json: bool


def measure(asked: Asked) -> int:
    """Measure what was asked for, as far as the budget allows; returns the exit code.

    Every error in the flags is reported before torch is started.
    """
    begin_s = time.monotonic()
    methods = methods_of(asked.method)
    if asked.device not in DEVICES:
        raise BadValue("--device", asked.device, f"must be {', '.join(DEVICES)}")
    if asked.budget is not None:
        _seconds(asked.budget)
    if asked.knobs.get("images") is not None:
        raise BadValue("--images", asked.knobs["images"], "bursts run rows of text: add --dry-run to trace images")
    stack = read_question({"stack": asked.knobs.get("stack")}).stack
    if stack is not None and beside(stack):
        raise BadValue("--stack", ",".join(stack), "bursts run the installed libraries: add --dry-run to trace others")
    for note in gap_notes(installed_stack()):
        _say(f"calibrate: warning: {note}")
    placement = placed(asked.knobs)
    knobs = {name: value for name, value in asked.knobs.items() if name not in ("micro_batch", "seq_len")}
    _check_shapes(asked, methods, knobs, placement)
    models = tuple(_whole(name, asked.trust) for name in asked.models)
    store = store_at(asked.out)
    store.prepare()
    with BurstRunner(timeout_s=asked.timeout_s) as runner:
        machine = runner.probe(asked.device)
        _say_machine(machine)
        _check_devices(placement, machine)
        kind = machine.device.kind
        models = models or tuple(_whole(name, False) for name in DEFAULT_MODELS[kind])
        rows = _rows(asked.knobs["micro_batch"], asked.knobs["seq_len"], kind)
        question = Request(models, methods, knobs, rows, asked.trainer, asked.steps, placement)
        make_plan(question, machine)  # report what cannot be planned before anything is measured
        budget_s = _seconds(asked.budget or DEFAULT_BUDGET[kind])
        samples = Benchmarks()
        if placement is None:
            samples = rates_of(runner, machine, store, asked.again, budget_s * RATES_SHARE)
            machine = machine._replace(speed=speed_for(machine, samples, store))
        plan = make_plan(question, machine)
        _say_plan(plan)
        options = Options(budget_s, time.monotonic() - begin_s + CLOSING_S, asked.steps, asked.again)
        hands = _runner_of(placement, runner, asked.timeout_s, kind)
        with hands as hand, audience_for(asked.as_json, options.budget_s) as audience:
            try:
                summary = work(plan, machine, store, hand, options, audience)
            except KeyboardInterrupt:
                audience.stop()
                _say(f"finished bursts are saved in {store.path}; run the same command to resume")
                raise
    code = _conclude(asked, summary, store)
    if placement is None:
        conclude(store, store.read().results, samples, machine)
    return code


def _check_shapes(asked: Asked, methods: Sequence[str], knobs: Mapping[str, Any], placement: Placement | None) -> None:
    """Report what cannot be trained in one of the requested shapes."""
    if placement is not None and placement.nodes > 1:
        raise BadValue("--nodes", placement.nodes, "bursts run on this machine alone: add --dry-run")
    for method, micro_batch, seq_len in itertools.product(
        methods, asked.knobs["micro_batch"] or (None,), asked.knobs["seq_len"] or (None,)
    ):
        one = {**knobs, "micro_batch": micro_batch, "seq_len": seq_len}
        recipe, tokens = recipe_of(method, one)
        workload = rows_of(one, tokens, asked.trainer) if seq_len else None
        if workload is not None and varies(workload):
            if placement is not None:
                raise BadValue("--mean-seq-len", one["mean_seq_len"], "rows vary on one card alone; leave it out")
            draw(workload, recipe, steps=1)


def _check_devices(placement: Placement | None, machine: Machine) -> None:
    """Each rank needs a card or, on a CPU, a core."""
    if placement is not None and placement.gpus > machine.devices:
        what = "cards" if machine.device.kind == "cuda" else "cores"
        text = f"must be at most {machine.devices}, the {what} here; add --dry-run for more"
        raise BadValue("--gpus", placement.gpus, text)


def _runner_of(
    placement: Placement | None, runner: BurstRunner, timeout_s: float, kind: str
) -> AbstractContextManager[BurstRunner]:
    """What runs bursts: several cards have a process each, which a launcher starts."""
    if placement is None:
        return nullcontext(runner)
    return BurstRunner(launcher(placement.gpus), timeout_s, kind, rank_that_died)


def _conclude(asked: Asked, summary: Summary, store: Store) -> int:
    if not asked.as_json:
        print_records(summary.records)
    if summary.not_reached:
        _say(f"no time left for {summary.not_reached} more bursts: run the same command to measure them")
    if summary.cut_short:
        bursts = f"{summary.cut_short} burst{'s' if summary.cut_short > 1 else ''}"
        _say(f"the budget ended {bursts} before {asked.steps} steps: use --again and a longer --budget")
    if remark := store.read().remark:
        _say(remark)
    _say(f"saved in {store.path}")
    return int(any(failed(record) for record in summary.records))


def failed(record: Comparison) -> bool:
    """Whether a burst ended unexpectedly: a crash, an error, or out of memory although it was predicted to fit."""
    outcome = record.burst.outcome if record.burst else "done"
    return outcome not in ("done", "out_of_memory") or is_worst(record)


def _seconds(text: str) -> float:
    return parse_seconds("--budget", text, 1.0, LONGEST_S)


def _whole(name: str, trust: bool) -> Whole:
    """A model by name. Raises what `config_of` raises and, for a model without a formula, what `facts` raises."""
    config = {key: value for key, value in config_of(name).items() if key != "_name_or_path"}  # records are shared
    spec = known_model(name)
    code = own_code(name, config) if trust and spec is None else ""
    if spec is not None:
        return Whole(_label(name), config, spec, code, spec.default_attention)
    with TraceWorker() as worker:
        return Whole(_label(name), config, None, code, worker.facts(config, code).default_attention)


def _label(name: str) -> str:
    """What a record calls a model: its name or, for a file, only the last part of the path, as records are shared."""
    path = named_path(name)
    if not path.exists() or (not path.is_dir() and path.suffix != ".json"):
        return name
    path = path.resolve()
    return path.parent.name if path.name == "config.json" else path.stem


def _rows(micro_batches: Sequence[str], seq_lens: Sequence[str], kind: str) -> tuple[Rows, ...]:
    """The requested shapes, fewest tokens first; () when none was requested."""
    if not micro_batches and not seq_lens:
        return ()
    pairs = {
        (int(micro_batch), int(seq_len))
        for micro_batch in micro_batches or (1,)
        for seq_len in seq_lens or (DEFAULT_SEQ_LEN[kind],)
    }
    return tuple(sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair)))


def _say_machine(machine: Machine) -> None:
    if machine.remark:
        _say(machine.remark)
    others = machine.conditions.other_processes
    if others:
        _say(f"{others} other process{'es' if others > 1 else ''} on the card: times will be marked and not fitted")


def _say_plan(plan: Plan) -> None:
    for note in plan.notes:
        _say(note)
    by_reason: dict[str, list[str]] = {}
    for label, reason in ((one.label, one.reason) for one in plan.skipped):
        by_reason.setdefault(reason, []).append(label)
    for reason, labels in by_reason.items():
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        _say(f"skipped {labels[0]}{more}: {reason}")


def _say(text: str) -> None:
    click.echo(text, err=True)
