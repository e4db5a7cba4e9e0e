"""The catalog by names alone, for doors that read no file: a page, and a server of agents."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.catalog.entries import model_entries
from advisor.catalog.gpus import cards_near, cards_with_at_least, find_gpus, reads_machine
from advisor.catalog.models import find_model, hub_id_of, remarks_on
from advisor.errors import BadValue, InputError, SourceUnavailable, UnsupportedArchitecture, shown
from advisor.specs import GpuSpec, ModelSpec


class ByName:
    """No path is opened, no driver and no network asked. See advice.catalogs.Catalog."""

    model_entries = staticmethod(model_entries)
    cards_near = staticmethod(cards_near)
    cards_with_at_least = staticmethod(cards_with_at_least)

    def __init__(self, absent: str, machine: str) -> None:
        """`absent` is said of a model that no list has, `machine` of a card for which this machine would be asked."""
        self._absent, self._machine = absent, machine

    def find_model(self, text: str) -> ModelSpec:
        """The model of this name or Hub id. Raises InputError or SourceUnavailable."""
        try:
            return find_model(text, offline=True, files=False)
        except SourceUnavailable as error:
            _, sign, kin = str(error).partition("; of that lineage: ")
            raise SourceUnavailable(f"{shown(text, 80)} {self._absent}{sign}{kin}") from None
        except UnsupportedArchitecture as error:  # a trace of it would be looked for by path
            raise InputError(str(error)) from None

    def find_gpus(self, text: str) -> tuple[GpuSpec, ...]:
        """The cards that a name or a size stands for. Raises BadValue for what would ask the machine."""
        if reads_machine(text):
            raise BadValue("--gpu", text, self._machine)
        return find_gpus(text)

    def hub_id_of(self, name: str) -> str:
        """The Hub id of a name."""
        return hub_id_of(name, files=False)

    def remarks_on(self, text: str, model: str) -> Sequence[str]:
        """How a name was read."""
        return remarks_on(text, model, files=False)
