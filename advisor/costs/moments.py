"""What a job holds beside its training step: while it evaluates, and while its model is loaded and prepared.

evaluation  a forward without gradients, beside everything that is held for good, optimizer states included
loading     4-bit and 8-bit weights are made one by one, each beside the 16-bit tensor it is made from, or are loaded
preparing   peft's k-bit preparation casts what is not quantized to fp32, one tensor beside its copy

The first step is no moment of its own: its optimizer makes its states beside the gradients, which the optimizer's
phase of every step holds as well. Nor is saving: tensors go to the host one by one; a mixture that was trained in full
is split into its experts before, which copies two thirds of them, less than the gradients of a step.
Source: transformers 5.23, modeling_utils.py, save_pretrained, and core_model_loading.py, Chunk.

Weights that are not quantized are loaded on the host and moved to the card one by one: at most the step's own weights.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple

from advisor.blocks import ITEM_BYTES, block_bytes
from advisor.checkpoints import STORES
from advisor.costs.memory import StepMemory, extended
from advisor.costs.static import static_memory
from advisor.decoders.recorder import HEAD
from advisor.decoders.stack import THIS_STACK, Stack
from advisor.decoders.step import evaluation_program
from advisor.parameters.layer_inputs import layer_table
from advisor.parameters.layers import layer_groups
from advisor.parameters.modules import layer_linears, own_parameters
from advisor.parameters.storage import QUANTIZATION_BLOCK, layer_quant, own_quant
from advisor.parameters.targets import default_targets
from advisor.specs import ModelSpec, Recipe
from advisor.tape.graph import CATEGORY_NAMES, Device
from advisor.tape.program import plus
from advisor.terms import TermName

WEIGHTS = (TermName.BASE_WEIGHTS, TermName.QUANTIZATION_CONSTANTS, TermName.BUFFERS)


def predict_evaluation_memory(
    m: ModelSpec,
    recipe: Recipe,
    batch: int,
    seq_len: int,
    device: Device = "cuda",
    stack: Stack = THIS_STACK,
    padded: bool = False,
    capability: str = "",
    packed: bool = False,
) -> StepMemory:
    """Peak memory of evaluating `batch` rows of `seq_len` tokens between two training steps, losses only.

    The Trainer has freed the gradients by then. Source: transformers 5.23, trainer.py, evaluation_loop.
    Ignores: the copy in fp32 that accelerate makes of the logits under autocast, which is never at the peak.
    """
    stack = stack.shaped(m, recipe, batch, seq_len)
    static = static_memory(m, recipe, batch, seq_len, padded or packed, stack)
    base = sum(static.blocks.values())
    program = evaluation_program(m, recipe, batch, seq_len, device, stack, padded, capability, packed)
    shape = (batch, seq_len, recipe.rank)
    heights = [(part, extra, part.peak_bytes + extra.total) for part, extra in extended(program.memory(*shape))]
    part, extra, height = max(heights, key=lambda found: found[2])
    at_peak = program.live_at(part.peak_event, *shape)
    moving = plus(at_peak, extra.by_category())
    return StepMemory(
        peak_bytes=base + height,
        peak_at=f"evaluation, {program.label_at(part.peak_event)}",
        static=static.exact,
        static_blocks=static.blocks,
        moving=dict(zip(CATEGORY_NAMES, moving, strict=True)),
        after_forward_bytes=base,
        after_backward_bytes=base,
        phase_peaks={"evaluation": base + height},
        part_peaks=(
            base + max(h for p, _, h in heights if p.place == HEAD),
            base + max(h for p, _, h in heights if p.place != HEAD),
        ),
    )


class Beginning(NamedTuple):
    """A peak before the first step, in blocks: the weights as they are at its end, and what is beside them."""

    name: Literal["loading", "preparation"]
    what: str
    held: dict[TermName, int]
    beside_bytes: int  # may be negative, where the largest tensor is not the last

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(self.held.values()) + self.beside_bytes


def base_of(recipe: Recipe) -> Recipe:
    """The same quantized base under one recipe for all, of whatever targets: what is equal before the first step."""
    same = (
        "quant",
        "double_quant",
        "quant_bits",
        "quant_group",
        "kbit_upcast",
        "quantize_experts",
        "base_dtype",
        "stack",
    )
    return Recipe(method="qlora", rank=1, **{name: getattr(recipe, name) for name in same})


@lru_cache(maxsize=256)
def beginnings(m: ModelSpec, base: Recipe) -> tuple[Beginning, ...]:
    """How a job on the quantized base of `base_of` begins: it is loaded, and then prepared if its recipe says so.

    Of a checkpoint that is quantized already the stored tensors are loaded as they are, one by one. Source:
    transformers 5.23, core_model_loading.py, and integrations/bitsandbytes.py, Bnb4bitDeserialize.
    """
    recipe = base.model_copy(update={"kbit_upcast": False, "target_modules": default_targets(m)})
    stored = m.checkpoint is not None and m.checkpoint.quant == base.quant
    if stored or not STORES[base.quant].by_bitsandbytes:
        loaded = Beginning("loading", "loading", _weights(m, recipe), 0)
    else:
        beside = max(_beside(part, recipe) for part, _ in layer_groups(m))
        loaded = Beginning("loading", "loading, while a weight is quantized", _weights(m, recipe), beside)
    if not base.kbit_upcast or base.base_dtype == "float32":
        return (loaded,)
    held = _weights(m, recipe.model_copy(update={"kbit_upcast": True}))
    what = "k-bit preparation, while a tensor is cast to fp32"
    return loaded, Beginning("preparation", what, held, _casting_peak(m, recipe) - sum(held.values()))


def loaded_bytes(m: ModelSpec, recipe: Recipe) -> int:
    """The most that a card holds of a quantized base before it gets its part of it."""
    return max(one.bytes for one in beginnings(m, base_of(recipe)))


def _weights(m: ModelSpec, recipe: Recipe) -> dict[TermName, int]:
    """The model without adapters, in blocks."""
    blocks = static_memory(m, recipe, 1, 1).blocks
    return {term: blocks[term] for term in WEIGHTS if term in blocks}


def _beside(part: ModelSpec, recipe: Recipe) -> int:
    """Bytes beside its store while one weight of a layer is made by bitsandbytes on the card, at most.

    4 bits: the 16-bit weight, and with double quantization its fp32 constants twice. 8 bits: the weight as loaded and
    its copy in fp16. Experts that bitsandbytes passes over are merged into one tensor, beside those that it is made of.
    Source: transformers 5.23, core_model_loading.py, convert_and_load_state_dict_in_model (one at a time where weights
    are quantized), Concatenate, and integrations/bitsandbytes.py; bitsandbytes 0.50, nn/modules.py, _quantize.
    Ignores: which weight of the last layer comes last, less than one layer's store; checkpoints in another dtype.
    """
    item = ITEM_BYTES[recipe.base_dtype]
    quantized = layer_quant(part, recipe) != "none"
    weights = [shape.weight_count for shape in layer_linears(part).values() if quantized and not shape.wide]
    if recipe.quant == "int8":
        made = [block_bytes(n * item) + block_bytes(n * ITEM_BYTES["float16"]) for n in weights]
    else:
        constants = 2 if recipe.double_quant else 0
        made = [block_bytes(n * item) + constants * block_bytes(4 * -(-n // QUANTIZATION_BLOCK)) for n in weights]
    merged = own_parameters(part).values() if part.mlp == "experts" else ()
    constants = 2 if recipe.quantize_experts and recipe.double_quant else 0
    for p in merged:
        n = prod(p.shape)
        made.append(block_bytes(n * item) + constants * block_bytes(4 * -(-n // QUANTIZATION_BLOCK)))
    return max(made, default=0)


def _casting_peak(m: ModelSpec, loaded: Recipe) -> int:
    """Most bytes alive while the tensors that are not quantized are cast to fp32, each beside what it is made from.

    The order is that of the model's parameters: embedding, layers, what layers get of tokens, head.
    Source: peft 0.21, utils/other.py, prepare_model_for_kbit_training.
    """
    half, full = ITEM_BYTES[loaded.base_dtype], ITEM_BYTES["float32"]
    table = m.vocab_size * m.token_size
    inner = [n for part, layers in layer_groups(m) for n in _unquantized(part, loaded) * layers]
    layered = [prod(layer_table(m))] if m.layer_input_size else []
    matrices = [table, *inner, *layered, *([] if m.tie_word_embeddings else [table])]
    growths = [block_bytes(n * full) - block_bytes(n * half) for n in matrices]
    done = peak = sum(_weights(m, loaded).values())
    vectors = sum(_weights(m, loaded.model_copy(update={"kbit_upcast": True})).values()) - done - sum(growths)
    growths[0] += vectors  # all of them come after the embedding
    for elements, growth in zip(matrices, growths, strict=True):
        peak = max(peak, done + block_bytes(elements * full))
        done += growth
    return peak


def _unquantized(part: ModelSpec, recipe: Recipe) -> list[int]:
    """Elements of the matrices of one layer that bitsandbytes leaves alone, in the order of the model's code."""
    linears = [shape.weight_count for shape in layer_linears(part).values() if not shape.wide]
    left = linears if layer_quant(part, recipe) == "none" else []
    own = [p for p in own_parameters(part).values() if not p.wide and own_quant(p, part, recipe) == "none"]
    return left + [prod(p.shape) for p in own]
