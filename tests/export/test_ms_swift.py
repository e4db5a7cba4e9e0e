"""The file of ms-swift: what the recipe becomes in it, and what it names beside itself."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from advisor.answer import DataFile
from advisor.errors import BadValue, InputError
from advisor.export.ms_swift import write
from advisor.specs import METHODS, Method, Placement
from tests.export.spread import file_of, run_of
from tests.export.test_configs import rows_of, values_of

ONE, FSDP2 = Placement(), Placement(gpus=2, sharding="fsdp2", offload="parameters")


@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_stands_in_it(method: Method) -> None:
    values = values_of(file_of("ms-swift", ONE, method, rank=24, alpha=2.5, micro_batch=3).text)
    assert (values["tuner_type"], values["per_device_train_batch_size"]) == ("full" if method == "full" else "lora", 3)
    assert (values.get("lora_rank"), values.get("lora_alpha")) == ((None, None) if method == "full" else (24, 2.5))
    assert values.get("quant_bits") == (4 if method in ("qlora", "qdora") else None)
    assert values.get("use_dora", False) is (method in ("dora", "qdora"))
    assert values["gradient_checkpointing_kwargs"] == {"use_reentrant": False}


@pytest.mark.parametrize("method", METHODS)
def test_each_key_is_an_argument_of_its_own(method: Method) -> None:
    arguments = pytest.importorskip("swift.arguments").SftArguments
    known = {field.name for field in dataclasses.fields(arguments)}
    for at in (ONE, FSDP2, Placement(gpus=2, sharding="zero3")):
        assert set(values_of(file_of("ms-swift", at, method, kernels=("liger_norm",)).text)) <= known


@pytest.mark.parametrize(
    ("data", "columns", "command"),
    [
        (DataFile(), {"text": "response"}, "swift pt"),
        (rows_of("text", "body"), {"body": "response"}, "swift pt"),
        (rows_of("messages", "turns"), {"turns": "messages"}, "swift sft"),
        (rows_of("sharegpt"), None, "swift sft"),
        (rows_of("alpaca", "instruction", "answer"), {"answer": "output"}, "swift sft"),
        (rows_of("prompt_completion"), {"prompt": "query", "completion": "response"}, "swift sft"),
    ],
)
def test_columns_get_the_names_that_it_knows(data: DataFile, columns: Any, command: str) -> None:
    file = write(run_of("ms-swift", ONE)._replace(data=data))
    assert values_of(file.text).get("columns") == columns
    assert file.command == f"{command} train.yaml"


def test_fsdp_has_a_file_of_its_own_form() -> None:
    file = file_of("ms-swift", FSDP2, "qlora")
    assert values_of(file.text)["fsdp"] == "fsdp.json"
    settings = json.loads(dict(file.beside)["fsdp.json"])
    assert settings["fsdp"] == "full_shard auto_wrap offload"
    assert settings["fsdp_config"]["state_dict_type"] == "FULL_STATE_DICT"
    assert values_of(file.text)["bnb_4bit_quant_storage"] == "bfloat16"


def test_what_it_does_not_say_is_refused() -> None:
    with pytest.raises(BadValue, match="--write python has"):
        file_of("ms-swift", Placement(gpus=4, nodes=2, sharding="hsdp"))
    with pytest.raises(BadValue, match="flash only"):
        write(
            run_of("ms-swift", ONE)._replace(
                workload=run_of("ms-swift", ONE).workload.model_copy(update={"packing": True})
            )
        )
    with pytest.raises(InputError, match="starts its processes itself"):
        write(run_of("ms-swift", ONE)._replace(by_accelerate=True))
