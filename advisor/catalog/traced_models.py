"""Models from the profiles of earlier traces in the user's data folder, for models that the formula does not know."""

from __future__ import annotations

import os
from collections.abc import Mapping

from advisor.catalog.models import find_source
from advisor.errors import UnsupportedArchitecture
from advisor.files.checked import LIBRARIES, installed_version
from advisor.files.traced import BadProfile, config_hash, profile_path, read_profile
from advisor.specs import TracedModel

UNLIMITED = 1_000_000_000
"""Positions of a model whose config names no limit."""


def label_of(text: str) -> str:
    """What names a model in the data folder: the absolute path of its config.json, or what was asked for."""
    path = find_source(text).path
    return os.path.realpath(path) if path is not None else text.strip().lower()


def find_traced(text: str, error: UnsupportedArchitecture) -> TracedModel:
    """The traced model that `text` names, a path or a Hub id that the formula refused with `error`.

    Raises `error` when it was never traced, BadProfile for a profile that is damaged, of another version, made with
    other versions of the libraries than the installed ones, or of another config than the model has now.
    """
    source = find_source(text)
    if not profile_path(label_of(text)).exists():
        raise error
    return traced_model(text, source.config, source.name)


def traced_model(text: str, config: Mapping[str, object], name: str) -> TracedModel:
    """The model from its profile, once everything about it has been checked. Raises BadProfile."""
    path = profile_path(label_of(text))
    checksum, profile = read_profile(path, text)
    again = f"trace it again: `calibrate --dry-run --retrace --model {text}`"
    model = profile["model"]
    if model["config_sha256"] != config_hash(config):
        raise BadProfile(f"{text}: the model has changed since it was traced; {again}")
    environment = profile["environment"]
    for library in LIBRARIES:
        installed = installed_version(library)
        if installed is not None and installed != environment[library]:
            raise BadProfile(
                f"{text}: traced with {library} {environment[library]}, but {installed} is installed; {again}"
            )
    return TracedModel(
        name=name,
        architecture=model["architecture"],
        kind=model["kind"],
        parameters=model["parameters"],
        max_position_embeddings=model["max_position_embeddings"] or UNLIMITED,
        default_attention=model["default_attention"],
        source=text,
        profile=str(path),
        checksum=checksum,
        traced_with=", ".join(f"{library} {environment[library]}" for library in LIBRARIES),
    )
