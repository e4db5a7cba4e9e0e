"""torchtune's file: keys that its recipes read, builders that it has, and what it refuses.

Where torchtune can be imported, its own validation takes the file, and what is recorded here is compared with it.
"""

from __future__ import annotations

import ast
import inspect
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.answer import DataFile
from advisor.catalog import find_model
from advisor.configs.tree import yaml_tree
from advisor.errors import AdvisorError, BadValue, InputError
from advisor.export.run import Run, TrainingFile
from advisor.export.torchtune import write
from advisor.export.torchtune_models import BUILDERS, FAMILIES, builder_of
from advisor.export.training_file import training_file
from advisor.specs import METHODS, Method, Placement, Workload
from tests.export.test_configs import recipe_of, rows_of

ONE, FSDP2 = Placement(), Placement(gpus=4, sharding="fsdp2")
SHARED = {
    *("batch_size", "checkpointer", "clip_grad_norm", "collate_fn", "compile", "cudnn_deterministic_mode", "dataset"),
    *("device", "dtype", "enable_activation_checkpointing", "enable_activation_offloading", "epochs"),
    *("gradient_accumulation_steps", "log_every_n_steps", "log_peak_memory_stats", "loss", "lr_scheduler"),
    *("max_steps_per_epoch", "metric_logger", "model", "optimizer", "output_dir", "resume_from_checkpoint", "seed"),
    *("shuffle", "tokenizer"),
}
LORA, FULL = SHARED | {"save_adapter_weights_only"}, SHARED | {"optimizer_in_bwd"}
SEVERAL = {"custom_sharded_layers", "fsdp_cpu_offload", "fsdp_reshard_after_forward"}
KEYS = {
    "lora_finetune_single_device": LORA | {"low_cpu_ram"},
    "lora_finetune_distributed": LORA | SEVERAL,
    "full_finetune_single_device": FULL,
    "full_finetune_distributed": FULL
    | SEVERAL
    | {"ac_mode", "ac_option", "enable_async_checkpointing", "tensor_parallel_dim", "tensor_parallel_plan"},
}
"""What each recipe reads. Source: torchtune 0.6.1, recipes/*.py, every `cfg.NAME` and `cfg.get("NAME")`."""
ROWS = "tokenizer source packed filter_fn split load_dataset_kwargs"
PARAMETERS = {
    "training.FullModelHFCheckpointer": "checkpoint_dir checkpoint_files model_type output_dir adapter_checkpoint "
    "recipe_checkpoint resume_from_checkpoint safe_serialization should_load_recipe_state",
    "models.llama3.llama3_tokenizer": "path special_tokens_path max_seq_len prompt_template",
    "models.phi4.phi4_tokenizer": "vocab_path merges_path special_tokens_path max_seq_len prompt_template",
    "models.qwen2.qwen2_tokenizer": "path merges_file special_tokens_path max_seq_len prompt_template kwargs",
    "models.llama3_2.lora_llama3_2_1b": "lora_attn_modules apply_lora_to_mlp apply_lora_to_output lora_rank lora_alpha "
    "lora_dropout use_dora quantize_base tie_word_embeddings",
    "models.llama3_2.llama3_2_1b": "tie_word_embeddings",
    "datasets.chat_dataset": f"{ROWS} conversation_column conversation_style train_on_input new_system_prompt",
    "datasets.instruct_dataset": f"{ROWS} column_map train_on_input new_system_prompt",
    "datasets.alpaca_dataset": f"{ROWS} column_map train_on_input",
    "datasets.text_completion_dataset": f"{ROWS} column add_eos split_across_pack",
    "training.lr_schedulers.get_cosine_schedule_with_warmup": "optimizer num_warmup_steps num_training_steps "
    "num_cycles last_epoch",
    "modules.loss.CEWithChunkedOutputLoss": "num_output_chunks ignore_index",
    "training.metric_logging.DiskLogger": "log_dir filename kwargs",
}
"""The parameters of what a file for Llama 3.2 1B names. Source: torchtune 0.6.1; its wheel is compared where it is."""
KNOBS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adamw_8bit", "offload": "activations"},
    {"base_dtype": "float32", "adapter_dtype": "float32", "target_modules": ("attention",)},
]


def file_of(method: Method = "lora", at: Placement = ONE, data: DataFile | None = None, **knobs: Any) -> TrainingFile:
    return write(run_of("llama-3.2-1b", method, at, data, **knobs))


def run_of(name: str, method: Method = "lora", at: Placement = ONE, data: DataFile | None = None, **knobs: Any) -> Run:
    rows = {key: knobs.pop(key) for key in tuple(knobs) if key in Workload.model_fields}
    recipe = recipe_of("torchtune", method, **knobs)
    return Run(f"maker/{name}", find_model(name), recipe, Workload(**rows), data or DataFile(), at.gpus, True, at)


def values_of(file: TrainingFile) -> dict[str, Any]:
    return yaml_tree(file.text, file.name).values


def all_files() -> list[TrainingFile]:
    one = [file_of(method, **knobs) for method in METHODS for knobs in KNOBS]
    several = [file_of(method, FSDP2, optimizer="adamw") for method in METHODS]
    forms = ("messages", "sharegpt", "alpaca", "prompt_completion")
    return [*one, *several, *(file_of(data=rows_of(form)) for form in forms)]


def test_each_key_is_one_that_its_recipe_reads() -> None:
    files = all_files()
    assert len(files) == 24
    for file in files:
        recipe = next(word for word in file.command.split() if word in KEYS)
        assert recipe.startswith("full" if "lora_rank" not in file.text else "lora")
        assert set(values_of(file)) <= KEYS[recipe]
        missing = SHARED - set(values_of(file))
        assert missing == {"collate_fn", "cudnn_deterministic_mode"}
        for section in values_of(file).values():
            if isinstance(section, dict) and section["_component_"].startswith("torchtune."):
                known = PARAMETERS[section["_component_"].removeprefix("torchtune.")].split()
                assert set(section) - {"_component_", "data_files"} <= set(known)


def test_torchtune_takes_each_file() -> None:
    config = pytest.importorskip("torchtune.config")
    omegaconf = pytest.importorskip("omegaconf").OmegaConf
    for file in all_files():
        config.validate(omegaconf.create(values_of(file)))
    wrong = omegaconf.create(yaml_tree(file_of().text.replace("lora_rank:", "lora_rang:"), "x").values)
    with pytest.raises(Exception, match="lora_rang"):
        config.validate(wrong)


def test_its_command_line_takes_the_command() -> None:
    run = pytest.importorskip("torchtune._cli.tune").TuneCLIParser()
    command = file_of("qlora", FSDP2, optimizer="adamw").command.split()
    options = run._parser.parse_args(command[1:])
    assert (options.nproc_per_node, options.recipe) == ("4", "lora_finetune_distributed")


def test_what_is_recorded_is_what_its_source_has() -> None:
    pytest.importorskip("torchtune.config")
    path = pytest.importorskip("torchtune.config._utils")._get_component_from_path
    for name, words in PARAMETERS.items():
        assert set(inspect.signature(path(f"torchtune.{name}")).parameters) == set(words.split())
    source = find_spec("torchtune")
    assert source is not None
    assert source.origin is not None
    folder = Path(source.origin).parent
    for recipe, keys in KEYS.items():
        assert read_keys(folder.parent / "recipes" / f"{recipe}.py") == keys
    for builder in BUILDERS:
        assert made_by(folder, builder.family, builder.name) == (builder.sizes, builder.positions, builder.tied)
        has = inspect.signature(path(builder.component("lora_"))).parameters
        assert ("apply_lora_to_output" in has, "use_dora" in has) == (builder.adapts_output, builder.has_dora)
        for words in FAMILIES[builder.family].words:
            assert words in inspect.signature(path(f"torchtune.models.{FAMILIES[builder.family].tokenizer}")).parameters


def read_keys(path: Path) -> set[str]:
    """What a recipe reads of its configuration."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "cfg":
            found.add(node.attr)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "cfg.get"
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(str(node.args[0].value))
    return found - {"get"}


def made_by(folder: Path, family: str, name: str) -> tuple[tuple[int, ...], int, bool]:
    """The sizes that a builder hands on, which one module may import from another."""
    where = {"llama3_3_70b": ("llama3_1", "llama3_1_70b")}.get(name, (family, name))
    module = ast.parse((folder / "models" / where[0] / "_model_builders.py").read_text())
    (function,) = (one for one in module.body if isinstance(one, ast.FunctionDef) and one.name == where[1])
    call = next(one for one in ast.walk(function) if isinstance(one, ast.Call) and len(one.keywords) > 5)
    given = {one.arg: ast.unparse(one.value).replace("_", "") for one in call.keywords}
    inner = int(given.get("intermediate_dim", 11008))  # Llama 2 7B's follows from its width
    names = ("num_layers", "num_heads", "num_kv_heads", "vocab_size")
    sizes = (int(given["embed_dim"]), inner, *(int(given[one]) for one in names))
    tied = "tie_word_embeddings" in given or call.func.id in ("gemma", "gemma2")  # type: ignore[attr-defined]
    return sizes, int(given["max_seq_len"]), tied


@pytest.mark.parametrize(
    ("name", "builder"),
    [
        ("llama-2-7b", "llama2_7b"),
        ("codellama-7b", "code_llama2_7b"),
        ("llama-3-8b", "llama3_8b"),
        ("llama-3.1-8b", "llama3_1_8b"),
        ("deepseek-r1-distill-llama-8b", "llama3_1_8b"),
        ("llama-3.1-70b", "llama3_1_70b"),
        ("llama-3.3-70b", "llama3_3_70b"),
        ("llama-3.2-3b", "llama3_2_3b"),
        ("mistral-7b-v0.1", "mistral_7b"),
        ("gemma-1-2b", "gemma_2b"),
        ("gemma-2-9b", "gemma2_9b"),
        ("phi-3-mini", "phi3_mini"),
        ("phi-4", "phi4_14b"),
        ("qwen2-7b", "qwen2_7b"),
        ("qwen2.5-7b", "qwen2_5_7b_base"),
        ("qwen2.5-3b", "qwen2_5_3b"),
    ],
)
def test_the_builder_is_the_models_own(name: str, builder: str) -> None:
    assert builder_of(find_model(name), name).name == builder


def test_a_tuned_checkpoint_has_the_builder_of_its_name() -> None:
    model = find_model("qwen2.5-7b").model_copy(update={"max_position_embeddings": 32_768})
    assert builder_of(model, "Qwen/Qwen2.5-7B-Instruct").name == "qwen2_5_7b_instruct"
    assert builder_of(model, "Qwen/Qwen2-7B-Instruct").name == "qwen2_7b"


@pytest.mark.parametrize("name", ["qwen3-8b", "mistral-7b-v0.3", "phi-3-mini-128k", "tinyllama-1.1b", "qwen2.5-vl-7b"])
def test_a_model_without_a_builder_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(
        InputError, match=r"^torchtune 0\.6\.1 has no builder for .*: use --write python, trl or axolotl$"
    ):
        builder_of(find_model(name), name)


@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_stands_in_it(method: Method) -> None:
    values = values_of(
        file_of(method, rank=24, alpha=2.5, micro_batch=3, gradient_accumulation=2, epochs=2, seq_len=700)
    )
    model = values["model"]
    assert model["_component_"].rsplit(".", 1)[-1] == ("" if method == "full" else "lora_") + "llama3_2_1b"
    assert (model.get("lora_rank"), model.get("lora_alpha")) == ((None, None) if method == "full" else (24, 2.5))
    assert model.get("quantize_base", False) is method.startswith("q")
    assert model.get("use_dora", False) is ("dora" in method)
    counts = [values[key] for key in ("batch_size", "gradient_accumulation_steps", "epochs")]
    assert (*counts, values["tokenizer"]["max_seq_len"]) == (3, 2, 2, 700)
    assert values["optimizer"].get("fused", False) is (recipe_of("torchtune", method).optimizer == "adamw")
    assert values["checkpointer"]["checkpoint_files"] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (DataFile(path="rows.txt", format="text", columns=()), {"source": "text", "column": "text"}),
        (rows_of("text", "story"), {"column": "story"}),
        (rows_of("messages", "chat"), {"conversation_column": "chat", "conversation_style": "openai"}),
        (rows_of("sharegpt"), {"conversation_column": "conversations", "conversation_style": "sharegpt"}),
        (rows_of("alpaca", "ask", "say"), {"column_map": {"instruction": "ask", "output": "say"}}),
        (rows_of("prompt_completion"), {"column_map": {"input": "prompt", "output": "completion"}}),
    ],
)
def test_rows_are_read_as_they_are(data: DataFile, wanted: dict[str, Any]) -> None:
    rows = values_of(file_of(data=data))["dataset"]
    assert {key: rows[key] for key in wanted} == wanted
    assert rows["data_files"] == data.path
    assert rows.get("train_on_input", False) is False


@pytest.mark.parametrize(
    ("knobs", "why"),
    [
        ({"optimizer": "lion"}, "can name adamw, adamw_foreach, sgd"),
        ({"variant": "rslora"}, "plain LoRA and DoRA only"),
        ({"neftune": 5.0}, "no setting for it"),
        ({"modules_to_save": ("lm_head",)}, "trains nothing whole"),
        ({"trained_layers": 2}, "no key for it"),
        ({"target_modules": ("q_proj", "up_proj")}, "gate_proj, up_proj, down_proj together"),
        ({"base_dtype": "float16"}, "bfloat16 or float32"),
        ({"kernels": ("liger_norm",)}, "cannot switch it on"),
        ({"padding": "none"}, "pads to the longest row"),
        ({"epochs": 1.5}, "must be a whole number"),
        ({"seq_len": 200_000}, "at most 131,072 positions"),
    ],
)
def test_what_it_cannot_say_is_refused(knobs: dict[str, Any], why: str) -> None:
    with pytest.raises(AdvisorError, match=why):
        file_of(**knobs)


def test_what_else_is_refused() -> None:
    with pytest.raises(BadValue, match="nf4 only"):
        file_of("qlora", quant="int8")
    with pytest.raises(BadValue, match="--sharding fsdp2"):
        file_of(at=Placement(gpus=4, sharding="ddp"))
    with pytest.raises(BadValue, match="on one card alone; take adamw"):
        file_of("full", FSDP2, optimizer="paged_adamw_8bit")
    with pytest.raises(InputError, match="starts its processes itself"):
        write(run_of("llama-3.2-1b")._replace(by_accelerate=True))
    with pytest.raises(InputError, match="needs a card that has it"):
        write(run_of("llama-3.2-1b")._replace(bf16=False))
    with pytest.raises(InputError, match="splits the fused layers of phi-4"):
        write(run_of("phi-4"))
    with pytest.raises(InputError, match="no DoRA in its builder"):
        write(run_of("llama-3.1-405b", "dora"))
    with pytest.raises(InputError, match="give its folder as --model"):
        write(run_of("codellama-13b"))


def test_what_differs_from_the_estimate_stands_at_the_head() -> None:
    answer = advise("llama-3.2-1b", "a100-80gb", 3000, method="qlora", trainer="transformers")
    head = training_file(answer, answer.candidates[0], "torchtune").text.partition("output_dir:")[0]
    assert head.startswith(
        "# Written for torchtune, with the same knobs: the estimate is of transformers's step; --trainer"
    )
    for said in ("autocast", "adapter-dtype float32", "kbit-upcast"):
        assert f"# not configurable here: {said}" in head
    assert "not configurable" not in file_of("qlora").text
    assert "RoPE base of 500,000" in head


def test_the_files_of_a_folder_are_named(tmp_path: Path) -> None:
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json"):
        (tmp_path / name).write_text("{}")
    values = values_of(write(run_of("llama-3.2-1b")._replace(model_id=str(tmp_path))))
    assert values["checkpointer"]["checkpoint_files"] == sorted(p.name for p in tmp_path.glob("*.safetensors"))
    assert values["tokenizer"]["path"] == f"{tmp_path}/original/tokenizer.model"
