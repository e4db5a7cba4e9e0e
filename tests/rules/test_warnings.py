"""Rules that warn: each speaks with this job's own numbers, and is silent just beside."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.advice.sentence import verdict_line
from advisor.catalog import find_model
from advisor.costs.estimation import estimate
from advisor.specs import Estimate, GpuSpec, ModelSpec, Placement, Recipe, Workload
from tests.decoders.tiny import spec
from tests.fakes import MODEL, FakeCatalog, card, fake_estimate


def warned(
    gpu: GpuSpec | None = None, model: ModelSpec = MODEL, estimator: Any = fake_estimate, **knobs: Any
) -> dict[str, str]:
    """Warnings by code, texts of one code joined."""
    advice = advise(model, gpu or card(24), catalog=FakeCatalog(), estimator=estimator, **{"examples": 3000, **knobs})
    assert advice.recommendation is not None
    found: dict[str, str] = {}
    for warning in advice.recommendation.warnings:
        found[warning.code] = f"{found.get(warning.code, '')} {warning.text}".strip()
        assert warning.source
    return found


def test_an_ordinary_job_has_no_warnings() -> None:
    assert warned() == {}


def test_dora_with_dropout() -> None:
    fixed = {"method": "dora", "gradient_checkpointing": False, "micro_batch": 1}
    text = warned(dropout=0.05, **fixed)["ADV101"]
    assert "--dropout 0.05" in text
    assert "of all layers): 2.05 GiB more" in text, "the fake copies 2 bytes of each parameter"
    assert warned(dropout=0.0, **fixed) == {}
    assert "ADV101" not in warned(method="lora", dropout=0.05)


def test_doras_dropout_is_not_mentioned_where_another_method_is_recommended() -> None:
    assert "ADV101" not in warned(gradient_checkpointing=False, micro_batch=1, dropout=0.05, priority="memory")


def test_an_adapter_that_a_fused_kernel_passes_over() -> None:
    granite = spec("granitemoehybrid-dense")
    assert "An adapter on out_proj has no effect: mamba-ssm's kernel" in warned(model=granite)["ADV104"]
    assert "ADV104" not in warned(model=granite, sequence_kernels="torch")
    assert "ADV104" not in warned(model=granite, target_modules="in_proj,q_proj")


def test_qlora_that_saves_nothing() -> None:
    def costly(
        model: ModelSpec, recipe: Recipe, workload: Workload, gpu: GpuSpec, placement: Placement, profile: Any
    ) -> Estimate:
        plain = recipe.model_copy(update={"quant": "none", "method": "lora"}) if recipe.method == "qlora" else recipe
        one = fake_estimate(model, plain, workload, gpu, placement)
        return one.model_copy(update={"recipe": recipe})

    assert "0.00 GiB more than LoRA" in warned(estimator=costly)["ADV102"]
    assert "ADV102" not in warned()


def test_qlora_is_compared_with_lora_as_it_is_spread_itself() -> None:
    """LoRA runs by FSDP2 there, QLoRA as copies: less by 10 GiB a card under the same engine."""
    advice = advise("qwen3-32b", "4xa6000", 10_000, trainer="llamafactory")
    spread = {one.recipe.method: one.sharding for one in advice.candidates}
    assert spread["lora"] != spread["qlora"], "the case has gone: the two are spread alike"
    assert advice.recommendation is not None
    assert "ADV102" not in {one.code for one in advice.recommendation.warnings}


def test_math_attention() -> None:
    t4 = card(16).model_copy(update={"generation": "Turing", "compute_capability": "7.5"})

    def on(capability: str, **knobs: Any) -> dict[str, str]:
        return warned(t4.model_copy(update={"compute_capability": capability}), estimator=estimate, **knobs)

    text = on("7.5", base_dtype="float16", micro_batch=1)["ADV112"]  # a single row has no mask
    assert "memory-efficient attention takes grouped keys only from PyTorch 2.14 on" in text
    assert text.endswith("A fused kernel runs with PyTorch 2.14 or newer.")
    assert "flash-attn library needs compute capability 8.0" in on("7.5", attention="flash")["ADV112"]
    assert "ADV112" not in on("8.0")
    assert "ADV112" not in on("8.6", model=MODEL.model_copy(update={"num_key_value_heads": 32}))


def test_math_attention_without_autocast() -> None:
    l4 = card(24).model_copy(update={"generation": "Ada", "compute_capability": "8.9"})
    text = warned(l4, estimator=estimate, method="qlora", autocast=False)["ADV112"]
    assert "--autocast (" in text
    assert "--attention flash (" in text
    assert "ADV112" not in warned(l4, estimator=estimate, method="qlora")
    assert "ADV112" not in warned(l4, estimator=estimate, method="qlora", autocast=False, attention="flash")


def test_target_names_that_match_nothing() -> None:
    assert "--target-modules q_prj has no effect" in warned(target_modules="q_prj v_proj")["ADV104"]
    assert "one of these names" in warned(target_modules="q_prj,k_prj,v_proj")["ADV104"]
    assert "ADV104" not in warned(target_modules="q_proj,v_proj")
    assert "q_prj" not in warned(card(80), method="full", target_modules="q_prj,v_proj")["ADV104"]


def test_an_adapter_that_the_code_passes_over() -> None:
    gemma = find_model("gemma-3n-e2b")
    text = warned(card(80), gemma, target_modules="q_proj,correction_coefs")["ADV104"]
    assert "An adapter of correction_coefs has no effect" in text
    assert "ADV104" not in warned(card(80), gemma, target_modules="q_proj,prediction_coefs")


def test_a_base_in_fp32() -> None:
    assert "2.05 GiB more here than --base-dtype bfloat16" in warned(method="lora", base_dtype="float32")["ADV103"]
    assert "ADV103" not in warned(method="lora", base_dtype="bfloat16")


@pytest.mark.parametrize(
    ("knobs", "flag"),
    [
        ({"method": "full", "rank": 8}, "--rank"),
        ({"method": "full", "alpha": 8}, "--alpha"),
        ({"method": "full", "target_modules": "nonsense"}, "--target-modules"),
        ({"method": "lora", "double_quant": True}, "--double-quant"),
        ({"method": "dora", "quant": "nf4"}, "--quant"),
        ({"method": "qlora", "quant": "int8", "double_quant": True}, "--double-quant"),
        ({"gradient_checkpointing": False, "reentrant": True}, "--reentrant"),
        ({"sharding": "ddp"}, "--sharding"),
    ],
)
def test_settings_without_effect(knobs: dict[str, Any], flag: str) -> None:
    assert f"{flag} has no effect" in warned(card(80), **knobs)["ADV104"]


@pytest.mark.parametrize(
    "knobs",
    [
        {"rank": 8},
        {"alpha": 8},
        {"double_quant": True},
        {"method": "qlora", "quant": "int8"},
        {"reentrant": True},
        {"sharding": "ddp", "gpus": 2},
    ],
)
def test_settings_with_effect(knobs: dict[str, Any]) -> None:
    assert "ADV104" not in warned(card(80), **knobs)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"packing": True, "padding": "max_length"}, "--padding has no effect with --packing"),
        ({"packing": True, "pad_to_multiple_of": 8}, "--pad-to-multiple-of has no effect with --packing"),
        ({"packing_strategy": "position_ids"}, "--packing-strategy has no effect without --packing"),
        ({"group_by_length": True, "padding": "max_length"}, "--group-by-length has no effect with --padding"),
        (
            {"group_by_length": True, "seq_len": 512, "mean_seq_len": 512},
            "--group-by-length has no effect where all rows have one length",
        ),
        (
            {"pad_to_multiple_of": 8, "padding": "none", "attention": "flash"},
            "--pad-to-multiple-of has no effect with --padding none",
        ),
    ],
)
def test_ways_to_make_micro_batches_without_effect(knobs: dict[str, Any], words: str) -> None:
    assert words in warned(card(80), **knobs)["ADV104"]


@pytest.mark.parametrize(
    "knobs",
    [
        {"group_by_length": True},
        {"pad_to_multiple_of": 8},
        {"padding": "max_length"},
        {"packing": True, "packing_strategy": "position_ids"},
    ],
)
def test_ways_to_make_micro_batches_with_effect(knobs: dict[str, Any]) -> None:
    assert "ADV104" not in warned(card(80), **knobs)


def test_rows_beyond_the_models_positions() -> None:
    assert "2,049 is beyond the 2,048 positions" in warned(seq_len=2049)["ADV105"]
    assert "ADV105" not in warned(seq_len=2048)
    learned = MODEL.model_copy(update={"position": "learned"})
    assert "the run will stop" in warned(model=learned, seq_len=2049)["ADV105"]
    assert "ADV105" not in warned(model=MODEL.model_copy(update={"position": "alibi"}), seq_len=2049)


def test_cards_without_bf16() -> None:
    turing = card(24, "old", generation="Turing", bf16=False)
    assert "fp16 with loss scaling" in warned(turing)["ADV106"]
    assert "emulated" in warned(turing, base_dtype="bfloat16")["ADV106"]
    assert "ADV106" not in warned(card(24))


def test_several_cards_say_what_each_holds_and_what_is_left_out() -> None:
    said = warned(gpus=2)["ADV108"]
    assert "2 cards by DDP" in said
    assert "not included" in said
    assert "ADV108" not in warned(gpus=1)


def test_a_chunked_loss_needs_a_kernel() -> None:
    assert "liger-kernel" in warned(loss="chunked")["ADV109"]
    assert "ADV109" not in warned(loss="full")


MIXTURE = MODEL.model_copy(
    update={
        "architecture": "mixtral",
        "mlp": "experts",
        "num_experts": 4,
        "experts_per_token": 2,
        "expert_size": 512,
        "mlp_names": (),
    }
)


def test_adapters_that_reach_different_layers() -> None:
    text = warned(card(80), MIXTURE)["ADV110"]
    assert "LoRA and QLoRA (" in text
    assert "DoRA and QDoRA (" in text
    assert text.index("LoRA and QLoRA") < text.index("experts and attention") < text.index("DoRA and QDoRA")
    # dropout takes the experts from LoRA as well, names take them from all
    for knobs in ({"dropout": 0.1}, {"target_modules": "attention"}, {"method": "dora"}, {"method": "lora"}):
        assert "ADV110" not in warned(card(80), MIXTURE, **knobs)
    assert "ADV110" not in warned(card(80), MIXTURE.model_copy(update={"architecture": "granitemoe"}))


def test_weights_left_in_16_bits() -> None:
    experts = 22 * 4 * 3 * 512 * 2048
    attention = 22 * (2 * 2048 + 2 * 256) * 2048
    router = 22 * 4 * 2048
    share = attention / (experts + attention + router)
    text = warned(card(80), MIXTURE, method="qlora")["ADV111"]
    assert f"quantizes only {share:.0%}" in text
    assert f"leaves {4 * (experts + router) / 2**30:.2f} GiB as they are" in text
    assert f"--no-kbit-upcast leaves {2 * (experts + router) / 2**30:.2f} GiB" in text
    assert "k-bit" not in warned(card(80), MIXTURE, method="qlora", kbit_upcast=False)["ADV111"]
    falcon = MODEL.model_copy(update={"architecture": "falcon", "fused_qkv": True, "qkv_names": ("query_key_value",)})
    assert "quantizes none of the parameters" in warned(card(80), falcon, method="qdora")["ADV111"]
    assert "ADV111" not in warned(card(80), MIXTURE, method="lora")
    assert "ADV111" not in warned(card(80), method="qlora")


def test_what_is_not_known_is_named_where_it_alone_keeps_a_job_from_fitting() -> None:
    answer = advise("gemma-3-1b", "h100", 3000, trainer="unsloth", method="qlora", seq_len=512)
    assert answer.recommendation is not None
    texts = [one.text for one in answer.recommendation.warnings if one.code == "ADV107"]
    assert len(texts) == 1
    assert "likely fits, but it is not sure; not known: what torch.compile keeps" in texts[0]
    assert "likely fits with" in verdict_line(answer)


def test_kernels_that_do_not_run() -> None:
    unknown = MODEL.model_copy(update={"architecture": "phi"})
    text = warned(model=unknown, estimator=estimate, kernels="liger", method="lora")["ADV113"]
    assert text.startswith("liger_norm, liger_rope, liger_mlp, liger_loss: liger-kernel 0.8.5 does not know phi")
    assert "ADV113" not in warned(estimator=estimate, kernels="liger", method="lora")
