"""The configuration files: YAML that the trainers' own parsers take, with the recipe's values in them."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.advice.advise import advise
from advisor.answer import DataFile, DataForm
from advisor.catalog.trainers import find_trainer
from advisor.errors import BadValue, InputError
from advisor.export import STARTERS, TARGETS, Target
from advisor.export.run import Run, TrainingFile
from advisor.export.training_file import Export, export_of, training_file
from advisor.knobs import TRAINERS
from advisor.libraries import ALLOCATOR, OLD_ALLOCATOR
from advisor.optimizers import OPTIMIZERS
from advisor.specs import METHODS, QUANTIZED_METHODS, Method, Recipe, TracedModel, Workload
from tests.fakes import MODEL

SCRIPTS = ("transformers", "unsloth")
NESTED = ("torchtune",)
"""Whose files have sections; see test_torchtune."""
EXPORTS = {
    trainer: export
    for trainer in TRAINERS
    if trainer not in (*SCRIPTS, *NESTED) and (export := export_of(trainer)) is not None
}
FORMS: tuple[DataForm, ...] = get_args(DataForm)


def recipe_of(trainer: str, method: Method, **knobs: Any) -> Recipe:
    quant = "nf4" if method in QUANTIZED_METHODS else "none"
    return Recipe(
        method=method, **{"quant": quant, "kbit_upcast": False, **find_trainer(trainer).values(method), **knobs}
    )


def file_of(trainer: str, recipe: Recipe, **run: Any) -> TrainingFile:
    fields = {"workload": Workload(**find_trainer(trainer).collator()), "data": DataFile(), **run}
    return EXPORTS[trainer].write(Run("maker/small", MODEL, recipe, **fields))


def written(trainer: str, recipe: Recipe, **run: Any) -> str:
    return file_of(trainer, recipe, **run).text


def rows_of(form: DataForm, *columns: str, path: str = "rows.jsonl") -> DataFile:
    usual: dict[str, tuple[str, ...]] = {
        "text": ("text",),
        "messages": ("messages",),
        "prompt_completion": ("prompt", "completion"),
        "alpaca": ("instruction", "input", "output"),
        "sharegpt": ("conversations",),
    }
    return DataFile(path=path, form=form, columns=columns or usual[form])


def values_of(text: str) -> dict[str, Any]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pairs = [line.partition(": ") for line in lines]
    assert len({key for key, _, _ in pairs}) == len(pairs)
    return {key: json.loads(value) for key, _, value in pairs}


recipes = st.builds(
    lambda trainer, method, knobs: (trainer, recipe_of(trainer, method, **knobs)),
    st.sampled_from(sorted(EXPORTS)),
    st.sampled_from(METHODS),
    st.fixed_dictionaries(
        {
            "rank": st.integers(1, 512),
            "dropout": st.sampled_from([0.0, 0.05]),
            "base_dtype": st.sampled_from(["float32", "bfloat16"]),
            "optimizer": st.sampled_from([name for name, row in OPTIMIZERS.items() if row.transformers_name]),
            "target_modules": st.sampled_from([("all-linear",), ("attention",), ("q_proj", "v_proj")]),
            "gradient_checkpointing": st.booleans(),
            "attention": st.sampled_from(["sdpa", "eager", "flash"]),
        }
    ),
)


@given(pair=recipes, packing=st.booleans(), gpus=st.sampled_from([1, 4]))
def test_every_file_is_flat_yaml_with_the_recipes_values(pair: tuple[str, Recipe], packing: bool, gpus: int) -> None:
    trainer, recipe = pair
    if trainer == "ms-swift" and packing:
        recipe = recipe.model_copy(update={"attention": "flash"})  # without which it does not pack
    values = values_of(written(trainer, recipe, workload=Workload(packing=packing), gpus=gpus))
    assert recipe.micro_batch in (values.get("micro_batch_size"), values.get("per_device_train_batch_size"))
    if recipe.has_adapters:
        assert recipe.rank in (values.get("lora_r"), values.get("lora_rank"))


def test_what_a_file_cannot_say_is_said() -> None:
    text = written("trl", recipe_of("trl", "qlora", kbit_upcast=True, adapter_dtype="float32", loss="full"))
    assert text.count("# not configurable here:") == 3
    assert "# not configurable here:" not in written("trl", recipe_of("trl", "qdora"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {
            "base_dtype": "bfloat16",
            "target_modules": ("attention",),
            "optimizer": "paged_adamw_8bit",
            "gradient_checkpointing": False,
        },
    ],
)
def test_trl_takes_its_file(method: Method, knobs: dict[str, Any], tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    recipe = recipe_of("trl", method, **knobs)
    path = tmp_path / "train.yaml"
    text = written("trl", recipe, workload=Workload(seq_len=2048, packing=True))
    path.write_text(text.replace('output_dir: "out"', f"output_dir: {json.dumps(str(tmp_path))}\nuse_cpu: true"))
    parser = trl.TrlParser((trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig))
    _, training, model, data = parser.parse_args_and_config(["--config", str(path)])
    assert training.max_length == 2048
    assert training.bf16 is recipe.autocast
    assert training.gradient_checkpointing is recipe.gradient_checkpointing
    assert training.optim == OPTIMIZERS[recipe.optimizer].transformers_name
    assert model.dtype == recipe.base_dtype
    assert model.load_in_4bit is recipe.is_quantized
    assert data.datasets[0].path == "json"
    adapters = trl.get_peft_config(model)
    assert (adapters is not None) is recipe.has_adapters
    if adapters is not None:
        assert adapters.r == recipe.rank
        assert adapters.use_dora is recipe.is_dora
        assert adapters.lora_dropout == recipe.dropout
        wanted: Any = "all-linear" if not knobs else set(values_of(text)["lora_target_modules"])
        assert adapters.target_modules == wanted


def test_trl_refuses_a_misspelled_key(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    path = tmp_path / "train.yaml"
    path.write_text(written("trl", recipe_of("trl", "lora")).replace("lora_r:", "use_cpu: true\nlora_rr:"))
    parser = trl.TrlParser((trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig))
    with pytest.raises(ValueError, match="lora_rr"):
        parser.parse_args_and_config(["--config", str(path)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_axolotl_takes_its_file(method: Method, form: DataForm) -> None:
    """Its parser drops unknown keys in silence: each must be a field."""
    config = pytest.importorskip("axolotl.utils.schemas.config").AxolotlInputConfig
    rows = pytest.importorskip("axolotl.utils.schemas.datasets").SFTDataset
    recipe = recipe_of("axolotl", method)
    values = values_of(written("axolotl", recipe, data=rows_of(form)))
    assert set(values["datasets"][0]) <= set(rows.model_fields)
    assert set(values) <= set(config.model_fields)
    parsed = config(**values)
    assert parsed.lora_r == (recipe.rank if recipe.has_adapters else None)
    assert parsed.micro_batch_size == recipe.micro_batch


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_llamafactory_takes_its_file(
    method: Method, form: DataForm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "DISABLE_VERSION_CHECK", "1")
    read = pytest.importorskip("llamafactory.hparams").get_train_args
    recipe = recipe_of("llamafactory", method)
    file = file_of("llamafactory", recipe, data=rows_of(form))
    values = values_of(file.text) | {"output_dir": str(tmp_path), "use_cpu": True}
    model, data, training, tuning, _ = read(values)
    assert tuning.use_dora is recipe.is_dora
    assert model.quantization_bit == (4 if recipe.is_quantized else None)
    assert training.per_device_train_batch_size == recipe.micro_batch
    assert data.cutoff_len == 1024
    for name, text in file.beside:
        (tmp_path / name).write_text(text)
    (rows,) = pytest.importorskip("llamafactory.data.parser").get_dataset_list(data.dataset, str(tmp_path))
    assert rows.load_from == "file"
    assert {rows.prompt, rows.query, rows.response, rows.messages} >= set(rows_of(form).columns)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_answer_comes_with_the_trainers_own_file(trainer: str) -> None:
    answer = advise("llama-3.2-1b", "rtx4090", 3000, trainer=trainer, method="lora")
    text = training_file(answer, answer.candidates[0]).text
    assert text.startswith("# Written for transformers") is (
        trainer in ("litgpt", "nemo-automodel", "open-instruct", "qlora")
    )
    assert ("import torch" in text) is (trainer not in (*EXPORTS, *NESTED))


def test_there_are_exports() -> None:
    assert (
        set(EXPORTS)
        == {"trl", "axolotl", "llamafactory", "ms-swift"}
        == set(TARGETS) - {"auto", "python", "unsloth", *NESTED, *STARTERS}
    )


@pytest.mark.parametrize("trainer", [*sorted(EXPORTS), *SCRIPTS, *NESTED])
def test_every_export_has_the_same_signature(trainer: str) -> None:
    wanted = list(inspect.signature(Export.write).parameters.values())[1:]
    export = export_of(trainer)
    assert export is not None
    found = inspect.signature(export.write)
    assert list(found.parameters.values()) == wanted
    assert found.return_annotation == "TrainingFile"


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_command_sets_the_allocator_where_the_recipe_does(trainer: str) -> None:
    for expandable in (True, False):
        answer = advise("llama-3.2-1b", "rtx4090", 3000, trainer=trainer, method="lora", expandable_segments=expandable)
        file = training_file(answer, answer.candidates[0])
        older = ("torchtune", "open-instruct")  # made for PyTorch 2.6 and 2.10, see allocator_variable
        variable = OLD_ALLOCATOR if trainer in older else ALLOCATOR
        assert file.command.startswith(f"{variable}=expandable_segments:True ") is expandable
        assert file.text.count(f"# run: {file.command}\n") == 1


@pytest.mark.parametrize("trainer", sorted(set(EXPORTS) - {"ms-swift"}))
@pytest.mark.parametrize("alpha", [0.4, 0.6, 2.5])
def test_an_alpha_that_a_file_cannot_say_is_refused(trainer: str, alpha: float) -> None:
    with pytest.raises(BadValue, match=rf"^--alpha is {alpha}, but must be a whole number in a file for"):
        written(trainer, recipe_of(trainer, "lora", alpha=alpha))
    assert values_of(written(trainer, recipe_of(trainer, "lora", alpha=3.0)))["lora_alpha"] == 3
    assert "lora_alpha" not in written(trainer, recipe_of(trainer, "full", alpha=alpha))


@pytest.mark.parametrize("trainer", sorted(EXPORTS))
def test_small_numbers_stay_numbers_in_yaml(trainer: str) -> None:
    yaml = pytest.importorskip("yaml")
    text = written(trainer, recipe_of(trainer, "full"))
    assert yaml.safe_load(text)["learning_rate"] == 1e-5
    small = written(trainer, recipe_of(trainer, "lora", dropout=2.5e-7))
    assert yaml.safe_load(small)["lora_dropout"] == 2.5e-7


@pytest.mark.parametrize(
    ("trainer", "method", "knobs", "said"),
    [
        ("axolotl", "lora", {"autocast": False}, "no-autocast of 16-bit weights"),
        ("axolotl", "lora", {"base_dtype": "float32"}, "base-dtype float32"),
        ("axolotl", "lora", {"base_dtype": "float32", "autocast": False}, ""),
        ("axolotl", "qlora", {"quant": "int8", "double_quant": False}, ""),
        ("axolotl", "qlora", {"double_quant": False}, "a 4-bit format other than double-quantized nf4"),
        ("axolotl", "qlora", {"quantize_experts": True}, ""),
        ("axolotl", "dora", {"adapter_dtype": "bfloat16"}, "magnitude-dtype float32"),
        ("llamafactory", "full", {}, ""),
        ("llamafactory", "full", {"base_dtype": "bfloat16"}, "autocast beside bf16 weights that are trained"),
        ("llamafactory", "full", {"base_dtype": "bfloat16", "autocast": False}, ""),
        ("llamafactory", "lora", {"base_dtype": "float32"}, "base-dtype float32"),
        ("llamafactory", "lora", {"base_dtype": "float32", "autocast": False}, ""),
        ("llamafactory", "dora", {"magnitude_dtype": "bfloat16"}, "magnitude-dtype bfloat16"),
        ("trl", "dora", {"magnitude_dtype": "bfloat16"}, "magnitude-dtype bfloat16"),
    ],
)
def test_each_knob_is_set_or_said_not_to_be(trainer: str, method: Method, knobs: dict[str, Any], said: str) -> None:
    text = written(trainer, recipe_of(trainer, method, **knobs))
    assert [
        line.removeprefix("# not configurable here: ") for line in text.splitlines() if "not configurable" in line
    ] == ([said] if said else [])


SAID = "# not configurable here: "


@pytest.mark.parametrize(
    ("trainer", "rows", "values", "said"),
    [
        ("trl", {"pad_to_multiple_of": 64}, {"packing": False, "pad_to_multiple_of": 64}, ""),
        ("trl", {"group_by_length": True}, {"train_sampling_strategy": "group_by_length"}, ""),
        ("trl", {"padding": "none"}, {"padding_free": True}, ""),
        ("trl", {"padding": "max_length"}, {"packing": False}, "padding max_length (TRL pads to the longest row)"),
        ("trl", {"packing": True}, {"packing": True, "packing_strategy": "wrapped"}, ""),
        ("trl", {"packing": True, "packing_strategy": "position_ids"}, {"packing_strategy": "bfd"}, ""),
        ("axolotl", {}, {"sample_packing": False, "pad_to_sequence_len": False}, ""),
        ("axolotl", {"pad_to_multiple_of": 32}, {"pad_to_multiple_of": 32}, ""),
        ("axolotl", {"padding": "max_length"}, {"pad_to_sequence_len": True, "pad_to_multiple_of": 1}, ""),
        ("axolotl", {"padding": "none"}, {"batch_flattening": True}, ""),
        ("axolotl", {"group_by_length": True}, {"group_by_length": True}, ""),
        ("axolotl", {"packing": True, "packing_strategy": "varlen"}, {"sample_packing": True}, ""),
        ("llamafactory", {"pad_to_multiple_of": 8}, {"packing": False}, ""),
        ("llamafactory", {}, {}, "pad-to-multiple-of 1 (LLaMA-Factory rounds up to 8 tokens)"),
        ("llamafactory", {"padding": "none", "pad_to_multiple_of": 8}, {}, "padding none"),
        ("llamafactory", {"packing": True, "packing_strategy": "position_ids"}, {"neat_packing": True}, ""),
        ("llamafactory", {"packing": True}, {"packing": True}, ""),
    ],
)
def test_how_rows_become_micro_batches_is_set_or_said(
    trainer: str, rows: dict[str, Any], values: dict[str, Any], said: str
) -> None:
    recipe = recipe_of(trainer, "lora", micro_batch=2, attention="flash")
    text = written(trainer, recipe, workload=Workload(**rows), data=rows_of("messages"))
    found = values_of(text)
    assert {key: found[key] for key in values} == values
    assert [line.removeprefix(SAID) for line in text.splitlines() if line.startswith(SAID)] == ([said] if said else [])


@pytest.mark.parametrize(
    ("trainer", "method", "knobs", "values", "said"),
    [
        ("trl", "lora", {"modules_to_save": ("lm_head",)}, {"lora_modules_to_save": ["lm_head"]}, ""),
        ("axolotl", "lora", {"modules_to_save": ("lm_head",)}, {"lora_modules_to_save": ["lm_head"]}, ""),
        (
            "axolotl",
            "lora",
            {"modules_to_save": ("lm_head",), "trained_dtype": "float32", "trained_layers": 1},
            {"peft_layers_to_transform": [21]},
            "trained-dtype float32",
        ),
        (
            "axolotl",
            "full",
            {"base_dtype": "bfloat16", "trained_layers": 1, "modules_to_save": ("lm_head",)},
            {"unfrozen_parameters": [r"^[^0-9]*.(21).", "^([a-z_]+.)*lm_head."]},
            "",
        ),
        ("llamafactory", "lora", {"modules_to_save": ("lm_head",)}, {"additional_target": "lm_head"}, ""),
        (
            "llamafactory",
            "full",
            {
                "base_dtype": "bfloat16",
                "trained_dtype": "float32",
                "trained_layers": 1,
                "modules_to_save": ("lm_head",),
            },
            {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "freeze_extra_modules": "lm_head"},
            "",
        ),
        (
            "llamafactory",
            "full",
            {"base_dtype": "bfloat16", "autocast": False, "trained_layers": 1, "trained_dtype": "base"},
            {"finetuning_type": "freeze", "pure_bf16": True},
            "",
        ),
    ],
)
def test_what_is_trained_in_part(
    trainer: str, method: Method, knobs: dict[str, Any], values: dict[str, Any], said: str
) -> None:
    text = written(trainer, recipe_of(trainer, method, **knobs))
    found = values_of(text)
    assert {key: found[key] for key in values} == values
    assert [line.removeprefix(SAID) for line in text.splitlines() if line.startswith(SAID)] == ([said] if said else [])


@pytest.mark.parametrize("trainer", ["trl", "llamafactory"])
def test_adapters_on_some_layers_are_refused_where_there_is_no_key(trainer: str) -> None:
    with pytest.raises(BadValue, match=r"--trained-layers is 1: .* --write python has"):
        written(trainer, recipe_of(trainer, "lora", trained_layers=1))


@pytest.mark.parametrize(
    ("trainer", "optimizer", "values"),
    [
        ("trl", "lion_8bit", {"optim": "lion_8bit"}),
        ("trl", "galore", {"optim": "galore_adamw", "optim_args": "rank=64"}),
        ("axolotl", "muon", {"optimizer": "muon"}),
        ("axolotl", "came", {"optimizer": "came_pytorch"}),
        ("axolotl", "adamw_torchao_8bit", {"optimizer": "adamw_torch_8bit"}),
        ("axolotl", "apollo", {"optimizer": "apollo_adamw", "optim_args": "rank=64"}),
        ("llamafactory", "muon", {"optim": "adamw_torch", "use_muon": True}),
        ("llamafactory", "apollo", {"optim": "adamw_torch", "use_apollo": True, "apollo_rank": 64}),
    ],
)
def test_each_trainer_names_the_optimizer_in_its_own_way(trainer: str, optimizer: Any, values: dict[str, Any]) -> None:
    found = values_of(written(trainer, recipe_of(trainer, "full", optimizer=optimizer, optimizer_rank=64)))
    assert {key: found[key] for key in values} == values
    if "optim_args" in values:
        assert found["optim_target_modules"][:2] == ["q_proj", "k_proj"]


@pytest.mark.parametrize(("trainer", "optimizer"), [("trl", "muon"), ("llamafactory", "came")])
def test_an_optimizer_that_a_trainer_does_not_make_is_refused(trainer: str, optimizer: Any) -> None:
    with pytest.raises(BadValue, match=r"does not make it; --write axolotl.* does"):
        written(trainer, recipe_of(trainer, "full", optimizer=optimizer))


@pytest.mark.parametrize(
    ("trainer", "variant", "key", "value"),
    [
        ("trl", "rslora", "use_rslora", True),
        ("axolotl", "rslora", "peft_use_rslora", True),
        ("axolotl", "olora", "peft_init_lora_weights", "olora"),
        ("axolotl", "loraplus", "loraplus_lr_ratio", 16),
        ("llamafactory", "pissa", "pissa_init", True),
        ("llamafactory", "oft", "oft_block_size", 32),
    ],
)
def test_variants_of_lora(trainer: str, variant: Any, key: str, value: object) -> None:
    found = values_of(written(trainer, recipe_of(trainer, "lora", variant=variant, neftune=5.0)))
    assert (found[key], found["neftune_noise_alpha"]) == (value, 5.0)


@pytest.mark.parametrize(
    ("trainer", "method", "variant", "why"),
    [
        ("trl", "lora", "loraplus", "a file for TRL has no key for it, only for rslora"),
        ("llamafactory", "lora", "olora", "has no key for it"),
        ("axolotl", "lora", "oft", "has no key for it"),
        ("trl", "lora", "ia3", "has no key for it"),
        ("llamafactory", "qlora", "vera", "has no key for it"),
        ("axolotl", "qlora", "pissa", "cannot start it from a quantized base"),
    ],
)
def test_variants_that_a_file_cannot_say(trainer: str, method: Method, variant: Any, why: str) -> None:
    with pytest.raises(BadValue, match=why):
        written(trainer, recipe_of(trainer, method, variant=variant))


def test_left_alone_axolotl_rounds_up_by_itself() -> None:
    assert not {"pad_to_sequence_len", "pad_to_multiple_of"} & set(
        values_of(written("axolotl", recipe_of("axolotl", "lora")))
    )


def test_full_bf16_weights_are_trained_as_such_by_llamafactory() -> None:
    values = values_of(written("llamafactory", recipe_of("llamafactory", "full", base_dtype="bfloat16")))
    assert (values["pure_bf16"], values["bf16"]) == (True, False)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (rows_of("text"), {"columns": ["text"]}),
        (rows_of("text", "story"), {"columns": ["story"]}),
        (rows_of("messages"), {"columns": ["messages"]}),
        (rows_of("prompt_completion"), {"columns": ["prompt", "completion"]}),
        (DataFile(path="rows.txt", format="text", columns=()), {"path": "text"}),
    ],
)
def test_trl_reads_the_rows(data: DataFile, wanted: dict[str, Any]) -> None:
    values = values_of(written("trl", recipe_of("trl", "lora"), data=data))
    assert values["datasets"] == [{"path": "json", "data_files": data.path} | wanted]
    assert values.get("dataset_text_field", "text") == (
        data.columns[0] if data.form == "text" and data.columns else "text"
    )
    assert values.get("assistant_only_loss", False) is (data.form == "messages")
    assert values.get("completion_only_loss", False) is (data.form == "prompt_completion")


@pytest.mark.parametrize("data", [rows_of("alpaca"), rows_of("sharegpt"), rows_of("messages", "chat")])
def test_trl_refuses_rows_that_it_does_not_read(data: DataFile) -> None:
    with pytest.raises(InputError, match=r"^--data 'rows.jsonl' has .*, (which|but) TRL .* --write python"):
        written("trl", recipe_of("trl", "lora"), data=data)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (rows_of("text"), {"type": "completion"}),
        (rows_of("text", "story"), {"type": "completion", "field": "story"}),
        (rows_of("messages", "chat"), {"type": "chat_template", "field_messages": "chat"}),
        (
            rows_of("sharegpt"),
            {
                "type": "chat_template",
                "field_messages": "conversations",
                "message_property_mappings": {"role": "from", "content": "value"},
            },
        ),
        (rows_of("alpaca"), {"type": "alpaca"}),
        (rows_of("alpaca", "instruction", "output"), {"type": "alpaca"}),
        (
            rows_of("alpaca", "ask", "about", "say"),
            {
                "type": {
                    "field_instruction": "ask",
                    "field_output": "say",
                    "field_input": "about",
                    "format": "{instruction}\n\n{input}\n\n",
                    "no_input_format": "{instruction}\n\n",
                }
            },
        ),
        (
            rows_of("prompt_completion"),
            {
                "type": {
                    "field_instruction": "prompt",
                    "field_output": "completion",
                    "format": "{instruction}",
                    "no_input_format": "{instruction}",
                }
            },
        ),
    ],
)
def test_axolotl_reads_the_rows(data: DataFile, wanted: dict[str, Any]) -> None:
    values = values_of(written("axolotl", recipe_of("axolotl", "lora"), data=data))
    assert values["datasets"] == [{"path": "rows.jsonl", "ds_type": "json"} | wanted]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (rows_of("text"), {"columns": {"prompt": "text"}}),
        (rows_of("sharegpt"), {"formatting": "sharegpt", "columns": {"messages": "conversations"}}),
        (
            rows_of("alpaca"),
            {"formatting": "alpaca", "columns": {"prompt": "instruction", "response": "output", "query": "input"}},
        ),
        (
            rows_of("prompt_completion"),
            {"formatting": "alpaca", "columns": {"prompt": "prompt", "response": "completion"}},
        ),
        (
            rows_of("messages", "chat"),
            {
                "formatting": "sharegpt",
                "columns": {"messages": "chat"},
                "tags": {
                    "role_tag": "role",
                    "content_tag": "content",
                    "user_tag": "user",
                    "assistant_tag": "assistant",
                    "system_tag": "system",
                },
            },
        ),
    ],
)
def test_llamafactory_reads_the_rows(data: DataFile, wanted: dict[str, Any]) -> None:
    file = file_of("llamafactory", recipe_of("llamafactory", "lora"), data=data)
    ((name, text),) = file.beside
    assert name == "dataset_info.json"
    assert json.loads(text) == {"train": {"file_name": "rows.jsonl"} | wanted}
    assert f"# dataset_info.json, next to this file: {text}" in file.text
    assert values_of(file.text)["stage"] == ("pt" if data.form == "text" else "sft")


@pytest.mark.parametrize("target", ["python", "axolotl", "llamafactory"])
def test_the_rows_of_the_answer_reach_the_file(target: Target) -> None:
    answer = advise("llama-3.2-1b", "rtx4090", 3000, method="lora")
    assert "train.jsonl" in training_file(answer, answer.candidates[0], target).text
    answer = answer.model_copy(update={"data_file": rows_of("sharegpt", path="talks.jsonl")})
    text = training_file(answer, answer.candidates[0], target).text
    assert "talks.jsonl" in text
    assert "conversations" in text
    assert "train.jsonl" not in text


def test_paths_are_named_as_the_files_folder_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    answer = advise("llama-3.2-1b", "rtx4090", 3000, method="lora").model_copy(update={"model_id": "mine"})
    row = answer.candidates[0]
    for folder in ("", ".", str(tmp_path)):
        assert values_of(training_file(answer, row, "trl", folder).text)["model_name_or_path"] == "mine"
    values = values_of(training_file(answer, row, "trl", "below").text)
    assert values["model_name_or_path"] == str(tmp_path / "mine")
    assert values["datasets"][0]["data_files"] == str(tmp_path / "train.jsonl")


def test_a_traced_model_has_no_script_yet() -> None:
    answer = advise("llama-3.2-1b", "rtx4090", 3000, method="lora")
    traced = TracedModel(
        name="x",
        architecture="bert",
        kind="AutoModelForMaskedLM",
        parameters=1,
        max_position_embeddings=512,
        source="x",
        profile="p",
        checksum="c",
        traced_with="torch",
    )
    with pytest.raises(InputError, match=r"^no script yet for a traced model: load it with AutoModelForMaskedLM\."):
        training_file(answer.model_copy(update={"model": traced}), answer.candidates[0])


@pytest.mark.parametrize(("trainer", "key"), [("trl", "per_device_eval_batch_size"), ("axolotl", "eval_batch_size")])
def test_the_evaluation_batch_is_the_recipes(trainer: str, key: str) -> None:
    asked = values_of(written(trainer, recipe_of(trainer, "lora", micro_batch=2, eval_batch=5)))
    assert asked[key] == 5
    assert values_of(written(trainer, recipe_of(trainer, "lora", micro_batch=2))).get(key, 2) == 2
