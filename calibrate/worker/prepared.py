"""What a traced profile is made of: the facts of a model, and its step at several shapes, traced on fake tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from advisor.specs import Recipe
from calibrate.measurement import ModelFacts, ShapeTraces, StepEvents, TrainedTensor
from calibrate.worker.build import auto_name, build_model
from calibrate.worker.dryrun import steady, tracked
from calibrate.worker.patches import no_data_dependence, quiet, readable_4bit
from calibrate.worker.quantized import materialize

UNFUSED = frozenset(
    {
        "aten.bernoulli_.float",
        "aten.native_dropout",
        "aten._scaled_dot_product_attention_math",
    }
)
"""Operations of a CPU step that keep more than their CUDA kernels do: masks as wide as their input, all scores."""


class Prepared:
    """A fake model in its steady state, whose step can be traced at several shapes."""

    def __init__(self, config: Mapping[str, Any], recipe: Recipe, code: str = "") -> None:
        """Build the model; raises what `trace_step` raises."""
        self.recipe = recipe
        with quiet():
            self.model = build_model(config, recipe, fake=True, code=code)
            with self._fake():
                materialize(self.model)
                self.optimizer = steady(self.model, recipe)

    def shapes(self, shapes: Iterable[tuple[int, int]]) -> ShapeTraces:
        """The step's bare events at each (batch, seq_len)."""
        with quiet(), self._fake():
            steps = tuple(self._step(batch, seq_len) for batch, seq_len in shapes)
        trained = tuple(
            TrainedTensor(shape=tuple(p.shape), dtype=str(p.dtype).removeprefix("torch."), count=1)
            for p in self.model.parameters()
            if p.requires_grad
        )
        return ShapeTraces(steps=steps, trained=trained)

    @contextlib.contextmanager
    def _fake(self) -> Iterator[None]:
        if not hasattr(self, "_mode"):
            self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self._mode, readable_4bit(), no_data_dependence():
            yield

    def _step(self, batch: int, seq_len: int) -> StepEvents:
        tracker = tracked(self.model, self.optimizer, self.recipe, batch, seq_len, True, accumulated=True)
        timeline = tracker.timeline
        flop: dict[str, int] = {}
        launches: dict[str, int] = {}
        moved: dict[str, int] = {}
        for (phase, _), (count, amount, size) in tracker.counts.items():
            flop[phase] = flop.get(phase, 0) + amount
            launches[phase] = launches.get(phase, 0) + count
            moved[phase] = moved.get(phase, 0) + (0 if amount else size)
        highest = max(timeline.phase_peaks(), key=lambda p: p.peak_bytes)
        ops = {op for _, op in tracker.counts}
        return StepEvents(
            batch=batch,
            seq_len=seq_len,
            sizes=tuple(a.exact_bytes for a in timeline.allocations),
            categories=tuple(a.category for a in timeline.allocations),
            moves=tuple(timeline.moves),
            marks=tuple(timeline.marks),
            accumulated=tuple(timeline.accumulated),
            flop=flop,
            launches=launches,
            moved=moved,
            peak_op=f"{highest.phase}, {highest.op} in {highest.module or 'the model'}",
            unfused=bool(ops & UNFUSED),
        )


def model_facts(config: Mapping[str, Any], code: str = "") -> ModelFacts:
    """What transformers says about a model, from its parameters on the meta device."""
    recipe = Recipe(method="full", attention="eager", gradient_checkpointing=False)
    with quiet():
        model = build_model(config, recipe, fake=True, code=code)
    hf_config = model.config.get_text_config()
    found: dict[str, Any] = {
        k: v
        for k, v in {**model.config.to_dict(), **hf_config.to_dict()}.items()
        if isinstance(v, int) and not isinstance(v, bool)
    }
    positions = getattr(hf_config, "max_position_embeddings", None)
    kind = auto_name(model)
    return ModelFacts(
        architecture=str(config["model_type"]),
        kind=kind,
        parameters=sum(p.numel() for p in model.parameters()),
        max_position_embeddings=positions if isinstance(positions, int) and positions > 0 else 0,
        default_attention="sdpa" if model._supports_sdpa else "eager",
        breaks=tuple(sorted({v for k, v in found.items() if v > 0 and ("window" in k or "chunk" in k)})),
    )
