"""The script for Unsloth: it compiles, asks for what Unsloth's functions take, and says what they do not."""

from __future__ import annotations

import ast
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.advice.advise import advise
from advisor.answer import DataFile
from advisor.checkpoints import Checkpoint
from advisor.errors import BadValue, InputError
from advisor.export.run import Run
from advisor.export.training_file import training_file
from advisor.export.unsloth import write
from advisor.optimizers import OPTIMIZERS
from advisor.specs import METHODS, QUANTIZED_METHODS, Method, Recipe, Workload
from tests.export.test_configs import SAID, recipe_of
from tests.export.test_transformers import assert_whole, assigned, calls, files
from tests.fakes import MODEL

FROM_PRETRAINED = [
    "model_name",
    "max_seq_length",
    "dtype",
    "load_in_4bit",
    "load_in_8bit",
    "load_in_16bit",
    "full_finetuning",
    "token",
    "device_map",
    "device_map_planner_kwargs",
    "rope_scaling",
    "fix_tokenizer",
    "trust_remote_code",
    "use_gradient_checkpointing",
    "resize_model_vocab",
    "revision",
    "use_exact_model_name",
    "offload_embedding",
    "float32_mixed_precision",
    "fast_inference",
    "gpu_memory_utilization",
    "float8_kv_cache",
    "random_state",
    "max_lora_rank",
    "disable_log_stats",
    "qat_scheme",
    "load_in_fp8",
    "unsloth_tiled_mlp",
    "text_only",
    "on_model_resolved",
]
"""Source: unsloth 2026.10.9, models/loader.py, FastLanguageModel.from_pretrained."""
FROM_KWARGS = ["quantization_config"]
"""What it reads of its **kwargs. Source: the same function."""
GET_PEFT_MODEL = [
    "model",
    "r",
    "target_modules",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "layers_to_transform",
    "layers_pattern",
    "finetune_last_n_layers",
    "use_gradient_checkpointing",
    "random_state",
    "max_seq_length",
    "use_rslora",
    "modules_to_save",
    "init_lora_weights",
    "loftq_config",
    "temporary_location",
    "qat_scheme",
    "target_parameters",
    "ensure_weight_tying",
    "offload_layers",
    "checkpoint_skip_layers",
]
"""Source: unsloth 2026.10.9, models/llama.py, FastLlamaModel.get_peft_model."""
TO_PEFT = ["use_dora"]
"""What goes on to peft's LoraConfig by its **kwargs. Source: the same function."""


def script(recipe: Recipe, **run: Any) -> str:
    fields = {"workload": Workload(padding="none"), "data": DataFile(), **run}
    return write(Run("maker/small", MODEL, recipe, **fields)).text


def keywords(source: str, function: str) -> dict[str, Any]:
    """The keyword arguments of the call of that name, literals as their values, other expressions as text."""
    (call,) = (
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and _ends(node.func) == function
    )
    return {str(one.arg): _value(one.value) for one in call.keywords}


def _ends(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def said(source: str) -> list[str]:
    return [line.removeprefix(SAID) for line in source.splitlines() if line.startswith(SAID)]


recipes = st.builds(
    lambda method, knobs: recipe_of("unsloth", method, **knobs),
    st.sampled_from(METHODS),
    st.fixed_dictionaries(
        {
            "rank": st.integers(1, 512),
            "alpha": st.sampled_from([0.4, 32.0]),
            "base_dtype": st.sampled_from(["float32", "bfloat16", "float16"]),
            "optimizer": st.sampled_from([name for name, row in OPTIMIZERS.items() if row.transformers_name]),
            "target_modules": st.sampled_from([("all-linear",), ("attention",), ("q_proj", "v_proj")]),
            "double_quant": st.booleans(),
            "gradient_checkpointing": st.booleans(),
            "offload": st.sampled_from(["none", "activations"]),
            "attention": st.sampled_from(["sdpa", "eager", "flash"]),
        }
    ),
)


@given(
    recipe=recipes,
    packing=st.booleans(),
    strategy=st.sampled_from(["wrapped", "position_ids", "varlen"]),
    padding=st.sampled_from(["none", "longest", "max_length"]),
    gpus=st.sampled_from([1, 4]),
    data=files,
)
def test_every_script_is_whole_and_names_arguments_that_exist(
    recipe: Recipe, packing: bool, strategy: Any, padding: Any, gpus: int, data: DataFile
) -> None:
    workload = Workload(packing=packing, packing_strategy=strategy, padding=padding)
    source = script(recipe, workload=workload, gpus=gpus, data=data)
    assert_whole(source)
    assert assigned(source, "model_id") == "maker/small"
    loaded = keywords(source, "from_pretrained")
    assert set(loaded) <= {*FROM_PRETRAINED, *FROM_KWARGS}
    assert loaded["full_finetuning"] is (recipe.method == "full")
    assert loaded["dtype"] == f"torch.{recipe.base_dtype}"
    other = recipe.is_quantized and not recipe.double_quant
    assert ("quantization_config" in loaded) is other is ("BitsAndBytesConfig" in source)
    if recipe.has_adapters:
        adapted = keywords(source, "get_peft_model")
        assert set(adapted) <= {*GET_PEFT_MODEL, *TO_PEFT}
        assert (adapted["r"], adapted["lora_alpha"]) == (recipe.rank, recipe.alpha)
        assert adapted["use_gradient_checkpointing"] == loaded["use_gradient_checkpointing"]
        assert adapted.get("use_dora", False) is recipe.is_dora
    assert ("get_peft_model" in source) is recipe.has_adapters


@pytest.mark.parametrize("method", METHODS)
def test_the_libraries_take_what_the_script_hands_on(method: Method) -> None:
    trl = pytest.importorskip("trl")
    peft = pytest.importorskip("peft")
    recipe = recipe_of("unsloth", method, micro_batch=2, gradient_accumulation=4)
    source = script(recipe, workload=Workload(seq_len=2048, epochs=2.5, padding="longest", pad_to_multiple_of=8))
    names = {
        "SFTConfig": lambda **fields: trl.SFTConfig(**{**fields, "use_cpu": True}),
        "options": SimpleNamespace(smoke=True),
        "output_dir": "out",
        "eval_rows": None,
        "SEQ_LEN": 2048,
    }
    arguments = eval(calls(source)["SFTConfig"], names)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 4)
    assert (arguments.bf16, arguments.max_length, arguments.pad_to_multiple_of) == (True, 2048, 8)
    assert (arguments.num_train_epochs, arguments.max_steps) == (2.5, 3)
    if recipe.has_adapters:
        assert set(TO_PEFT) <= set(inspect.signature(peft.LoraConfig).parameters)


@pytest.mark.parametrize(
    ("method", "knobs", "checkpointing"),
    [
        ("lora", {}, "unsloth"),
        ("full", {}, "unsloth"),
        ("lora", {"offload": "none"}, True),
        ("qdora", {"gradient_checkpointing": False}, False),
    ],
)
def test_checkpointing_is_the_models(method: Method, knobs: dict[str, Any], checkpointing: object) -> None:
    source = script(recipe_of("unsloth", method, **knobs))
    assert keywords(source, "from_pretrained")["use_gradient_checkpointing"] == checkpointing
    assert "gradient_checkpointing" not in keywords(source, "SFTConfig")


@pytest.mark.parametrize("method", METHODS)
def test_four_bits_are_asked_for_where_the_recipe_has_them(method: Method) -> None:
    loaded = keywords(script(recipe_of("unsloth", method)), "from_pretrained")
    assert loaded["load_in_4bit"] is (method in QUANTIZED_METHODS)
    assert loaded["load_in_8bit"] is False
    assert (loaded["use_exact_model_name"], loaded["text_only"]) == (True, True)


@pytest.mark.parametrize(
    ("rows", "values", "absent"),
    [
        ({"padding": "none"}, {"padding_free": True}, "packing"),
        ({"padding": "longest"}, {"padding_free": False}, "pad_to_multiple_of"),
        ({"padding": "longest", "pad_to_multiple_of": 64}, {"padding_free": False, "pad_to_multiple_of": 64}, ""),
        ({"padding": "max_length"}, {"padding_free": False, "pad_to_multiple_of": "SEQ_LEN"}, ""),
        ({"packing": True, "packing_strategy": "varlen"}, {"packing": True, "packing_strategy": "bfd"}, ""),
        ({"packing": True, "packing_strategy": "wrapped"}, {"padding_free": True}, "packing"),
        ({"group_by_length": True}, {"train_sampling_strategy": "group_by_length"}, "packing"),
    ],
)
def test_how_rows_become_micro_batches(rows: dict[str, Any], values: dict[str, Any], absent: str) -> None:
    source = script(recipe_of("unsloth", "lora"), workload=Workload(**rows))
    found = keywords(source, "SFTConfig")
    assert {name: found[name] for name in values} == values
    assert absent not in found
    assert ("def pack(" in source) is (rows.get("packing_strategy") == "wrapped")
    assert (" cut to {SEQ_LEN}" in source) is (rows.get("packing_strategy") != "wrapped"), "TRL packs rows that are cut"


def test_what_is_learned_reaches_trl_as_a_mask() -> None:
    """Unsloth replaces TRL's collator where rows have labels."""
    names: dict[str, Any] = {}
    source = script(recipe_of("unsloth", "lora"))
    (function,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "masked"
    )
    exec(ast.unparse(function), names)
    assert names["masked"]({"labels": [-100, 5, 0, -100]}) == {"assistant_masks": [0, 1, 1, 0]}
    assert source.count('.map(masked, remove_columns="labels")') == 2


@pytest.mark.parametrize(
    ("method", "knobs", "rows", "wanted"),
    [
        ("qdora", {}, {}, []),
        ("lora", {"adapter_dtype": "bfloat16"}, {}, ["adapter-dtype bfloat16"]),
        ("dora", {"magnitude_dtype": "bfloat16"}, {}, ["magnitude-dtype bfloat16"]),
        ("qlora", {"kbit_upcast": True}, {}, ["kbit-upcast"]),
        ("lora", {"autocast": False}, {}, ["no-autocast (Unsloth computes in 16 bits)"]),
        ("lora", {"reentrant": False}, {}, ["no-reentrant"]),
        (
            "lora",
            {"attention": "eager"},
            {},
            ["attention eager (Unsloth takes flash-attn, xformers or PyTorch's)"],
        ),
        (
            "lora",
            {},
            {"packing": True, "packing_strategy": "position_ids"},
            ["packing-strategy position_ids (Unsloth tells rows apart by their lengths)"],
        ),
        (
            "qlora",
            {"quant": "int8", "double_quant": False},
            {},
            ["8 bits in Unsloth's own models (it compiles those of transformers instead)"],
        ),
    ],
)
def test_what_it_cannot_say_is_said(
    method: Method, knobs: dict[str, Any], rows: dict[str, Any], wanted: list[str]
) -> None:
    assert said(script(recipe_of("unsloth", method, **knobs), workload=Workload(**rows))) == wanted


def test_variants_and_what_is_trained_beside_adapters() -> None:
    recipe = recipe_of("unsloth", "lora", variant="rslora", modules_to_save=("lm_head",), trained_layers=2, neftune=5.0)
    source = script(recipe)
    found = keywords(source, "get_peft_model")
    assert set(found) <= {*GET_PEFT_MODEL, *TO_PEFT}
    assert (found["use_rslora"], found["modules_to_save"]) == (True, ["lm_head"])
    assert found["layers_to_transform"] == "list(range(model.config.num_hidden_layers)[-2:])"
    assert keywords(source, "SFTConfig")["neftune_noise_alpha"] == 5.0


def test_a_checkpoint_that_is_quantized_already_is_not_quantized_again() -> None:
    stored = MODEL.model_copy(update={"checkpoint": Checkpoint(stored="nf4", quant="nf4", method="bitsandbytes")})
    recipe = recipe_of("unsloth", "qlora", double_quant=False)
    loaded = keywords(write(Run("maker/small", stored, recipe, Workload(), DataFile())).text, "from_pretrained")
    assert loaded["load_in_4bit"] is True
    assert "quantization_config" not in loaded
    stored = MODEL.model_copy(update={"checkpoint": Checkpoint(stored="GPTQ", quant="gptq", method="gptq")})
    with pytest.raises(InputError, match=r"^Unsloth's file cannot say how a checkpoint stored by gptq is loaded"):
        write(Run("maker/small", stored, recipe, Workload(), DataFile()))


def test_the_head_names_the_versions_of_the_stack() -> None:
    recipe = recipe_of("unsloth", "lora", stack=("unsloth-2026.11", "transformers-4.57"), attention="flash")
    assert script(recipe).startswith("# pip install 'unsloth==2026.11.*' 'transformers==4.57.*' flash-attn\n")


def test_full_logits_are_asked_for_before_unsloth_is_imported() -> None:
    source = script(recipe_of("unsloth", "lora", loss="full"), workload=Workload(padding="longest"))
    assert source.index('os.environ["UNSLOTH_RETURN_LOGITS"] = "1"') < source.index("from unsloth import")
    assert "UNSLOTH_RETURN_LOGITS" not in script(recipe_of("unsloth", "lora"))


@pytest.mark.parametrize(
    ("knobs", "rows", "message"),
    [
        ({"kernels": ("liger_norm",)}, {}, "--kernels is 'liger_norm': a file for Unsloth cannot"),
        ({"stack": ()}, {}, "--stack is 'none', but must be unsloth-2026.10 or later in a file for Unsloth"),
        ({"stack": ("unsloth-2025.3",)}, {}, "--stack is 'unsloth-2025.3', but must be unsloth-2026.10 or later"),
        ({"loss": "full"}, {"padding": "none"}, "--loss is 'full': Unsloth then pads rows: --padding longest"),
        ({"loss": "full"}, {"packing": True}, "--loss is 'full': Unsloth then pads rows: --padding longest"),
        ({"optimizer_in_backward": True}, {}, "--optimizer-in-backward"),
        ({"variant": "loraplus"}, {}, "--variant is 'loraplus': a file for Unsloth has no key for it"),
        ({"modules_to_save": ("q_proj",)}, {}, "--modules-to-save is 'q_proj': Unsloth trains only embed_tokens"),
        ({"method": "full", "trained_layers": 1}, {}, "--trained-layers is 1: a file for Unsloth"),
        ({"optimizer": "muon"}, {}, "--optimizer is 'muon': Unsloth does not make it"),
    ],
)
def test_what_makes_another_run_is_refused(knobs: dict[str, Any], rows: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue, match=f"^{message}"):
        script(recipe_of("unsloth", knobs.pop("method", "lora"), **knobs), workload=Workload(**rows))


def test_models_whose_rows_it_always_pads() -> None:
    recipe, gemma = recipe_of("unsloth", "lora"), MODEL.model_copy(update={"architecture": "gemma2"})
    padded = write(Run("maker/small", gemma, recipe, Workload(padding="none"), DataFile())).text
    assert said(padded) == ["padding none (Unsloth pads rows of gemma2)"]
    with pytest.raises(BadValue, match=r"^--packing is True: Unsloth does not pack rows of gemma2"):
        write(Run("maker/small", gemma, recipe, Workload(packing=True), DataFile()))


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_for_unsloth_comes_with_its_script(method: Method) -> None:
    answer = advise("llama-3.2-1b", "rtx4090", 3000, trainer="unsloth", method=method)
    file = training_file(answer, answer.candidates[0])
    assert file.name == "train.py"
    assert file.text == training_file(answer, answer.candidates[0], "unsloth").text
    assert said(file.text) == []


def test_a_script_of_another_trainer_says_whose_step_was_estimated() -> None:
    answer = advise("llama-3.2-1b", "rtx4090", 3000, trainer="unsloth", method="lora", offload="none")
    first = training_file(answer, answer.candidates[0], "python").text.splitlines()[0]
    own = "the estimate is of unsloth's step; --trainer transformers has its own"
    assert first == f"# Written for transformers, with the same knobs: {own}."
