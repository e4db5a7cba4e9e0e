"""The one table of knobs (name, where it belongs, allowed values, help text) and the question made of them.

A knob has one name everywhere: `--seq-len` on the command line, `seq_len` as a keyword of `advise()`, in
`Workload` or `Recipe`, and in JSON. Ranges of numbers are stated once, in the spec that holds the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

from advisor.errors import BadValue, UnknownName
from advisor.frozen import Frozen, Range, annotations_of
from advisor.libraries import stack_names
from advisor.optimizers import OPTIMIZERS, Optimizer
from advisor.specs import (
    ADAPTER_METHODS,
    DORA_METHODS,
    METHODS,
    QUANTIZED_METHODS,
    Attention,
    DType,
    KernelSet,
    Loss,
    Method,
    Offload,
    PackingStrategy,
    Padding,
    Placement,
    Priority,
    Quantization,
    Recipe,
    Rental,
    Sharding,
    Trainer,
    Workload,
)

Home = Literal["question", "workload", "recipe", "placement", "rental"]
Kind = Literal["int", "float", "bool", "choice", "names", "text"]

_SPECS: dict[str, type[Frozen]] = {
    "workload": Workload,
    "recipe": Recipe,
    "placement": Placement,
    "rental": Rental,
}
_DTYPE_ALIASES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_OPTIMIZER_ALIASES = {row.transformers_name: name for name, row in OPTIMIZERS.items()}
_ATTENTION_ALIASES = {"flash_attention_2": "flash", "flash_attn": "flash", "fa2": "flash"}
_QUANT_ALIASES = {"4bit": "nf4", "int4": "nf4", "8bit": "int8"}
_TARGET_ALIASES = {"all": "all-linear", "all_linear": "all-linear"}
_KERNEL_ALIASES = {
    "liger": "liger_norm liger_rope liger_mlp liger_loss",
    "cut_cross_entropy": "cce",
    "lora": "fused_lora",
    "none": "",
}
_PADDING_ALIASES = {"true": "longest", "batch": "longest", "false": "none", "no": "none"}
_PACKING_ALIASES = {"bfd": "position_ids"}
_MAX_NAMES = 64
_TOKENS_K, _COUNT_K = 1024, 1000
TRAINERS: tuple[Trainer, ...] = get_args(Trainer)


class Knob(NamedTuple):
    """One setting: `home` is the spec that holds it ('question' for those that no spec holds)."""

    name: str
    home: Home
    kind: Kind
    help: str
    choices: tuple[str, ...] = ()
    aliases: Mapping[str, str] = {}
    k: int = 0
    """What a trailing k stands for, as in 8k tokens; 0 where it means nothing."""

    @property
    def flag(self) -> str:
        """Spelling on the command line: '--seq-len'."""
        return "--" + self.name.replace("_", "-")

    @property
    def option(self) -> str:
        """Declaration of the command-line option, with its negation where it is a switch."""
        return f"{self.flag}/--no-{self.flag[2:]}" if self.kind == "bool" else self.flag

    @property
    def metavar(self) -> str:
        """What the help text shows after the flag."""
        kinds = {"int": "N", "float": "X", "names": "NAMES", "text": "TEXT", "bool": "", "choice": "NAME"}
        return kinds[self.kind]

    @property
    def explanation(self) -> str:
        """The help text with what is allowed."""
        if self.kind in ("int", "float"):
            allowed = range_of(self).text(self.kind == "int").removeprefix("must be ")
            return f"{self.help} ({allowed}{f'; 1k is {self.k:,}' if self.k else ''})"
        return self.help + (": " + ", ".join(self.choices) if self.choices else "")


KNOBS: tuple[Knob, ...] = (
    Knob("model", "question", "text", "model name, alias, Hub id, or path of a config.json"),
    Knob(
        "gpu", "question", "text", "card name, also '2x3090'; a size like 24GB, 'auto', or a file that describes a card"
    ),
    Knob("gpus", "placement", "int", "number of these cards (default: 1)"),
    Knob("examples", "workload", "int", "rows of the data set", k=_COUNT_K),
    Knob("data", "question", "text", "the data set: a .jsonl, .json, .csv, .parquet or .txt file (.gz, too)"),
    Knob("data_columns", "question", "names", "columns of other names: text=NAME, or prompt=NAME,completion=NAME"),
    Knob("tokenizer", "question", "text", "tokenizer.json, its folder, or a Hub id in the cache, to count tokens"),
    Knob("skip_bad_lines", "question", "bool", "leave out rows of --data that cannot be read"),
    Knob("epochs", "workload", "float", "passes over the data"),
    Knob("method", "question", "choice", "only this method ('all' compares them)", ("all", *METHODS)),
    Knob("rank", "recipe", "int", "rank of the adapters"),
    Knob("alpha", "recipe", "float", "scaling of the adapters (default: twice the rank)"),
    Knob(
        "target_modules",
        "recipe",
        "names",
        "all-linear, attention, or module names with commas or spaces",
        aliases=_TARGET_ALIASES,
    ),
    Knob("dropout", "recipe", "float", "dropout before the adapters"),
    Knob("base_dtype", "recipe", "choice", "dtype of the base model", get_args(DType), _DTYPE_ALIASES),
    Knob("adapter_dtype", "recipe", "choice", "dtype of the adapters", get_args(DType), _DTYPE_ALIASES),
    Knob(
        "magnitude_dtype",
        "recipe",
        "choice",
        "dtype of DoRA's magnitudes (default: that of the adapters)",
        get_args(DType),
        _DTYPE_ALIASES,
    ),
    Knob("quant", "recipe", "choice", "storage of the base in QLoRA and QDoRA", ("nf4", "fp4", "int8"), _QUANT_ALIASES),
    Knob("double_quant", "recipe", "bool", "also quantize the 4-bit quantization constants"),
    Knob("kbit_upcast", "recipe", "bool", "prepare_model_for_kbit_training: cast the rest of the base to fp32"),
    Knob("autocast", "recipe", "bool", "mixed precision (Trainer's bf16=True or fp16=True)"),
    Knob(
        "optimizer",
        "recipe",
        "choice",
        "optimizer, also by transformers' name",
        get_args(Optimizer),
        _OPTIMIZER_ALIASES,
    ),
    Knob("gradient_checkpointing", "recipe", "bool", "recompute activations in the backward pass"),
    Knob("reentrant", "recipe", "bool", "the re-entrant variant of checkpointing"),
    Knob("attention", "recipe", "choice", "attention implementation", get_args(Attention), _ATTENTION_ALIASES),
    Knob("loss", "recipe", "choice", "all logits at once, or in chunks", get_args(Loss)),
    Knob("stack", "recipe", "names", "versions of the libraries, as transformers-4.57 or peft-0.11"),
    Knob(
        "kernels",
        "recipe",
        "names",
        "kernels in place of the model's own code, or none; liger stands for its four",
        get_args(KernelSet),
        _KERNEL_ALIASES,
    ),
    Knob("offload", "recipe", "choice", "what waits in the host's memory until backward", get_args(Offload)),
    Knob("optimizer_in_backward", "recipe", "bool", "update each parameter as soon as its gradient is there"),
    Knob("micro_batch", "recipe", "int", "rows per forward pass and card"),
    Knob("expandable_segments", "recipe", "bool", "PYTORCH_ALLOC_CONF=expandable_segments:True"),
    Knob("batch_size", "workload", "int", "effective batch: rows per optimizer step, all cards together"),
    Knob("seq_len", "workload", "int", "longest row in tokens", k=_TOKENS_K),
    Knob("mean_seq_len", "workload", "int", "mean row in tokens", k=_TOKENS_K),
    Knob("packing", "workload", "bool", "fill every row up to --seq-len with several examples"),
    Knob(
        "packing_strategy",
        "workload",
        "choice",
        "how examples in a packed row are kept apart: not at all, by position ids, by the attention kernel",
        get_args(PackingStrategy),
        _PACKING_ALIASES,
    ),
    Knob(
        "padding",
        "workload",
        "choice",
        "what rows are padded to: their micro-batch's longest row, --seq-len, or nothing",
        get_args(Padding),
        _PADDING_ALIASES,
    ),
    Knob("pad_to_multiple_of", "workload", "int", "round padded lengths up to a multiple of so many tokens"),
    Knob("group_by_length", "workload", "bool", "micro-batches of rows of about the same length"),
    Knob("eval_examples", "workload", "int", "rows of an evaluation, which adds its memory and its time", k=_COUNT_K),
    Knob("eval_batch", "recipe", "int", "evaluation rows per forward pass and card (default: 8 if there is one)"),
    Knob("eval_steps", "workload", "int", "steps from one evaluation to the next (default: an epoch)"),
    Knob("trainer", "question", "choice", "training stack whose defaults are used", TRAINERS),
    Knob("sharding", "placement", "choice", "what is spread over several cards", get_args(Sharding)),
    Knob("priority", "question", "choice", "what matters most", get_args(Priority)),
    Knob("price_per_hour", "rental", "float", "price of one card per hour, in any currency: adds the job's cost"),
)
BY_NAME: dict[str, Knob] = {knob.name: knob for knob in KNOBS}
COLLATOR_KNOBS = ("packing_strategy", "padding", "pad_to_multiple_of")
"""Knobs of a workload that a trainer may set."""
RECIPE_KNOBS = tuple(knob.name for knob in KNOBS if knob.home == "recipe")


@cache
def _annotations(home: Home) -> dict[str, object]:
    return annotations_of(_SPECS[home])


def range_of(knob: Knob) -> Range:
    """The range that the spec's own field declares. ValueError for a knob that is not a number."""
    if knob.kind not in ("int", "float"):
        raise ValueError(f"{knob.name} is not a number")
    for mark in get_args(_annotations(knob.home)[knob.name]):
        if isinstance(mark, Range):
            return mark
    raise ValueError(f"{knob.name} has no range in {knob.home}")


def read_value(name: str, value: object) -> object:
    """`value` of the knob `name`, checked and in its own type; text is parsed, so "16" is 16.

    Raises UnknownName for a knob or a choice that does not exist and BadValue for a value out of range.
    """
    if name not in BY_NAME:
        raise UnknownName("knob", name, BY_NAME)
    knob = BY_NAME[name]
    if knob.kind in ("int", "float"):
        return _read_number(knob, value)
    if knob.kind == "bool":
        if not isinstance(value, bool):
            raise BadValue(knob.flag, value, "must be True or False")
        return value
    if knob.kind == "names":
        return _read_names(knob, value)
    text = value if isinstance(value, str) else repr(value)
    if knob.kind == "choice":
        word = text.strip().lower().replace("-", "_")
        chosen = word if word in knob.choices else knob.aliases.get(word)
        if chosen is None:
            known = "known: " + ", ".join(knob.choices)
            raise UnknownName(knob.name.replace("_", " "), text, (*knob.choices, *knob.aliases), known)
        return chosen
    if not text.strip() or not text.isprintable() or len(text) > 4096:
        raise BadValue(knob.flag, text, "must be one line of printable text")
    return text


_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_THOUSANDS = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([km])")


def _read_number(knob: Knob, value: object) -> int | float:
    allowed, whole = range_of(knob), knob.kind == "int"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadValue(knob.flag, value, allowed.text(whole))
    try:
        plain = _plain_digits(knob, value) if isinstance(value, str) else value
        number = int(plain) if whole and isinstance(plain, str) else float(plain)
        good = allowed.holds(number) and (not whole or number == int(number))
    except (ValueError, OverflowError):
        good = False
    if not good:
        raise BadValue(knob.flag, value, allowed.text(whole))
    return int(number) if whole else float(number)


def _plain_digits(knob: Knob, text: str) -> str | float:
    """The number as Python reads it: "10,000" without commas, "8k" times what the knob's k stands for."""
    word = text.strip().lower()
    if _GROUPED.fullmatch(word):
        return word.replace(",", "")
    match = _THOUSANDS.fullmatch(word) if knob.k else None
    return text if match is None else round(float(match[1]) * knob.k ** (1 + (match[2] == "m")), 3)


def _read_names(knob: Knob, value: object) -> tuple[str, ...]:
    parts = re.split(r"\s*,\s*|\s+", value.strip()) if isinstance(value, str) else value
    if isinstance(parts, (list, tuple)) and 0 < len(parts) <= _MAX_NAMES:
        words = tuple(part.strip() for part in parts if isinstance(part, str))
        given = (
            knob.aliases.get(word.lower().replace("-", "_"), knob.aliases.get(word.lower(), word)) for word in words
        )
        names = tuple(dict.fromkeys(name for word in given for name in word.split()))
        if len(words) == len(parts) and all(words) and all(name.isprintable() for name in names):
            return _known_names(knob, names)
    raise BadValue(knob.flag, value, f"must be names separated by commas: {knob.help}")


def _known_names(knob: Knob, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names as a recipe holds them, if the knob has choices or they are libraries with versions."""
    if knob.name == "stack":
        return stack_names(names)
    if not knob.choices:
        return names
    spelled = tuple(name.lower().replace("-", "_") for name in names)
    for name, word in zip(names, spelled, strict=True):
        if word not in knob.choices:
            known = "known: " + ", ".join(knob.choices)
            raise UnknownName(knob.name.removesuffix("s"), name, (*knob.choices, *knob.aliases), known)
    return tuple(choice for choice in knob.choices if choice in spelled)


_ONLY_ADAPTERS = ("rank", "alpha", "target_modules", "dropout", "adapter_dtype", "magnitude_dtype")
_ONLY_QUANTIZED = ("quant", "double_quant", "kbit_upcast")


def idle_knobs(method: Method, quant: Quantization = "nf4", gradient_checkpointing: bool = True) -> dict[str, str]:
    """The recipe's knobs that mean nothing for `method`, each with why; `quant` is what a quantized base is stored in.

    Some mean nothing given another knob: re-entrant checkpointing without checkpointing, for example.
    """
    idle: dict[str, str] = {}
    if method != "full":
        idle["optimizer_in_backward"] = "with adapters: only recipes of full fine-tuning have it"
    if method not in ADAPTER_METHODS:
        idle |= dict.fromkeys(_ONLY_ADAPTERS, f"without adapters (--method {method})")
    elif method not in DORA_METHODS:
        idle["magnitude_dtype"] = "without DoRA's magnitudes"
    if method not in QUANTIZED_METHODS:
        idle |= dict.fromkeys(_ONLY_QUANTIZED, f"without a quantized base (--method {method})")
    elif quant == "int8":
        idle["double_quant"] = "with --quant int8, which has no second level"
    if not gradient_checkpointing:
        idle["reentrant"] = "without gradient checkpointing"
    return idle


class Question(Frozen):
    """One field for each knob of `knobs.KNOBS` except the model and the card; None leaves it open."""

    gpus: int | None = None
    examples: int | None = None
    data: str | None = None
    data_columns: tuple[str, ...] | None = None
    tokenizer: str | None = None
    skip_bad_lines: bool | None = None
    epochs: float | None = None
    method: Method | None = None  # 'all' leaves it open
    rank: int | None = None
    alpha: float | None = None
    target_modules: tuple[str, ...] | None = None
    dropout: float | None = None
    base_dtype: DType | None = None
    adapter_dtype: DType | None = None
    magnitude_dtype: DType | None = None
    quant: Quantization | None = None
    double_quant: bool | None = None
    kbit_upcast: bool | None = None
    autocast: bool | None = None
    optimizer: Optimizer | None = None
    gradient_checkpointing: bool | None = None
    reentrant: bool | None = None
    attention: Attention | None = None
    loss: Loss | None = None
    stack: tuple[str, ...] | None = None
    kernels: tuple[KernelSet, ...] | None = None
    offload: Offload | None = None
    optimizer_in_backward: bool | None = None
    micro_batch: int | None = None
    expandable_segments: bool | None = None
    batch_size: int | None = None
    seq_len: int | None = None
    mean_seq_len: int | None = None
    packing: bool | None = None
    packing_strategy: PackingStrategy | None = None
    padding: Padding | None = None
    pad_to_multiple_of: int | None = None
    group_by_length: bool | None = None
    eval_examples: int | None = None
    eval_batch: int | None = None
    eval_steps: int | None = None
    trainer: Trainer | None = None
    sharding: Sharding | None = None
    priority: Priority | None = None
    price_per_hour: float | None = None
    fixed: tuple[str, ...] = ()  # names of the knobs that were given, in the order of KNOBS

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods in question, in the order of their rows."""
        return METHODS if self.method is None else (self.method,)

    @property
    def recipe_fields(self) -> dict[str, Any]:
        """The knobs of a recipe that were given, by name."""
        return {name: getattr(self, name) for name in self.fixed if name in RECIPE_KNOBS}

    def fixing(self, changes: Mapping[str, object]) -> Question:
        """The same question with further knobs given, or with other values."""
        return self.model_copy(update={**changes, "fixed": tuple(dict.fromkeys((*self.fixed, *changes)))})

    def leaving_open(self, name: str) -> Question:
        """The same question without one knob."""
        return self.model_copy(update={name: None, "fixed": tuple(one for one in self.fixed if one != name)})


def read_question(knobs: Mapping[str, object]) -> Question:
    """The question that these knobs ask; None leaves one open. Raises UnknownName or BadValue."""
    given = {name: read_value(name, value) for name, value in knobs.items() if value is not None}
    if given.get("method") == "all":
        del given["method"]
    return Question.model_validate({**given, "fixed": tuple(name for name in BY_NAME if name in given)})
