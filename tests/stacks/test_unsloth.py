"""Unsloth's stack: what decides which code runs, what waits in the host's memory, and that nothing unknown fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

import pytest

from advisor import stacks
from advisor.advice.advise import advise
from advisor.advice.job import verdict_of
from advisor.blocks import pinned_bytes
from advisor.catalog.gpus import find_gpus
from advisor.catalog.models import find_model
from advisor.costs.estimation import estimate
from advisor.costs.memory import StepMemory, predict_step_memory
from advisor.decoders import step
from advisor.decoders.kinds import layer_kinds
from advisor.decoders.linear import Linear
from advisor.decoders.stack import Stack
from advisor.libraries import libraries_of
from advisor.specs import Estimate, KernelSet, LinearShape, ModelSpec, Recipe, Workload
from advisor.stacks import stack_for
from advisor.stacks.unsloth import Unsloth
from advisor.stacks.unsloth_lora import fuses
from advisor.stacks.unsloth_loss import LossForm, chunk_rows, fixed_form, split_count
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape
from advisor.terms import TermName
from advisor.units import GIB, MIB
from tests.decoders.tiny import recipe, spec

NEWEST = "unsloth-2026.10"
ROWS = Workload(seq_len=2048, mean_seq_len=2048)


def asked(method: str = "qlora", version: str = NEWEST, **knobs: Any) -> Recipe:
    quant = {"quant": "nf4", "double_quant": True} if method.startswith("q") else {}
    own = {"kbit_upcast": False, "stack": (version,), "offload": "activations", "loss": "chunked", **quant}
    return Recipe(**{"method": method, "gradient_checkpointing": True, "reentrant": True, **own, **knobs})


def shaped(m: ModelSpec, chosen: Recipe, gpu: str, batch: int = 1, length: int = 2048) -> Unsloth:
    stack = stack_for(chosen, find_gpus(gpu)[0], ROWS).shaped(m, chosen, batch, length)
    assert isinstance(stack, Unsloth)
    return stack


def costs(model: str, gpu: str, chosen: Recipe, length: int = 2048) -> Estimate:
    return estimate(find_model(model), chosen, Workload(seq_len=length, mean_seq_len=length), find_gpus(gpu)[0])


# -- the loss --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "hidden", "vocabulary", "chunk"),
    [
        (512, 4096, 128_256, 512),
        (16_384, 4096, 128_256, 512),
        (16_384, 2048, 128_256, 512),
        (65_536, 4096, 128_256, 2048),
        (8192, 4096, 151_936, 512),
        (8192, 3584, 262_144, 512),
        (8192, 4096, 32_000, 2048),
        (65_536, 4096, 32_000, 4096),
        (100, 4096, 32_000, 100),
    ],
)
def test_rows_of_a_chunk_are_what_unsloths_function_gave(rows: int, hidden: int, vocabulary: int, chunk: int) -> None:
    assert chunk_rows(rows, hidden, vocabulary, 4) == chunk


@pytest.mark.parametrize(
    ("scored", "frozen", "small", "ampere", "form"),
    [
        (8192, True, False, True, LossForm("tiled", 4096)),
        (4096, True, False, True, LossForm("tiled")),
        (4095, True, False, True, LossForm("chunked", 512)),
        (300, True, True, True, LossForm("tiled")),
        (300, True, True, False, LossForm("chunked")),
        (8192, False, False, True, LossForm("chunked", 512)),
    ],
)
def test_a_frozen_head_is_tiled_on_a_small_card_or_for_many_rows(
    scored: int, frozen: bool, small: bool, ampere: bool, form: LossForm
) -> None:
    assert fixed_form(scored, 4096, 151_936, frozen, small, ampere) == form


def test_splits_are_multiples_of_four_or_one() -> None:
    assert split_count(2048, 128_256, GIB) == 1
    assert split_count(8192, 128_256, GIB) == 4
    assert split_count(65_536, 128_256, GIB) == 32
    assert split_count(65_536, 128_256, 40 * GIB) == 1


@pytest.mark.parametrize(
    ("version", "gpu", "length", "kind"),
    [
        ("unsloth-2024.9", "h100", 4096, "full"),
        ("unsloth-2025.3", "h100", 1024, "full"),
        ("unsloth-2025.3", "h100", 1025, "cut"),
        ("unsloth-2025.3", "t4", 4096, "full"),
        ("unsloth-2025.8", "h100", 4096, "split"),
        ("unsloth-2025.11", "h100", 4096, "split"),
        (NEWEST, "h100", 2048, "chunked"),
        (NEWEST, "rtx4090", 2048, "tiled"),
        (NEWEST, "t4", 8192, "chunked"),
    ],
)
def test_which_loss_runs(version: str, gpu: str, length: int, kind: str) -> None:
    chosen = asked(version=version)
    assert shaped(find_model("llama-3.1-8b"), chosen, gpu, length=length).form.kind == kind


def test_the_rule_of_late_2025_took_all_logits_at_once_where_memory_is_free() -> None:
    m = find_model("llama-3.1-8b")
    assert shaped(m, asked(version="unsloth-2025.11"), "h100", 1, 16_384).form == LossForm("split")
    assert shaped(m, asked(version="unsloth-2025.8"), "h100", 1, 16_384).form == LossForm("split", 2048)


def test_the_loss_of_today_does_not_grow_with_the_rows_as_full_logits_do() -> None:
    peaks = {}
    for loss in ("chunked", "full"):
        found = [costs("llama-3.2-1b", "h100", asked(loss=loss), length) for length in (8192, 16_384)]
        peaks[loss] = found[1].memory.peak_allocated_bytes.likely - found[0].memory.peak_allocated_bytes.likely
    assert peaks["full"] - peaks["chunked"] > 8192 * 128_256 * 2


# -- fused LoRA ------------------------------------------------------------------------------------------------


def layer(bias: bool = False, **knobs: Any) -> Linear:
    chosen = asked(**knobs)
    shape = LinearShape(name="q_proj", in_features=8, out_features=8, bias=bias)
    return Linear(shape, chosen, 4, chosen.quant, chosen.base_dtype)


def test_what_makes_fused_lora_decline() -> None:
    t, x = Tape("cuda", "bfloat16"), Tensor((1, 4, 8), "bfloat16", needs_grad=True)
    assert fuses(t, x, [layer(), layer()], drops_inside=True)
    declined = (layer(bias=True), layer(method="qdora"), layer(quant="int8", double_quant=False))
    for other in (*declined, layer(method="lora", base_dtype="float32")):
        assert not fuses(t, x, [layer(), other], drops_inside=True)
    bare = layer()
    bare.lora_a = bare.lora_b = None
    assert not fuses(t, x, [layer(), bare], drops_inside=True)
    assert fuses(t, x, [layer(dropout=0.1)], drops_inside=True)
    assert not fuses(t, x, [layer(dropout=0.1)], drops_inside=False)
    assert not fuses(t, Tensor(x.shape, "float32", needs_grad=True), [layer()], drops_inside=True)


def test_fused_lora_keeps_less_than_pefts() -> None:
    m = find_model("llama-3.2-1b")
    fused, peft = (
        costs("llama-3.2-1b", "h100", asked(method, gradient_checkpointing=False, offload="none")).memory
        for method in ("lora", "dora")
    )
    saved = [one.bytes_of(TermName.SAVED_ACTIVATIONS) for one in (fused, peft)]
    assert m.num_hidden_layers * 2048 * m.hidden_size * 4 < saved[1] - saved[0]


def test_decoded_weights_go_through_one_buffer_as_large_as_the_largest_that_is_fused() -> None:
    m = find_model("llama-3.1-8b")
    buffer = 2 * m.hidden_size * m.intermediate_size
    found = {
        targets: shaped(m, chosen, "h100").standing_bytes(m, chosen, 1, 2048)
        for targets in (("all-linear",), ("attention",), ("q_proj", "v_proj"))
        for chosen in [asked(target_modules=targets)]
    }
    staging = (2 * 2048 * m.hidden_size,) * 2
    assert found["all-linear",] == (*staging, buffer)
    assert found["attention",] == (*staging, 2 * m.hidden_size * m.hidden_size)
    assert found["q_proj", "v_proj"] == staging
    for knobs in ({"method": "lora"}, {"method": "qdora"}, {"dropout": 0.1}):
        chosen = asked(**knobs)
        assert shaped(m, chosen, "h100").standing_bytes(m, chosen, 1, 2048) == staging


# -- checkpoints in the host's memory -----------------------------------------------------------------------


def moving(name: str, layers: int, chosen: Recipe, **fields: Any) -> StepMemory:
    m = spec(name, layers)
    stack = replace(Unsloth(libraries=libraries_of((NEWEST,))).shaped(m, chosen, 2, 48), **fields)
    return predict_step_memory(m, chosen, 2, 48, "cuda", stack)


def test_inputs_of_all_layers_but_the_last_wait_in_the_host() -> None:
    m, chosen = find_model("llama-3.1-8b"), asked()
    hosted, plain = costs(m.name, "h100", chosen).memory, costs(m.name, "h100", asked(offload="none")).memory
    one = 2 * 2048 * m.hidden_size
    assert hosted.host_bytes == 31 * pinned_bytes(one) == 31 * one
    assert plain.host_bytes == 0
    freed = plain.peak_allocated_bytes.likely - hosted.peak_allocated_bytes.likely
    gradients = hosted.bytes_of(TermName.GRADIENTS) - plain.bytes_of(TermName.GRADIENTS)
    assert freed + gradients == pytest.approx(29 * one, rel=0.02)  # two staging buffers are held in their place


def test_pinned_blocks_are_powers_of_two() -> None:
    assert [pinned_bytes(size) for size in (1, 2, 3, 4096, 4097)] == [1, 2, 4, 4096, 8192]


def test_short_rows_and_small_inputs_stay_on_the_card() -> None:
    m, chosen = find_model("llama-3.2-1b"), asked()
    assert not costs(m.name, "h100", chosen, 511).memory.host_bytes
    assert 2 * 512 * m.hidden_size == 2 * MIB
    assert not costs(m.name, "h100", chosen, 512).memory.host_bytes
    assert costs(m.name, "h100", chosen, 513).memory.host_bytes


def test_inputs_in_fp32_wait_in_16_bits() -> None:
    chosen = asked("full", base_dtype="float32", autocast=False)
    half = asked("full", autocast=False)
    assert moving("gpt2", 3, chosen, hosts=True).host_bytes == moving("gpt2", 3, half, hosts=True).host_bytes > 0


def test_copies_take_time_only_where_they_are_longer_than_the_layer() -> None:
    hosted, plain = (costs("llama-3.1-8b", "h100", asked(offload=offload)) for offload in ("activations", "none"))
    assert hosted.time is not None
    assert plain.time is not None
    assert plain.time.step_s.likely < hosted.time.step_s.likely < 1.05 * plain.time.step_s.likely
    assert hosted.time.step_s.high >= plain.time.step_s.high


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma", "mistral", "gpt2"])
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_running_one_layer_of_each_kind_equals_running_all(
    name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(spec(name), method, stack=(NEWEST,), offload="activations", kbit_upcast=False)  # type: ignore[arg-type]

    def found() -> list[tuple[int, dict[str, int], int]]:
        step.forget_recordings()
        made = (moving(name, layers, chosen, hosts=True) for layers in (3, 5))
        return [(one.peak_bytes, one.phase_peaks, one.host_bytes) for one in made]

    short = found()
    every = lambda m, chosen, last_apart=False, early=0: [(kind, 1) for kind in layer_kinds(m, chosen)]  # noqa: E731
    monkeypatch.setattr(step, "layer_plan", every)
    assert short == found()
    step.forget_recordings()


# -- cards, rows, models -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "padding", "repeats"),
    [
        ("t4", "longest", True),
        ("t4", "none", True),
        ("rtx4090", "longest", True),
        ("rtx4090", "none", False),
        ("h100", "longest", False),
        ("rtx5090", "longest", False),
    ],
)
def test_xformers_gets_keys_and_values_for_every_head(gpu: str, padding: Any, repeats: bool) -> None:
    m, chosen = find_model("llama-3.1-8b"), asked()
    stack = stack_for(chosen, find_gpus(gpu)[0], ROWS.model_copy(update={"padding": padding}))
    found = stack.shaped(m, chosen, 1, 2048)
    assert isinstance(found, Unsloth)
    assert found.repeats is repeats
    assert found.keeps_apart is (padding == "none")


def test_cards_that_decide_alike_share_a_recording() -> None:
    m, chosen = find_model("llama-3.1-8b"), asked()
    assert shaped(m, chosen, "rtx4090") == shaped(m, chosen, "rtx3090")
    assert shaped(m, chosen, "rtx4090") != shaped(m, chosen, "h100")
    once = shaped(m, chosen, "h100")
    assert once.shaped(m, chosen, 1, 2048) is once


def test_a_window_makes_no_mask_where_the_kernel_knows_it() -> None:
    m, chosen = find_model("mistral-7b-v0.1"), asked()
    assert m.sliding_window == 4096
    for gpu, padding, masked in (("rtx4090", "longest", False), ("h100", "none", False), ("h100", "longest", True)):
        rows = Workload(seq_len=8192, mean_seq_len=8192, padding=padding)  # type: ignore[arg-type]
        found = estimate(m, chosen, rows, find_gpus(gpu)[0])
        assert [use.masked for use in found.evidence.attention] == [masked]


@dataclass(frozen=True)
class Renamed(Stack):
    """Kernels laid over a trainer's own code."""

    @property
    def name(self) -> str:
        """Of both."""
        return f"other kernels over {super().name}"


def test_kernels_are_laid_over_it_and_its_own_are_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{__name__}:Renamed"
    kernels = next(name for name in get_args(KernelSet) if name != "liger")
    monkeypatch.setattr("advisor.stacks.KERNELS", {"activations": "no.such:Module", kernels: where})
    m, chosen = find_model("llama-3.1-8b"), asked(kernels=(kernels,))
    stacks._stack.cache_clear()
    found = shaped(m, chosen, "rtx4090")
    stacks._stack.cache_clear()
    assert found.name.startswith("other kernels over Unsloth 2026.10")
    assert found.form.kind == "tiled"
    assert found.hosts


def test_padding_makes_no_mask() -> None:
    chosen = asked(micro_batch=4)
    rows = Workload(seq_len=1024, mean_seq_len=300, padding="longest")
    found = estimate(find_model("llama-3.1-8b"), chosen, rows, find_gpus("rtx4090")[0])
    assert [use.masked for use in found.evidence.attention] == [False]


def test_t4_computes_in_fp16_by_a_fused_kernel() -> None:
    answer = advise("llama-3.2-1b", "t4", 3000, trainer="unsloth", method="qlora")
    row = answer.candidate("qlora")
    assert row.recipe.base_dtype == "float16"
    assert [use.kernel for use in row.evidence.attention] == ["efficient"]


def test_what_is_compiled_is_unknown_and_never_fits() -> None:
    for model, method in (("gemma-3-1b", "qlora"), ("llama-3.2-1b", "full")):
        found = costs(model, "h100", asked(method))
        assert any("torch.compile" in text for text in found.evidence.unknown)
        assert verdict_of(found, 80 * GIB) == "tight"
    known = costs("llama-3.2-1b", "h100", asked())
    assert not known.evidence.unknown
    assert verdict_of(known, 80 * GIB) == "fits"


def test_experts_are_in_4_bits_under_unsloth_alone() -> None:
    m = find_model("qwen3-30b-a3b")
    own, theirs = (costs(m.name, "h100", asked(stack=stack, rank=1)).memory for stack in ((NEWEST,), ()))
    weights = [one.bytes_of(TermName.BASE_WEIGHTS) for one in (own, theirs)]
    assert weights[0] < 17 * GIB < 50 * GIB < weights[1]
    assert costs("gpt-oss-20b", "h100", asked()).memory.bytes_of(TermName.BASE_WEIGHTS) < 13 * GIB


def test_the_preset_sets_the_stack_and_the_answer_says_what_the_host_holds() -> None:
    answer = advise("llama-3.1-8b", "rtx4090", 3000, trainer="unsloth", method="qlora", seq_len=4096)
    row = answer.candidate("qlora")
    assert row.recipe.stack == (NEWEST, "transformers-5.17", "peft-0.21")
    assert row.recipe.offload == "activations"
    assert row.memory.host_bytes > 0
    assert row.evidence.stack.startswith("Unsloth 2026.10")
