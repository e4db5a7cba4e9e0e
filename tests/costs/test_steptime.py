from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.catalog.gpus import all_gpus, find_gpus
from advisor.catalog.models import find_model
from advisor.checkpoints import Quantization
from advisor.costs.device import profile_for
from advisor.costs.micro_batches import expected
from advisor.costs.micro_step import StepKernels, launch_seconds, mean_of, micro_step_time, queue_seconds
from advisor.costs.optimizer import optimizer_work
from advisor.costs.steptime import (
    micro_steps_time,
    optimizer_step_time,
    step_count,
    steps_between_evaluations,
    time_estimate,
)
from advisor.decoders.stack import THIS_STACK
from advisor.decoders.step import step_program
from advisor.engines import engine_for
from advisor.errors import BadValue
from advisor.parameters.trained import Trained
from advisor.specs import GpuSpec, ModelSpec, Placement, Recipe, TimeEstimate, Workload
from advisor.tape.program import Launches

METHODS: tuple[tuple[str, Quantization], ...] = (
    ("full", "none"),
    ("lora", "none"),
    ("dora", "none"),
    ("qlora", "nf4"),
    ("qdora", "nf4"),
)


def card(name: str) -> GpuSpec:
    (found,) = find_gpus(name)
    return found


A100 = card("NVIDIA A100-SXM4-80GB")
SPEEDS = ("memory_bytes_per_s", "bf16_flop_per_s", "fp16_flop_per_s", "tf32_flop_per_s", "fp32_flop_per_s")


def tape(m: ModelSpec, recipe: Recipe, batch: int, length: int) -> StepKernels:
    return step_program(m, recipe, batch, length, "cuda").kernels(batch, length, recipe.rank)


def likely(m: ModelSpec, recipe: Recipe, batch: int, length: int, gpu: GpuSpec = A100) -> float:
    return micro_step_time(tape(m, recipe, batch, length), gpu, profile_for(gpu)).seconds.likely


def estimate(
    recipe: Recipe, workload: Workload, gpu: GpuSpec = A100, placement: Placement | None = None
) -> TimeEstimate:
    m = find_model("smollm2-135m")
    runs = [(tape(m, recipe, *batch[:2]), share) for batch, share in expected(workload, recipe)]
    placement = placement or Placement()
    engine = engine_for(m, recipe, placement, THIS_STACK)
    micro = micro_steps_time(runs, recipe, gpu, profile_for(gpu), engine)
    return time_estimate(m, recipe, workload, gpu, profile_for(gpu), micro, placement, engine)


# -- a micro-step -----------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.sampled_from(METHODS), st.integers(1, 2000), st.integers(1, 64), st.booleans())
def test_more_tokens_rows_layers_or_rank_are_never_faster(
    method: tuple[str, Quantization], length: int, rank: int, checkpointing: bool
) -> None:
    m = find_model("smollm2-135m")
    recipe = Recipe(method=method[0], quant=method[1], rank=rank, gradient_checkpointing=checkpointing)
    base = likely(m, recipe, 1, length)
    assert base <= likely(m, recipe, 1, length + 1) <= base * (1 + 2 / length)
    assert base <= likely(m, recipe, 2, length)
    assert base <= likely(m.model_copy(update={"num_hidden_layers": m.num_hidden_layers + 1}), recipe, 1, length)
    assert base <= likely(m, recipe.model_copy(update={"rank": rank + 1}), 1, length)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method[0])
@pytest.mark.parametrize("name", ["NVIDIA A100-SXM4-80GB", "Tesla T4", "NVIDIA GeForce RTX 4090"])
def test_a_faster_card_is_never_slower(method: tuple[str, Quantization], name: str) -> None:
    gpu = card(name)
    parts = tape(find_model("llama-3.2-1b"), Recipe(method=method[0], quant=method[1]), 1, 512)
    base = micro_step_time(parts, gpu, profile_for(gpu)).seconds
    for field in SPEEDS:
        faster = gpu.model_copy(update={field: 2 * getattr(gpu, field)})
        assert micro_step_time(parts, faster, profile_for(gpu)).seconds.likely <= base.likely, field
    all_faster = gpu.model_copy(update={field: 2 * getattr(gpu, field) for field in SPEEDS})
    assert micro_step_time(parts, all_faster, profile_for(all_faster)).seconds.likely <= base.likely


def test_dora_and_qlora_cost_more_than_lora_on_every_card() -> None:
    m = find_model("llama-3.2-1b")
    runs = {method: tape(m, Recipe(method=method, quant=quant), 1, 1024) for method, quant in METHODS}
    cards = [gpu for gpu in all_gpus() if gpu.speed_known]
    assert len(cards) >= 120
    for gpu in cards:
        times = {name: micro_step_time(run, gpu, profile_for(gpu)).seconds.likely for name, run in runs.items()}
        assert times["lora"] < times["qlora"] < times["qdora"], gpu.name
        assert times["lora"] < times["dora"] < times["qdora"], gpu.name


def test_what_dora_adds_matters_less_with_more_tokens() -> None:
    m = find_model("llama-3.1-8b")
    lora, dora = Recipe(method="lora"), Recipe(method="dora")
    ratios = [likely(m, dora, 1, n) / likely(m, lora, 1, n) for n in (512, 1024, 2048, 4096, 8192, 16384)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 2
    assert ratios[-1] < 1.4


def overhead(m: ModelSpec, modules: tuple[str, ...], length: int) -> float:
    """Card seconds that DoRA adds to LoRA on these modules."""
    found = []
    for method in ("dora", "lora"):
        recipe = Recipe(method=method, target_modules=modules, gradient_checkpointing=False)
        found.append(micro_step_time(tape(m, recipe, 1, length), A100, profile_for(A100)).device_s)
    return found[0] - found[1]


def test_what_dora_adds_is_a_sum_over_modules_and_hardly_depends_on_tokens() -> None:
    m = find_model("llama-3.1-8b")
    both = overhead(m, ("q_proj", "down_proj"), 512)
    assert both == pytest.approx(overhead(m, ("q_proj",), 512) + overhead(m, ("down_proj",), 512), rel=1e-3)
    base, per_token = both, (overhead(m, ("q_proj", "down_proj"), 1024) - both) / 512
    assert 0 < per_token * 512 < 0.2 * base
    assert overhead(m, ("q_proj", "down_proj"), 4096) == pytest.approx(base + per_token * 3584, rel=0.1)


def test_what_dora_adds_comes_once_a_micro_batch() -> None:
    m, work = find_model("llama-3.2-1b"), Workload(seq_len=512, mean_seq_len=512)

    def step(method: Any, accumulation: int) -> float:
        recipe = Recipe(method=method, gradient_accumulation=accumulation)
        micro = micro_step_time(tape(m, recipe, 1, 512), A100, profile_for(A100))
        return time_estimate(m, recipe, work, A100, profile_for(A100), micro, Placement()).step_s.likely

    once, often = (step("dora", n) - step("lora", n) for n in (2, 16))
    assert often == pytest.approx(8 * once, rel=0.01)


def test_doras_ratio_falls_towards_its_limit_per_token() -> None:
    m = find_model("llama-3.2-1b")
    ratios = [
        likely(m, Recipe(method="dora"), 1, n) / likely(m, Recipe(method="lora"), 1, n)
        for n in (2**p for p in range(9, 18))
    ]
    assert ratios == sorted(ratios, reverse=True)
    assert 1 < ratios[-1] < 1.15 < 1.9 < ratios[0]


def test_doras_ratio_rises_as_modules_shrink() -> None:
    whole = find_model("llama-3.1-8b")
    ratios = []
    for divisor in (1, 2, 4, 8, 16):
        m = whole.model_copy(
            update={
                "hidden_size": whole.hidden_size // divisor,
                "intermediate_size": whole.intermediate_size // divisor,
                "num_attention_heads": max(1, whole.num_attention_heads // divisor),
                "num_key_value_heads": max(1, whole.num_key_value_heads // divisor),
            }
        )
        ratios.append(likely(m, Recipe(method="dora"), 4, 2048) / likely(m, Recipe(method="lora"), 4, 2048))
    assert ratios == sorted(ratios)
    assert ratios[-1] > 1.2 * ratios[0]


def test_recomputation_does_not_count_as_used_flop() -> None:
    m = find_model("llama-3.2-1b")
    plain, again = (
        micro_step_time(tape(m, Recipe(method="lora", gradient_checkpointing=on), 1, 512), A100, profile_for(A100))
        for on in (False, True)
    )
    assert again.flop == pytest.approx(plain.flop, rel=0.02)  # checkpointing carries gradients to the embedding, too
    assert again.seconds.likely > 1.2 * plain.seconds.likely


def test_hooks_and_the_engine_have_their_own_launch_cost() -> None:
    m, profile = find_model("smollm2-135m"), profile_for(A100)
    plain, hooked, reentrant = (
        micro_step_time(tape(m, Recipe(method="lora", **knobs), 1, 16), A100, profile)
        for knobs in ({"gradient_checkpointing": False}, {}, {"reentrant": True})
    )
    assert plain.kernel_count * profile.backward_launch_s < plain.launch_s
    assert plain.launch_s < plain.kernel_count * profile.forward_launch_s + profile.micro_step_s
    assert reentrant.launch_s < hooked.launch_s
    assert launch_seconds(Launches(3, 5, 2), profile) == pytest.approx(
        3 * profile.forward_launch_s + 5 * profile.backward_launch_s + 2 * profile.hook_s
    )


def test_a_device_that_is_its_own_host_takes_the_sum() -> None:
    loads = [(5.0, 1.0), (1.0, 3.0)]
    assert queue_seconds(loads, asynchronous=False) == 10.0


def test_energy_lies_between_idle_and_the_power_limit() -> None:
    found = estimate(Recipe(method="lora"), Workload(examples=160, seq_len=512))
    assert found.energy_j is not None
    for joules, seconds in zip(found.energy_j, found.total_s, strict=True):
        assert 0.2 * A100.power_w * seconds <= joules <= A100.power_w * seconds * (1 + 1e-9)
    assert estimate(Recipe(method="lora"), Workload(), A100.model_copy(update={"power_w": 0.0})).energy_j is None
    assert 0 < found.mfu < 0.7


def test_no_card_does_more_than_its_data_sheet() -> None:
    """Of 16-bit adapters as wide as the fp32 model that carries them, each product at its own dtype's peak."""
    recipe = Recipe(method="dora", rank=4096, base_dtype="float32", adapter_dtype="bfloat16", autocast=False)
    found = estimate(recipe, Workload(examples=16, seq_len=2048))
    assert found.flop_per_step > found.step_s.likely * A100.fp32_flop_per_s
    assert 0.05 < found.mfu < 0.7


def test_what_binds_follows_from_the_work() -> None:
    small, large = find_model("smollm2-135m"), find_model("llama-3.1-8b")
    lora = Recipe(method="lora")
    assert micro_step_time(tape(small, lora, 1, 32), A100, profile_for(A100)).bound == "launch"
    assert micro_step_time(tape(large, lora, 2, 2048), A100, profile_for(A100)).bound == "compute"
    assert micro_step_time(tape(large, Recipe(method="dora"), 1, 512), A100, profile_for(A100)).bound == "memory"


def test_a_mask_makes_the_interval_wider() -> None:
    m, recipe, length = find_model("llama-3.2-3b"), Recipe(method="lora"), 4096

    def widths(padded: bool) -> tuple[float, float]:
        program = step_program(m, recipe, 2, length, "cuda", padded=padded, capability="8.0")
        times = micro_step_time(program.kernels(2, length, recipe.rank), A100, profile_for(A100)).seconds
        return times.low / times.likely, times.high / times.likely

    spread = profile_for(A100).device_spread
    (low, high), (masked_low, masked_high) = widths(padded=False), widths(padded=True)
    assert (low, high) == pytest.approx((spread.low, spread.high), rel=0.02)
    assert masked_low < low - 0.02
    assert masked_high > high + 0.02


def test_copies_count_as_layers() -> None:
    m = find_model("llama-3.2-1b")
    parts = tape(m, Recipe(method="lora", gradient_checkpointing=False), 1, 256)
    time = micro_step_time(parts, A100, profile_for(A100))
    assert time.kernel_count == sum(copies * times for copies, kernels, *_ in parts for _, times in kernels)
    assert time.kernel_count > m.num_hidden_layers * 100


# -- the optimizer ----------------------------------------------------------------------------------------------


def test_optimizer_traffic_by_hand() -> None:
    shapes = [Trained(1000, 1000, 3, "bfloat16"), Trained(1000, 0, 2, "bfloat16")]
    parameter_bytes = 2 * (3_000_000 + 2_000)
    assert optimizer_work(shapes, "adamw").moved_bytes == (3 + 7) * parameter_bytes
    assert optimizer_work(shapes, "sgd").moved_bytes == (3 + 3) * parameter_bytes
    eight_bit, fused = optimizer_work(shapes, "adamw_8bit"), optimizer_work(shapes, "adamw")
    assert eight_bit.launches - fused.launches == pytest.approx(5, abs=2)


def test_foreach_is_slower_than_fused_and_sgd_faster() -> None:
    m = find_model("llama-3.2-1b")
    times = {
        name: optimizer_step_time(m, Recipe(method="full", optimizer=name), A100, profile_for(A100)).seconds.likely
        for name in ("sgd", "adamw", "adamw_foreach", "adafactor")
    }
    assert times["sgd"] < times["adamw"] < times["adamw_foreach"] < times["adafactor"]
    adapters = optimizer_step_time(m, Recipe(method="lora"), A100, profile_for(A100)).seconds.likely
    assert adapters < 0.2 * times["adamw"]


# -- the job ----------------------------------------------------------------------------------------------------


def test_packed_rows_take_fewer_steps() -> None:
    recipe = Recipe(method="lora", micro_batch=4)
    work = Workload(examples=1000, seq_len=2048, mean_seq_len=512)
    packed = work.model_copy(update={"packing": True})
    assert step_count(work, recipe, Placement()) == 250
    assert step_count(packed, recipe, Placement()) == 63  # 250 full rows
    assert step_count(packed, recipe, Placement(gpus=4, sharding="ddp")) == 16


def test_an_absurd_job_has_a_finite_answer() -> None:
    found = estimate(Recipe(method="lora"), Workload(examples=10**12, epochs=10_000))
    assert math.isfinite(found.total_s.high)
    assert found.steps == 10**16
    assert found.total_s.low < found.total_s.likely < found.total_s.high
    assert estimate(Recipe(method="lora"), Workload(examples=1, epochs=0.001)).steps == 1


def test_the_terms_of_a_step_add_up() -> None:
    m, recipe = find_model("smollm2-135m"), Recipe(method="lora", micro_batch=2, gradient_accumulation=4)
    work = Workload(examples=80, seq_len=256, mean_seq_len=256)
    found = estimate(recipe, work)
    optimizer = optimizer_step_time(m, recipe, A100, profile_for(A100)).seconds
    assert found.step_s.likely == pytest.approx(4 * found.micro_step_s.likely + optimizer.likely)
    assert found.steps == 10
    assert found.total_s.high == pytest.approx(10 * found.step_s.high)
    assert found.tokens_per_s == pytest.approx(8 * 256 / found.step_s.likely)


def test_more_cards_finish_sooner_but_not_proportionally() -> None:
    recipe, work = Recipe(method="full"), Workload(examples=1600, seq_len=512)
    one = estimate(recipe, work).total_s.likely
    four = estimate(recipe, work, placement=Placement(gpus=4, sharding="ddp")).total_s.likely
    assert one / 4 < four < one


def test_a_card_of_unknown_speed_is_refused() -> None:
    with pytest.raises(BadValue, match="GPU file"):
        estimate(Recipe(method="lora"), Workload(), A100.model_copy(update={"memory_bytes_per_s": 0.0}))


def test_the_mean_of_micro_steps_is_that_of_every_part() -> None:
    m, recipe = find_model("smollm2-135m"), Recipe(method="lora")
    short, long = (micro_step_time(tape(m, recipe, 1, length), A100, profile_for(A100)) for length in (256, 4096))
    found = mean_of([(short, 0.25), (long, 0.75)])
    assert found.seconds.likely == pytest.approx(0.25 * short.seconds.likely + 0.75 * long.seconds.likely)
    assert found.flop == pytest.approx(0.25 * short.flop + 0.75 * long.flop)
    assert found.seconds.low < found.seconds.likely < found.seconds.high
    assert mean_of([(short, 1.0)]) is short


@pytest.mark.parametrize(("eval_steps", "steps"), [(0, 63), (10, 10)])
def test_an_evaluation_follows_every_epoch_or_so_many_steps(eval_steps: int, steps: int) -> None:
    workload = Workload(examples=1000, epochs=3, eval_steps=eval_steps)
    recipe = Recipe(method="lora", micro_batch=4, gradient_accumulation=4)
    assert steps_between_evaluations(workload, recipe, Placement()) == steps
