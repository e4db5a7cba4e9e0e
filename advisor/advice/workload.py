"""The data set and the cards that a question means: gaps filled with defaults, contradictions refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from advisor.advice.pictures import images_of
from advisor.architectures import architecture_of
from advisor.errors import BadValue, InputError
from advisor.interval import Interval
from advisor.knobs import BY_NAME, SPREADING_KNOBS, Question, range_of
from advisor.lengths import Quantiles, quantiles_of
from advisor.specs import KNOWN, Model, ModelSpec, Placement, Workload

if TYPE_CHECKING:
    from advisor.dataset.summary import Measured

CONFIGURED = ("axolotl", "llamafactory", "ms-swift")
"""Trainers that ship DeepSpeed configs with sizes of their own."""
DEFAULT_EXAMPLES = 10_000
DEFAULT_BATCH_SIZE = 16
DEFAULT_SEQ_LEN = 1024
_ROWS = ("packing", "packing_strategy", "padding", "pad_to_multiple_of", "group_by_length")
LONGEST_ROW = int(range_of(BY_NAME["seq_len"]).high)


def placement_of(question: Question) -> Placement:
    """How many cards, and how the job is spread over them.

    Raises BadValue for machines without a network, and for states that a single card offloads.
    """
    if (question.nodes or 1) > 1 and not question.network_gbit:
        raise BadValue("--nodes", question.nodes, "needs --network-gbit: Gbit/s of each card's way out of its machine")
    if question.state_offload and (question.gpus or 1) == 1:
        why = "what DeepSpeed keeps on the host for one card is not counted; give --gpus, or --offload activations"
        raise BadValue("--offload", question.offload, why)
    given = {name: getattr(question, name) for name in SPREADING_KNOBS if getattr(question, name) is not None}
    if question.state_offload:
        given["offload"] = question.state_offload
        given.setdefault("sharding", "fsdp2" if question.state_offload == "parameters" else "zero2")  # that have it
    if question.trainer in CONFIGURED:
        given["configs"] = question.trainer
    return Placement(**{"gpus": question.gpus or 1, **given})


def workload_of(
    question: Question,
    model: Model | None,
    data: Measured | None = None,
    collator: Mapping[str, object] | None = None,
) -> Workload:
    """The data set: what the question says, then what the file says, then defaults; `collator`: what the trainer sets.

    Lengths that the file's characters only let estimate stay uncertain; those that the question states are known.

    The defaults: 10,000 examples, one epoch, rows of at most 1024 tokens (less if the model has fewer
    positions) and half of that on average, 16 rows per optimizer step.
    Raises BadValue for numbers that contradict each other.
    """
    examples = question.examples or (data.lengths.rows if data else DEFAULT_EXAMPLES)
    positions = min(model.max_position_embeddings if model else LONGEST_ROW, LONGEST_ROW)
    images = images_of(question, model, collator or {})
    held = images.tokens
    longest = min((data.lengths.longest if data else DEFAULT_SEQ_LEN) + held, positions)
    if question.mean_seq_len is not None:
        longest = max(longest, question.mean_seq_len)
    seq_len = question.seq_len or longest
    _refuse_short(held, seq_len, "--seq-len")
    text = seq_len - held
    mean = question.mean_seq_len or held + (_mean_of(data, text) if data else max(1, text // 2))
    _refuse_short(held, mean, "--mean-seq-len")
    if mean > seq_len:
        raise BadValue("--mean-seq-len", mean, f"must be at most --seq-len, which is {seq_len:,}")
    rows = {name: getattr(question, name) for name in _ROWS if getattr(question, name) is not None}
    _refuse_contradictions(question, model)
    set_by_hand = question.seq_len or question.packing  # packed rows are as long as the limit says
    return Workload(
        examples=examples,
        epochs=question.epochs or 1.0,
        seq_len=seq_len,
        mean_seq_len=mean,
        batch_size=_batch_size(question),
        eval_examples=question.eval_examples or 0,
        eval_steps=question.eval_steps or 0,
        **{**{name: value for name, value in (collator or {}).items() if name != "max_pixels"}, **rows},
        **images.fields,
        length_quantiles=() if data is None or question.mean_seq_len else _quantiles(data, text, held),
        seq_len_factor=KNOWN if data is None or set_by_hand else _longest_factor(data, seq_len, positions, held),
        mean_seq_len_factor=KNOWN if data is None or question.mean_seq_len else _relative(data.mean_tokens, held),
    )


def _refuse_short(held: int, length: int, flag: str) -> None:
    """Raises BadValue for a row that its images fill: a trainer that cut them would fail."""
    if held and length <= held:
        raise BadValue(flag, length, f"must be more than {held:,}, the tokens of a row's images")


def _refuse_contradictions(question: Question, model: Model | None) -> None:
    """Raises InputError for ways to make micro-batches that exclude each other."""
    if question.packing and question.group_by_length:
        raise InputError("--group-by-length is set, but packed rows have one length; leave it out, or --packing")
    kept_apart = question.packing and question.packing_strategy == "position_ids"
    if kept_apart and isinstance(model, ModelSpec) and not architecture_of(model.architecture).takes_position_ids:
        raise BadValue("--packing-strategy", "position_ids", f"{model.name} takes no position ids; give wrapped")
    attention = question.attention or (model.default_attention if model else "flash")
    if question.padding != "none" or question.packing or question.micro_batch == 1 or attention == "flash":
        return
    allowed = f"--attention {attention} needs padded rows; give --attention flash or --micro-batch 1, or pad them"
    raise BadValue("--padding", "none", allowed)


def _mean_of(data: Measured, seq_len: int) -> int:
    """Mean length of the file's rows, cut to `seq_len`."""
    return max(1, round(data.lengths.cut_at(seq_len).tokens / data.lengths.rows))


def _quantiles(data: Measured, seq_len: int, held: int) -> Quantiles:
    """The lengths of the file's rows, cut to `seq_len`, and the tokens of their images."""
    found = quantiles_of(data.lengths.cut_at(seq_len).by_length)
    return tuple((share, tokens + held) for share, tokens in found)


def _longest_factor(data: Measured, seq_len: int, positions: int, held: int) -> Interval:
    """What the longest row may be over `seq_len`; beyond the model's positions it is cut."""
    if data.longest_tokens.is_exact:
        return KNOWN
    low, high = (min(end + held, positions) / seq_len for end in (data.longest_tokens.low, data.longest_tokens.high))
    return Interval(min(low, 1.0), 1.0, max(high, 1.0))


def _relative(tokens: Interval, held: int) -> Interval:
    likely = tokens.likely + held
    return Interval((tokens.low + held) / likely, 1.0, (tokens.high + held) / likely)


def _batch_size(question: Question) -> int:
    """Rows per optimizer step: a multiple of what the cards do at once."""
    gpus = question.gpus or 1
    unit = gpus * (question.micro_batch or 1)
    if question.batch_size is None:
        batch_size = -(-DEFAULT_BATCH_SIZE // unit) * unit
        limit = int(range_of(BY_NAME["batch_size"]).high)
        if batch_size > limit:
            raise BadValue("--micro-batch times --gpus", unit, f"must be at most {limit:,} rows per step")
        return batch_size
    if question.batch_size % unit:
        what = "--micro-batch" if gpus == 1 else "--gpus" if unit == gpus else "--gpus times --micro-batch"
        raise BadValue("--batch-size", question.batch_size, f"must be a multiple of {what}, which is {unit:,}")
    return question.batch_size
