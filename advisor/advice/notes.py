"""The sentences of an answer: what it assumes and leaves out, and how its rows compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from advisor.answer import Candidate, Comparison, DataSummary, Reason, Recommendation
from advisor.catalog.trainers import Preset
from advisor.knobs import Question
from advisor.parameters.own_weights import QUANTIZED_SCORES
from advisor.rules.context import Context
from advisor.rules.wording import FORMULA, cut_text, signed_gib, tokens_text
from advisor.specs import GpuSpec, Method, Model, ModelSpec, Placement, TracedModel, Workload
from advisor.stacks import named_stack
from advisor.units import format_gib

if TYPE_CHECKING:
    from advisor.advice.catalogs import Catalog

ASSUMPTION = "assumption"
TRACE = "trace"
DATA = "data"


def name_notes(model: object, spec: Model, catalog: Catalog) -> list[Reason]:
    """How the model's name was read, where it is not one that the catalog lists."""
    if not isinstance(model, str) or not isinstance(spec, ModelSpec):
        return []
    texts = catalog.remarks_on(model, spec.name)
    return [Reason(code=ASSUMPTION, text=text, source="profiles/models") for text in texts]


def trainer_notes(preset: Preset) -> list[Reason]:
    """A note that the trainer's own step was not traced: what is estimated in its place."""
    if preset.traced:
        return []
    estimated = f"the transformers step with {preset.name}'s settings"
    if preset.stack:
        estimated = f"the step of {named_stack(preset.stack).name} by its source"
    text = (
        f"We have not traced {preset.name}'s own step; this estimates {estimated}. "
        f"`advise trainers {preset.name}` lists what was traced, and the differences."
    )
    return [Reason(code=ASSUMPTION, text=text, source="profiles/trainers")]


_TASKS = {
    "masked_tokens": "on masked tokens: logits of all tokens over the vocabulary. --task classification has none",
    "classification": "as a classifier: scores of each row in place of logits of each token; adapters leave its head, "
    "which is trained whole. A row is one text; two answers that a reward model compares are two rows",
    "embeddings": "for embeddings: one vector a text, each text of a micro-batch against all others, so "
    "that a batch is not split. A row is a text: a pair of query and passage counts as two",
}


def task_notes(model: Model) -> list[Reason]:
    """What the model is trained for, where that is not the next token."""
    if not isinstance(model, ModelSpec) or model.task not in _TASKS:
        return []
    text = f"{model.name} is trained {_TASKS[model.task]}."
    if model.task == "classification" and model.bidirectional:
        text += f" QLoRA {QUANTIZED_SCORES.format(model.name)}."
    return [Reason(code=ASSUMPTION, text=text, source="config.json, architectures")]


def stand_in_notes(question: Question) -> list[Reason]:
    """What is taken in the place of words that the advisor does not know, but that stand near one that it does."""
    return [Reason(code=ASSUMPTION, text=text, source=FORMULA) for text in question.stand_ins]


def traced_notes(model: Model, left_out: Sequence[Method]) -> list[Reason]:
    """A note that the answer comes from a trace: what was traced, and which methods are left out."""
    if not isinstance(model, TracedModel):
        return []
    texts = [
        f"{model.name} ({model.architecture}, {model.kind}) is not known to the formula: memory comes from a trace "
        f"of its own training step on a CPU ({model.traced_with}), times from its FLOP and memory traffic."
    ]
    if left_out:
        texts.append(
            f"Left out because not traced with these knobs: {', '.join(left_out)}; `calibrate --dry-run --model "
            f"{model.source} --method {','.join(left_out)}` adds those that can run."
        )
    return [Reason(code=TRACE, text=text, source="calibrate --dry-run") for text in texts]


_VARIANTS = {
    "rslora": "scales LoRA's updates by the root of the rank",
    "pissa": "starts LoRA from the largest singular vectors, which are found once, in fp32, before training",
    "olora": "starts LoRA from a QR decomposition, which is made once before training",
    "loraplus": "gives LoRA's B matrices a higher learning rate",
}
_IN_PLACE = {
    "oft": "OFT in LoRA's place, in blocks of 32",
    "ia3": "IA3 in LoRA's place, which scales the outputs of layers, and what the MLP's last layer reads",
    "vera": "VeRA in LoRA's place, two matrices of this rank that all layers share and two vectors of each layer",
}


def variant_notes(question: Question) -> list[Reason]:
    """A note that the variant that was asked for costs what LoRA costs."""
    if question.variant in _IN_PLACE:
        text = f"--variant {question.variant}: {_IN_PLACE[question.variant]}."
        return [Reason(code=ASSUMPTION, text=text, source=f"peft 0.21, tuners/{question.variant}/layer.py")]
    does = _VARIANTS.get(question.variant or "")
    if does is None or question.method == "full":
        return []
    text = f"--variant {question.variant} {does}: a step needs the same bytes and the same time as without."
    return [Reason(code=ASSUMPTION, text=text, source="peft 0.21, tuners/lora/layer.py, update_layer")]


def loss_notes(question: Question, bypassed: bool) -> list[Reason]:
    """A note that a trainer's chunked loss was not taken, because it would bypass the adapter of the head."""
    if not bypassed:
        return []
    text = (
        f"{question.trainer}'s chunked loss multiplies by the head's weight alone, past its adapter: estimated with "
        "--loss full."
    )
    return [Reason(code=ASSUMPTION, text=text, source=FORMULA)]


def assumptions(question: Question, workload: Workload) -> list[Reason]:
    """What was assumed about the data because it was neither stated nor read from a file."""
    texts = []
    if question.data is None:
        if question.examples is None:
            texts.append(f"Assumed {workload.examples:,} examples; give --examples or --data.")
        if question.seq_len is None or question.mean_seq_len is None:
            texts.append(
                f"Assumed rows of {workload.mean_seq_len:,} tokens on average and {workload.seq_len:,} at most; "
                "give --mean-seq-len and --seq-len, or --data."
            )
    return [Reason(code=ASSUMPTION, text=text, source=FORMULA) for text in texts]


def data_notes(question: Question, data: DataSummary | None) -> list[Reason]:
    """What the data file holds, who counted it, and what the job cuts off and pads."""
    if data is None:
        return []
    rows = f"{data.rows:,} rows" if question.examples is None else f"{question.examples:,} of {data.rows:,} rows"
    skipped = f", {data.bad_lines:,} bad line{'s' if data.bad_lines > 1 else ''} skipped" if data.bad_lines else ""
    cut = cut_text(data)
    padded = f"{1 - data.real_tokens / data.padded_tokens:.0%} padding in micro-batches of {data.micro_batch:,}"
    if question.packing:
        padded = f"packed into {data.packed_rows:,} rows with {data.packed_padding:.1%} padding"
    texts = [
        f"--data: {rows}{skipped}, mean {tokens_text(data.mean_tokens)}, longest {tokens_text(data.longest_tokens)} "
        f"tokens, {data.counted_by}.",
        f"{cut[:1].upper()}{cut[1:]}; {padded}. `advise data FILE` shows the lengths.",
    ]
    return [Reason(code=DATA, text=text, source=FORMULA) for text in texts]


def card_notes(
    cards: Sequence[GpuSpec],
    usable: Sequence[GpuSpec],
    stand_ins: Sequence[GpuSpec],
    other_sizes: Sequence[tuple[str, GpuSpec]],
) -> list[Reason]:
    """Notes on cards: left out of a bare size, of unknown speed, sold in other sizes, unlike an ordinary CUDA card."""
    texts = [
        f"Took {cards[0].name}, with {format_gib(cards[0].memory_bytes)} GiB; the card is also sold with "
        f"{other.marketed_gb:g} GB: --gpu {alias}."
        for alias, other in other_sizes
    ]
    texts += [text for card in usable for text in _unlike_cuda(card)]
    left_out = [card.name for card in cards if card not in usable]
    if left_out:
        texts.append(f"Excluded because they lack bf16: {', '.join(left_out)}. Pass one to --gpu to evaluate it.")
    unknown = [card.name for card in usable if not card.speed_known]
    if unknown:
        text = f"The speed of {', '.join(unknown)} is not known"
        if stand_ins:
            sizes = sorted(card.memory_bytes for card in stand_ins)
            text += (
                f": times are the range over {len(stand_ins)} catalog cards of {format_gib(sizes[0])} to "
                f"{format_gib(sizes[-1])} GiB; a GPU file with its bandwidth and FLOP/s narrows them"
            )
        texts.append(text + ".")
    return [Reason(code=ASSUMPTION, text=text, source="profiles/gpus") for text in texts]


def _unlike_cuda(card: GpuSpec) -> list[str]:
    """What is different on AMD's cards, and on machines whose GPU shares the CPU's memory."""
    texts = []
    if card.unified_memory:
        texts.append(
            f"{card.name} shares its memory with the CPU: the operating system, the data loader and every other "
            "program take their part of it, which is not subtracted here."
        )
    if card.rocm:
        texts.append(
            f"{card.name} runs PyTorch's ROCm build. Its allocator is the one that is simulated, and bitsandbytes 0.50 "
            "supports AMD; but the scratch memory of its kernels and its context are not known here: the step is that "
            "of CUDA, the context a wide guess."
        )
    if card.generation.startswith("RDNA"):
        texts.append(
            "On Radeon, PyTorch fuses sdpa attention only with TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL=1, which is "
            "assumed; without it every score is kept, as with --attention eager "
            "(github.com/unslothai/unsloth/pull/8821)."
        )
    return texts


def batch_notes(question: Question, workload: Workload, placement: Placement) -> list[Reason]:
    """A note that a batch has few divisors, so that few micro-batches are possible."""
    rows = workload.batch_size // placement.gpus
    if question.batch_size is None or question.micro_batch is not None or rows < FEW_ROWS:
        return []
    factor = _least_factor(rows)
    if factor <= MOST_AT_ONCE:
        return []
    near = next(size for size in range(rows + 1, 2 * rows + 2) if size % NEAREST == 0) * placement.gpus
    text = (
        f"--batch-size {workload.batch_size:,} has no small divisor: a card does one row at a time, or {factor:,}. "
        f"--batch-size {near} leaves the choice."
    )
    return [Reason(code=ASSUMPTION, text=text, source=FORMULA)]


FEW_ROWS = 4
"""A card's rows of a step below which there is nothing to choose."""
MOST_AT_ONCE = 3
"""A batch without a divisor from 2 to this is odd."""
NEAREST = 8
"""The batch that is proposed instead is a multiple of this."""


def _least_factor(number: int) -> int:
    """The least divisor of `number` that is more than 1."""
    return next((n for n in range(2, int(number**0.5) + 1) if number % n == 0), number)


def with_why(
    row: Candidate, context: Context, recommendation: Recommendation | None, compared: Comparison | None
) -> Candidate:
    """The row, with its comparison to the recommended one filled in."""
    return row.model_copy(update={"compared": compared, "why": _why(row, context, recommendation, compared)})


def _why(row: Candidate, context: Context, recommendation: Recommendation | None, compared: Comparison | None) -> str:
    """How the row compares: with the card when it does not fit, by the recommended recipe when it does."""
    card = format_gib(context.memory_bytes)
    if recommendation is not None and row.method == recommendation.method:
        return f"recommended by {recommendation.rule}"
    if row.verdict == "does_not_fit":
        return f"{format_gib(row.memory.needed_bytes.likely)} of {card} GiB"
    if row.verdict == "tight":
        return f"up to {format_gib(row.memory.needed_bytes.high)} of {card} GiB"
    if compared is None:
        return ""
    text = signed_gib(compared.memory_bytes)
    return text if compared.time_ratio is None else f"{text}, {compared.time_ratio:.2f}x time"
