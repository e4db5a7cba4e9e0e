"""What a trainer can switch on, and what it does with what a question asks for: run it, go on without it, or refuse."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.answer import Reason
from advisor.catalog.trainers import SWITCHED, Preset, Switch, all_trainers, find_trainer
from advisor.errors import BadValue
from advisor.knobs import Question
from advisor.libraries import CODE, OWN_MODELS, read_stack_name
from advisor.recipes import flag
from advisor.specs import METHODS, Method, Model, TracedModel

ASSUMPTION = "assumption"


def switched(preset: Preset, question: Question, architecture: str) -> tuple[Question, list[Reason]]:
    """The question without what the trainer ignores, and a note for each of that.

    Raises BadValue for what the trainer does not have, which names those that do.
    """
    notes = _lacking(preset, question)
    if question.stack:
        question = question.fixing({"stack": stack_of(preset, question.stack)})
    for name in SWITCHED:
        if name not in question.recipe_fields:
            continue
        value = question.recipe_fields[name]
        kept = []
        for one in _values(value):
            found = [switch for switch in preset.switches_for(name, one) if set(switch.methods) & set(question.methods)]
            if not found:
                raise BadValue(f"--{name.replace('_', '-')}", one, _refusal(preset, name, one))
            only = found[0].optimizers
            if only and question.optimizer not in only:
                told = f"{preset.name} {preset.version} does it with --optimizer {' or '.join(only)} alone"
                raise BadValue(f"--{name.replace('_', '-')}", one, told)
            ignored = found[0].ignored
            if found[0].models and architecture not in found[0].models:
                ignored = f"{architecture} is not in its list of models"
            if ignored:
                text = f"--{name.replace('_', '-')} {one}: {preset.name} goes on without it: {ignored}."
                notes.append(Reason(code=ASSUMPTION, text=text, source=found[0].source))
            else:
                kept.append(one)
        if isinstance(value, tuple) and len(kept) < len(value):
            question = question.fixing({name: tuple(kept)})
    if question.optimizer_in_backward and question.micro_batch not in (None, question.batch_size):
        raise BadValue("--micro-batch", question.micro_batch, "must be --batch-size: nothing accumulates in backward")
    return question, notes


def _lacking(preset: Preset, question: Question) -> list[Reason]:
    """A note for each knob that is set to what the trainer has no setting for.

    Raises BadValue for a method that it does not have.
    """
    if question.method is not None and question.method not in preset.methods:
        gpus = question.gpus or 1
        able = next(one.name for one in all_trainers() if question.method in one.on(gpus).methods)
        where = " on several cards" if question.method in find_trainer(preset.name).methods else ""
        allowed = f"{preset.name} {preset.version} does not have it{where}; --trainer {able} does"
        raise BadValue("--method", question.method, allowed)
    notes = []
    for name in question.fixed:
        lack, value = preset.without(name), getattr(question, name)
        usual = {preset.values(method).get(name, False) for method in question.methods}
        idle = {value} == usual if isinstance(value, bool) else value in (1, "none")  # 1: of a multiple
        if lack is not None and not idle:
            text = f"{flag(name, value)}: {preset.name} has no setting for it; it is computed as asked."
            notes.append(Reason(code=ASSUMPTION, text=text, source=lack.source))
    return notes


def stack_of(preset: Preset, names: tuple[str, ...]) -> tuple[str, ...]:
    """The versions that were asked for, and the trainer's own for the libraries that were not.

    Raises BadValue for another trainer's code, and for a library that is not in the trainer's step.
    """
    own = {library: name for name in preset.stack for library in (read_stack_name(name)[0],)}
    code = next((library for library in own if library in CODE), "")
    for name in names:
        library, _ = read_stack_name(name)
        if library in CODE and library != code:
            able = next((one.name for one in all_trainers() if any(n.startswith(library) for n in one.stack)), "")
            told = f"; give --trainer {able}" if able else ""
            raise BadValue("--stack", name, f"is not what {preset.name} runs{told}")
        if library == "transformers" and code in OWN_MODELS:
            raise BadValue("--stack", name, f"is not in {preset.name}'s step, whose models are its own; leave it out")
    given = {read_stack_name(name)[0] for name in names}
    if code in given and own[code] not in names:  # another version of its code came with other libraries
        return names
    return (*(name for library, name in own.items() if library not in given), *names)


def _values(value: object) -> tuple[str, ...]:
    """What is asked for: names of kernels, a kind of offloading, or 'on'."""
    if isinstance(value, tuple):
        return value
    return () if value in (False, "none") else ("on" if value is True else str(value),)


def _refusal(preset: Preset, name: str, value: str) -> str:
    does = {one.name: one.switches_for(name, value) for one in all_trainers()}
    able = [one for one, found in does.items() if any(not s.ignored and not s.optimizers for s in found)]
    others = f"; --trainer {' or '.join(able)} can" if able else ""
    return f"{preset.name} {preset.version} cannot switch it on for the methods in question{others}"


def implied(preset: Preset, question: Question, method: Method) -> Mapping[str, object]:
    """Gradient checkpointing as what is switched on sets it for `method`; {} where it stays open.

    A question that says the opposite switches off what the trainer alone would have switched on.
    Raises BadValue where the question asks for both.
    """
    asked = question.gradient_checkpointing
    given = question.recipe_fields.get("offload")
    offload = given or preset.values(method).get("offload", "none")
    for switch in _of(preset, "offload", str(offload), method):
        if switch.checkpointing is None:
            continue
        if asked not in (None, switch.checkpointing) and given is None:
            return {"offload": "none"}
        if asked not in (None, switch.checkpointing) and method in question.methods:
            state = "on" if switch.checkpointing else "off"
            why = f"--offload {offload} of {preset.name} {preset.version} turns it {state} for {method}; leave it out"
            raise BadValue("--gradient-checkpointing", asked, why)
        variant = {} if switch.reentrant is None else {"reentrant": switch.reentrant}
        return {"gradient_checkpointing": switch.checkpointing, **variant}
    return {}


def settings_of(preset: Preset, question: Question, model: Model) -> dict[Method, dict[str, object]]:
    """What the trainer sets, by method; a trace is of transformers' own code, without what a trainer switches on.

    Raises BadValue where what is switched on contradicts the question.
    """
    left_out = SWITCHED if isinstance(model, TracedModel) else ()
    values = {method: {**preset.values(method), **implied(preset, question, method)} for method in METHODS}
    return {
        method: {name: value for name, value in found.items() if name not in left_out}
        for method, found in values.items()
    }


def _of(preset: Preset, name: str, value: str, method: Method) -> list[Switch]:
    return [switch for switch in preset.switches_for(name, value) if method in switch.methods]
