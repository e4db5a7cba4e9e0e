"""A run's own objects before it starts: the same estimate as the flags give, or one line."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, TrainingArguments

from advisor.advice.advise import advise
from advisor.errors import AdvisorError, BadValue, InputError, UnsupportedArchitecture
from advisor.recipes import build_recipe
from advisor.specs import Method
from calibrate import preflight
from calibrate.worker.build import build_model
from calibrate.worker.own_training import describe
from calibrate.worker.preflight import OUTSIDE, Preflight
from tests.decoders.tiny import config, spec

ROWS = [{"input_ids": [1] * length} for length in (10, 30, 200)]


def model_of(name: str = "llama") -> Any:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config(name, 2)))


def arguments(**values: Any) -> TrainingArguments:
    given = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "use_cpu": True, "report_to": []}
    return TrainingArguments(output_dir="unused", **{**given, **values})


def test_before_and_after_peft_wraps_the_model_it_is_the_same() -> None:
    adapter = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], lora_alpha=16)
    before = preflight(model_of(), adapter, arguments(), ROWS, gpu="24GB", seq_len=128)
    after = preflight(get_peft_model(model_of(), adapter), None, arguments(), ROWS, gpu="24GB", seq_len=128)
    assert before.row.memory == after.row.memory
    assert before.advice.workload == after.advice.workload
    assert (before.advice.workload.examples, before.advice.workload.mean_seq_len) == (3, 56)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_answers_as_the_flags_do(checkpointing: bool) -> None:
    found = preflight(model_of(), None, arguments(gradient_checkpointing=checkpointing), gpu="24GB", seq_len=128)
    flags = {"base_dtype": "float32", "gradient_checkpointing": checkpointing, "autocast": False}
    asked = advise(
        spec("llama", 2),
        "24GB",
        **{"method": "full", "micro_batch": 2, "batch_size": 8, "seq_len": 128, "epochs": 3},
        expandable_segments=False,
        **flags,
    )
    assert found.row.memory.needed_bytes == asked.candidates[0].memory.needed_bytes
    assert found.verdict == "fits"
    assert str(found).startswith("full fine-tuning of")


def test_what_is_not_known_is_said() -> None:
    notes = preflight(model_of(), None, arguments(), gpu="24GB").notes
    assert any("how long rows are" in note for note in notes)
    assert any("how many rows there are: 10000" in note for note in notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # transformers deprecates what says whether checkpointing is on
        describe(model_of(), arguments())


def test_bad_input_is_one_line() -> None:
    adapter = LoraConfig(r=8, target_modules=["q_proj"])
    with pytest.raises(InputError, match="training_args is missing"):
        preflight(model_of(), adapter)
    with pytest.raises(InputError, match="has adapters already"):
        preflight(get_peft_model(model_of(), adapter), adapter, arguments(), gpu="24GB")
    with pytest.raises(InputError, match="peft_config is a dict"):
        preflight(model_of(), {}, arguments(), gpu="24GB")
    with pytest.raises(UnsupportedArchitecture, match="has no formula: by='trace'"):
        preflight(without_formula(), None, arguments(), gpu="24GB")


def without_formula() -> Any:
    sizes = {"vocab_size": 99, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **sizes, decoder_start_token_id=0))


def sft_arguments(**values: Any) -> Any:
    from trl import SFTConfig

    given = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "use_cpu": True, "report_to": []}
    return SFTConfig(output_dir="unused", max_length=128, bf16=False, **given, **values)


ADAPTER: dict[str, Any] = {"r": 8, "target_modules": ["q_proj", "v_proj"], "lora_alpha": 16}


def quantized(method: Method, quant: str) -> Any:
    """A model in 4 or 8 bits with adapters, as a script has it before the trainer."""
    recipe = build_recipe(method, {"rank": 8, "target_modules": ("q_proj", "v_proj"), "quant": quant})
    return build_model(config("llama", 2), recipe, fake=False)


def agreement(found: Preflight) -> float:
    """The formula's tensors over the trace's, less 1."""
    assert found.traced is not None
    tensors = sum(term.bytes for term in found.row.memory.terms if term.name not in OUTSIDE)
    return tensors / found.traced.trace.peak_bytes - 1


@pytest.mark.parametrize(
    ("make", "adapter", "values"),
    [
        (model_of, None, {}),
        (model_of, {}, {}),
        (model_of, {"use_dora": True}, {"gradient_checkpointing": True}),
        (lambda: model_of("gemma2"), {}, {"gradient_accumulation_steps": 1}),
        (lambda: quantized("qlora", "nf4"), None, {}),
        (lambda: quantized("qlora", "int8"), None, {}),
        (lambda: quantized("qdora", "nf4").unload(), {"use_dora": True}, {}),
    ],
    ids=["full", "lora", "dora", "gemma2", "qlora", "int8", "qdora"],
)
def test_formula_and_trace_agree(make: Any, adapter: dict[str, Any] | None, values: dict[str, Any]) -> None:
    planned = None if adapter is None else LoraConfig(**ADAPTER, **adapter)
    found = preflight(make(), planned, arguments(**values), ROWS, gpu="24GB", seq_len=128, by="trace")
    assert agreement(found) == 0
    assert found.traced is not None
    assert found.verdict == found.traced.verdict == "fits"
    assert found.memory.needed_bytes == pytest.approx(found.row.memory.needed_bytes, rel=0.03)


@pytest.mark.parametrize("make", [model_of, lambda: quantized("qlora", "nf4").unload()], ids=["whole", "quantized"])
def test_so_they_do_with_trl_s_loss(make: Any) -> None:
    pytest.importorskip("trl")
    found = preflight(make(), LoraConfig(**ADAPTER), sft_arguments(), gpu="24GB", by="trace")
    assert abs(agreement(found)) < 0.002
    assert found.recipe.loss == "chunked"


def identity(model: Any) -> list[tuple[Any, ...]]:
    """What must not change: which objects there are, their storages, flags and configuration."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    parts = [(name, id(one), one.data_ptr(), one.dtype, one.requires_grad, one.grad) for name, one in tensors]
    parts += [(name, id(one), type(one), one.training, len(one._forward_hooks)) for name, one in model.named_modules()]
    return [*parts, (model.config.to_dict(), model.is_gradient_checkpointing, vars(model).get("forward"))]


def test_the_user_s_model_stays_as_it_is() -> None:
    for args in (arguments(gradient_checkpointing=True), sft_arguments()):
        model, adapter = model_of().eval(), LoraConfig(**ADAPTER)
        before, said, values = identity(model), dict(vars(adapter)), args.to_dict()
        weights = {name: one.clone() for name, one in model.state_dict().items()}
        preflight(model, adapter, args, ROWS, gpu="24GB", by="trace")
        assert identity(model) == before
        assert vars(adapter) == said
        assert args.to_dict() == values
        assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())


def test_a_model_without_storage_can_be_traced() -> None:
    with torch.device("meta"):
        on_meta = model_of()
    with FakeTensorMode():
        fake = model_of()
    peaks = []
    for model in (model_of(), on_meta, fake):
        found = preflight(model, LoraConfig(**ADAPTER), arguments(), gpu="24GB", seq_len=128, by="trace")
        assert found.traced is not None
        peaks.append(found.traced.trace.peak_bytes)
    assert len(set(peaks)) == 1


def test_a_model_without_a_formula_has_the_trace_alone() -> None:
    found = preflight(without_formula(), None, arguments(), gpu="24GB", seq_len=32, by="trace")
    assert found.advice is None
    assert found.traced is not None
    weights = sum(p.numel() * 4 for p in without_formula().parameters())
    assert found.traced.trace.base_weights_bytes >= weights
    assert sum(term.bytes for term in found.memory.terms) == pytest.approx(found.memory.needed_bytes.likely, abs=1)
    assert str(found).startswith("full fine-tuning of t5 fits: ")
    assert "t5" in found._repr_html_()
    with pytest.raises(UnsupportedArchitecture, match="see `traced`"):
        found.row  # noqa: B018


def test_checkpointing_that_a_script_switched_on_itself_is_read() -> None:
    model = model_of()
    assert not describe(model, arguments()).recipe.gradient_checkpointing
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    recipe = describe(model, arguments()).recipe
    assert (recipe.gradient_checkpointing, recipe.reentrant) == (True, True)


def test_where_a_cpu_keeps_more_it_is_said() -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config("gpt2", 2)))
    notes = preflight(model, None, arguments(), gpu="24GB", seq_len=128, by="trace").notes
    assert any("the trace is an upper bound" in note for note in notes)
    assert any("of a card's kernels" in note for note in notes)


class Stranger(torch.nn.Module):
    """Not one of transformers."""


class Broken(dict):  # type: ignore[type-arg]
    """A data set that names a column and does not have it."""

    column_names = ("input_ids",)


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"model": Stranger()}, InputError, "the model is a Stranger"),
        ({"model": 5}, InputError, "the model is a int"),
        ({"training_args": {}}, InputError, "training_args is a dict"),
        ({"by": "guess"}, BadValue, "must be 'formula' or 'trace'"),
        ({"dataset": 5}, InputError, "dataset is a int"),
        ({"dataset": Broken()}, InputError, "lengths of the rows of a Broken cannot be read"),
        ({"peft_config": LoraConfig(r=8, target_modules=["nothing"])}, AdvisorError, "nothing"),
        ({"gpu": "no such card"}, AdvisorError, "no such card"),
    ],
)
def test_whatever_is_wrong_is_one_line(given: dict[str, Any], kind: type[AdvisorError], words: str) -> None:
    asked = {"model": model_of(), "training_args": arguments(), "gpu": "24GB", "by": "trace", "seq_len": 64, **given}
    with pytest.raises(kind, match=words) as caught:
        preflight(**asked)
    assert "\n" not in str(caught.value)


def test_a_step_that_cannot_be_traced_is_one_line() -> None:
    odd = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", num_layers=1, d_model=16, d_ff=16, d_kv=8))
    with pytest.raises(InputError, match="a step of T5ForConditionalGeneration cannot be traced") as caught:
        preflight(odd, None, arguments(), gpu="24GB", by="trace")
    assert "\n" not in str(caught.value)
