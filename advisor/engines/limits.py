"""Which jobs can be spread over several cards, and what is not known of one that is."""

from __future__ import annotations

from advisor.engines import engine_kind
from advisor.engines.engine import Engine
from advisor.errors import BadValue
from advisor.libraries import libraries_of
from advisor.optimizers import optimizer_row
from advisor.specs import Model, ModelSpec, Placement, Recipe

BY_ELEMENT = ("adamw", "adamw_foreach", "sgd")
"""Optimizers of PyTorch that do with a part of a parameter what they do with all of it."""
BY_ACCELERATE = ("", "llamafactory", "ms-swift")
"""Trainers, by the code of their stack, that leave several cards to transformers' Trainer and accelerate."""
WHOLE_ALONE = "torchtune runs bitsandbytes' optimizers on one card alone; take adamw"
"""Source: torchtune 0.6.1, docs/source/tutorials/memory_optimizations.rst, Lower Precision Optimizers."""


def refusal(m: Model, recipe: Recipe, placement: Placement) -> str:
    """Why a recipe cannot run on cards that shard by the placement's engine, and what to do; '' where it can."""
    if placement.copies_model:
        return ""
    if not isinstance(m, ModelSpec):
        return "only ddp is known for a model that was traced, not computed; use --sharding ddp"
    if libraries_of(recipe.stack).code == "unsloth":
        # trelis.substack.com/p/multi-gpu-training-with-unsloth; accelerate loads its models on one card each
        return "Unsloth runs several cards as copies of the model alone; use --sharding ddp"
    if placement.sharding.startswith("zero") and libraries_of(recipe.stack).code not in BY_ACCELERATE:
        return f"{libraries_of(recipe.stack).code} does not run DeepSpeed; use --sharding fsdp2"
    if libraries_of(recipe.stack).code == "torchtune" and optimizer_row(recipe.optimizer).needs_bitsandbytes:
        return WHOLE_ALONE
    if m.vision is not None and m.vision.row:
        return "how the tower that reads images is spread is not known; use --sharding ddp"
    if m.task == "classification":
        return "how a classifier's head is spread is not known; use --sharding ddp"
    if recipe.optimizer_in_backward:
        return "an optimizer step inside backward is not known for cards that hold parts of weights; leave it out"
    if recipe.quantize_experts and recipe.is_quantized:
        return "how stacks of experts in 4 bits are spread over cards is not known; leave --quantize-experts out"
    if placement.spreads_weights and recipe.is_quantized and recipe.quant not in ("nf4", "fp4"):
        return f"weights stored as {recipe.quant} are not spread over cards; use --sharding ddp"
    if recipe.is_quantized and m.checkpoint is not None and placement.spreads_weights:
        # accelerate 1.15, utils/fsdp_utils.py, fsdp2_prepare_model, leaves uint8 whole; peft's guide of DeepSpeed
        return "a checkpoint in 4 bits is stored as uint8, which is not spread; take the model in 16 bits, or ddp"
    return engine_kind(placement.effective_sharding).refuses(m, recipe)


def check_placement(m: Model, recipe: Recipe, placement: Placement) -> None:
    """Raises BadValue where `refusal` says why."""
    if why := refusal(m, recipe, placement):
        raise BadValue("--sharding", placement.effective_sharding, f"with --method {recipe.method}: {why}")


def not_known(m: ModelSpec, recipe: Recipe, engine: Engine) -> tuple[str, ...]:
    """What runs on several cards and is not mirrored, beside what the engine says itself."""
    found, code, at = list(engine.unknown()), libraries_of(recipe.stack).code, engine.placement
    if at.offload != "none" and not at.host_memory_gb:
        found.append("whether a machine's memory holds what is offloaded: --host-memory-gb is not given")
    if engine.placement.copies_model:
        return tuple(found)
    if code not in BY_ACCELERATE:
        found.append(f"how {code} sets {engine.name} up: counted as accelerate does")
    if recipe.optimizer not in BY_ELEMENT:
        found.append(f"{recipe.optimizer} on parts of parameters: counted as on whole ones")
    if m.vision is not None:
        found.append(f"how {engine.name} cuts a vision tower: counted as one unit of its own")
    return tuple(found)
