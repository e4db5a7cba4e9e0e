"""The tape against the traced real step, for every architecture: static terms to the byte, peaks within 0.01 %.

Of the methods, checkpointing and autocast each model takes a few in turn. All of them, at two shapes and with both
kinds of checkpointing (an hour): EVERY_COMBINATION=1 make test PYTEST_FLAGS=tests/decoders/test_against_trace.py
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.architectures import architecture_of
from advisor.catalog.config_json import model_from_config
from advisor.catalog.families import all_families
from advisor.costs.memory import predict_step_memory
from advisor.errors import BadValue
from advisor.specs import METHODS, ModelSpec, Recipe, RowKind
from calibrate.compare import predicted_work, traced_work
from calibrate.measurement import Trace
from calibrate.worker.dryrun import trace_step
from tests.decoders.tiny import CONFIGS, SIZES, config, recipe, spec
from tests.every import EVERY_COMBINATION

SHAPE = 2, 49
TOLERANCE = 1e-4
PHASE_TOLERANCE = 1e-3
"""A phase that does not hold the peak: the tape leaves out a few vectors (sums of DoRA's magnitude gradients)."""
ONE_ROW_TOLERANCE = 3e-4
"""The labels of a single row need no contiguous copy, 8 bytes a token, which the tape makes for any batch."""
BYTES_TOLERANCE = 0.035
KERNELS_TOLERANCE = 0.03
KERNELS_ONCE = 16
"""Small kernels that a step launches once, whatever its layers: positions and biases of the early models."""
SWITCHES = list(itertools.product((False, True), (False, True)))
# DoRA is a matter of one linear layer and slow to trace: less often.
COMBINATIONS = [(method, *on) for method in ("full", "lora", "qlora") for on in SWITCHES]
COMBINATIONS += [("dora", False, True), ("dora", True, False), ("qdora", False, False), ("qdora", True, True)]
SHAPES = (SHAPE, (3, 70)) if EVERY_COMBINATION else (SHAPE,)
FEW_TOKENS = 2, 17
"""Of models whose own code loops over tokens: a trace takes as long as it has some."""


def some_combinations(index: int, name: str) -> list[tuple[Any, bool, bool]]:
    """Of all combinations of method, checkpointing and autocast, in turn, one for a family.

    A variant has its turn with padded rows.
    """
    if EVERY_COMBINATION:
        return [(method, *on) for method in METHODS for on in SWITCHES]
    return [] if "-" in name else [COMBINATIONS[(7 * index + 3) % len(COMBINATIONS)]]


def shape_of(m: ModelSpec, shape: tuple[int, int] = SHAPE) -> tuple[int, int]:
    """The shape to trace a model at."""
    return FEW_TOKENS if "mamba1" in m.mixers and shape == SHAPE else shape


def layers_of(name: str) -> int:
    """Enough layers for each kind."""
    if CONFIGS[name].get("num_kv_shared_layers"):
        return int(CONFIGS[name]["num_hidden_layers"])
    if "indexer_types" in CONFIGS[name]:
        return 4
    return 3 if "pattern" in str(CONFIGS[name]) or "sliding" in name else 2


CASES = [
    pytest.param(
        name,
        *combination,
        id="-".join([name, combination[0], *("gc",) * combination[1], *("autocast",) * combination[2]]),
    )
    for index, name in enumerate(CONFIGS)
    for combination in some_combinations(index, name)
]


def static_of(trace: Trace) -> dict[str, int]:
    return {
        "base weights": trace.base_weights_bytes,
        "quantization constants": trace.quantization_bytes,
        "adapters": trace.adapters_bytes,
        "optimizer states": trace.optimizer_states_bytes,
        "buffers": trace.buffers_bytes,
        "batch": trace.inputs_bytes,
    }


def check(
    m: ModelSpec,
    traced: dict[str, Any],
    chosen: Recipe,
    shape: tuple[int, int] = SHAPE,
    tolerance: float = TOLERANCE,
    rows: RowKind = "full",
    unused_bytes: int = 0,
) -> None:
    trace = trace_step(traced, chosen, *shape, name_modules=False, rows=rows)
    predicted = predict_step_memory(m, chosen, *shape, "cpu", padded=rows == "padded", packed=rows == "packed")
    blocks = dict(predicted.static_blocks)
    blocks["optimizer states"] = blocks.get("optimizer states", 0) + blocks.pop("optimizer step counters", 0)
    assert {name: blocks.get(name, 0) for name in static_of(trace)} == static_of(trace)
    for phase in ("forward", "backward"):
        real = trace.phase(phase).peak_bytes
        assert predicted.phase_peaks[phase] == pytest.approx(real, rel=PHASE_TOLERANCE, abs=unused_bytes or None), phase
    assert predicted.peak_bytes == pytest.approx(trace.peak_bytes, rel=tolerance)
    work, found = predicted_work(m, chosen, *shape, rows), traced_work(trace)
    assert work.flop == pytest.approx(found.flop, rel=1e-3)
    assert work.bytes == pytest.approx(found.bytes, rel=BYTES_TOLERANCE)
    assert abs(work.kernels - found.kernels) <= KERNELS_TOLERANCE * found.kernels + KERNELS_ONCE


def test_every_architecture_is_here() -> None:
    of_images = {"mllama_text_model"}  # whose own layers run for rows with images alone: test_vision.py
    assert {c["model_type"] for c in CONFIGS.values()} == set(all_families()) - of_images


@pytest.mark.parametrize(("name", "method", "checkpointing", "autocast"), CASES)
def test_peak_equals_the_trace(name: str, method: str, checkpointing: bool, autocast: bool) -> None:
    layers = layers_of(name)
    m = spec(name, layers)
    kinds = (False, True) if EVERY_COMBINATION and checkpointing else (False,)
    for shape, reentrant in itertools.product(SHAPES, kinds):
        knobs = {"gradient_checkpointing": checkpointing, "autocast": autocast, "reentrant": reentrant}
        check(m, config(name, layers), recipe(m, method, **knobs), shape_of(m, shape))


@pytest.mark.parametrize(
    ("name", "method", "checkpointing", "autocast"),
    [
        pytest.param(name, *COMBINATIONS[(5 * index + 2) % len(COMBINATIONS)], id=name)
        for index, name in enumerate(CONFIGS)
    ],
)
def test_a_padded_batch(name: str, method: str, checkpointing: bool, autocast: bool) -> None:
    layers = 4 if name == "olmo3" else layers_of(name)  # its code makes the mask of a kind of layer that was cut off
    m = spec(name, layers)
    methods = METHODS if EVERY_COMBINATION else (method,)
    switches = SWITCHES if EVERY_COMBINATION else [(checkpointing, autocast)]
    for one, (recomputes, casts) in itertools.product(methods, switches):
        chosen = recipe(m, one, gradient_checkpointing=recomputes, autocast=casts)
        # without a layer that attends its code makes the mask all the same, which nobody holds at the peak
        unused = 5 * 1024 if name == "nemotron_h-experts" else 0
        check(m, config(name, layers), chosen, shape_of(m), rows="padded", unused_bytes=unused)


@pytest.mark.parametrize(
    ("name", "method", "knobs"),
    [
        ("llama", "lora", {"attention": "eager", "autocast": False}),
        ("gemma3-sliding", "full", {"attention": "eager"}),
        ("falcon-rw", "full", {"attention": "eager"}),
        ("smollm3-sliding", "qlora", {"reentrant": True}),
        ("starcoder2-dropout", "lora", {"gradient_checkpointing": False}),
    ],
)
def test_a_padded_batch_with_other_knobs(name: str, method: str, knobs: dict[str, Any]) -> None:
    m = spec(name, 3)
    check(m, config(name, 3), recipe(m, method, **knobs), rows="padded")


PACKED_SHAPE = 1, 98
PACKED = [
    "llama",
    "gemma3-sliding",
    "falcon-7b",
    "opt",
    "gpt2",
    "gpt_bigcode",
    "qwen3_moe",
    "llama4-sliding",
    "lfm2",
    "roberta",
]
CAN_BE_PACKED = [
    name
    for name in CONFIGS
    if architecture_of(CONFIGS[name]["model_type"]).takes_position_ids and "architectures" not in CONFIGS[name]
]


@pytest.mark.parametrize("name", CAN_BE_PACKED if EVERY_COMBINATION else PACKED)
def test_a_packed_batch(name: str) -> None:
    layers = 4 if name == "olmo3" else layers_of(name)
    m = spec(name, layers)
    index = list(CONFIGS).index(name)
    every = [(method, *on) for method in METHODS for on in SWITCHES]
    for method, recomputes, casts in every if EVERY_COMBINATION else [COMBINATIONS[5 * index % len(COMBINATIONS)]]:
        chosen = recipe(m, method, gradient_checkpointing=recomputes, autocast=casts)
        check(m, config(name, layers), chosen, PACKED_SHAPE, ONE_ROW_TOLERANCE, rows="packed")


@pytest.mark.parametrize("name", ["bloom", "mpt"])
def test_a_model_without_position_ids_cannot_be_packed_by_them(name: str) -> None:
    m = spec(name, 1)
    with pytest.raises(BadValue, match=f"{name} in transformers takes no position ids"):
        trace_step(config(name, 1), recipe(m, "lora"), *PACKED_SHAPE, rows="packed")
    assert not architecture_of(m.architecture).takes_position_ids


@pytest.mark.parametrize(
    ("name", "method", "knobs"),
    [
        ("gpt2", "lora", {"target_modules": ("attention",), "dropout": 0.1}),
        ("phi", "dora", {"dropout": 0.1, "autocast": False}),
        ("falcon-40b", "lora", {"adapter_dtype": "bfloat16", "autocast": False}),
        ("llama", "qdora", {"adapter_dtype": "bfloat16", "kbit_upcast": False, "dropout": 0.05}),
        ("qwen2", "dora", {"adapter_dtype": "bfloat16", "magnitude_dtype": "bfloat16", "autocast": False}),
        ("olmo2", "qlora", {"quant": "int8", "gradient_checkpointing": False}),
        ("cohere2", "qlora", {"kbit_upcast": False, "double_quant": False}),
        ("glm", "lora", {"reentrant": True}),
        ("gemma3", "full", {"base_dtype": "float32"}),
        ("stablelm", "full", {"gradient_accumulation": 4}),
        ("smollm3", "lora", {"attention": "eager", "autocast": False}),
        ("granite-dropout", "lora", {"attention": "eager", "gradient_checkpointing": False}),
        ("gpt2", "lora", {"attention": "eager"}),
        ("falcon-7b", "lora", {"attention": "eager", "gradient_checkpointing": False}),
        ("falcon-rw", "full", {"attention": "eager"}),
        ("opt", "lora", {"attention": "eager", "dropout": 0.1, "gradient_checkpointing": False}),
        ("opt-narrow", "qdora", {"target_modules": ("project_in", "fc2"), "dropout": 0.1}),
        ("nemotron", "lora", {"reentrant": True}),
        ("olmo3-sliding", "qlora", {"kbit_upcast": False, "attention": "eager"}),
        ("bloom", "qlora", {"double_quant": False, "gradient_checkpointing": False}),
        ("mpt", "full", {"gradient_accumulation": 4, "autocast": False}),
        ("gptj", "lora", {"adapter_dtype": "bfloat16", "dropout": 0.1}),
        ("gptj", "full", {"reentrant": True}),
        ("mpt", "qlora", {"reentrant": True}),
        ("bloom", "qdora", {"reentrant": True, "autocast": False}),
        ("gemma4-experts-sliding", "lora", {"attention": "eager", "reentrant": True, "autocast": False}),
        ("hunyuan_v1_moe", "dora", {"target_modules": ("all-linear",)}),
        ("hunyuan_v1_moe", "full", {"reentrant": True, "autocast": False}),
        ("glm4_moe", "lora", {"dropout": 0.1, "target_modules": ("all-linear",)}),
        ("phimoe-jitter", "qlora", {"attention": "eager", "gradient_checkpointing": False}),
        ("apertus", "full", {"gradient_accumulation": 4, "base_dtype": "float32"}),
        ("llama4-interleaved", "full", {"attention": "eager", "gradient_checkpointing": False}),
        ("ernie4_5_moe-alone", "qlora", {"kbit_upcast": False, "double_quant": False}),
        ("granitemoeshared", "lora", {"target_modules": ("output_linear",), "adapter_dtype": "bfloat16"}),
        ("llama", "lora", {"target_modules": ("q_proj", "lm_head"), "dropout": 0.1, "gradient_checkpointing": False}),
        ("olmo-tied", "qdora", {"target_modules": ("lm_head",)}),
        ("gemma2", "qlora", {"target_modules": ("down_proj", "lm_head"), "kbit_upcast": False}),
        ("phi", "dora", {"target_modules": ("lm_head", "dense"), "adapter_dtype": "bfloat16", "autocast": False}),
        ("gpt_neox", "lora", {"target_modules": ("lm_head",), "gradient_checkpointing": False, "autocast": False}),
        ("mixtral", "lora", {"target_modules": ("o_proj", "lm_head"), "reentrant": True}),
        ("opt-narrow", "qlora", {"target_modules": ("project_out", "lm_head"), "gradient_accumulation": 4}),
    ],
)
def test_other_knobs(name: str, method: str, knobs: dict[str, Any]) -> None:
    m = spec(name, 2)
    check(m, config(name, 2), recipe(m, method, **knobs))


@pytest.mark.parametrize(
    ("name", "layers", "method", "checkpointing"),
    [
        ("llama", 6, "lora", False),
        ("gemma3-sliding", 7, "full", True),
        ("gemma3-sliding", 7, "qlora", True),
        ("cohere2-sliding", 5, "lora", True),
        ("smollm3-sliding", 6, "full", False),
        ("gemma2", 5, "lora", True),
        ("olmo-tied", 5, "qdora", True),
        ("olmo3-sliding", 5, "lora", False),
        ("exaone4-sliding", 6, "full", True),
        ("mpt", 5, "qlora", True),
        ("gptj", 5, "full", True),
        ("gemma4-experts-sliding", 7, "lora", False),
        ("llama4-interleaved", 6, "full", True),
        ("dots1", 5, "qlora", True),
        ("ernie4_5_moe-alone", 6, "lora", True),
    ],
)
def test_layers_that_are_not_run_are_counted_right(name: str, layers: int, method: str, checkpointing: bool) -> None:
    m = spec(name, layers)
    check(m, config(name, layers), recipe(m, method, gradient_checkpointing=checkpointing))


@pytest.mark.parametrize(
    "name",
    [
        "falcon-7b",
        "gpt2",
        "granite-dropout",
        "gemma2",
        "starcoder2-dropout",
        "bloom",
        "gptj",
        "mpt",
    ],
)
def test_a_single_row_spares_copies(name: str) -> None:
    m = spec(name, 2)
    check(m, config(name, 2), recipe(m, "lora", gradient_checkpointing=False), (1, 97), ONE_ROW_TOLERANCE)


TOWERS: dict[str, dict[str, Any]] = {
    "gemma3": {"text_config": {"model_type": "gemma3_text", "head_dim": 64, **SIZES}},
    "mistral3": {"text_config": {"model_type": "mistral", "head_dim": 32, **SIZES}},
    "qwen2_5_vl": {"tie_word_embeddings": True, **SIZES},
    "qwen3_vl": {
        "text_config": {
            "model_type": "qwen3_vl_text",
            "head_dim": 32,
            **SIZES,
            "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [4, 6, 6]},
        }
    },
}


@pytest.mark.parametrize("wrapper", TOWERS)
def test_the_trace_of_a_multimodal_config_is_that_of_its_text_tower(wrapper: str) -> None:
    traced = {"model_type": wrapper, **TOWERS[wrapper]}
    m = model_from_config(traced, "tiny", "tiny")
    assert m.name == f"tiny (text tower of {wrapper})"
    check(m, traced, recipe(m, "full"))
