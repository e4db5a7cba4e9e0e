"""PyTorch's FullyShardedDataParallel as transformers' Trainer and accelerate set it up.

Sources: PyTorch 2.13, distributed/fsdp/_runtime_utils.py and _flat_param.py; accelerate 1.15, accelerator.py,
prepare_model; transformers 5.23, training_args.py (full_shard, NO_PREFETCH, use_orig_params).

A unit is a decoder layer, with peft each trained matrix too; the root is all else. A unit's weights are one flat
tensor, gathered in place, and freed after the unit's forward and again after its backward; the root's stand from the
embedding to the end of the backward. A trained unit's gradients are joined into one flat gradient while its weights
still stand. A frozen layer's weights are freed only once those of the layer before it are gathered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from math import fsum
from typing import NamedTuple

from advisor.blocks import ITEM_BYTES, block_bytes, pinned_bytes
from advisor.decoders.recorder import EMBEDDING, HEAD
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.decoders.units import units_of
from advisor.engines.engine import Engine, Height, Held, Phase, Transfer, gradient_blocks
from advisor.engines.flat import Flat, FlatLayout, FlatUnit, root_of
from advisor.engines.parts import Parts, Turn
from advisor.libraries import libraries_of
from advisor.parameters.targets import expert_adapters
from advisor.parameters.trained import Trained
from advisor.specs import ModelSpec, Recipe


class FlatBytes(NamedTuple):
    """A unit in each of its states, in blocks."""

    cast: int  # this rank's part in the dtype that is gathered, where that is another
    weights: int  # gathered
    gradients: int  # of each tensor
    joined: int  # the same as one flat gradient
    scattered: int  # this rank's part of it, before the cast
    left: int  # this rank's part of it


NOTHING = FlatBytes(0, 0, 0, 0, 0, 0)


class Fsdp1(Engine):
    """Every flat parameter is spread over the ranks."""

    name = "FSDP1"
    spreads = True
    joins = True

    @classmethod
    def refuses(cls, m: ModelSpec, recipe: Recipe) -> str:
        """FSDP1 joins only tensors of one dtype; what else runs on one card alone."""
        if recipe.is_quantized and libraries_of(recipe.stack).code == "litgpt":
            return "LitGPT quantizes on one card alone (finetune/lora.py, setup); use --gpus 1"  # litgpt 0.5
        if recipe.is_dora:
            # peft 0.21, tuners/lora/dora.py, DoraLinearLayer.forward; PyTorch 2.13, _flat_param.py, _use_sharded_views
            return "DoRA asks an adapter's matrix for its columns, and FSDP1 has made it a vector; use --sharding fsdp2"
        if expert_adapters(m, recipe, recipe.rank):
            return "FSDP1 cannot cut peft's adapters on fused experts; use --sharding fsdp2"
        if recipe.is_quantized and not recipe.autocast and recipe.adapter_dtype != recipe.base_dtype:
            # the unit gathers in the base's dtype what peft has seen in its own (`coded`)
            return f"peft gives adapters {recipe.adapter_dtype}, but FSDP1 {recipe.base_dtype} weights; use --autocast"
        layout, units = _layout(recipe, 2, recipe.base_dtype), units_of(m, recipe, THIS_STACK)
        for unit in (root_of(units), *units.layers):
            kinds = sorted({layout.dtype_of(piece) for piece in layout.unit(unit).own.pieces})
            if len(kinds) > 1:
                how = "use --no-kbit-upcast" if recipe.is_quantized and recipe.kbit_upcast else "use --sharding fsdp2"
                return f"FSDP1 joins a layer's tensors and needs one dtype, but these are {' and '.join(kinds)}; {how}"
        return ""

    @cached_property
    def layout(self) -> FlatLayout:
        """Of this job's flat parameters."""
        return _layout(self.recipe, self.ranks, self.half)

    @property
    def gradient_dtype(self) -> str:  # type: ignore[override]
        """That of the gathered weights."""
        return self.layout.gathers

    def computed(self) -> Recipe:
        """All weights in the dtype that is gathered; accelerate's autocast stays on.

        Source: accelerate 1.15, accelerator.py, prepare_model.
        """
        if not self.layout.gathers:
            return self.recipe
        same = dict.fromkeys(("base_dtype", "adapter_dtype", "magnitude_dtype"), self.layout.gathers)
        return self.recipe.model_copy(update={**same, "kbit_upcast": False})

    @property
    def holds_inputs(self) -> bool:  # type: ignore[override]
        """Of frozen layers that are checkpointed the re-entrant way.

        A hook on what a frozen unit is called with waits for its gradient, and holds it in a cycle: here a leaf that
        checkpointing made. The hooks are removed at the end of the backward.
        Sources: PyTorch 2.4 and 2.13, distributed/fsdp/_runtime_utils.py, _register_post_backward_reshard_only_hook,
        _finalize_params; autograd/graph.py, register_multi_grad_hook.
        """
        return self.recipe.has_adapters and self._runs_again

    def coded(self, stack: Stack) -> Stack:
        """peft asks an adapter's matrix for its dtype while it is cut, and casts to it; autocast casts back.

        Source: peft 0.21, tuners/lora/layer.py, Linear.forward. Ignores: that with SHARD_GRAD_OP, or gathered early, it
        is still whole when a checkpointed layer runs again, and peft casts nothing then.
        """
        kept = {flat.stored for flat, _ in self._flats() if flat.trained and flat.stored != flat.gathered}
        return replace(stack, adapters_kept=kept.pop()) if self.recipe.has_adapters and kept else stack

    @cached_property
    def flat_units(self) -> dict[int, FlatUnit]:
        """The units, by the place where they are gathered: the root's is that of the embedding."""
        units = enumerate(self.units.layers)
        return {EMBEDDING: self.layout.unit(root_of(self.units)), **{p: self.layout.unit(one) for p, one in units}}

    def _flats(self) -> Iterator[tuple[Flat, int]]:
        for unit in self.flat_units.values():
            yield from ((flat, unit.copies) for flat in unit.all)

    def weights(self) -> Iterator[Held]:
        """This rank's part of every flat parameter; none where they are on the host."""
        for flat, times in () if self.on_host else self._flats():
            yield Held(self.term_of(flat.pieces[0]), flat.part * ITEM_BYTES[flat.stored], times)

    def host_bytes(self) -> int:
        """Parts of the weights, and as much for gradients, of frozen ones too; all pinned.

        Source: PyTorch 2.13, distributed/fsdp/_flat_param.py, init_flat_param_attributes: _local_shard, _cpu_grad.
        """
        flats = self._flats() if self.on_host else ()
        return sum(2 * pinned_bytes(flat.part * ITEM_BYTES[flat.stored]) * times for flat, times in flats)

    def updated(self) -> list[Trained]:
        """What the first rank's parts have of each trained tensor, as a vector, on the card."""
        return [] if self.on_host else self._updated()

    def updated_on_host(self) -> list[Trained]:
        """The same where they are on the host."""
        return self._updated() if self.on_host else []

    def _updated(self) -> list[Trained]:
        return [
            Trained(size, 0, times, flat.stored)
            for flat, times in self._flats()
            if flat.trained
            for size in flat.first_part()
        ]

    def gradients_bytes(self) -> int:
        """This rank's part of every flat gradient."""
        return sum(self._bytes_of(flat).left * times for flat, times in self._flats())

    def accumulated_bytes(self) -> int:
        """Whole flat gradients, in the dtype of the gathered weights."""
        return sum(self._bytes_of(flat).joined * times for flat, times in self._flats())

    def _bytes_of(self, flat: Flat) -> FlatBytes:
        """A flat parameter in each of its states. What is on the host comes as it is stored, and goes as it is left."""
        casts = flat.gathered != flat.stored
        joined = flat.bytes_of(flat.elements, flat.gathered) if flat.trained else 0
        stored = flat.bytes_of(flat.part, flat.stored)
        return FlatBytes(
            cast=(flat.bytes_of(flat.part, flat.gathered) if casts else 0) + (stored if self.on_host else 0),
            weights=flat.bytes_of(flat.elements, flat.gathered),
            gradients=gradient_blocks(flat.pieces, flat.gathered),
            joined=joined,
            scattered=block_bytes(joined // flat.ranks) if casts else 0,
            left=stored if flat.trained and not self.on_host else 0,
        )

    @cached_property
    def sizes(self) -> dict[int | None, FlatBytes]:
        """The bytes of each unit without those inside it, by place."""
        return {None: NOTHING, HEAD: NOTHING, **{p: self._bytes_of(unit.own) for p, unit in self.flat_units.items()}}

    def reduced(self) -> dict[int, int]:
        """A layer is reduced as soon as it has run backward, a unit inside it at once; the root with the embedding."""
        found = {}
        for place, unit in self.flat_units.items():
            flats = unit.inner if place == EMBEDDING else unit.all
            found[place] = sum(one.left - one.gradients - self._earlier(one) for one in map(self._bytes_of, flats))
        return found

    def _standing(self, turn: Turn) -> int:
        """Gathered weights while a part runs: the root's, its own, and without resharding those of all layers below."""
        place, weights = turn.part.place, self.sizes[EMBEDDING].weights
        if self.placement.reshard:
            return weights if place in (EMBEDDING, HEAD) else weights + self.sizes[place].weights
        for below, unit in self.flat_units.items():
            count = turn.nth + 1 if below == place else unit.copies
            if EMBEDDING < below <= place:
                weights += count * sum(self._bytes_of(flat).weights for flat in unit.all)
        return weights

    def heights(self, parts: Parts) -> Iterator[Height]:
        """Around each part: its gather, its highest point, and the reduction of its gradients."""
        root = self.sizes[EMBEDDING]
        for turn in parts.forward_turns():
            place = turn.part.place
            yield Height(turn, "before", self._standing(turn) + self.sizes[place].cast)
            yield Height(turn, "peak", self._standing(turn) + self._inside(place).weights)
        for turn in parts.backward_turns():
            yield from self._backward(turn, root)

    def _backward(self, turn: Turn, root: FlatBytes) -> Iterator[Height]:
        place = turn.part.place
        if place in (EMBEDDING, HEAD):
            ahead = self._ahead(turn) if place == HEAD else 0
            yield Height(turn, "peak", self._standing(turn) + ahead)
            if place == EMBEDDING:
                yield from self._reduction(turn, root, root.weights)
            return
        me, before, unit = self.sizes[place], self.sizes[turn.earlier], self.flat_units[place]
        weights = self._standing(turn)
        if self.placement.reshard:
            yield Height(turn, "before", weights + me.cast + (0 if before.joined else before.weights))
        if not unit.inner:  # else what was run last inside the layer is asked for
            weights += self._ahead(turn)
        inner = self._inside(place)
        yield Height(turn, "peak", weights + inner.weights, inner.joined)
        yield from self._reduction(turn, me, weights)

    def _inside(self, place: int) -> FlatBytes:
        """The largest unit inside a layer, which comes and goes alone."""
        unit = self.flat_units.get(place)
        flats = unit.inner if unit is not None and place != EMBEDDING else ()
        return max((self._bytes_of(flat) for flat in flats), key=lambda one: one.weights, default=NOTHING)

    def _earlier(self, me: FlatBytes) -> int:
        """What earlier micro-batches of the step left of a unit's gradients."""
        return me.joined if self.recipe.gradient_accumulation > 1 else 0

    def _reduction(self, turn: Turn, me: FlatBytes, weights: int) -> Iterator[Height]:
        """The end of a trained part: gradients are joined beside the weights, then both are freed; it is reduced."""
        if me.joined:
            yield Height(turn, "after", weights, me.joined)
            left = me.joined - self._earlier(me) + me.scattered + me.left - me.gradients
            yield Height(turn, "after", weights - me.weights, left)

    @property
    def _runs_again(self) -> bool:
        """Whether a layer's backward is a forward and a backward of its own: gathered for each, and never early.

        So it is under re-entrant checkpointing of a unit as a whole: before transformers 4.53 (Llama: 4.52) the model
        checkpoints its layers, since then a layer checkpoints itself, inside its unit (modeling_layers.py).
        Source: PyTorch 2.13, distributed/fsdp/_runtime_utils.py, _register_pre_backward_hooks, leaves what ran without
        gradients alone, and _get_handle_to_prefetch asks for nothing of which no hook will ask.
        """
        before = libraries_of(self.recipe.stack).transformers < (4, 53)
        return before and self.recipe.gradient_checkpointing and self.recipe.reentrant

    def _ahead(self, turn: Turn) -> int:
        """What a part asks for as its backward begins: the weights of the layer whose turn is next."""
        asks = self.placement.prefetch and self.placement.reshard and turn.later not in (None, EMBEDDING)
        return self.sizes[turn.later].weights if asks and not self._runs_again else 0

    def aside_bytes(self) -> int:
        """The root's weights and those of two layers with this rank's part: with `limit_all_gathers` at most two's.

        They are freed by `record_stream`, so it depends on timing whether the first is gone; allocated bytes do not
        count it, and PyTorch waits for it before it runs out of memory.
        Source: PyTorch 2.13, distributed/fsdp/_runtime_utils.py, _unshard; _limiter_utils.py, _FreeEventQueue;
        _flat_param.py, _free_unsharded_flat_param; c10/cuda/CUDACachingAllocator.cpp, free, release_cached_blocks.
        """
        layers = [one.weights + one.cast for place, one in self.sizes.items() if place not in (None, EMBEDDING)]
        return self.sizes[EMBEDDING].weights + 2 * max(layers)

    def transfers(self, place: int, phase: Phase, syncs: bool) -> tuple[Transfer, ...]:
        """A unit is gathered before its forward and, unless its weights stay, before its backward; then reduced.

        Ignores: that without prefetch a trained layer's gather waits behind the reduction of the layer above, on the
        same communicator: the lane has it one layer ahead.
        """
        unit = self.flat_units.get(place)
        if unit is None:
            return ()
        found = []
        gathered = phase == "forward" or (place != EMBEDDING and self.placement.reshard)
        again = 2 if phase == "backward" and self.recipe.gradient_checkpointing else 1
        if gathered:
            times = 2 if phase == "backward" and self._runs_again else 1
            size = sum(self._bytes_of(flat).weights for flat in unit.inner) * again
            found.append(Transfer("gather", self.sizes[place].weights * times + size, times + len(unit.inner) * again))
        size = sum(self._bytes_of(flat).joined for flat in unit.all)
        if phase == "backward" and syncs and size:
            found.append(Transfer("scatter", size, sum(flat.trained for flat in unit.all)))
        return tuple(found)

    def host_copies(self, place: int, phase: Phase, syncs: bool) -> tuple[int, int]:
        """A unit's part comes each time that it is gathered; what is left of its gradients goes."""
        unit = self.flat_units.get(place)
        if unit is None or not self.on_host:
            return 0, 0
        sizes = [(flat.part * ITEM_BYTES[flat.stored], flat.trained) for flat in unit.all]
        kinds = {one.kind for one in self.transfers(place, phase, syncs)}
        up = sum(size for size, _ in sizes) if "gather" in kinds else 0
        return up, sum(size for size, trained in sizes if trained) if "scatter" in kinds else 0

    def copied_bytes(self, place: int, phase: Phase, syncs: bool) -> float:
        """Parts are cast before they are gathered; gradients are joined, divided, and what is left of them is cast."""
        unit = self.flat_units.get(place)
        if unit is None:
            return 0.0
        sizes = [self._bytes_of(flat) for flat in unit.all]
        gathers = any(one.kind == "gather" for one in self.transfers(place, phase, syncs))
        out = fsum(3.0 * one.cast for one in sizes) if gathers else 0.0
        if phase == "backward":
            out += fsum(one.gradients + one.joined + 3.0 * self._earlier(one) for one in sizes)
            out += fsum(2.0 * one.joined + one.scattered + one.left for one in sizes) if syncs else 0.0
        return out


def _layout(recipe: Recipe, ranks: int, half: str) -> FlatLayout:
    """Mixed precision gathers and reduces in 16 bits, and keeps trained flat parameters in fp32.

    A base in 4 bits is gathered in the dtype that it is stored in, with or without mixed precision.
    Sources: accelerate 1.15, accelerator.py, prepare_model; transformers 5.23, distributed/fsdp.py,
    update_fsdp_plugin_peft.
    """
    stored = recipe.base_dtype if recipe.is_quantized else ""
    return FlatLayout(recipe, half if recipe.autocast else stored, recipe.autocast, ranks)
