"""What DeepSpeed's three ZeRO stages share: 16-bit weights, fp32 copies by part, a bucket, and offload to the host.

Sources: DeepSpeed 0.19.8, runtime/zero/stage_1_and_2.py and stage3.py; transformers 5.23, trainer.py, sorts parameters
into those with weight decay and the norms and biases without: each sort is a flat tensor of its own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES, block_bytes
from advisor.decoders.units import Piece
from advisor.engines.engine import Engine, Held, Phase, trained_pieces
from advisor.engines.zero_configs import ZeroConfig, config_of
from advisor.optimizers import optimizer_row
from advisor.parameters.trained import Trained
from advisor.specs import ModelSpec, Recipe
from advisor.terms import TermName

NORM_BYTES = 8
"""The norm of a gradient is taken in fp64. Source: DeepSpeed 0.19.8, runtime/zero/utils.py, get_norm_dtype."""


class Group(NamedTuple):
    """Trained parameters of one sort, one after the other in a flat tensor that is cut into a part for each rank."""

    elements: tuple[int, ...]
    part: int  # elements of one rank's part

    def touching(self) -> int:
        """Elements of the parameters that a rank's part touches: the first rank's, or more where another has more."""
        ends = list(accumulate(self.elements))
        most = 0
        for start in range(0, ends[-1], self.part) if ends[-1] // self.part < 1024 else (0,):
            first, last = bisect_right(ends, start), bisect_left(ends, start + self.part)
            most = max(most, ends[min(last, len(ends) - 1)] - (ends[first - 1] if first else 0))
        return most


class DeepSpeed(Engine):
    """What the three stages share: the module is cast to 16 bits, adapters too, and the optimizer works in fp32."""

    spreads = True

    @classmethod
    def refuses(cls, m: ModelSpec, recipe: Recipe) -> str:
        """DeepSpeed casts the whole module, or works in fp32."""
        if not recipe.autocast and recipe.base_dtype != "float32":
            return "DeepSpeed without bf16 or fp16 in its config expects fp32 weights; use mixed precision"
        return ""

    @property
    def dtype(self) -> str:
        """Of weights and gradients."""
        return self.half if self.recipe.autocast else "float32"

    @cached_property
    def config(self) -> ZeroConfig:
        """The sizes in the trainer's config."""
        return config_of(self.placement.configs, self.placement.sharding == "zero3")

    @property
    def bucket_elements(self) -> int:
        """reduce_bucket_size."""
        return self.placement.bucket_elements or self.config.bucket(self.m.hidden_size)

    @property
    def bucket_bytes(self) -> int:
        """The tensor that gradients wait in: whole, however few are trained."""
        return block_bytes(self.bucket_elements * ITEM_BYTES[self.dtype])

    def computed(self) -> Recipe:
        """All in 16 bits and no autocast: accelerate does not wrap the forward of a DeepSpeed engine."""
        same = dict.fromkeys(("base_dtype", "adapter_dtype", "magnitude_dtype"), self.dtype)
        return self.recipe.model_copy(update={**same, "autocast": False, "kbit_upcast": False})

    def dropping(self) -> Recipe:
        """As `computed`, with gradients that leave as soon as they are made: a hook copies each into the bucket."""
        update = {"optimizer_in_backward": True, "optimizer": "sgd", "gradient_accumulation": 1}
        return DeepSpeed.computed(self).model_copy(update=update)

    def bytes_of(self, piece: Piece) -> int:
        """A parameter in the dtype that the engine casts it to; packed ones keep theirs."""
        return piece.bytes if piece.packed else piece.elements * ITEM_BYTES[self.dtype]

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Those with weight decay, then norms and biases; DeepSpeed leaves an empty sort out."""
        sorts: tuple[list[int], list[int]] = ([], [])
        for unit in self.units.all:
            for _ in range(unit.copies):
                for piece in trained_pieces(unit):
                    sorts[piece.columns == 1 and not self.recipe.has_adapters].append(piece.elements)
        return tuple(Group(tuple(one), self.part_of(sum(one))) for one in sorts if one)

    def part_of(self, elements: int) -> int:
        """A rank's part of a flat tensor, which is padded to a multiple of two elements for each rank."""
        return 2 * -(-elements // (2 * self.ranks))

    def flat_parts(self) -> tuple[int, ...]:
        """Elements of each flat tensor of a rank that the optimizer updates."""
        return tuple(group.part for group in self.groups)

    def _copies(self) -> list[Trained]:
        return [Trained(part, 0, 1, "float32") for part in self.flat_parts()]

    def updated(self) -> list[Trained]:
        """The fp32 copies of the rank's parts, on the card."""
        return [] if self.on_host else self._copies()

    def updated_on_host(self) -> list[Trained]:
        """The same where they are on the host."""
        return self._copies() if self.on_host else []

    def host_bytes(self) -> int:
        """The fp32 copies and their gradients, and 16-bit copies on their way, in pinned memory (offload_config.py).

        Stages 1 and 2: initialize_optimizer_states, param_buffer_of_bit16_for_cpu_offload_groups; stage 3:
        fp32_partitioned_groups_flat, grad_partitions_flat_buffer.
        """
        return sum(part.elements * (4 + 4 + ITEM_BYTES[self.dtype]) for part in self.updated_on_host())

    def masters(self) -> Iterator[Held]:
        """The fp32 copies that the optimizer updates, and the norm of the last step's gradients."""
        yield Held(TermName.OPTIMIZER_STATES, NORM_BYTES, 1)
        for part in self.updated():
            yield Held(TermName.OPTIMIZER_STATES, part.bytes, 1)

    accumulates_on_host = False
    """Whether gradients go to the host in each micro-batch, even where it is the only one."""

    def host_copies(self, place: int, phase: Phase, syncs: bool) -> tuple[int, int]:
        """Parts of what is gathered come, where parameters are offloaded; the gradients of the rank's part go, in fp32.

        Before that those that accumulate go in 16 bits, and come back for each further micro-batch.
        Source: stage_1_and_2.py, async_accumulate_grad_in_cpu_via_gpu; stage3.py, partition_grads.
        """
        if not self.on_host:
            return 0, 0
        found = self.transfers(place, phase, syncs)
        gathered = sum(one.bytes for one in found if one.kind == "gather")
        reduced = sum(one.bytes for one in found if one.kind != "gather")
        turns, item = self.recipe.gradient_accumulation, ITEM_BYTES[self.dtype]
        waits = item * (2 - 1 / turns) if turns > 1 or self.accumulates_on_host else 0
        up = gathered // self.ranks if self.placement.offload == "parameters" else 0
        return up, round(reduced / item / self.ranks * (waits + 4 / turns))

    def returned_bytes(self) -> int:
        """The 16-bit copies of what was updated; none where parameters stay on the host."""
        if self.placement.offload != "optimizer":
            return 0
        return sum(self.flat_parts()) * ITEM_BYTES[self.dtype]

    def norm_bytes(self, elements: int) -> int:
        """Beside the gradients that are reduced: the norm of one in fp64, taken there if the optimizer is on the host.

        Source: stage_1_and_2.py, set_norm_for_param_grad_in_gpu; stage3.py, partition_grads.
        """
        return block_bytes(NORM_BYTES * elements) if self.on_host else 0

    def cut(self, elements: int) -> bool:
        """Whether a parameter of that size lies in the parts of several ranks."""
        for group in self.groups:
            ends = list(accumulate(group.elements))
            starts = (end - size for end, size in zip(ends, group.elements, strict=True) if size == elements)
            if any(start // group.part != (start + elements - 1) // group.part for start in starts):
                return True
        return False

    @cached_property
    def largest(self) -> int:
        """Elements of the largest trained parameter."""
        return max(max(group.elements) for group in self.groups)

    def temporary(self, part: Trained) -> int:
        """What the optimizer's step of a sort allocates."""
        return sum(map(block_bytes, optimizer_row(self.recipe.optimizer).temporaries(part)))

    def syncs(self, index: int) -> bool:
        """Every micro-batch reduces its gradients."""
        return True
