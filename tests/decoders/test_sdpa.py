"""The choice of a kernel against PyTorch's rules, and what each kernel keeps."""

from __future__ import annotations

import pytest

from advisor.architectures import architecture_of
from advisor.catalog.gpus import all_gpus
from advisor.costs.estimation import estimate
from advisor.costs.memory import predict_step_memory
from advisor.decoders.kinds import ALIKE, attention_card, sdpa_calls, sdpa_plan, slides
from advisor.decoders.sdpa import Call, sdpa_kernel
from advisor.decoders.step import step_program
from advisor.specs import GpuSpec, Recipe, Workload
from advisor.terms import TermName
from tests.decoders.tiny import CONFIGS, recipe, spec

OLD, AMPERE, CONSUMER, CUDNN = ("6.0", "6.1", "7.0", "7.5"), ("8.0", "11.0"), ("8.6", "8.7", "8.9", "12.0"), ("9.0",)
CONSUMER_TOO, CUDNN_TOO = ("12.1",), ("10.0", "10.3")
EVERY = (*OLD, *AMPERE, *CONSUMER, *CONSUMER_TOO, *CUDNN, *CUDNN_TOO)
NEW = tuple(card for card in EVERY if card not in OLD)
FLASH = {**dict.fromkeys(NEW, "flash"), **dict.fromkeys((*CUDNN, *CUDNN_TOO), "cudnn")}

# What sdp_utils.cpp (commit 001f694a) makes of a call in PyTorch 2.13, card by card: dtype, width of q, of v, grouped,
# masked, dropout.
RULES: list[tuple[Call, dict[str, str]]] = [
    (Call("bfloat16", 128, 128, False, False), {**dict.fromkeys(OLD, "math"), **FLASH}),
    (Call("bfloat16", 128, 128, True, False), {**dict.fromkeys(OLD, "math"), **FLASH}),
    (Call("float16", 128, 128, False, False), {**dict.fromkeys(OLD, "efficient"), **FLASH}),
    (Call("float16", 64, 64, True, False), {**dict.fromkeys(OLD, "math"), **FLASH}),
    (Call("float32", 128, 128, False, False), dict.fromkeys(EVERY, "efficient")),
    (Call("float32", 128, 128, True, False), dict.fromkeys(EVERY, "math")),
    (
        Call("bfloat16", 128, 128, False, True),
        {
            **dict.fromkeys(OLD, "math"),
            **dict.fromkeys(NEW, "efficient"),
            **dict.fromkeys((*CUDNN, *CUDNN_TOO), "cudnn"),
        },
    ),
    (
        Call("float16", 128, 128, False, True),
        {**dict.fromkeys(EVERY, "efficient"), **dict.fromkeys((*CUDNN, *CUDNN_TOO), "cudnn")},
    ),
    (Call("float32", 80, 80, False, True), dict.fromkeys(EVERY, "efficient")),
    (
        Call("float16", 128, 128, True, True),
        {**dict.fromkeys(EVERY, "math"), **dict.fromkeys((*CUDNN, *CUDNN_TOO), "cudnn")},
    ),
    # wide heads: no cuDNN, and no flash backward on cards with little shared memory
    (Call("bfloat16", 256, 256, True, False), {**dict.fromkeys(OLD, "math"), **dict.fromkeys(NEW, "flash")}),
    (
        Call("bfloat16", 256, 256, False, False, 0.1),
        {
            **dict.fromkeys(OLD, "math"),
            **dict.fromkeys(NEW, "flash"),
            **dict.fromkeys((*CONSUMER, *CONSUMER_TOO), "efficient"),
        },
    ),
    (
        Call("float16", 208, 208, False, False),
        {
            **dict.fromkeys(EVERY, "efficient"),
            **dict.fromkeys((*AMPERE, *CUDNN, *CUDNN_TOO), "flash"),
        },
    ),
    (Call("float16", 512, 512, False, False), dict.fromkeys(EVERY, "efficient")),
    (Call("bfloat16", 512, 512, False, False), {**dict.fromkeys(OLD, "math"), **dict.fromkeys(NEW, "efficient")}),
    # latent attention
    (
        Call("bfloat16", 192, 128, False, False),
        {
            **dict.fromkeys(OLD, "math"),
            **dict.fromkeys(NEW, "efficient"),
            **dict.fromkeys((*CUDNN, *CUDNN_TOO), "cudnn"),
        },
    ),
    # dropout: cuDNN's only in sixteenths
    (
        Call("bfloat16", 128, 128, False, False, 0.1),
        {**dict.fromkeys(OLD, "math"), **dict.fromkeys(NEW, "flash")},
    ),
    (Call("bfloat16", 64, 64, False, False, 0.125), {**dict.fromkeys(OLD, "math"), **FLASH}),
    # widths that matrix units cannot load; flash pads them itself
    (Call("bfloat16", 100, 100, False, True), dict.fromkeys(EVERY, "math")),
    (Call("bfloat16", 100, 100, False, False), {**dict.fromkeys(OLD, "math"), **dict.fromkeys(NEW, "flash")}),
    (
        Call("float16", 100, 100, False, False),
        {**dict.fromkeys(NEW, "flash"), "6.0": "efficient", "6.1": "efficient", "7.0": "math", "7.5": "math"},
    ),
    (Call("float32", 66, 66, False, True), {**dict.fromkeys(NEW, "math"), **dict.fromkeys(OLD, "efficient")}),
]


def nvidia() -> list[GpuSpec]:
    return [gpu for gpu in all_gpus() if not gpu.rocm]


def test_the_rules_name_every_capability_of_the_catalog() -> None:
    cards = nvidia()
    assert len(cards) > 50
    assert {gpu.compute_capability for gpu in cards} <= set(EVERY)
    assert {gpu.compute_capability for gpu in all_gpus() if gpu.rocm} == {""}


@pytest.mark.parametrize(("call", "expected"), RULES, ids=["-".join(map(str, call)) for call, _ in RULES])
def test_every_card_runs_what_pytorch_picks(call: Call, expected: dict[str, str]) -> None:
    assert set(expected) == set(EVERY)
    assert {card: sdpa_kernel(call, card).kernel for card in EVERY} == expected
    for gpu in nvidia():
        assert sdpa_kernel(call, gpu.compute_capability).kernel == expected[gpu.compute_capability]


def test_newer_pytorch_takes_grouped_keys_in_its_memory_efficient_kernel() -> None:
    t4 = Call("float16", 128, 128, True, False)
    assert [sdpa_kernel(t4, "7.5", torch).kernel for torch in ((2, 13), (2, 14))] == ["math", "efficient"]
    assert sdpa_kernel(t4._replace(dtype="bfloat16"), "7.5", (2, 14)).kernel == "math"


def test_older_pytorch_does_not_prefer_cudnn() -> None:
    plain = Call("bfloat16", 128, 128, True, False)
    assert [sdpa_kernel(plain, "9.0", torch).kernel for torch in ((2, 10), (2, 11))] == ["flash", "cudnn"]


def test_a_choice_says_why_in_words() -> None:
    choice = sdpa_kernel(Call("float16", 128, 128, True, False), "7.5")
    assert choice.why == (
        "flash attention needs compute capability 8.0; "
        "memory-efficient attention takes grouped keys only from PyTorch 2.14 on"
    )
    assert [check for _, _, check in choice.refusals] == [
        "check_flash_attention_hardware_support",
        "check_batch_size_and_num_heads_dense",
    ]
    assert sdpa_kernel(Call("bfloat16", 128, 128, True, False), "8.0").why == ""


def test_cards_that_pick_alike_share_a_recording() -> None:
    m, chosen = spec("llama"), recipe(spec("llama"), "lora", autocast=True)
    cards = {gpu.compute_capability: attention_card(m, chosen, 100, gpu) for gpu in nvidia()}
    assert {card for capability, card in cards.items() if capability >= "8"} | {cards["9.0"]} == {""}
    assert {cards[card] for card in OLD} <= set(ALIKE)
    programs = {step_program(m, chosen, 2, 100, "cuda", capability=card) for card in ("", "8.0", "8.9", "9.0", "12.0")}
    assert len(programs) == 1
    assert sdpa_plan(m, chosen, "7.5", False, False) == sdpa_plan(m, chosen, "7.0", False, False)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_plan_knows_every_call_that_is_recorded(autocast: bool, padded: bool) -> None:
    recorded = 0
    for name in CONFIGS:
        m = spec(name, 3)
        chosen = recipe(m, "lora", autocast=autocast, gradient_checkpointing=False)
        masked = padded or slides(m, 64) or architecture_of(m.architecture).always_makes_mask
        calls = step_program(m, chosen, 2, 64, "cuda", padded=padded, capability="8.9").calls
        assert set(calls) <= set(sdpa_calls(m, chosen, masked)), name
        recorded += len(calls)
    assert recorded > len(CONFIGS) / 2


def peak(chosen: Recipe, capability: str, *, batch: int = 2, length: int = 256, padded: bool = False) -> int:
    m = spec("llama")
    return predict_step_memory(m, chosen, batch, length, capability=capability, padded=padded).after_forward_bytes


def test_math_attention_keeps_every_score_in_fp32() -> None:
    m, length = spec("llama"), 256
    chosen = recipe(m, "lora", gradient_checkpointing=False, autocast=True)
    scores = 4 * 2 * m.num_attention_heads * length * length
    extra = peak(chosen, "7.5") - peak(chosen, "8.0")
    layers = m.num_hidden_layers
    assert layers * scores < extra < layers * 1.6 * scores  # fp32 copies of q, k and v as well


def test_a_padding_mask_costs_a_bias_and_repeated_keys_in_each_layer() -> None:
    m, length = spec("llama"), 256
    chosen = recipe(m, "lora", gradient_checkpointing=False, autocast=True)
    repeated = 2 * (m.num_attention_heads - m.num_key_value_heads) * m.head_dim * 2 * length * 2
    per_layer = 2 * 2 * length * length + repeated
    for card in ("8.0", "8.9", "9.0"):
        # beside the input's own mask, and the bool mask until the forward returns
        assert peak(chosen, card, padded=True) - peak(chosen, card) == m.num_hidden_layers * per_layer + 8 * 2 * length


def test_flash_attn_gathers_padded_rows_and_keeps_no_mask() -> None:
    m, length = spec("llama"), 256
    chosen = recipe(m, "lora", gradient_checkpointing=False, autocast=True).model_copy(update={"attention": "flash"})
    tokens = 2 * length
    more = peak(chosen, "8.0", padded=True) - peak(chosen, "8.0")
    # where the tokens that count are; the output with its padding takes the place of a copy in another layout
    assert more == m.num_hidden_layers * 8 * tokens + 8 * tokens


def test_fp32_activations_run_math_attention_on_any_card() -> None:
    m = spec("llama")
    chosen = recipe(m, "full", gradient_checkpointing=False, base_dtype="float32", autocast=False)
    assert peak(chosen, "8.0") > peak(chosen, "") + m.num_hidden_layers * 4 * 2 * m.num_attention_heads * 256**2


def test_the_estimate_asks_for_the_kernels_of_its_card() -> None:
    m = spec("llama")
    chosen = recipe(m, "lora", gradient_checkpointing=False, base_dtype="float16", micro_batch=2, autocast=True)
    workload = Workload(seq_len=256, mean_seq_len=256)
    by_card = {gpu.name: gpu for gpu in all_gpus()}
    t4, l4 = (
        estimate(m, chosen, workload, by_card[name]).memory.bytes_of(TermName.SAVED_ACTIVATIONS)
        for name in ("Tesla T4", "NVIDIA L4")
    )
    assert t4 > 1.5 * l4
