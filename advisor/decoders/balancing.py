"""The loss that balances a mixture's experts: how often each is chosen times how much of the scores it gets.

The routers' logits (T, E) leave their layers, past any checkpointing, and stay until the model has returned; layers
that run again in backward add none. Layer by layer their softmax is kept for backward, which begins with the gradients
of all layers' logits: each waits for its layer. Under re-entrant checkpointing the logits carry no gradient.

Source: transformers 5.23, models/mixtral/modeling_mixtral.py, load_balancing_loss_func, whose statements are the same
in every architecture whose row says `balances_experts`; utils/output_capturing.py; trl 1.16.0, trainer/utils.py,
add_fused_lm_head.
Ignores: a mask of ones that a collator makes for rows of one length. The sums are weighed by it then, by one more
(T, E) for a moment.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.architectures import architecture_of
from advisor.decoders.gpt_oss import best
from advisor.libraries import MIRRORED, OWN_MODELS, Libraries
from advisor.specs import FUSED_LOSSES, ModelSpec, Recipe
from advisor.tape.graph import Node, Tensor
from advisor.tape.ops import add, cast, mul, scale, softmax
from advisor.tape.pieces import made
from advisor.tape.tape import Tape


def asks_for_balance(m: ModelSpec, recipe: Recipe, libraries: Libraries) -> bool:
    """Whether the step adds this loss: the model's config asks for it, or TRL does, whose chunked loss this is.

    TRL does where the config gives it a weight, as all of these do (trainer/sft_trainer.py, SFTTrainer.__init__).
    """
    if not (m.num_experts and architecture_of(m.architecture).balances_experts) or libraries.code in OWN_MODELS:
        return False
    return m.balanced or _by_trl(recipe, libraries)


def _by_trl(recipe: Recipe, libraries: Libraries) -> bool:
    return recipe.loss == "chunked" and not libraries.code


def balancing_doubt(m: ModelSpec, recipe: Recipe, libraries: Libraries) -> str:
    """What of a loss that `asks_for_balance` adds is not mirrored; '' where all is."""
    if _by_trl(recipe, libraries) and architecture_of(m.architecture).names_no_experts:
        return (
            f"that TRL trains it: its loss that balances experts reads num_experts, which {m.architecture}'s config"
            " lacks (router_aux_loss_coef: 0.0 leaves that loss out)"
        )
    fused = any(one in FUSED_LOSSES for one in recipe.kernels)
    other = libraries.code or fused or libraries.transformers != MIRRORED.transformers
    if other or m.task != "next_token":
        return "the loss that balances a mixture's experts, in other code than transformers 5.23's and TRL's"
    return ""


def unrun(t: Tape, logits: Tensor, waiting: list[Tensor]) -> Tensor:
    """The logits of a layer that is not run, whose bytes are counted with those of the layer that stands for it.

    Its gradient stays `waiting` for the layer, and is given back with what that layer gives back in backward.
    """
    out = Tensor(logits.shape, logits.dtype, None, logits.needs_grad)

    def backward(g: Tensor) -> tuple[()]:
        waiting.append(g)
        return ()

    if out.needs_grad:
        out.node = Node(t, (), backward)
    return out


def with_balance(t: Tape, loss: Tensor, routed: Sequence[Tensor], top_k: int, mask: Tensor | None) -> Tensor:
    """The loss (1,) and, weighed, that of all routers' logits (T, E); `mask`: (B, S), of rows that are padded."""
    t.label("loss")
    experts = routed[0].shape[-1]
    counts, sums = made(t, (experts,), "float32", passes=1), made(t, (experts,), "float32", passes=1)
    flat = cast(t, t.view(mask, (mask.count,)), "float32") if mask is not None else None
    rows: Tensor | None = None  # a number in Python where all count
    for logits in routed:
        scores = softmax(t, logits, "float32" if t.autocast and t.device == "cuda" else logits.dtype)
        _values, chosen = best(t, scores, top_k)
        if flat is None:
            counts = add(t, counts, _histogram(t, chosen, experts))
            sums = add(t, sums, _sums(t, cast(t, scores, "float32"), (experts,), scores.dtype == "float32"))
        else:
            counts = add(t, counts, _weighed_counts(t, chosen, experts, top_k))
            share = mul(t, cast(t, scores, "float32"), t.view(flat, (flat.count, 1)))
            sums = add(t, sums, _sums(t, share, (experts,)))
            del share
            counted = made(t, (1,), "float32", "reduce", 1)
            rows = made(t, (1,), "float32")
            del counted
    counts, sums = _by_rows(t, counts, rows), _by_rows(t, sums, rows)
    balance = scale(t, _sums(t, mul(t, counts, sums), (1,)))
    return add(t, loss, scale(t, balance))


def _by_rows(t: Tape, x: Tensor, rows: Tensor | None) -> Tensor:
    """x (E,) over the number of rows, which backward needs where it is a tensor."""
    shape = x.shape
    t.kernel("elementwise", "float32", 0, 2 * x.bytes)

    def backward(g: Tensor) -> tuple[Tensor]:
        t.kernel("elementwise", "float32", 0, 2 * g.bytes)
        return (t.empty(shape, "float32"),)

    return t.op((x,), shape, "float32", backward, () if rows is None else (rows,))


def _histogram(t: Tape, chosen: Tensor, experts: int) -> Tensor:
    """How often each expert (E,) is among `chosen` (T, K): of 4-byte numbers, which are counted."""
    numbers = t.empty((chosen.count,), "float32")
    t.kernel("elementwise", "float32", 0, chosen.bytes + numbers.bytes)
    t.kernel("reduce", "float32", 0, numbers.bytes)
    return t.empty((experts,), "float32")


def _weighed_counts(t: Tape, chosen: Tensor, experts: int, top_k: int) -> Tensor:
    """The same, where a token of padding counts nothing: the mask is repeated for each choice, and added up."""
    out = made(t, (experts,), "float32", passes=1)
    repeated = t.empty((chosen.count,), "float32")
    t.kernel("elementwise", "float32", 0, repeated.bytes + repeated.bytes // top_k)
    t.kernel("gather", "float32", 0, chosen.bytes + 3 * repeated.bytes)
    return out


def _sums(t: Tape, x: Tensor, shape: tuple[int, ...], copies: bool = False) -> Tensor:
    """`x.sum(dim=0)`, or of all: backward spreads its gradient as a view, which CUDA's softmax `copies`.

    Source: PyTorch 2.13, aten/src/ATen/native/cuda/SoftMax.cu, host_softmax_backward: grad_.contiguous().
    """
    before, dtype, wide = x.shape, x.dtype, x.bytes
    t.kernel("reduce", dtype, 0, wide)

    def backward(g: Tensor) -> tuple[Tensor]:
        if not (copies and t.device == "cuda"):
            return (Tensor(before, g.dtype, g.buffer),)
        t.kernel("elementwise", dtype, 0, wide)
        return (t.empty(before, dtype),)

    return t.op((x,), shape, dtype, backward)
