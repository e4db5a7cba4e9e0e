"""A training run that a trainer's file describes, and what the files of all trainers say alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from advisor.answer import DataFile
from advisor.checkpoints import STORES
from advisor.errors import BadValue, InputError
from advisor.libraries import allocator_variable
from advisor.optimizers import optimizer_row
from advisor.parameters.layer_inputs import left_whole
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import layer_linears, parameter_count
from advisor.parameters.targets import attention_names, spelled_targets
from advisor.parameters.token_mixers import distributions_of
from advisor.rates import learning_rate
from advisor.specs import ModelSpec, Placement, Recipe, Workload

ATTENTION = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}


DTYPES = {"bf16": "bfloat16", "fp16": "float16", "": "float32"}
"""By the word of mixed precision, '' where it is off."""
LORAPLUS_RATIO = 16
"""Of the learning rates of B and A: Hayou et al. 2024, arXiv:2402.12354, section 4.3."""


class Run(NamedTuple):
    """What is trained, on what, with which rows, how."""

    model_id: str
    """A Hub id, or the path of a folder or of its config.json."""
    model: ModelSpec
    recipe: Recipe
    workload: Workload
    data: DataFile
    gpus: int = 1
    bf16: bool = True
    """Whether the cards compute in bf16; if not, mixed precision is fp16."""
    placement: Placement = Placement()
    """How the cards share the job."""
    by_accelerate: bool = False
    """Whether accelerate's launcher starts it where the trainer has one of its own."""
    port: str = "29500"
    """Where several machines meet."""
    loads_on_host: bool = False
    """Whether a base in 4 bits is larger than a card, which gets its part of it later."""

    @property
    def source(self) -> str:
        """What from_pretrained takes: the folder of a config.json, or the Hub id."""
        folder = self.model_id.removesuffix("config.json").rstrip("/")
        return folder if self.model_id.endswith("/config.json") else self.model_id

    @property
    def quantizes(self) -> bool:
        """Whether bitsandbytes quantizes the base while it is loaded: not where its checkpoint is quantized already."""
        return self.recipe.is_quantized and self.model.checkpoint is None

    @property
    def stored_as(self) -> str:
        """The quant_method of a checkpoint that is not in 16 bits; '' for any other."""
        return "" if self.model.checkpoint is None else self.model.checkpoint.method

    @property
    def sequence_packages(self) -> str:
        """What pip installs for layers without attention, each after a space, if their kernels are counted."""
        counted = self.recipe.sequence_kernels == "packages"
        return "".join(f" {name}" for name in distributions_of(self.model) if counted)

    @property
    def engine_packages(self) -> str:
        """What pip installs for the engine, after a space."""
        return " deepspeed" if self.placement.effective_sharding.startswith("zero") else ""

    @property
    def storage_dtype(self) -> str:
        """What bitsandbytes must store 4-bit weights as, so that they are shared out: what is computed in; '' for any.

        Another floating dtype would be cast where weights are gathered, and uint8 is not spread. Source: PyTorch 2.13,
        distributed/fsdp/_fully_shard/_fsdp_param.py; accelerate 1.15, utils/fsdp_utils.py, fsdp2_prepare_model.
        """
        if not (self.quantizes and self.placement.spreads_weights):
            return ""
        return DTYPES[self.mixed_precision] if self.recipe.autocast else self.recipe.base_dtype

    @property
    def mixed_precision(self) -> str:
        """The dtype of autocast: 'bf16', 'fp16', or '' where it is off."""
        if not self.recipe.autocast:
            return ""
        return "bf16" if self.bf16 and self.recipe.base_dtype != "float16" else "fp16"

    @property
    def eval_batch(self) -> int:
        """Rows of an evaluation batch: those of a micro-batch, which needs more, where nobody asked for evaluation."""
        return self.recipe.eval_batch or self.recipe.micro_batch

    @property
    def learning_rate(self) -> float:
        """A usual one to start from."""
        return learning_rate(self.recipe.method, parameter_count(self.model), self.recipe.variant).value

    @property
    def adapts_all_linear(self) -> bool:
        """Whether peft's own word for every linear layer names the modules that get adapters."""
        return spelled_targets(self.model, self.recipe) == ("all-linear",)

    @property
    def target_modules(self) -> list[str]:
        """The names of the modules that get adapters, as peft takes them; ['all-linear'] for all."""
        if self.recipe.target_modules == ("attention",):
            return list(attention_names(self.model))
        return list(spelled_targets(self.model, self.recipe))

    @property
    def trained_layers(self) -> range:
        """The numbers of the layers that get adapters or are trained."""
        return range(self.model.num_hidden_layers)[-self.recipe.trained_layers :]

    def variant_keys(self, trainer: str, keys: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
        """The key and value for LoRA's variant, of those that `trainer` has. Raises BadValue for any other."""
        recipe = self.recipe
        if recipe.variant == "plain":
            return {}
        if recipe.variant == "pissa" and recipe.is_quantized:
            raise BadValue("--variant", "pissa", f"peft cannot start it from a quantized base ({recipe.method})")
        if recipe.variant not in keys:
            known = ", ".join(sorted(keys))
            raise BadValue("--variant", recipe.variant, f"a file for {trainer} has no key for it, only for {known}")
        return dict([keys[recipe.variant]])

    def optimizer_arguments(self, trainer: str) -> dict[str, Any]:
        """The optimizer as transformers' TrainingArguments take it. Raises BadValue for one that they do not make."""
        recipe, row = self.recipe, optimizer_row(self.recipe.optimizer)
        if not row.transformers_name:
            where = "axolotl or llamafactory" if recipe.optimizer == "muon" else "axolotl"
            raise BadValue("--optimizer", recipe.optimizer, f"{trainer} does not make it; --write {where} does")
        if not row.low_rank:
            return {"optim": row.transformers_name}
        names = (name for part, _ in layer_groups(self.model) for name in layer_linears(part))
        return {
            "optim": row.transformers_name,
            "optim_target_modules": list(dict.fromkeys(names)),
            "optim_args": f"rank={recipe.optimizer_rank}",
        }


def check_stored(run: Run, trainer: str = "", *refused: str) -> None:
    """Raises InputError where a file for `trainer` cannot say how to load the base: checkpoints of these methods.

    And for a base in a stored form that only a checkpoint has, where the model's is in 16 bits.
    """
    if run.quantizes and not STORES[run.recipe.quant].by_bitsandbytes:
        title = STORES[run.recipe.quant].title
        raise InputError(f"no file for --quant {run.recipe.quant}: give the id of a {title} checkpoint as --model")
    if run.stored_as == "hqq" and run.recipe.is_quantized:
        raise InputError("no file for an HQQ checkpoint: transformers 5, which files are written for, does not load it")
    if run.quantizes and trainer not in ("", "Unsloth") and (names := left_whole(run.model)):
        raise InputError(
            f"{trainer}'s file cannot say that {' and '.join(names)} of {run.model.architecture} stay in 16 bits, "
            "without which its code fails: use --write python"
        )
    if run.stored_as in refused:
        raise InputError(
            f"{trainer}'s file cannot say how a checkpoint stored by {run.stored_as} is loaded for training: use "
            "--write python"
        )


class TrainingFile(NamedTuple):
    """A file that a trainer reads, and the command that starts the run in the file's folder."""

    name: str
    text: str
    command: str
    beside: tuple[tuple[str, str], ...] = ()
    """(name, text) of other files that it needs next to it."""
    machines: int = 1
    """On how many the command is run."""
    packages: str = ""
    """What pip installs for it."""
    caution: str = ""
    """A sentence where another trainer's step was estimated than this file runs; its text begins with it."""


def command_of(run: Run, command: str, allocator: str = "") -> str:
    """The command, and before it the environment that the recipe asks for.

    `allocator`: the variable that PyTorch's allocator reads, where the file installs another PyTorch than the recipe's.
    """
    variable = allocator or allocator_variable(run.recipe.stack)
    return f"{variable}=expandable_segments:True {command}" if run.recipe.expandable_segments else command


def quoted_list(names: Sequence[str]) -> str:
    """A Python literal of a list of names."""
    return f"[{', '.join(map(quoted, names))}]"


def quoted(text: str) -> str:
    """A Python literal of a text, in double quotes where that needs no escapes."""
    return f'"{text}"' if repr(text) == f"'{text}'" and '"' not in text else repr(text)
