"""LLaMA-Factory: transformers' Trainer, with the checkpointing of 2024's Unsloth where `use_unsloth_gc` is on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from advisor.decoders.stack import Proof, Stack
from advisor.libraries import version_text
from advisor.specs import ModelSpec, Recipe
from advisor.tape.engine import hosted_checkpoint
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape


@dataclass(frozen=True)
class LlamaFactory(Stack):
    """Its own checkpointing; all else is of the libraries that it pins."""

    own_kernels: ClassVar[frozenset[str]] = frozenset({"activations"})

    hosts: bool = False
    """Whether checkpointed layers' inputs wait in the host's memory: `--offload activations`."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return f"LLaMA-Factory {version_text(self.libraries.code_version)}, {super().name}"

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """As the libraries; its checkpointing was read."""
        found = super().proof(m, recipe)
        return found._replace(read=(*found.read, "use_unsloth_gc, from its source")) if self.hosts else found

    def shaped(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> Stack:
        """What the recipe asks for."""
        hosts = recipe.offload == "activations" and recipe.gradient_checkpointing
        return self if hosts == self.hosts else replace(self, hosts=hosts)

    def checkpoint(
        self,
        t: Tape,
        function: Callable[..., Tensor],
        x: Tensor,
        reentrant: bool,
        last: bool,
        beside: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Every layer's input, of any size, goes to the host as it is, and comes back into a new tensor.

        Source: llamafactory 0.9.5, model/model_utils/checkpointing.py, get_unsloth_gradient_checkpointing_func.
        """
        if not self.hosts:
            return super().checkpoint(t, function, x, reentrant, last, beside)
        return hosted_checkpoint(t, function, x, x.dtype, beside=beside)
