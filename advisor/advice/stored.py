"""What a checkpoint that is not in 16 bits lets be done: which methods, on which base, and what there is to say."""

from __future__ import annotations

from advisor.advice.meaning import Taken
from advisor.answer import Reason
from advisor.catalog.trainers import Preset
from advisor.checkpoints import FP8_CAPABILITY, STORES, UNKNOWN_EXPERTS, Checkpoint, Quantization
from advisor.errors import BadValue, InputError
from advisor.knobs import Question
from advisor.libraries import libraries_of, version_text
from advisor.parameters.storage import loads_experts
from advisor.recipes import stored_fields
from advisor.rules.wording import DISPLAY
from advisor.specs import METHODS, QUANTIZED_METHODS, GpuSpec, Method, Model, ModelSpec

STORED = "checkpoint"
SOURCE = "transformers 5.23, quantizers/auto.py and trainer_utils.py, validate_quantization_for_training"
QUANTIZED: dict[Method, Method] = {"lora": "qlora", "dora": "qdora"}
"""What a method is on a base that is quantized already."""
LOADED = {
    "gptq": "backend='auto_trainable' in GPTQConfig: the kernels that it picks by itself refuse to train",
    "awq": "backend='auto_trainable' in AwqConfig: the kernels that it picks by itself refuse to train",
    "mxfp4": "Mxfp4Config(dequantize=True): in MXFP4 itself transformers refuses to train",
    "fp8": "FineGrainedFP8Config(dequantize=True): what a step does with experts in FP8 is not known here",
}
"""What a checkpoint has to be loaded with to be trained on, by its quant_method, and why."""


def taken_as_stored(question: Question, spec: Model, cards: tuple[GpuSpec, ...], preset: Preset) -> Taken:
    """`question` for the checkpoint of `spec`, or for the stored form that --quant asks for.

    Raises BadValue for a method that cannot be run on it, and for knobs that say otherwise than the checkpoint.
    """
    stack = question.stack or preset.values("qlora").get("stack", ())
    libraries = libraries_of(tuple(stack) if isinstance(stack, (tuple, list)) else ())
    checkpoint = spec.checkpoint if isinstance(spec, ModelSpec) else None
    if checkpoint is None:
        assert question.quant is not None
        _check_store(question.quant, libraries.transformers, "")
        if _is_mixture(spec):
            experts = (
                f"what training does with the {STORES[question.quant].title} experts of a mixture is not known here"
            )
            raise BadValue("--quant", question.quant, f"{experts}: take nf4, or leave it out")
        if question.quant == "fp8" and not _keeps_fp8(cards):
            raise BadValue("--quant", "fp8", f"{_NO_FP8}: that is --method lora")
        return Taken(question, spec, _methods(question, question.quant, plain=True))
    if checkpoint.method == "mxfp4" and libraries.code == "unsloth":
        # it takes a copy of its own in 16 or 4 bits: unsloth 2026.10.9, models/mapper.py
        return Taken(question, spec.model_copy(update={"checkpoint": None}))
    if checkpoint.quant == "fp8" and not _keeps_fp8(cards):
        stored = f"{checkpoint.stored} (kept on cards of compute capability 8.9 or more)"
        checkpoint = checkpoint.model_copy(update={"stored": stored, "quant": "none"})
        spec = spec.model_copy(update={"checkpoint": checkpoint})
    if checkpoint.dequantized:
        return _dequantized(question, spec, checkpoint)
    _check_store(checkpoint.quant, libraries.transformers, _instead(checkpoint))
    _check_knobs(question, spec, checkpoint)
    if loads_experts(libraries):
        known = tuple(what for what in checkpoint.unknown if what != UNKNOWN_EXPERTS)
        checkpoint = checkpoint.model_copy(update={"unknown": known})
    notes = [_reason(_sentence(question, checkpoint)), *map(_reason, _loading(checkpoint, _is_mixture(spec)))]
    if question.method in QUANTIZED:
        question = question.model_copy(update={"method": QUANTIZED[question.method]})
    return Taken(question, spec, _methods(question, checkpoint.quant), tuple(notes))


_NO_FP8 = "transformers dequantizes an FP8 base on cards below compute capability 8.9"


def _keeps_fp8(cards: tuple[GpuSpec, ...]) -> bool:
    """Whether all cards have FP8 products; one whose compute capability is not known counts as one without."""
    known = [tuple(map(int, card.compute_capability.split("."))) for card in cards if card.compute_capability]
    return len(known) == len(cards) and all(capability >= FP8_CAPABILITY for capability in known)


def _is_mixture(spec: Model) -> bool:
    return isinstance(spec, ModelSpec) and bool(spec.num_experts)


def _check_store(quant: Quantization, transformers: tuple[int, int], instead: str) -> None:
    store = STORES[quant]
    if transformers >= store.until_transformers:
        version = version_text(transformers)
        older = f"--stack transformers-4.57 has it{f'; or {instead}' if instead else ''}"
        raise InputError(f"transformers {version} does not load {store.title} checkpoints: {older}")


def _methods(question: Question, quant: Quantization, plain: bool = False) -> tuple[Method, ...]:
    """The methods that run on a base stored so; `plain`: those on a 16-bit base run as well."""
    refusal = STORES[quant].no_dora
    if refusal and question.method == "qdora":
        raise BadValue("--method", "qdora", f"{refusal}; take qlora, or the model in 16 bits")
    return tuple(one for one in (METHODS if plain else QUANTIZED_METHODS) if one != "qdora" or not refusal)


def _check_knobs(question: Question, spec: Model, checkpoint: Checkpoint) -> None:
    if question.method == "full":
        raise BadValue(
            "--method",
            "full",
            f"the checkpoint is stored as {checkpoint.stored}, which is trained with adapters only{_or(checkpoint)}",
        )
    if question.method in ("dora", "qdora") and (refusal := STORES[checkpoint.quant].no_dora):
        raise BadValue("--method", question.method, f"{refusal}; take qlora{_or(checkpoint)}")
    holds = stored_fields(spec, "qlora")
    for name, value in question.recipe_fields.items():
        if name in holds and value != holds[name]:
            raise BadValue(
                f"--{name.replace('_', '-')}",
                value,
                f"the checkpoint is stored as {checkpoint.stored}; leave it out{_or(checkpoint)}",
            )


def _dequantized(question: Question, spec: Model, checkpoint: Checkpoint) -> Taken:
    refusal = f"transformers does not quantize a checkpoint stored as {checkpoint.stored} once more{_or(checkpoint)}"
    if question.method in QUANTIZED_METHODS:
        raise BadValue("--method", question.method, refusal)
    if question.quant is not None:
        raise BadValue("--quant", question.quant, refusal)
    methods = tuple(one for one in METHODS if one not in QUANTIZED_METHODS)
    text = (
        f"The checkpoint is stored as {checkpoint.stored}, and dequantized to 16 bits while it is loaded: the base of "
        f"this answer is in 16 bits, and QLoRA is left out{_or(checkpoint) if checkpoint.original else ''}."
    )
    return Taken(question, spec, methods, (_reason(text), *map(_reason, _loading(checkpoint, _is_mixture(spec)))))


def _sentence(question: Question, checkpoint: Checkpoint) -> str:
    """That the base is quantized already, which method that makes, and where the 16-bit original is."""
    text = f"The checkpoint is stored as {checkpoint.stored}"
    if question.method in QUANTIZED:
        asked, is_ = (DISPLAY[one] for one in (question.method, QUANTIZED[question.method]))
        text += f": {asked} on it is {is_}, which is what is computed"
    else:
        left = "" if question.method else " and leaves methods on a 16-bit base out"
        text += f": this answer has it as it is{left}"
    instead = _instead(checkpoint)
    return f"{text}. In 16 bits: {instead}." if instead else f"{text}."


def _loading(checkpoint: Checkpoint, mixture: bool) -> list[str]:
    """How it must be loaded to be trained on, and what of it is not known."""
    texts = []
    if checkpoint.method in LOADED and (checkpoint.method != "fp8" or mixture):
        texts.append(f"Load it with {LOADED[checkpoint.method]}.")
    for what in checkpoint.unknown:
        text = f"It is not known {what}"
        if checkpoint.growth > 1:
            more = f"{checkpoint.growth - 1:.0%}"
            text += f": memory reaches from all in 4 bits to {more} more weights, the most that Unsloth states"
        texts.append(f"{text}; at best the answer is 'tight'.")
    return texts


def _instead(checkpoint: Checkpoint) -> str:
    return f"--model {checkpoint.original}" if checkpoint.original else ""


def _or(checkpoint: Checkpoint) -> str:
    instead = _instead(checkpoint)
    return f"; in 16 bits: {instead}" if instead else "; or take the same model in 16 bits"


def _reason(text: str) -> Reason:
    return Reason(code=STORED, text=text, source=SOURCE)
