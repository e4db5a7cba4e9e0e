"""What was read in a configuration file."""

from __future__ import annotations

from typing import Any, NamedTuple

from advisor.frozen import Frozen
from advisor.specs import Sharding, Trainer


class Use(Frozen):
    """A key of a file and the flags that say the same to `advise`."""

    key: str
    value: str  # as the file has it
    line: int  # from 1; 0 for what the tool does where the file says nothing
    flags: str  # '--rank 16'


class Unread(Frozen):
    """A key of a file that changes memory or time, or may, and that no flag says."""

    key: str
    value: str
    line: int
    why: str
    settled_by: tuple[str, ...] = ()  # knobs of which any, given beside the file, says what the key means


class Found(NamedTuple):
    """A file as a question."""

    format: str
    """'Axolotl YAML'."""
    trainer: Trainer
    knobs: dict[str, Any]
    uses: tuple[Use, ...]
    unread: tuple[Unread, ...]
    idle: tuple[str, ...]
    """Keys that change neither memory nor time."""
    other: tuple[Unread, ...] = ()
    """Keys by which the run is another kind of run than any that is estimated."""
    rows: int = 0
    """At most so many rows, where the file limits them; 0: it does not."""
    held_out: float = 0.0
    """Rows kept for evaluation: their number, or below 1 their share."""
    evaluations: float = 0.0
    """An epoch; 0: none, or as many as the tool does by itself."""
    most_steps: int = 0
    """Optimizer steps at which the job ends; 0: after its epochs."""
    last_layer: int | None = None
    """The number of the last of the layers that are trained, from 0, where the file numbers them."""
    vocabulary_multiple: int = 1
    """The embeddings get rows up to a multiple of this, where the model's own number of rows is none."""
    assumed: tuple[str, ...] = ()
    """What the file leaves open, and how it is taken, in sentences."""
    card: str = ""
    """The card that the file names."""
    spreads: Sharding = "ddp"
    """What several cards share the job by where no key names it: what every launcher does, or the tool's own."""
    written: str = ""
    """The target of `--write` whose files have these keys; '' where there is none."""
