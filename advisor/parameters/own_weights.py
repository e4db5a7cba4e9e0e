"""Which of a model's own weights a recipe trains: all, those of its last layers, or modules named beside adapters.

`modules_to_save` names whole modules. Beside adapters peft trains a copy of each and keeps the frozen original: the
copy has the original's dtype, after k-bit upcasting, and `cast_adapter_dtype` leaves it alone. A tied head and its
embedding part by that: each copy is of its own. In full fine-tuning of the last layers (`trained_layers`) a named
module is trained where it is, as those layers are, and the rest of the model is frozen.

Source: peft 0.21, utils/other.py, ModulesToSaveWrapper.update and _set_trainable: a name is matched by `endswith`.
Ignores: `ensure_weight_tying`, which is off by default.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.architectures import architecture_of
from advisor.architectures.classifiers import classifier_of
from advisor.errors import BadValue, UnknownName
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import head_linear, outer_parameters
from advisor.parameters.storage import other_dtype
from advisor.specs import ModelSpec, Recipe

QUANTIZED_SCORES = (
    "fails on the classifier of {}: transformers quantizes it, for its last parameter is a bias, and peft cannot train "
    "it then: use lora, dora or full"
)
"""Source: transformers 5.23, quantizers/base.py, get_keys_to_not_convert: the last parameter's name less '.weight'."""

PACKED_STEPS = (
    "fails on {}: its code multiplies by dt_proj's stored weight, which is packed then: use lora, dora or full"
)
"""Source: transformers 5.23, models/mamba/modeling_mamba.py, MambaMixer.forward: `self.dt_proj.weight @ time_step`."""

NORMS = "norm"
"""The name that ends those of all norms, in most models."""


class OwnWeights(NamedTuple):
    """Which of a model's own weights get gradients.

    `rest`: learned positions, embeddings of layers, and the linear layers around the decoder's.
    """

    layers: bool  # all of a layer that is trained at all
    norms: bool  # those outside such layers, too
    embedding: bool
    head: bool
    rest: bool
    dtype: str  # of those that do


class OuterTensor(NamedTuple):
    """A weight outside the decoder layers, of this shape and dtype, and how often it occurs."""

    shape: tuple[int, ...]
    times: int
    dtype: str
    trained: bool


def embedding_name(m: ModelSpec) -> str:
    """The name of the module that embeds tokens."""
    return architecture_of(m.architecture).embedding_name


def saveable_modules(m: ModelSpec) -> tuple[str, ...]:
    """The modules that can be trained beside adapters; quantized ones cannot, others are left to full fine-tuning."""
    norms = (NORMS,) if architecture_of(m.architecture).norms_end_in_norm and m.norm_weight else ()
    heads = (head_linear(m).name,) if m.task == "next_token" else ()  # an encoder's is tied to a parameter beside it
    if m.task == "classification":
        heads = (classifier_of(model_type=m.architecture).module,)
    return (embedding_name(m), *heads, *norms)


def check_own_weights(m: ModelSpec, names: tuple[str, ...], layers: int) -> None:
    """Raises UnknownName for a module that cannot be trained beside adapters, BadValue for too many layers."""
    known = saveable_modules(m)
    for name in names:
        if name not in known:
            raise UnknownName("module to save", name, known, hint=f"of {m.name} can be trained: {', '.join(known)}")
    if layers > m.num_hidden_layers:
        raise BadValue("--trained-layers", layers, f"must be at most {m.num_hidden_layers}, the layers of {m.name}")


def own_weights(m: ModelSpec, recipe: Recipe) -> OwnWeights:
    """What of the model's own weights `recipe` trains.

    Raises what `check_own_weights` raises.
    """
    other, names, full = other_dtype(recipe), saved_modules(m, recipe), recipe.method == "full"
    if not recipe.trained_layers and (full or not names):
        return OwnWeights(full, full, full, full, full, other)
    check_own_weights(m, names, recipe.trained_layers)
    if full and NORMS in names:
        raise BadValue("--modules-to-save", NORMS, "must not be named where the last layers are trained whole")
    embedding, head = embedding_name(m) in names, head_module(m) in names
    if full and not m.labels and m.tie_word_embeddings:  # one tensor, under one name
        if head and not embedding:
            why = f"of {m.name} is tied to {embedding_name(m)}: name that to train it where it is"
            raise BadValue("--modules-to-save", head_linear(m).name, why)
        head = embedding
    dtype = other if recipe.trained_dtype == "base" else recipe.trained_dtype
    return OwnWeights(full, NORMS in names, embedding, head, False, dtype)


def head_module(m: ModelSpec) -> str:
    """The module that holds the head."""
    return classifier_of(model_type=m.architecture).module if m.task == "classification" else head_linear(m).name


def saved_modules(m: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
    """What is trained beside adapters, or the last layers: what is named, and a classifier's head beside adapters.

    Source: peft 0.21, peft_model.py, PeftModelForSequenceClassification.__init__: ["classifier", "score"].
    """
    names = recipe.modules_to_save
    if recipe.is_quantized and (why := fails_quantized(m)):
        raise BadValue("--method", recipe.method, why)
    scored = m.task == "classification" and recipe.has_adapters and head_module(m) not in names
    return (*names, head_module(m)) if scored else names


def fails_quantized(m: ModelSpec) -> str:
    """Why no adapter can be trained on a quantized base of this model; '' where it can."""
    if m.task == "classification" and m.bidirectional:
        return QUANTIZED_SCORES.format(m.name)
    plain = m.recurrence is not None and m.recurrence.step_rank > 0 and m.recurrence.step_norms == "none"
    return PACKED_STEPS.format(m.name) if plain else ""


def saves_inner(m: ModelSpec) -> bool:
    """Whether the head's module holds the layer before it, too (RoBERTa's)."""
    row = classifier_of(model_type=m.architecture) if m.task == "classification" else None
    return row is not None and row.inner.startswith(f"{row.module}.")


def first_trained_layer(m: ModelSpec, recipe: Recipe) -> int:
    """The index of the first layer with anything that is trained, but for norms that are named."""
    return m.num_hidden_layers - recipe.trained_layers if recipe.trained_layers else 0


def trained_groups(m: ModelSpec, recipe: Recipe) -> tuple[tuple[ModelSpec, int], ...]:
    """The groups of equal layers that get adapters, or are trained whole."""
    return layer_groups(m, first_trained_layer(m, recipe))


def frozen_groups(m: ModelSpec, recipe: Recipe) -> tuple[tuple[ModelSpec, int], ...]:
    """The groups of equal layers before those."""
    return layer_groups(m, 0, first_trained_layer(m, recipe))


def outer_tensors(m: ModelSpec, recipe: Recipe) -> list[OuterTensor]:
    """The model's own weights outside decoder layers and `outer_linears`, without peft's copies."""
    own, other = own_weights(m, recipe), other_dtype(recipe)
    full = recipe.method == "full"

    def tensor(shape: tuple[int, ...], times: int, trained: bool) -> OuterTensor:
        return OuterTensor(shape, times, own.dtype if full and trained else other, full and trained)

    heads = dict.fromkeys(("head", "scores", "head bias"), own.head)
    trains = {"tokens": own.embedding, "norms": own.norms, **heads}
    return [tensor(shape, times, trains.get(part, own.rest)) for shape, times, part in outer_parameters(m)]
