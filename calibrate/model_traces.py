"""Traces a model that the formula does not know at a few shapes and keeps the profile for `advise`. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from advisor.catalog.traced_models import label_of, traced_model
from advisor.errors import AdvisorError, SourceUnavailable
from advisor.files.traced import config_hash, profile_path, read_profile, structure_of
from advisor.specs import Recipe
from calibrate.manager import TraceWorker
from calibrate.measurement import Environment, ModelFacts
from calibrate.traced_profile import profile_of, store, trace_structure

Say = Callable[[str], None]


def stored_structures(name: str, config: Mapping[str, Any], retrace: bool) -> dict[str, Mapping[str, Any]]:
    """What an earlier profile of this model holds, by recipe; nothing when it is to be traced again.

    Raises BadProfile for an existing profile that cannot be used, unless `retrace` replaces it.
    """
    path = profile_path(label_of(name))
    if retrace or not path.exists():
        return {}
    traced_model(name, config, name)
    _, profile = read_profile(path, name)
    return {_key(one["recipe"]): one for one in profile["structures"]}


def keep_profile(
    worker: TraceWorker,
    name: str,
    config: Mapping[str, Any],
    facts: ModelFacts,
    environment: Environment,
    recipes: Sequence[tuple[Recipe, int]],
    say: Say,
    *,
    retrace: bool = False,
    code: str = "",
) -> int:
    """Trace each (recipe, sequence length) that no profile holds yet, and store all; returns how many are stored.

    A recipe that cannot be traced is reported through `say` and skipped. Nothing is written until all are traced.
    Raises BadProfile, or SourceUnavailable when the profile cannot be written.
    """
    known = stored_structures(name, config, retrace)
    fresh = 0
    for number, (recipe, seq_len) in enumerate(recipes, 1):
        key = _key(structure_of(recipe))
        if key in known and _covers(known[key], recipe, seq_len):
            continue
        way = "with" if recipe.gradient_checkpointing else "without"
        say(f"tracing {name} for its profile, {number} of {len(recipes)}: {recipe.method} {way} checkpointing")
        try:
            known[key] = trace_structure(
                lambda one, shapes: worker.shapes(config, one, shapes, code), recipe, facts, seq_len
            )
            fresh += 1
        except SourceUnavailable:
            raise
        except AdvisorError as error:
            say(f"{name} {recipe.method} {way} checkpointing is not in the profile: {error}")
    if fresh:
        profile = profile_of(name, config_hash(config), facts, environment, known)
        store(profile_path(label_of(name)), profile)
    return len(known)


def _covers(structure: Mapping[str, Any], recipe: Recipe, seq_len: int) -> bool:
    lengths = [regime["length"] for regime in structure["regimes"]]
    return structure["rank"] in (0, recipe.rank) and all(low <= seq_len <= high for low, high in lengths)


def _key(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, sort_keys=True)
