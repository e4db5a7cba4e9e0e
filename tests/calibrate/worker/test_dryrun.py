"""The trace on fake tensors against the same step really executed: equal to the byte."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.errors import BadConfig, BadValue, UnsupportedArchitecture
from advisor.specs import METHODS, QUANTIZED_METHODS, Recipe, RowKind
from calibrate.measurement import Trace
from calibrate.worker.dryrun import real_step, trace_step
from tests.decoders.tiny import config

Configs = dict[str, dict[str, Any]]
SEQ_LEN = 24


def recipe(method: Any, **knobs: Any) -> Recipe:
    if method in QUANTIZED_METHODS:
        knobs.setdefault("quant", "nf4")
    return Recipe(method=method, rank=4, **knobs)


def bytes_of(trace: Trace, census: bool = True) -> dict[str, Any]:
    """Everything that must agree; the position in the timeline is not, for transformers also looks at values."""
    found = trace.model_dump(exclude={"trace_s", "op_counts"} | (set() if census else {"census"}))
    for phase in found["phases"]:
        del phase["move"]
    return found


def both(config: dict[str, Any], chosen: Recipe, rows: RowKind = "full") -> tuple[Trace, Trace]:
    fake = trace_step(config, chosen, 2, SEQ_LEN, census=True, rows=rows)
    return fake, real_step(config, chosen, 2, SEQ_LEN, census=True, rows=rows)


@pytest.mark.parametrize(("method", "on"), list(itertools.product(METHODS, (True, False))))
def test_every_method_equals_the_real_step(tiny: Configs, method: str, on: bool) -> None:
    chosen = recipe(method, gradient_checkpointing=on, autocast=on)
    fake, real = both(tiny["llama"], chosen)
    assert bytes_of(fake) == bytes_of(real)


@pytest.mark.parametrize(("model_type", "rows"), [("llama", "padded"), ("llama", "packed"), ("qwen2", "packed")])
def test_padded_and_packed_rows_equal_the_real_step(tiny: Configs, model_type: str, rows: RowKind) -> None:
    fake, real = both(tiny[model_type], recipe("lora"), rows)
    assert bytes_of(fake) == bytes_of(real)


@pytest.mark.parametrize(
    ("model_type", "method", "knobs"),
    [
        ("qwen2", "qlora", {}),
        ("qwen2", "qdora", {"kbit_upcast": False, "adapter_dtype": "bfloat16"}),
        ("gemma2", "dora", {"attention": "eager", "dropout": 0.1, "gradient_checkpointing": False}),
        ("phi3", "lora", {"base_dtype": "float32"}),
        ("gpt_neox", "lora", {"adapter_dtype": "bfloat16", "autocast": False}),
        ("gpt2", "qlora", {"quant": "fp4", "double_quant": False}),
        ("llama", "qlora", {"quant": "int8", "gradient_checkpointing": False}),
        ("llama", "qlora", {"quant": "int8", "adapter_dtype": "bfloat16", "autocast": False}),
        ("llama", "lora", {"reentrant": True, "target_modules": ("attention",)}),
        ("llama", "lora", {"target_modules": ("q_proj", "v_proj"), "optimizer": "adamw_foreach"}),
        ("llama", "full", {"optimizer": "adafactor"}),
        ("llama", "full", {"optimizer": "sgd", "gradient_accumulation": 4}),
        ("llama", "full", {"optimizer": "adamw_8bit"}),
        ("llama", "full", {"optimizer": "paged_adamw_8bit"}),
        ("llama", "full", {"optimizer": "paged_adamw"}),
    ],
)
def test_knobs_equal_the_real_step(tiny: Configs, model_type: str, method: str, knobs: dict[str, Any]) -> None:
    fake, real = both(tiny[model_type], recipe(method, **knobs))
    assert bytes_of(fake) == bytes_of(real)


def test_reentrant_full_step_equals_the_real_one_but_for_names(tiny: Configs) -> None:
    fake, real = both(tiny["llama"], recipe("full", reentrant=True))
    assert bytes_of(fake, census=False) == bytes_of(real, census=False)


def test_watching_modules_changes_nothing(tiny: Configs) -> None:
    chosen = recipe("dora")
    watched = trace_step(tiny["llama"], chosen, 1, SEQ_LEN)
    alone = trace_step(tiny["llama"], chosen, 1, SEQ_LEN, name_modules=False)
    assert [p.peak_bytes for p in watched.phases] == [p.peak_bytes for p in alone.phases]


def test_step_gives_back_what_it_took(tiny: Configs) -> None:
    trace = trace_step(tiny["llama"], recipe("qdora"), 1, SEQ_LEN, events=True)
    assert trace.phases[-1].end_bytes == trace.after_load_bytes
    assert sum(event.bytes for event in trace.events) == 0


def test_census_adds_up_to_the_peak(tiny: Configs) -> None:
    trace = trace_step(tiny["llama"], recipe("lora"), 1, SEQ_LEN, census=True)
    assert sum(row.bytes for row in trace.census) == trace.peak_bytes
    adapters = sum(row.bytes for row in trace.census if row.category == "adapters")
    assert adapters == trace.adapters_bytes


def test_accumulation_keeps_gradients(tiny: Configs) -> None:
    once = trace_step(tiny["llama"], recipe("full"), 1, SEQ_LEN)
    often = trace_step(tiny["llama"], recipe("full", gradient_accumulation=2), 1, SEQ_LEN)
    assert often.after_load_bytes - once.after_load_bytes == once.base_weights_bytes


def test_static_bytes_of_a_published_model() -> None:
    """Llama 3.2 1B has 1,235,814,400 parameters (its model card); 16 layers of 9 tensors and 2 outside of them."""
    config = {
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    }
    trace = trace_step(config, recipe("full"), 1, 8)
    assert trace.trainable_parameters == 1_235_814_400
    assert trace.base_weights_bytes == 2 * 1_235_814_400
    assert trace.optimizer_states_bytes == 4 * 1_235_814_400 + 512 * (16 * 9 + 2)


def test_a_chunked_loss_is_of_next_tokens(tiny: Configs) -> None:
    pytest.importorskip("trl")
    with pytest.raises(BadValue, match="it is TRL's loss of next tokens, not of BertForMaskedLM"):
        trace_step(config("bert"), Recipe(method="full", loss="chunked"), 1, SEQ_LEN)
    with pytest.raises(BadValue, match="must be full here"):
        real_step(tiny["llama"], Recipe(method="full", loss="chunked"), 1, SEQ_LEN)


def test_layers_cut_the_model(tiny: Configs) -> None:
    one = trace_step(tiny["llama"], recipe("lora"), 1, SEQ_LEN, layers=1)
    two = trace_step(tiny["llama"], recipe("lora"), 1, SEQ_LEN)
    assert one.adapters_bytes * 2 == two.adapters_bytes


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (Recipe(method="lora", attention="flash"), "flash"),
        (Recipe(method="lora", loss="chunked", target_modules=("query",)), "query"),
        (Recipe(method="qdora", quant="int8"), "int8"),
        (Recipe(method="qlora"), "quant of method qlora"),
        (Recipe(method="qlora", quant="gptq"), "which bitsandbytes makes"),
        (Recipe(method="full", quant="nf4"), "quant of method full"),
        (Recipe(method="lora", target_modules=("query",)), "query"),
    ],
)
def test_what_cannot_run_is_refused(tiny: Configs, chosen: Recipe, words: str) -> None:
    with pytest.raises(BadValue, match=words) as refusal:
        trace_step(tiny["llama"], chosen, 1, SEQ_LEN)
    assert "\n" not in str(refusal.value)


def test_attention_that_an_architecture_lacks_is_refused(tiny: Configs) -> None:
    with pytest.raises(BadValue, match="--attention eager"):
        trace_step(tiny["gemma2"], recipe("lora", attention="sdpa"), 1, SEQ_LEN)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, BadConfig),
        ({"model_type": 7}, BadConfig),
        ({"model_type": "no_such_model"}, UnsupportedArchitecture),
        ({"model_type": "vit"}, UnsupportedArchitecture),
        ({"model_type": "whisper"}, UnsupportedArchitecture),
        ({"model_type": "llama", "hidden_size": "wide"}, BadConfig),
    ],
)
def test_configs_that_cannot_be_used(config: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        trace_step(config, recipe("lora"), 1, SEQ_LEN)
