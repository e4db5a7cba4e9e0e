"""Trainer presets: the knobs that a training stack sets by itself, each with its source.

People write profiles/trainers/*.toml (`preset_from_toml` reads and checks them); a look-up opens only
profiles/trainers/index.json, which repeats them and is generated (index.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Literal, get_args

from advisor.catalog.data import data_text
from advisor.errors import AdvisorError, BadConfig
from advisor.frozen import Frozen
from advisor.knobs import BY_NAME, COLLATOR_KNOBS, RECIPE_KNOBS, TRAINERS, read_value
from advisor.optimizers import OPTIMIZERS
from advisor.specs import METHODS, Method, Trainer

DEFAULT_TRAINER = "transformers"
_KEYS = {"name", "version", "title", "traced", "differs", "knob", "switch", "lack"}
_KNOB_KEYS = {"name", "value", "methods", "models", "loss", "cards", "source"}
_LACK_KEYS = {"knobs", "methods", "cards", "source"}
_SWITCH_KEYS = {"name", "values", "methods", "checkpointing", "reentrant", "models", "optimizers", "ignored", "source"}
SWITCHED = ("kernels", "offload", "optimizer_in_backward", "quantize_experts")
"""Knobs that a trainer has or has not: a preset lists what it can switch on."""
Cards = Literal["", "one", "several"]
"""On how many cards of a job a trainer does something; '' = on any number."""


class PresetKnob(Frozen):
    """One knob as a trainer sets it, for some methods, and where its code says so."""

    name: str
    value: str | bool | int | float | tuple[str, ...]
    methods: tuple[Method, ...]
    models: tuple[str, ...] = ()  # model types for which it does that otherwise than for all others; () = all
    loss: str = ""  # the loss under which it does that otherwise; '' = any
    cards: Cards = ""
    source: str


class Switch(Frozen):
    """Values of a knob of SWITCHED that a trainer can be asked for, and where its code says what it does with them."""

    name: str
    values: tuple[str, ...]  # 'on' of a knob that is on or off
    methods: tuple[Method, ...]
    checkpointing: bool | None = None  # what gradient checkpointing then is; None leaves it open
    reentrant: bool | None = None  # and its variant
    models: tuple[str, ...] = ()  # model types that it does it for, where its own list says so; () = all
    optimizers: tuple[str, ...] = ()  # those that it does it with alone; () = all
    ignored: str = ""  # why the trainer goes on without it; '' where it does it
    source: str


class Lack(Frozen):
    """Knobs for which a trainer has no setting, or methods that it does not have, and where its code shows that."""

    knobs: tuple[str, ...] = ()
    methods: tuple[Method, ...] = ()
    cards: Cards = ""
    source: str


class Preset(Frozen):
    """A version of a trainer: what it sets, and what it does that the estimate leaves out."""

    name: Trainer
    version: str
    title: str
    traced: bool  # its own training step was run and compared with the estimate
    differs: tuple[str, ...]
    knobs: tuple[PresetKnob, ...]
    switches: tuple[Switch, ...] = ()
    lacks: tuple[Lack, ...] = ()

    def on(self, gpus: int) -> Preset:
        """The preset of a job on so many cards: without what it does on another number of them alone."""
        there = ("", "one" if gpus == 1 else "several")
        knobs, lacks = (tuple(one for one in rows if one.cards in there) for rows in (self.knobs, self.lacks))
        return self.model_copy(update={"knobs": knobs, "lacks": lacks})

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that it has."""
        return tuple(one for one in METHODS if not any(one in lack.methods for lack in self.lacks))

    def without(self, name: str) -> Lack | None:
        """That it has no setting for a knob; None where it has one, or where that is not known."""
        return next((one for one in self.lacks if name in one.knobs), None)

    def values(self, method: Method) -> dict[str, object]:
        """The knobs of a recipe that it sets for `method`."""
        return {knob.name: knob.value for knob in self.knobs if method in knob.methods and knob.name in RECIPE_KNOBS}

    def switches_for(self, name: str, value: str) -> tuple[Switch, ...]:
        """What it does with a value of a knob of SWITCHED; () where it has no such thing."""
        return tuple(one for one in self.switches if one.name == name and value in one.values)

    def switchable(self, name: str, values: Sequence[str], method: Method, architecture: str) -> tuple[str, ...]:
        """Those values of a knob of SWITCHED that it can switch on for a method of a model, and does not pass over.

        What it does with some optimizers alone is left out.
        """

        def does(one: Switch) -> bool:
            known = not one.models or architecture in one.models
            return method in one.methods and known and not one.ignored and not one.optimizers

        return tuple(value for value in values if any(map(does, self.switches_for(name, value))))

    @property
    def stack(self) -> tuple[str, ...]:
        """Whose code its step runs, as a recipe names it; () for that of transformers."""
        return next((knob.value for knob in self.knobs if knob.name == "stack" and isinstance(knob.value, tuple)), ())

    def collator(self, architecture: str = "", loss: str | None = None) -> dict[str, object]:
        """How it makes micro-batches of rows of a model, under a loss that was asked for: knobs of a workload."""
        return {
            knob.name: knob.value
            for knob in self.knobs
            if knob.name in COLLATOR_KNOBS
            and (not (knob.models or knob.loss) or architecture in knob.models or loss == knob.loss != "")
        }


@cache
def all_trainers() -> tuple[Preset, ...]:
    """Every preset, in the order of the `trainer` knob's choices, with what it does on any number of cards."""
    found = {preset.name: preset for preset in map(_from_row, json.loads(data_text("trainers", "index.json")))}
    return tuple(found[name] for name in TRAINERS)


@lru_cache(maxsize=64)
def find_trainer(name: str, gpus: int = 1) -> Preset:
    """The preset of this name, as `--trainer` takes it, for a job on so many cards. Raises UnknownName."""
    chosen = read_value("trainer", name)
    return next(preset for preset in all_trainers() if preset.name == chosen).on(gpus)


def trainer_named(word: str) -> str:
    """The trainer that `--trainer` takes a word for; '' for none."""
    try:
        return str(read_value("trainer", word))
    except AdvisorError:
        return ""


def _from_row(row: Mapping[str, Any]) -> Preset:
    """A preset of the index, whose values were checked when it was written."""
    knobs = tuple(
        PresetKnob.model_validate({name: tuple(one) if isinstance(one, list) else one for name, one in knob.items()})
        for knob in row["knobs"]
    )
    switches = tuple(
        Switch.model_validate({name: tuple(one) if isinstance(one, list) else one for name, one in switch.items()})
        for switch in row["switches"]
    )
    lacks = tuple(
        Lack(**{**one, "knobs": tuple(one["knobs"]), "methods": tuple(one["methods"])}) for one in row["lacks"]
    )
    found = {**row, "differs": tuple(row["differs"]), "knobs": knobs, "switches": switches, "lacks": lacks}
    return Preset(**found)


def preset_from_toml(text: str, where: str) -> Preset:
    """A preset from the text of a TOML file; `where` names it in errors. Raises BadConfig, in one line."""
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"{where}: not TOML: {error}") from None
    _closed(table, _KEYS, where)
    if table.get("name") not in TRAINERS:
        raise BadConfig(f"{where}: name is {table.get('name')!r}; known: {', '.join(TRAINERS)}")
    for key in ("version", "title"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise BadConfig(f"{where}: {key} is {table.get(key)!r}; give a string")
    if not isinstance(table.get("traced"), bool):
        raise BadConfig(f"{where}: traced is {table.get('traced')!r}; give true or false")
    differs = table.get("differs", [])
    if not isinstance(differs, list) or not all(isinstance(line, str) for line in differs):
        raise BadConfig(f"{where}: differs is {differs!r}; give a list of strings")
    rows = table.get("knob")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadConfig(f"{where}: no [[knob]] tables; give one for each knob that the trainer sets")
    knobs = tuple(_knob(row, where) for row in rows)
    _once(knobs, where)
    return Preset(
        name=table["name"],
        version=table["version"],
        title=table["title"],
        traced=table["traced"],
        differs=tuple(differs),
        knobs=knobs,
        switches=tuple(_switch(row, where) for row in table.get("switch", ())),
        lacks=tuple(_lack(row, where) for row in table.get("lack", ())),
    )


def _lack(row: Mapping[str, Any], where: str) -> Lack:
    _closed(row, _LACK_KEYS, where)
    knobs, methods, source = tuple(row.get("knobs", ())), row.get("methods", ()), row.get("source")
    if not isinstance(source, str) or not source.strip():
        raise BadConfig(f"{where}: what it lacks has no source; give the place in the trainer's code")
    for name in knobs:
        if name not in BY_NAME:
            raise BadConfig(f"{where}: it lacks {name!r}, which is not a knob")
    if not set(methods) <= set(METHODS):
        raise BadConfig(f"{where}: it lacks the methods {methods!r}; known: {', '.join(METHODS)}")
    kept = tuple(m for m in METHODS if m in methods)
    return Lack(knobs=knobs, methods=kept, cards=_cards(row, where), source=source)


def _switch(row: Mapping[str, Any], where: str) -> Switch:
    _closed(row, _SWITCH_KEYS, where)
    name, values, source = row.get("name"), row.get("values", ["on"]), row.get("source")
    if name not in SWITCHED:
        raise BadConfig(f"{where}: {name!r} is not a knob that is switched on; known: {', '.join(SWITCHED)}")
    if not isinstance(source, str) or not source.strip():
        raise BadConfig(f"{where}: the switch {name} has no source; give the place in the trainer's code")
    if values != ["on"]:
        try:
            for value in values:
                read_value(name, value)
        except AdvisorError as error:
            raise BadConfig(f"{where}: {error}") from None
    methods = row.get("methods", METHODS)
    for one in row.get("optimizers", ()):
        if one not in OPTIMIZERS:
            raise BadConfig(f"{where}: the switch {name} is for {one!r}, which is no optimizer")
    return Switch(
        name=name,
        values=tuple(values),
        methods=tuple(m for m in METHODS if m in methods),
        checkpointing=row.get("checkpointing"),
        reentrant=row.get("reentrant"),
        models=tuple(row.get("models", ())),
        optimizers=tuple(row.get("optimizers", ())),
        ignored=row.get("ignored", ""),
        source=source,
    )


def _cards(row: Mapping[str, Any], where: str) -> Cards:
    """On how many cards a row holds. Raises BadConfig."""
    for word in get_args(Cards):
        if row.get("cards", "") == word:
            return word  # type: ignore[no-any-return]
    raise BadConfig(f"{where}: cards is {row['cards']!r}; give 'one' or 'several', or leave it out")


def _closed(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    """Refuse an unknown key."""
    for key in table:
        if key not in keys:
            raise BadConfig(f"{where}: unknown key {key!r}; known: {', '.join(sorted(keys))}")


def _knob(row: Mapping[str, Any], where: str) -> PresetKnob:
    _closed(row, _KNOB_KEYS, where)
    name, methods, source = row.get("name"), row.get("methods", METHODS), row.get("source")
    presettable = (*RECIPE_KNOBS, *COLLATOR_KNOBS)
    if not isinstance(name, str) or name not in presettable:
        raise BadConfig(f"{where}: {name!r} is not a knob of a recipe; known: {', '.join(presettable)}")
    if not isinstance(methods, Sequence) or not methods or not set(methods) <= set(METHODS):
        raise BadConfig(f"{where}: methods of {name} are {methods!r}; known: {', '.join(METHODS)}")
    if not isinstance(source, str) or not source.strip():
        raise BadConfig(f"{where}: {name} has no source; give the place in the trainer's code")
    try:
        value = read_value(name, row.get("value"))
    except AdvisorError as error:
        raise BadConfig(f"{where}: {error}") from None
    if name in COLLATOR_KNOBS and methods != METHODS:
        raise BadConfig(f"{where}: {name} is about rows, not about a method; leave methods out")
    if not isinstance(value, (str, int, float, tuple)) or (name in RECIPE_KNOBS and type(value) is int):
        raise BadConfig(f"{where}: {name} is {value!r}; presets set names, switches and fractions only")
    models, loss = tuple(row.get("models", ())), row.get("loss", "")
    if (models or loss) and name not in COLLATOR_KNOBS:
        raise BadConfig(f"{where}: {name} is set for some models or a loss; only {', '.join(COLLATOR_KNOBS)} can be")
    kept = tuple(m for m in METHODS if m in methods)
    cards = _cards(row, where)
    return PresetKnob(name=name, value=value, methods=kept, models=models, loss=loss, cards=cards, source=source)


def _once(knobs: Sequence[PresetKnob], where: str) -> None:
    """Refuse a knob that is set twice for one method on one number of cards."""
    seen: set[tuple[str, Method, str]] = set()
    for knob in (one for one in knobs if not (one.models or one.loss)):
        for method in knob.methods:
            for cards in (knob.cards,) if knob.cards else ("one", "several"):
                if (knob.name, method, cards) in seen:
                    raise BadConfig(f"{where}: {knob.name} is set twice for {method}; leave one")
                seen.add((knob.name, method, cards))
