"""The question that knobs make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from advisor.checkpoints import Quantization
from advisor.frozen import Frozen
from advisor.knobs.reading import read_value, stand_in_text
from advisor.knobs.table import BY_NAME, RECIPE_KNOBS
from advisor.optimizers import Optimizer
from advisor.specs import (
    METHODS,
    Attention,
    DType,
    KernelSet,
    Link,
    Loss,
    Method,
    Offload,
    PackingStrategy,
    Padding,
    Priority,
    SequenceKernels,
    Sharding,
    StateOffload,
    TrainedDType,
    Trainer,
    Variant,
)


class Question(Frozen):
    """One field for each knob of `knobs.KNOBS` except the model and the card; None leaves it open."""

    gpus: int | None = None
    nodes: int | None = None
    examples: int | None = None
    data: str | None = None
    data_columns: tuple[str, ...] | None = None
    tokenizer: str | None = None
    skip_bad_lines: bool | None = None
    epochs: float | None = None
    method: Method | None = None  # 'all' leaves it open
    task: Literal["classification"] | None = None
    labels: int | None = None
    rank: int | None = None
    alpha: float | None = None
    target_modules: tuple[str, ...] | None = None
    modules_to_save: tuple[str, ...] | None = None
    trained_layers: int | None = None
    trained_dtype: TrainedDType | None = None
    train_tower: bool | None = None
    variant: Variant | None = None
    dropout: float | None = None
    base_dtype: DType | None = None
    adapter_dtype: DType | None = None
    magnitude_dtype: DType | None = None
    quant: Quantization | None = None
    double_quant: bool | None = None
    quant_bits: int | None = None
    quant_group: int | None = None
    kbit_upcast: bool | None = None
    quantize_experts: bool | None = None
    autocast: bool | None = None
    optimizer: Optimizer | None = None
    optimizer_rank: int | None = None
    gradient_checkpointing: bool | None = None
    reentrant: bool | None = None
    attention: Attention | None = None
    loss: Loss | None = None
    upcast_logits: bool | None = None
    neftune: float | None = None
    stack: tuple[str, ...] | None = None
    kernels: tuple[KernelSet, ...] | None = None
    sequence_kernels: SequenceKernels | None = None
    offload: Offload | StateOffload | None = None
    optimizer_in_backward: bool | None = None
    micro_batch: int | None = None
    expandable_segments: bool | None = None
    batch_size: int | None = None
    seq_len: int | None = None
    mean_seq_len: int | None = None
    packing: bool | None = None
    packing_strategy: PackingStrategy | None = None
    padding: Padding | None = None
    pad_to_multiple_of: int | None = None
    group_by_length: bool | None = None
    images: int | None = None
    image_size: str | None = None
    max_pixels: int | None = None
    eval_examples: int | None = None
    eval_batch: int | None = None
    eval_steps: int | None = None
    trainer: Trainer | None = None
    sharding: Sharding | None = None
    reshard: bool | None = None
    prefetch: bool | None = None
    bucket_elements: int | None = None
    link: Link | None = None
    network_gbit: float | None = None
    host_memory_gb: float | None = None
    priority: Priority | None = None
    price_per_hour: float | None = None
    fixed: tuple[str, ...] = ()  # names of the knobs that were given, in the order of KNOBS
    stand_ins: tuple[str, ...] = ()  # what is taken in the place of words that were given, a sentence each

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods in question, in the order of their rows."""
        return METHODS if self.method is None else (self.method,)

    @property
    def recipe_fields(self) -> dict[str, Any]:
        """The knobs of a recipe that were given, by name."""
        names = [name for name in self.fixed if name in RECIPE_KNOBS and not (name == "offload" and self.state_offload)]
        return {name: getattr(self, name) for name in names}

    @property
    def state_offload(self) -> StateOffload | None:
        """What the cards keep in the host's memory beside activations, which are a recipe's; None where left open."""
        return self.offload if self.offload in ("optimizer", "parameters") else None

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
    stand_ins = tuple(filter(None, (stand_in_text(name, knobs[name]) for name in BY_NAME if name in given)))
    return Question.model_validate(
        {**given, "fixed": tuple(name for name in BY_NAME if name in given), "stand_ins": stand_ins}
    )
