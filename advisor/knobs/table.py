"""The one table of knobs (name, where it belongs, allowed values, help text) and the question made of them.

A knob has one name everywhere: `--seq-len` on the command line, `seq_len` as a keyword of `advise()`, in
`Workload` or `Recipe`, and in JSON. Ranges of numbers are stated once, in the spec that holds the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal, NamedTuple, get_args

from advisor.checkpoints import STORES
from advisor.frozen import Frozen, Range, annotations_of
from advisor.knobs.aliases import (
    ATTENTION_ALIASES,
    DTYPE_ALIASES,
    KERNEL_ALIASES,
    OPTIMIZER_ALIASES,
    PACKING_ALIASES,
    PADDING_ALIASES,
    QUANT_ALIASES,
    TARGET_ALIASES,
    TRAINER_ALIASES,
    VARIANT_ALIASES,
)
from advisor.optimizers import Optimizer
from advisor.specs import (
    METHODS,
    Attention,
    DType,
    KernelSet,
    Link,
    Loss,
    ModelSpec,
    Offload,
    PackingStrategy,
    Padding,
    Placement,
    Priority,
    Recipe,
    Rental,
    SequenceKernels,
    Sharding,
    StateOffload,
    TrainedDType,
    Trainer,
    Variant,
    Workload,
)

Home = Literal["question", "model", "workload", "recipe", "placement", "rental"]
Kind = Literal["int", "float", "bool", "choice", "names", "text"]

_SPECS: dict[str, type[Frozen]] = {
    "model": ModelSpec,
    "workload": Workload,
    "recipe": Recipe,
    "placement": Placement,
    "rental": Rental,
}
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
    Knob("task", "model", "choice", "train it for another task than its config names", ("classification",)),
    Knob("labels", "model", "int", "scores of a row with --task classification: classes, or 1 for a number"),
    Knob("rank", "recipe", "int", "rank of the adapters"),
    Knob("alpha", "recipe", "float", "scaling of the adapters (default: twice the rank)"),
    Knob(
        "target_modules",
        "recipe",
        "names",
        "all-linear, attention, module names with commas or spaces, or one regular expression of their paths",
        aliases=TARGET_ALIASES,
    ),
    Knob(
        "modules_to_save",
        "recipe",
        "names",
        "modules trained whole: embed_tokens, lm_head or norm, beside adapters or the last layers",
    ),
    Knob("trained_layers", "recipe", "int", "only the last so many layers get adapters or are trained; 0: all"),
    Knob(
        "trained_dtype",
        "recipe",
        "choice",
        "dtype of weights that --modules-to-save or --trained-layers train; base: as loaded",
        get_args(TrainedDType),
        DTYPE_ALIASES,
    ),
    Knob(
        "train_tower",
        "recipe",
        "bool",
        "adapters on the vision tower and projector, where targets reach them, or their full fine-tuning",
    ),
    Knob(
        "variant",
        "recipe",
        "choice",
        "how LoRA scales, starts or learns, or OFT, IA3 or VeRA in its place",
        get_args(Variant),
        VARIANT_ALIASES,
    ),
    Knob("dropout", "recipe", "float", "dropout before the adapters"),
    Knob("base_dtype", "recipe", "choice", "dtype of the base model", get_args(DType), DTYPE_ALIASES),
    Knob("adapter_dtype", "recipe", "choice", "dtype of the adapters", get_args(DType), DTYPE_ALIASES),
    Knob(
        "magnitude_dtype",
        "recipe",
        "choice",
        "dtype of DoRA's magnitudes (default: that of the adapters)",
        get_args(DType),
        DTYPE_ALIASES,
    ),
    Knob("quant", "recipe", "choice", "storage of the base in QLoRA and QDoRA", tuple(STORES), QUANT_ALIASES),
    Knob("double_quant", "recipe", "bool", "also quantize the 4-bit quantization constants"),
    Knob("quant_bits", "recipe", "int", "bits of a weight in a gptq, awq or hqq base"),
    Knob("quant_group", "recipe", "int", "weights that share a scale in a gptq, awq, hqq or fp8 base; 0 for one a row"),
    Knob("kbit_upcast", "recipe", "bool", "prepare_model_for_kbit_training: cast the rest of the base to fp32"),
    Knob("quantize_experts", "recipe", "bool", "store the stacks of a mixture's experts in 4 bits, too"),
    Knob("autocast", "recipe", "bool", "mixed precision (Trainer's bf16=True or fp16=True)"),
    Knob(
        "optimizer",
        "recipe",
        "choice",
        "optimizer, also by transformers' name",
        get_args(Optimizer),
        OPTIMIZER_ALIASES,
    ),
    Knob("optimizer_rank", "recipe", "int", "rank of the projections of galore and apollo"),
    Knob("gradient_checkpointing", "recipe", "bool", "recompute activations in the backward pass"),
    Knob("reentrant", "recipe", "bool", "the re-entrant variant of checkpointing"),
    Knob("attention", "recipe", "choice", "attention implementation", get_args(Attention), ATTENTION_ALIASES),
    Knob("loss", "recipe", "choice", "all logits at once, or in chunks", get_args(Loss)),
    Knob("upcast_logits", "recipe", "bool", "compute the loss in fp32, as transformers always does"),
    Knob("neftune", "recipe", "float", "noise on embedded tokens (NEFTune's alpha; 0: none)"),
    Knob("stack", "recipe", "names", "versions of the libraries, as transformers-4.57 or peft-0.11"),
    Knob(
        "kernels",
        "recipe",
        "names",
        "kernels in place of the model's own code, or none; liger stands for its four",
        get_args(KernelSet),
        KERNEL_ALIASES,
    ),
    Knob(
        "sequence_kernels",
        "recipe",
        "choice",
        "what runs linear attention, Mamba and short convolutions: their packages, or the model's own PyTorch code",
        get_args(SequenceKernels),
        {"fla": "packages", "mamba_ssm": "packages", "causal_conv1d": "packages", "pytorch": "torch"},
    ),
    Knob(
        "offload",
        "recipe",
        "choice",
        "what waits in the host's memory: activations until backward, or parts of a sharded job until they are needed",
        tuple(dict.fromkeys((*get_args(StateOffload), *get_args(Offload)))),
    ),
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
        PACKING_ALIASES,
    ),
    Knob(
        "padding",
        "workload",
        "choice",
        "what rows are padded to: their micro-batch's longest row, --seq-len, or nothing",
        get_args(Padding),
        PADDING_ALIASES,
    ),
    Knob("pad_to_multiple_of", "workload", "int", "round padded lengths up to a multiple of so many tokens"),
    Knob("group_by_length", "workload", "bool", "micro-batches of rows of about the same length"),
    Knob("images", "workload", "int", "images of each row, for a model that sees"),
    Knob("image_size", "workload", "text", "pixels of an image, as 1024x768 (width x height)"),
    Knob("max_pixels", "workload", "int", "most pixels of an image, beyond which it is shrunk; 0: the model's limit"),
    Knob("eval_examples", "workload", "int", "rows of an evaluation, which adds its memory and its time", k=_COUNT_K),
    Knob("eval_batch", "recipe", "int", "evaluation rows per forward pass and card (default: 8 if there is one)"),
    Knob("eval_steps", "workload", "int", "steps from one evaluation to the next (default: an epoch)"),
    Knob("trainer", "question", "choice", "training stack whose defaults are used", TRAINERS, TRAINER_ALIASES),
    Knob("nodes", "placement", "int", "number of machines that the cards are in (default: 1)"),
    Knob("sharding", "placement", "choice", "engine that spreads the job over several cards", get_args(Sharding)),
    Knob("reshard", "placement", "bool", "FSDP: free a layer's weights after its forward and gather them again"),
    Knob("prefetch", "placement", "bool", "FSDP1: gather the next layer early in backward (BACKWARD_PRE)"),
    Knob("bucket_elements", "placement", "int", "DeepSpeed's reduce_bucket_size (default: its usual value)"),
    Knob("link", "placement", "choice", "what joins the cards of a machine", get_args(Link)),
    Knob("network_gbit", "placement", "float", "Gbit/s of each card's way out of its machine"),
    Knob("host_memory_gb", "placement", "float", "memory of each machine in GB, which several cards must fit too"),
    Knob("priority", "question", "choice", "what matters most", get_args(Priority)),
    Knob("price_per_hour", "rental", "float", "price of one card per hour, in any currency: adds the job's cost"),
)
BY_NAME: dict[str, Knob] = {knob.name: knob for knob in KNOBS}
COLLATOR_KNOBS = ("packing_strategy", "padding", "pad_to_multiple_of", "max_pixels")
"""Knobs of a workload that a trainer may set."""
SPREADING_KNOBS = tuple(knob.name for knob in KNOBS if knob.home == "placement" and knob.name != "gpus")
"""Knobs about several cards."""
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
