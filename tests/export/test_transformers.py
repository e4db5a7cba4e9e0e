"""The script: it compiles, and its configurations are what the installed libraries take."""

from __future__ import annotations

import ast
import builtins
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.answer import DataFile, DataForm, DataFormat
from advisor.catalog import find_model
from advisor.errors import InputError
from advisor.export.run import Run, check_stored
from advisor.export.transformers import write
from advisor.optimizers import OPTIMIZERS
from advisor.specs import METHODS, QUANTIZED_METHODS, Method, Recipe, Workload
from tests.fakes import MODEL

CONFIGS = ("BitsAndBytesConfig", "LoraConfig", "TrainingArguments")


def recipe_of(method: Method, **knobs: Any) -> Recipe:
    quant = "nf4" if method in QUANTIZED_METHODS else "none"
    return Recipe(method=method, **{"quant": quant, "kbit_upcast": quant != "none", **knobs})


def script(recipe: Recipe, name: str = "maker/model", **run: Any) -> str:
    fields = {"workload": Workload(), "data": DataFile(), **run}
    return write(Run(name, MODEL, recipe, **fields)).text


def calls(source: str) -> dict[str, str]:
    """Source of each call of a plain name, by that name."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found[node.func.id] = ast.unparse(node)
    return found


recipes = st.builds(
    recipe_of,
    st.sampled_from(METHODS),
    rank=st.integers(1, 512),
    dropout=st.sampled_from([0.0, 0.05]),
    base_dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    adapter_dtype=st.sampled_from(["float32", "bfloat16"]),
    target_modules=st.sampled_from([("all-linear",), ("attention",), ("q_proj", "v_proj")]),
    autocast=st.booleans(),
    optimizer=st.sampled_from([name for name, row in OPTIMIZERS.items() if row.transformers_name]),
    gradient_checkpointing=st.booleans(),
    reentrant=st.booleans(),
    attention=st.sampled_from(["sdpa", "eager", "flash"]),
    loss=st.sampled_from(["full", "chunked"]),
)


FORMS: dict[DataForm, tuple[str, ...]] = {
    "text": ("text",),
    "messages": ("turns",),
    "prompt_completion": ("q", "a"),
    "alpaca": ("instruction", "output"),
    "sharegpt": ("conversations",),
}
files = st.builds(
    lambda form, kind, path: DataFile(path=path, format=kind, form=form, columns=FORMS[form]),
    st.sampled_from(list(FORMS)),
    st.sampled_from(get_args(DataFormat)),
    st.text(max_size=20),
)


@given(recipe=recipes, packing=st.booleans(), gpus=st.sampled_from([1, 4]), name=st.text(max_size=40), data=files)
def test_every_script_compiles_and_names_the_model_literally(
    recipe: Recipe, packing: bool, gpus: int, name: str, data: DataFile
) -> None:
    source = script(recipe, name, workload=Workload(packing=packing), data=data, gpus=gpus)
    assert assigned(source, "model_id") in (name, name.removesuffix("/config.json").rstrip("/"))
    assert_whole(source)


def assert_whole(source: str) -> None:
    """A script that compiles, uses what it imports, and defines or imports every name that it uses."""
    compile(source, "train.py", "exec")
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    known = set(dir(builtins)) | {"__name__"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert {alias.asname or alias.name for alias in node.names} <= used
            known |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef):
            known |= {node.name} | {argument.arg for argument in node.args.args}
            known |= {node.args.kwarg.arg} if node.args.kwarg else set()
        elif isinstance(node, ast.Lambda):
            known |= {argument.arg for argument in node.args.args}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.add(node.id)
    assert used <= known


def assigned(source: str, name: str) -> Any:
    """The literal that is first assigned to a name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(name)


def configs(recipe: Recipe, **extra: Any) -> dict[str, Any]:
    """The configuration objects of the script, built by the installed libraries."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    names = {
        "torch": torch,
        "LoraConfig": peft.LoraConfig,
        "TrainingArguments": _on_any_machine(transformers),
        "BitsAndBytesConfig": transformers.BitsAndBytesConfig,
        "options": SimpleNamespace(smoke=False),
        "output_dir": "out",
        "eval_rows": None,
    }
    source = script(recipe, workload=Workload(batch_size=8, epochs=2.5), **extra)
    return {name: eval(text, dict(names)) for name, text in calls(source).items() if name in CONFIGS}


def _on_any_machine(transformers: Any) -> Any:
    """TrainingArguments that do not insist on a GPU for mixed precision."""
    return lambda **fields: transformers.TrainingArguments(**{**fields, "use_cpu": True})


@pytest.mark.parametrize("method", METHODS)
def test_the_libraries_take_the_configurations(method: Method) -> None:
    recipe = recipe_of(method, rank=24, alpha=48.0, dropout=0.1, micro_batch=2, gradient_accumulation=4)
    built = configs(recipe)
    arguments = built["TrainingArguments"]
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 4)
    assert arguments.per_device_eval_batch_size == 2
    assert (arguments.bf16, arguments.fp16, arguments.activation_checkpointing) == (True, False, True)
    assert arguments.activation_checkpointing_kwargs == {"use_reentrant": False}
    assert arguments.num_train_epochs == 2.5
    assert ("LoraConfig" in built) == (method != "full")
    if method != "full":
        lora = built["LoraConfig"]
        assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (24, 48, 0.1)
        assert lora.use_dora == (method in ("dora", "qdora"))
        assert lora.target_modules == "all-linear"
    assert ("BitsAndBytesConfig" in built) == (method in QUANTIZED_METHODS)
    if method in QUANTIZED_METHODS:
        bits = built["BitsAndBytesConfig"]
        assert (bits.load_in_4bit, bits.bnb_4bit_quant_type, bits.bnb_4bit_use_double_quant) == (True, "nf4", True)


@pytest.mark.parametrize("optimizer", [name for name, row in OPTIMIZERS.items() if row.transformers_name])
def test_optimizers_are_known_to_transformers(optimizer: Any) -> None:
    assert (
        configs(recipe_of("lora", optimizer=optimizer))["TrainingArguments"].optim.value
        == OPTIMIZERS[optimizer].transformers_name
    )


def test_other_knobs_reach_the_script() -> None:
    eight = configs(recipe_of("qlora", quant="int8"))["BitsAndBytesConfig"]
    assert (eight.load_in_8bit, eight.load_in_4bit) == (True, False)
    named = configs(recipe_of("lora", target_modules=("attention",)))["LoraConfig"]
    assert named.target_modules == {"q_proj", "k_proj", "v_proj", "o_proj"}
    half = configs(recipe_of("lora", base_dtype="float16"))["TrainingArguments"]
    assert (half.fp16, half.bf16) == (True, False)
    old_card = configs(recipe_of("full", base_dtype="float32"), bf16=False)["TrainingArguments"]
    assert (old_card.fp16, old_card.bf16) == (True, False)
    plain = configs(recipe_of("lora", autocast=False))["TrainingArguments"]
    assert (plain.fp16, plain.bf16) == (False, False)
    arguments = configs(recipe_of("lora", loss="chunked"))["TrainingArguments"]
    assert arguments.use_liger_kernel is True
    assert arguments.liger_kernel_config == {"rms_norm": False, "rope": False, "swiglu": False, "geglu": False}


def test_k_bit_preparation_follows_the_recipe() -> None:
    with_it = script(recipe_of("qlora", gradient_checkpointing=True))
    assert "prepare_model_for_kbit_training" in calls(with_it)
    assert "use_gradient_checkpointing=True" in calls(with_it)["prepare_model_for_kbit_training"]
    without = script(recipe_of("qlora", kbit_upcast=False))
    assert "prepare_model_for_kbit_training" not in without


def test_a_config_json_is_loaded_from_its_folder() -> None:
    assert assigned(script(recipe_of("lora"), "/models/mine/config.json"), "model_id") == "/models/mine"


def test_fractions_are_written_as_they_are() -> None:
    lora = configs(recipe_of("lora", alpha=0.4, dropout=0.1234567))["LoraConfig"]
    assert (lora.lora_alpha, lora.lora_dropout) == (0.4, 0.1234567)


@pytest.mark.parametrize(
    ("kind", "builder"), [("jsonl", "json"), ("json", "json"), ("csv", "csv"), ("parquet", "parquet"), ("text", "text")]
)
def test_the_file_is_read_in_its_own_format(kind: DataFormat, builder: str) -> None:
    source = script(recipe_of("lora"), data=DataFile(path="rows.x", format=kind, columns=("text",)))
    assert f'load_dataset("{builder}", data_files=path, split="train")' in source
    assert '"--data", default="rows.x"' in source


def test_the_script_evaluates_as_asked() -> None:
    recipe = recipe_of("lora", micro_batch=2, eval_batch=5)
    source = script(recipe, workload=Workload(eval_examples=100, eval_steps=40))
    assert "per_device_eval_batch_size=2 if options.smoke else 5," in source
    assert 'eval_strategy="no" if eval_rows is None else "steps",' in source
    assert "    eval_steps=40,\n" in source
    assert 'else "epoch",' in script(recipe)


def test_liger_is_switched_on_in_parts() -> None:
    arguments = configs(recipe_of("lora", kernels=("liger_norm", "liger_loss")))["TrainingArguments"]
    assert arguments.use_liger_kernel is True
    assert arguments.liger_kernel_config == {"rope": False, "swiglu": False, "geglu": False}


@pytest.mark.parametrize(
    ("variant", "knobs", "lines"),
    [
        ("oft", {}, ["OFTConfig(", "oft_block_size=32,", 'target_modules="all-linear",']),
        ("ia3", {"target_modules": ("k_proj", "down_proj")}, ["IA3Config(", 'target_modules=["k_proj", "down_proj"],']),
        (
            "vera",
            {"rank": 256, "dropout": 0.1, "trained_layers": 2, "modules_to_save": ("lm_head",)},
            ["VeraConfig(", "r=256,", "vera_dropout=0.1,", 'modules_to_save=["lm_head"],', "layers_to_transform="],
        ),
    ],
)
def test_adapters_in_place_of_lora(variant: Any, knobs: dict[str, Any], lines: list[str]) -> None:
    text = script(recipe_of("lora", variant=variant, **knobs))
    assert all(line in text for line in lines)
    assert f"from peft import {lines[0][:-1]}, get_peft_model" in text
    assert "LoraConfig" not in text


def test_what_gemma_3ns_code_reads_itself_stays_in_16_bits() -> None:
    gemma = find_model("gemma-3n-e2b")
    run = Run("google/gemma-3n-E2B", gemma, recipe_of("qlora"), workload=Workload(), data=DataFile())
    assert (
        "llm_int8_skip_modules=['lm_head', 'prediction_coefs', 'correction_coefs']"
        in calls(write(run).text)["BitsAndBytesConfig"]
    )
    assert "llm_int8_skip_modules" not in script(recipe_of("qlora"))
    with pytest.raises(InputError, match="prediction_coefs and correction_coefs of gemma3n_text stay in 16 bits"):
        check_stored(run, "TRL")
    check_stored(run)
