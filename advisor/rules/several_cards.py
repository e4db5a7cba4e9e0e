"""How several cards share the job, and what that leaves out.

DDP keeps the whole model on each card, and buckets for all gradients beside the gradients themselves. FSDP2
spreads weights, gradients and optimizer states; the weights are gathered again, unit by unit, while they compute, and
gradients that accumulate over micro-batches stay whole on every card until the last one (accelerate's no_sync). FSDP1,
which transformers calls deprecated, does so with one flat tensor a layer: embedding, norm and head stay gathered from
the first layer to the end of backward, a layer's gradients are joined beside its weights, and it takes no DoRA. The
estimate counts all of this by the engines' own code; waiting for the slowest card and loading the data are left out.

NCCL takes memory of each card beside PyTorch: buffers for each channel and neighbor, by its sources, and what measured
communicators hold beyond them. A machine's own memory holds what is offloaded, in pinned blocks of powers of two, the
weights while they are loaded (one copy, or one for each process) and the processes. How fast its processors and memory
are is not known: an optimizer that runs there is counted from one thread a card to all memory channels.

A base in 4 bits is spread only if bitsandbytes stores it in a floating dtype (bnb_4bit_quant_storage), and transformers
puts all of it on each card before it is spread, unless it is loaded with device_map="cpu". torchtune spreads torchao's
weights in 4 bits as they are, one after the other.
"""

from __future__ import annotations

from advisor.answer import Candidate, Reason
from advisor.costs.moments import loaded_bytes
from advisor.libraries import OWN_MODELS, libraries_of
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import machine_text
from advisor.specs import ModelSpec, Placement, Recipe, Sharding
from advisor.terms import TermName
from advisor.units import format_gib

CODE = "ADV108"
DDP = "https://docs.pytorch.org/docs/stable/notes/ddp.html"
DEEPSPEED = "https://www.deepspeed.ai/docs/config-json/#zero-optimizations-for-fp16-training"
FSDP = "https://huggingface.co/docs/accelerate/concept_guides/fsdp1_vs_fsdp2"
QLORA = "https://huggingface.co/docs/peft/accelerate/fsdp"
TITLES: dict[Sharding, str] = {
    "ddp": "DDP: each holds all of the model",
    "fsdp1": "FSDP1: each holds its part of weights, gradients and optimizer states",
    "fsdp2": "FSDP2: each holds its part of weights, gradients and optimizer states",
    "zero1": "DeepSpeed ZeRO-1: each holds all weights, and its part of the optimizer's states",
    "zero2": "DeepSpeed ZeRO-2: each holds all weights, and its part of gradients and optimizer states",
    "zero3": "DeepSpeed ZeRO-3: each holds its part of weights, gradients and optimizer states",
    "hsdp": "FSDP2 inside each machine, copies between them",
}


def check(context: Context) -> Finding | None:
    """Speaks up for more than one card."""
    if context.placement.gpus == 1:
        return None
    row = context.shown or next(iter(context.candidates.values()))
    placement = row.placement or context.placement
    sharded = DEEPSPEED if placement.sharding.startswith("zero") else FSDP
    found = [Reason(code=CODE, text=_shared(row, placement), source=DDP if placement.copies_model else sharded)]
    own = libraries_of(row.recipe.stack).code in OWN_MODELS  # torchao's NF4 is spread as it is, weight by weight
    if row.recipe.is_quantized and placement.spreads_weights and not own:
        found.append(Reason(code=CODE, text=_loading(context, row.recipe, placement), source=QLORA))
    return Finding(tuple(found))


def _shared(row: Candidate, placement: Placement) -> str:
    """What each card holds, and what is not counted."""
    memory = row.memory
    texts = [f"{placement.gpus:,} cards by {TITLES[placement.effective_sharding]}"]
    gathered = memory.bytes_of(TermName.GATHERED)
    reduction = memory.bytes_of(TermName.REDUCTION)
    if gathered or reduction:
        most = " (the most that ZeRO-3 may have)" if placement.sharding == "zero3" else ""
        beside = {f"gathered weights{most}": gathered, "buckets of gradients": reduction}
        named = " and ".join(f"{format_gib(size)} GiB of {name}" for name, size in beside.items() if size)
        texts.append(f"{named} at the peak")
    if communication := memory.bytes_of(TermName.COMMUNICATION):
        texts.append(f"about {format_gib(communication)} GiB for NCCL, by the sizes and numbers of its buffers")
    keeps = not placement.copies_model and placement.sharding not in ("zero2", "zero3")
    if keeps and row.recipe.gradient_accumulation > 1 and row.recipe.method == "full":
        texts.append("gradients of earlier micro-batches stay whole")
    if memory.host_bytes:
        texts.append(f"{format_gib(memory.host_bytes)} GiB of the host's memory for each card")
    if taken := machine_text(row):
        texts.append(f"a machine's own memory holds {taken}, how the model is loaded included")
    if placement.offload != "none" and row.time is not None:
        texts.append(
            "its time counts copies over PCI Express and the optimizer on the host, on one thread a card or, at best, "
            "on all of a machine's memory channels"
        )
    return "; ".join(texts) + ". Waiting for the slowest card and loading the data are not included."


def _loading(context: Context, recipe: Recipe, placement: Placement) -> str:
    """How a base in 4 bits must be loaded to be spread."""
    half = "float16" if recipe.base_dtype == "float16" else "bfloat16"
    text = f"Load the 4-bit base with bnb_4bit_quant_storage=torch.{half}, or nothing of it is spread"
    if not isinstance(context.model, ModelSpec):
        return text + "."
    whole = loaded_bytes(context.model, recipe)
    size, card = format_gib(whole), format_gib(context.memory_bytes)
    if whole > context.memory_bytes and placement.sharding == "zero3":  # transformers takes no device_map with it
        return f"ZeRO-3 loads all {size} GiB of the 4-bit base on each card first, which has {card}: take fsdp2."
    if whole > context.memory_bytes:
        return (
            f'{text}, and with device_map="cpu": by default all {size} GiB are loaded on each card first, which has '
            f"{card}."
        )
    return f"{text}. While it is loaded each card holds all {size} GiB."


RULE = Rule(CODE, "warns", __doc__, (DDP, DEEPSPEED, FSDP, QLORA), check)
