"""Stand-ins: a small model, cards, a catalog, and an estimate that grows with everything and is easy to check."""

from __future__ import annotations

from typing import NamedTuple

from advisor.blocks import ITEM_BYTES
from advisor.costs.device import DeviceProfile
from advisor.errors import UnknownName
from advisor.interval import Interval
from advisor.parameters.modules import parameter_count
from advisor.parameters.targets import adapter_parameter_count
from advisor.specs import (
    Estimate,
    Evidence,
    GpuSpec,
    MemoryEstimate,
    ModelSpec,
    Placement,
    Recipe,
    Term,
    TimeEstimate,
    Workload,
)
from advisor.terms import TermName
from advisor.units import GIB


class FakeEntry(NamedTuple):
    """One row of the fake catalog."""

    name: str
    parameters: int


class FakeCatalog:
    """The small model in three sizes, and cards of 4, 8 and 80 GiB."""

    def find_model(self, text: str) -> ModelSpec:
        layers = {"small-3b": 66, "small-1b": 22, "small-0.1b": 2, "small-0.2b": 4, "other-0.2b": 4}
        if text not in layers:
            raise UnknownName("model", text, layers)
        return MODEL.model_copy(update={"name": text, "num_hidden_layers": layers[text]})

    def find_gpus(self, text: str) -> tuple[GpuSpec, ...]:
        found = tuple(one for one in self.cards_with_at_least(0) if one.name == text)
        if not found:
            raise UnknownName("GPU", text, ("four", "eight", "eighty"))
        return found

    def cards_with_at_least(self, memory_bytes: int) -> tuple[GpuSpec, ...]:
        cards = (card(4, "four"), card(8, "eight"), card(80, "eighty"))
        return tuple(one for one in cards if one.memory_bytes >= memory_bytes)

    def cards_near(self, memory_bytes: int) -> tuple[GpuSpec, ...]:
        """Cards of about that size."""
        return self.cards_with_at_least(memory_bytes // 2)

    def model_entries(self) -> tuple[FakeEntry, ...]:
        names = ("small-3b", "small-1b", "small-0.1b", "small-0.2b", "other-0.2b")
        return tuple(FakeEntry(name, parameter_count(self.find_model(name))) for name in names)

    def hub_id_of(self, name: str) -> str:
        return f"maker/{name}"

    def remarks_on(self, text: str, model: str) -> tuple[str, ...]:
        return ()


SPREAD = 0.05
CONTEXT_BYTES = GIB // 2


MODEL = ModelSpec(
    name="small-1b",
    architecture="llama",
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=22,
    num_attention_heads=32,
    num_key_value_heads=4,
    head_dim=64,
    vocab_size=32000,
)


def card(
    gib: float,
    name: str = "card",
    generation: str = "Ada",
    tflops: float = 100.0,
    bf16: bool = True,
    bandwidth: float = 1e12,
) -> GpuSpec:
    return GpuSpec(
        name=name,
        generation=generation,
        memory_bytes=int(gib * GIB),
        marketed_gb=gib,
        memory_bytes_per_s=bandwidth,
        bf16_flop_per_s=tflops * 1e12 if bf16 else 0,
        fp16_flop_per_s=tflops * 1e12,
        fp32_flop_per_s=tflops * 0.5e12,
    )


class CountingEstimator:
    """Callable like estimate(); keeps the recipes that it was asked about."""

    def __init__(self) -> None:
        self.recipes: list[Recipe] = []

    def __call__(
        self,
        model: ModelSpec,
        recipe: Recipe,
        workload: Workload,
        gpu: GpuSpec,
        placement: Placement,
        profile: DeviceProfile | None,
    ) -> Estimate:
        self.recipes.append(recipe)
        return fake_estimate(model, recipe, workload, gpu, placement, profile)


def fake_terms(model: ModelSpec, recipe: Recipe, workload: Workload) -> dict[TermName, int]:
    """Named bytes: weights, trained state, activations, DoRA's copies, context."""
    parameters = parameter_count(model)
    weight = {"none": ITEM_BYTES[recipe.base_dtype], "int8": 1.0}.get(recipe.quant, 0.5625)
    weights = parameters * weight + (0.4e9 if recipe.is_quantized else 0)
    trained = (
        parameters
        if recipe.method == "full"
        else adapter_parameter_count(model, recipe.target_modules, recipe.rank, recipe.is_dora)
    )
    per_token = model.num_hidden_layers * model.hidden_size * (2 if recipe.gradient_checkpointing else 34)
    copies = 2 * parameters if recipe.is_dora and recipe.dropout and not recipe.gradient_checkpointing else 0
    return {
        TermName.BASE_WEIGHTS: int(weights),
        TermName.OPTIMIZER_STATES: 12 * trained,
        TermName.SAVED_ACTIVATIONS: recipe.micro_batch * workload.seq_len * (per_token + 12 * model.vocab_size),
        TermName.TEMPORARIES: (GIB if recipe.is_dora else 0) + copies,
        TermName.CONTEXT: CONTEXT_BYTES,
    }


FIXED_STEP_S = {"full": 0.0, "lora": 0.01, "dora": 0.2, "qlora": 0.1, "qdora": 0.3}
"""What a micro-step takes whatever its size."""


def fake_micro_step_s(model: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec) -> float:
    """6 flops a parameter and token, a third more with checkpointing, plus a cost per micro-batch."""
    tokens = recipe.micro_batch * workload.mean_seq_len
    rate = gpu.bf16_flop_per_s or gpu.fp32_flop_per_s
    compute = tokens * 6 * parameter_count(model) / rate * (4 / 3 if recipe.gradient_checkpointing else 1)
    return compute + FIXED_STEP_S[recipe.method]


def fake_estimate(
    model: ModelSpec,
    recipe: Recipe,
    workload: Workload,
    gpu: GpuSpec,
    placement: Placement | None = None,
    profile: DeviceProfile | None = None,
) -> Estimate:
    """Memory with 5 % either way, time with 20 %; cards exchange nothing, and none was measured."""
    terms = fake_terms(model, recipe, workload)
    device = Interval.around(sum(terms.values()), SPREAD, SPREAD)
    steps = -(-workload.examples // workload.batch_size)
    step_s = fake_micro_step_s(model, recipe, workload, gpu) * recipe.gradient_accumulation if gpu.speed_known else 0
    time = (
        TimeEstimate(
            micro_step_s=Interval.around(step_s / recipe.gradient_accumulation, 0.2, 0.2),
            step_s=Interval.around(step_s, 0.2, 0.2),
            total_s=Interval.around(step_s * steps * workload.epochs, 0.2, 0.2),
            steps=steps,
            tokens_per_s=workload.batch_size * workload.mean_seq_len / step_s,
            bound="compute",
            flop_per_step=1e12,
            mfu=0.4,
            energy_j=None,
        )
        if gpu.speed_known
        else None
    )
    return Estimate(
        recipe=recipe,
        memory=MemoryEstimate(
            peak_allocated_bytes=device,
            peak_reserved_bytes=device,
            needed_bytes=device,
            device_bytes=device,
            peak_at="backward, lm_head",
            terms=tuple(Term(name=n, bytes=b) for n, b in terms.items()),
        ),
        time=time,
        trainable_parameters=terms[TermName.OPTIMIZER_STATES] // 12,
        evidence=Evidence(rung="formula", memory="fake", time="fake"),
    )
