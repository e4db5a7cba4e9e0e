"""The configuration files: YAML that the trainers' own parsers take, with the recipe's values in them."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.advice.advise import advise
from advisor.catalog.trainers import find_trainer
from advisor.export.training_file import Export, export_of, training_file
from advisor.knobs import TRAINERS
from advisor.optimizers import OPTIMIZERS
from advisor.specs import METHODS, QUANTIZED_METHODS, Method, Recipe, Workload
from tests.fakes import MODEL

EXPORTS = {trainer: export for trainer in TRAINERS if (export := export_of(trainer)) is not None}


def recipe_of(trainer: str, method: Method, **knobs: Any) -> Recipe:
    quant = "nf4" if method in QUANTIZED_METHODS else "none"
    return Recipe(
        method=method, **{"quant": quant, "kbit_upcast": False, **find_trainer(trainer).values(method), **knobs}
    )


def written(trainer: str, recipe: Recipe, workload: Workload | None = None, gpus: int = 1) -> str:
    return EXPORTS[trainer].write("maker/small", MODEL, recipe, workload or Workload(), gpus=gpus, bf16=True)


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
            "optimizer": st.sampled_from(list(OPTIMIZERS)),
            "target_modules": st.sampled_from([("all-linear",), ("attention",), ("q_proj", "v_proj")]),
            "gradient_checkpointing": st.booleans(),
            "attention": st.sampled_from(["sdpa", "eager", "flash"]),
        }
    ),
)


@given(pair=recipes, packing=st.booleans(), gpus=st.sampled_from([1, 4]))
def test_every_file_is_flat_yaml_with_the_recipes_values(pair: tuple[str, Recipe], packing: bool, gpus: int) -> None:
    trainer, recipe = pair
    values = values_of(written(trainer, recipe, Workload(packing=packing), gpus))
    assert recipe.micro_batch in (values.get("micro_batch_size"), values.get("per_device_train_batch_size"))
    if recipe.has_adapters:
        assert recipe.rank in (values.get("lora_r"), values.get("lora_rank"))


def test_what_a_file_cannot_say_is_said() -> None:
    text = written("trl", recipe_of("trl", "qlora", kbit_upcast=True, adapter_dtype="float32", loss="full"))
    assert text.count("# no key says:") == 3
    assert "# no key says:" not in written("trl", recipe_of("trl", "qdora"))


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
    text = written("trl", recipe, Workload(seq_len=2048, packing=True))
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


def test_trl_refuses_a_misspelt_key(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    path = tmp_path / "train.yaml"
    path.write_text(written("trl", recipe_of("trl", "lora")).replace("lora_r:", "use_cpu: true\nlora_rr:"))
    parser = trl.TrlParser((trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig))
    with pytest.raises(ValueError, match="lora_rr"):
        parser.parse_args_and_config(["--config", str(path)])


@pytest.mark.parametrize("method", METHODS)
def test_axolotl_takes_its_file(method: Method) -> None:
    """Its parser drops unknown keys in silence: each must be a field."""
    config = pytest.importorskip("axolotl.utils.schemas.config").AxolotlInputConfig
    recipe = recipe_of("axolotl", method)
    values = values_of(written("axolotl", recipe))
    assert set(values) <= set(config.model_fields)
    parsed = config(**values)
    assert parsed.lora_r == (recipe.rank if recipe.has_adapters else None)
    assert parsed.micro_batch_size == recipe.micro_batch


@pytest.mark.parametrize("method", METHODS)
def test_llamafactory_takes_its_file(method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "DISABLE_VERSION_CHECK", "1")
    read = pytest.importorskip("llamafactory.hparams").get_train_args
    recipe = recipe_of("llamafactory", method)
    values = values_of(written("llamafactory", recipe)) | {"output_dir": str(tmp_path), "use_cpu": True}
    model, data, training, tuning, _ = read(values)
    assert tuning.use_dora is recipe.is_dora
    assert model.quantization_bit == (4 if recipe.is_quantized else None)
    assert training.per_device_train_batch_size == recipe.micro_batch
    assert data.cutoff_len == 1024


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_answer_comes_with_the_trainers_own_file(trainer: str) -> None:
    answer = advise("llama-3.2-1b", "rtx4090", 3000, trainer=trainer, method="lora")
    text = training_file(answer, answer.candidates[0])
    assert text.startswith("# Written for transformers") is (trainer in ("unsloth", "torchtune", "litgpt"))
    assert ("import torch" in text) is (trainer not in EXPORTS)


def test_there_are_exports() -> None:
    assert set(EXPORTS) == {"trl", "axolotl", "llamafactory"}


@pytest.mark.parametrize("trainer", sorted(EXPORTS))
def test_every_export_has_the_same_signature(trainer: str) -> None:
    wanted = list(inspect.signature(Export.write).parameters.values())[1:]
    found = inspect.signature(EXPORTS[trainer].write)
    assert list(found.parameters.values()) == wanted
    assert found.return_annotation == "str"
    assert EXPORTS[trainer].FILE_NAME == "train.yaml"


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_command_sets_the_allocator_where_the_recipe_does(trainer: str) -> None:
    for expandable in (True, False):
        answer = advise("llama-3.2-1b", "rtx4090", 3000, trainer=trainer, method="lora", expandable_segments=expandable)
        (line,) = [row for row in training_file(answer, answer.candidates[0]).splitlines() if row.startswith("# run: ")]
        assert line.startswith("# run: PYTORCH_ALLOC_CONF=expandable_segments:True ") is expandable
