"""Files for checkpoints that are quantized already: loaded as they are, and so that they can be trained on."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from advisor.answer import DataFile
from advisor.catalog import find_model
from advisor.errors import InputError
from advisor.export.run import Run
from advisor.export.training_file import export_of
from advisor.recipes import build_recipe, stored_fields
from advisor.specs import Method, Workload
from tests.export.test_transformers import calls

NF4, INT8 = "unsloth/Meta-Llama-3.1-8B-bnb-4bit", "meta-llama/Llama-3.1-8B-bnb-8bit"
GPTQ, AWQ, HQQ = "TheBloke/Llama-2-7B-GPTQ", "TechxGenus/Meta-Llama-3-8B-Instruct-AWQ", "Qwen/Qwen3-8B-HQQ"
FP8, MXFP4 = "Qwen/Qwen3-8B-FP8", "openai/gpt-oss-20b-MXFP4"
PACKED = "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16"
TRAINERS = ("transformers", "trl", "axolotl", "llamafactory")


def written(trainer: str, name: str, method: Method = "qlora", **knobs: Any) -> str:
    """The file of `trainer` for the checkpoint of that name."""
    m, export = find_model(name), export_of(trainer)
    assert export is not None
    recipe = build_recipe(method, {**knobs, **stored_fields(m, method)})
    return export.write(Run(name, m, recipe, Workload(), DataFile())).text


@pytest.mark.parametrize("name", [NF4, INT8])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_bitsandbytes_is_not_told_to_quantize_once_more(trainer: str, name: str) -> None:
    text = written(trainer, name)
    assert "BitsAndBytesConfig" not in text
    assert "quantization_bit" not in text
    assert "bnb_4bit" not in text
    assert "quantization_config" not in text
    assert ("prepare_model_for_kbit_training" in text) == (trainer == "transformers")


@pytest.mark.parametrize(
    ("name", "method", "call", "packages"),
    [
        (GPTQ, "qlora", "GPTQConfig(bits=4, backend='auto_trainable')", "gptqmodel optimum"),
        (AWQ, "qlora", "AwqConfig(bits=4, backend='auto_trainable')", "gptqmodel"),
        (MXFP4, "lora", "Mxfp4Config(dequantize=True)", ""),
        (PACKED, "full", "CompressedTensorsConfig(dequantize=True)", "compressed-tensors"),
        (FP8, "qlora", "", "kernels"),
    ],
)
def test_the_script_loads_each_so_that_it_trains(name: str, method: Method, call: str, packages: str) -> None:
    source = written("transformers", name, method)
    compile(source, "train.py", "exec")
    config = call.partition("(")[0]
    assert calls(source).get(config, "") == call
    assert packages in source.splitlines()[0]
    imported = {
        alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert not config or config in imported
    assert ("quantization_config=None if options.smoke else quantization" in source) == bool(call)
    assert ("device_map=" in source) == (name in (GPTQ, AWQ))


@pytest.mark.parametrize(
    ("trainer", "name", "method"),
    [
        ("trl", GPTQ, "qlora"), ("trl", AWQ, "qlora"), ("trl", MXFP4, "lora"),
        ("axolotl", GPTQ, "qlora"), ("axolotl", AWQ, "qlora"),
        ("llamafactory", GPTQ, "qlora"), ("llamafactory", AWQ, "qlora"), ("llamafactory", FP8, "qlora"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_say_is_refused(trainer: str, name: str, method: Method) -> None:
    with pytest.raises(InputError, match="use --write python"):
        written(trainer, name, method)


def test_axolotl_says_that_mxfp4_is_dequantized() -> None:
    text = written("axolotl", MXFP4, "lora")
    assert 'model_quantization_config: "Mxfp4Config"' in text
    assert "dequantize" in text


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_form_that_only_a_checkpoint_has_needs_one(trainer: str) -> None:
    with pytest.raises(InputError, match="give the id of a GPTQ checkpoint"):
        written(trainer, "llama-8b", quant="gptq")
    with pytest.raises(InputError, match="transformers 5"):
        written(trainer, HQQ)
