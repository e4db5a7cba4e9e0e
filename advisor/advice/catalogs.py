"""The part of advisor.catalog that answers need, so that tests can substitute their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from advisor.specs import GpuSpec, ModelSpec


class Entry(Protocol):
    """One model of the catalog, before its file is read."""

    @property
    def name(self) -> str:
        """The catalog's name."""

    @property
    def parameters(self) -> int:
        """All parameters."""


class Catalog(Protocol):
    """The part of advisor.catalog that answers need; tests substitute their own."""

    def find_model(self, text: str) -> ModelSpec:
        """The model of this name, alias, Hub id or path."""

    def find_gpus(self, text: str) -> tuple[GpuSpec, ...]:
        """The cards that a name or a size stands for."""

    def cards_with_at_least(self, memory_bytes: int) -> tuple[GpuSpec, ...]:
        """Cards to train on with that much memory, smallest first."""

    def cards_near(self, memory_bytes: int) -> tuple[GpuSpec, ...]:
        """Cards with about that much memory."""

    def model_entries(self) -> Sequence[Entry]:
        """All models of the catalog."""

    def hub_id_of(self, name: str) -> str:
        """The Hub id of the requested model; a name that the catalog does not know is returned unchanged."""

    def remarks_on(self, text: str, model: str) -> Sequence[str]:
        """What to say about how `text` was read, when the answer is about the `model` of that name."""
