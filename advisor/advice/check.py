"""A configuration file judged before it is launched: the verdict on exactly that run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import advisor.catalog
from advisor.advice.advise import advise
from advisor.advice.meaning import cards_of
from advisor.advice.workload import DEFAULT_EXAMPLES
from advisor.answer import Advice, Candidate
from advisor.configs.found import Found, Unread, Use
from advisor.configs.reading import Config, Text, read_config
from advisor.errors import AdvisorError, InputError, shown
from advisor.frozen import Frozen
from advisor.interval import Interval
from advisor.knobs import BY_NAME, read_question, read_value
from advisor.notebooks import Shown
from advisor.recipes import flag
from advisor.specs import METHODS

if TYPE_CHECKING:
    from advisor.advice.catalogs import Catalog
    from advisor.dataset.rows import Progress

Judged = Literal["fits", "tight", "unknown", "does_not_fit"]
"""From the best to the worst for a gate."""


class Edit(Frozen):
    """A change that would make the run fit, or smaller or faster, in the file's own words."""

    text: str  # what it brings, a sentence
    flags: tuple[str, ...]  # what it is to `advise`
    verdict: Judged
    diff: str  # of the file; '' where its format cannot be written yet


class Checked(Frozen, Shown):
    """What a configuration file means, and whether its run fits."""

    schema_version: Literal[1] = 1
    path: str
    format: str
    verdict: Judged
    why: tuple[str, ...]  # of a verdict 'unknown'; else empty
    not_known: tuple[str, ...] = ()  # what runs in the step and is not mirrored: with it nothing surely fits
    uses: tuple[Use, ...]
    unread: tuple[Unread, ...]
    idle: tuple[str, ...]
    assumed: tuple[str, ...]  # what the file leaves open, and how it is taken
    given: tuple[str, ...] = ()  # flags beside the file, which win
    total_s: Interval | None = None  # of the job: up to its last step where the file limits them
    advice: Advice | None = None  # null where it is another kind of run
    edits: tuple[Edit, ...] = ()


def check(
    path: str | Text,
    gpu: str | None = None,
    *,
    beside: Sequence[str | Text] = (),
    catalog: Catalog = advisor.catalog,
    progress: Progress | None = None,
    **knobs: Any,
) -> Checked:
    """Judge the run that a configuration file describes, on `gpu`: its path, or its text where it was read before.

    `beside` are files of accelerate or DeepSpeed that say how cards share it; `knobs` win over the files. Raises
    BadConfig for a file that cannot be used, InputError for what is missing, and what `advise` raises for bad flags.
    """
    given = {name: value for name, value in knobs.items() if value is not None}
    config = _settled(read_config(path, beside), given)
    found = config.found
    gpu = gpu or found.card or None
    if gpu is None:
        raise InputError(f"{shown(config.path)} names no card: add --gpu, for example --gpu 24GB")
    typed = read_question({name: value for name, value in given.items() if name != "model"})
    of_flags = cards_of(gpu, catalog, typed)[2]  # what was typed is refused before the file is judged
    flags = tuple(flag(name, value) for name, value in given.items())
    if found.other:
        return _checked(config, "unknown", tuple(map(_said, found.other)), given=flags)
    if isinstance(path, Text) and path.alone:
        found.knobs.pop("data", None)
    asked, assumed = _question(config, given, of_flags.gpus or int(found.knobs.get("gpus", 1)))
    model = asked.pop("model", None)
    if model is None:
        raise InputError(f"{shown(config.path)} names no model: add --model, for example --model llama-8b")
    try:
        answer = advise(model, gpu, catalog=catalog, progress=progress, **asked)
    except AdvisorError as error:
        return _checked(config, "unknown", (str(error),), assumed=assumed, given=flags)
    row = answer.candidates[0]
    if "seq_len" not in asked and "data" not in asked:
        longest = answer.workload.seq_len
        assumed = (*assumed, f"the file does not say how long rows are: --seq-len {longest} is taken for the longest")
    why = tuple(_reasons(found, answer))
    verdict: Judged = "unknown" if why else row.verdict
    return _checked(
        config,
        verdict,
        why,
        assumed=assumed,
        given=flags,
        not_known=row.evidence.unknown,
        total_s=_total(found, row),
        advice=answer,
        edits=tuple(_edits(config, answer, row, given)),
    )


def _reasons(found: Found, answer: Advice) -> Iterator[str]:
    """Why the verdict is not known, one sentence each."""
    yield from map(_said, found.unread)
    if found.last_layer not in (None, getattr(answer.model, "num_hidden_layers", 0) - 1):
        yield f"the trained layers end at number {found.last_layer}, which is not the model's last one"
    if getattr(answer.model, "vocab_size", 0) % found.vocabulary_multiple:
        yield f"the vocabulary is made a multiple of {found.vocabulary_multiple}, which the model's is not"


def _settled(config: Config, given: Collection[str]) -> Config:
    """The file without the keys whose meaning a flag says."""
    unread = tuple(one for one in config.found.unread if not any(knob in given for knob in one.settled_by))
    return config._replace(found=config.found._replace(unread=unread))


def _edits(config: Config, answer: Advice, row: Candidate, given: Collection[str]) -> Iterator[Edit]:
    """What would make the run fit, or, where it does, what single changes bring.

    A change of what a flag says in the file's place is none of the file's: it has no diff.
    """
    from advisor.configs.edits import edited

    replaced = {BY_NAME[name].flag for name in given if name in config.found.knobs}
    for change in answer.alternatives if answer.recommendation is None else (*answer.alternatives, *answer.prices):
        brings = not answer.recommendation or change.memory_bytes < 0 or (change.time_s or 0) < 0
        if brings and change.plan is not None and change.plan.verdict != "does_not_fit":
            same = (
                not change.model
                and not change.card
                and not any(word.split()[0] in (*replaced, "--trainer") for word in change.flags)
            )
            diff = edited(config, answer, row, change.plan, change.workload) if same else ""
            yield Edit(text=change.text, flags=change.flags, verdict=change.plan.verdict, diff=diff)


def _checked(config: Config, verdict: Judged, why: tuple[str, ...], **more: Any) -> Checked:
    found = config.found
    return Checked(
        path=config.path,
        format=found.format,
        verdict=verdict,
        why=why,
        uses=found.uses,
        unread=(*found.other, *found.unread),
        idle=found.idle,
        **{"assumed": (), **more},
    )


def _said(one: Unread) -> str:
    where = f"line {one.line}, " if one.line else ""
    return f"{where}{one.key}: {one.value} ({one.why})"


def _question(config: Config, given: Mapping[str, Any], gpus: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The knobs of the file and of the flags, which win, and what is assumed beside them."""
    found = config.found
    asked = {**found.knobs, **given}
    assumed = list(found.assumed)
    if asked.get("method") not in METHODS:
        raise InputError(f"{shown(config.path)} names no method: add --method")
    if asked.get("method") == "full":
        asked = {name: value for name, value in asked.items() if name not in ("rank", "alpha", "target_modules")}
    engine = asked.get("sharding", "none")
    if engine not in ("none", "ddp") and gpus == 1:
        if "gpus" in given:
            raise InputError(
                f"{shown(config.path)} runs one card by {engine}, which is not counted; say how many it is for"
            )
        raise InputError(f"{shown(config.path)} spreads the job by {engine}: add --gpus, for example --gpus 8")
    if gpus > 1 and engine == "none":
        asked["sharding"] = found.spreads
    if "batch_size" not in given and "batch_size" in asked:
        asked["batch_size"] = int(asked["batch_size"]) * gpus
        if gpus > 1:
            assumed.append(f"the rows of a step are those of {gpus} cards: --batch-size {asked['batch_size']}")
    if "data" in asked and "examples" in asked:
        del asked["data"]
    if "data" not in asked and "examples" not in asked:
        asked["examples"] = found.rows or DEFAULT_EXAMPLES
        known = "the file takes no more rows" if found.rows else "the file does not say how many rows its data has"
        assumed.append(f"{known}: --examples {asked['examples']} is taken")
    if found.held_out and "data" not in asked and "eval_examples" not in given:
        _hold_out(found, asked)
    return asked, tuple(assumed)


def _hold_out(found: Found, asked: dict[str, Any]) -> None:
    """Rows that the file keeps for evaluation are not trained on."""
    rows = int(read_value("examples", asked["examples"]))  # type: ignore[call-overload]
    kept = min(rows - 1, round(found.held_out if found.held_out >= 1 else found.held_out * rows))
    if kept < 1:
        return
    asked |= {"examples": rows - kept, "eval_examples": kept}
    if found.evaluations > 1 and "eval_steps" not in asked:
        steps = max(1, (rows - kept) // max(1, int(asked.get("batch_size", 1))))
        asked["eval_steps"] = max(1, int(steps // found.evaluations))


def _total(found: Found, row: Candidate) -> Interval | None:
    """The time of the job, up to the step at which the file ends it."""
    if row.time is None or not found.most_steps or row.time.steps <= found.most_steps:
        return None if row.time is None else row.time.total_s
    return row.time.total_s.times(found.most_steps / row.time.steps)
