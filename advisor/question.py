"""What was asked: one optional field per knob, checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.frozen import Frozen
from advisor.knobs import RECIPE_KNOBS, read_value
from advisor.optimizers import Optimizer
from advisor.specs import (
    METHODS,
    Attention,
    DType,
    Loss,
    Method,
    Priority,
    Quantization,
    Sharding,
    Trainer,
)


class Question(Frozen):
    """One field for each knob of `knobs.KNOBS` except the model and the card; None leaves it open."""

    gpus: int | None = None
    examples: int | None = None
    data: str | None = None
    epochs: float | None = None
    method: Method | None = None  # 'all' leaves it open
    rank: int | None = None
    alpha: float | None = None
    target_modules: tuple[str, ...] | None = None
    dropout: float | None = None
    base_dtype: DType | None = None
    adapter_dtype: DType | None = None
    magnitude_dtype: DType | None = None
    quant: Quantization | None = None
    double_quant: bool | None = None
    kbit_upcast: bool | None = None
    autocast: bool | None = None
    optimizer: Optimizer | None = None
    gradient_checkpointing: bool | None = None
    reentrant: bool | None = None
    attention: Attention | None = None
    loss: Loss | None = None
    micro_batch: int | None = None
    expandable_segments: bool | None = None
    batch_size: int | None = None
    seq_len: int | None = None
    mean_seq_len: int | None = None
    packing: bool | None = None
    trainer: Trainer | None = None
    sharding: Sharding | None = None
    priority: Priority | None = None
    price_per_hour: float | None = None
    fixed: tuple[str, ...] = ()  # names of the knobs that were given, in that order

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods in question, in the order of their rows."""
        return METHODS if self.method is None else (self.method,)

    @property
    def recipe_fields(self) -> dict[str, Any]:
        """The knobs of a recipe that were given, by name."""
        return {name: getattr(self, name) for name in self.fixed if name in RECIPE_KNOBS}

    def fixing(self, changes: Mapping[str, object]) -> Question:
        """The same question with further knobs given, or with other values."""
        return self.model_copy(update={**changes, "fixed": tuple(dict.fromkeys((*self.fixed, *changes)))})

    def leaving_open(self, name: str) -> Question:
        """The same question without one knob."""
        return self.model_copy(update={name: None, "fixed": tuple(one for one in self.fixed if one != name)})


def read_question(knobs: Mapping[str, object]) -> Question:
    """The question that these knobs ask; None leaves one open. Raises UnknownName or BadValue."""
    given = {name: read_value(name, value) for name, value in knobs.items() if value is not None}
    if given.get("method") == "all":
        del given["method"]
    return Question.model_validate({**given, "fixed": tuple(given)})
