"""Which attention a recipe runs, and how the layers of one model differ."""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby, product
from typing import Literal, NamedTuple, TypeVar

from advisor.architectures import architecture_of
from advisor.decoders.sdpa import Call, Kernel, sdpa_kernel, sums_in_memory
from advisor.errors import BadValue
from advisor.libraries import Libraries, libraries_of
from advisor.parameters.layers import Kind, attends_anywhere, kinds_of, part_of
from advisor.parameters.own_weights import first_trained_layer
from advisor.parameters.storage import whole_linears
from advisor.specs import ATTENDING, GpuSpec, ModelSpec, Recipe
from advisor.tape.graph import Device


def attention_kind(m: ModelSpec, recipe: Recipe) -> str:
    """'eager', 'sdpa' or 'flash': what was asked for, unless the model's code has only eager attention.

    Raises BadValue for flash attention with an indexer: transformers 5.23, models/glm_moe_dsa/modeling_glm_moe_dsa.py,
    GlmMoeDsaPreTrainedModel, _supports_flash_attn = False; and for MiMo V2, which takes none but flash-attn 4:
    modeling_mimo_v2_flash.py, MiMoV2FlashPreTrainedModel, _compatible_flash_implementations.
    """
    if recipe.attention == "flash" and architecture_of(m.architecture).attention == "mimo":
        raise BadValue("--attention", "flash", f"{m.architecture} runs with flash-attn 4 alone: use eager")
    if recipe.attention == "flash" and not attends_anywhere(m):
        raise BadValue("--attention", "flash", f"{m.name} has no attention; leave it out")
    if m.index_topk and recipe.attention == "flash":
        raise BadValue(
            "--attention", "flash", f"{m.architecture} has an indexer, which transformers runs with sdpa only"
        )
    return "eager" if m.default_attention == "eager" and recipe.attention != "flash" else recipe.attention


def composes_attention(m: ModelSpec, recipe: Recipe, device: Device) -> bool:
    """Whether attention runs as batched products: no fused kernel supports its dropout, heads or soft cap."""
    kind = attention_kind(m, recipe)
    ungrouped = architecture_of(m.architecture).attention == "own"
    one_key_head = ungrouped and m.num_key_value_heads == 1 < m.num_attention_heads
    odd = m.attention_dropout > 0 or m.value_dim != m.head_dim  # what the CPU's fused kernel does not support
    return kind == "eager" or (kind == "sdpa" and (one_key_head or (odd and device == "cpu")))


def calls_sdpa_itself(m: ModelSpec, libraries: Libraries) -> bool:
    """Whether the model's code of that version calls PyTorch's fused attention itself."""
    return libraries.transformers < (5, 0) and architecture_of(m.architecture).own_sdpa_before_5


def repeats_keys_values(m: ModelSpec, libraries: Libraries) -> bool:
    """Whether keys and values are always repeated for every query head before PyTorch's fused attention.

    transformers 4.54 passes `enable_gqa` where there is no mask.
    Source: transformers 4.53 and 4.54, integrations/sdpa_attention.py, sdpa_attention_forward.
    """
    return libraries.transformers < (4, 54) or calls_sdpa_itself(m, libraries)


def sdpa_calls(m: ModelSpec, recipe: Recipe, masked: bool) -> list[Call]:
    """The calls of `scaled_dot_product_attention` that the layers may make; `masked`: some are given a mask."""
    quirks, heads = architecture_of(m.architecture), m.num_attention_heads
    apart = quirks.attention == "own" or repeats_keys_values(m, libraries_of(recipe.stack))
    half = recipe.base_dtype if recipe.base_dtype != "float32" else "bfloat16"
    dtypes = [half] if recipe.autocast else list(dict.fromkeys((recipe.base_dtype, "float32")))
    shapes = [(m.head_dim, m.value_dim, m.num_key_value_heads)]
    if m.global_head_dim:
        shapes.append((m.global_head_dim, m.global_head_dim, m.global_key_value_heads or m.num_key_value_heads))
    found = []
    if m.vision is not None and m.vision.row:
        width, kept_apart = m.vision.head_dim, m.vision.masks_patches
        found = [Call(dtype, width, width, False, kept_apart, 0.0) for dtype in dtypes]
    for dtype, (width, value_width, keys), mask in product(dtypes, shapes, (False, True) if masked else (False,)):
        grouped = keys < heads and not apart and not mask and width == value_width <= 256
        found.append(Call(dtype, width, value_width, grouped, mask, m.attention_dropout))
    return found


class SdpaPlan(NamedTuple):
    """The card to record a step for, and the kernels that it may run there."""

    card: str  # a compute capability; '' where flash attention runs throughout, or nothing is known
    kernels: frozenset[Kernel]


Kinds = TypeVar("Kinds")

ALIKE = ("8.0", "8.6", "9.0", "7.5", "6.0")
"""Compute capabilities that stand for all others: those that pick the same kernels share one recording."""


def masks_rows(m: ModelSpec, padded: bool) -> bool:
    """Whether every row has masks of its own: rows differ in length, or tokens of images attend both ways."""
    return padded or (m.vision is not None and m.vision.sees_both_ways == "all")


def masks_windows(m: ModelSpec) -> bool:
    """Whether every row has a mask of its own in layers that slide, where tokens of images attend both ways."""
    return m.vision is not None and m.vision.sees_both_ways == "sliding"


@lru_cache(maxsize=1024)
def sdpa_plan(m: ModelSpec, recipe: Recipe, capability: str, slides: bool, padded: bool) -> SdpaPlan:
    """The first of ALIKE that picks what `capability` picks for each call of this step.

    `slides`: rows are no shorter than the sliding window; `padded`: they differ in length.
    """
    if not capability or attention_kind(m, recipe) != "sdpa":
        return SdpaPlan("", frozenset())
    across = bool(m.cross_layers) and m.vision is not None and bool(m.vision.row)
    masked = (
        slides
        or masks_rows(m, padded)
        or masks_windows(m)
        or across
        or architecture_of(m.architecture).always_makes_mask
    )
    calls = sdpa_calls(m, recipe, masked)
    torch = libraries_of(recipe.stack).torch

    def picked(card: str) -> list[tuple[Kernel, bool]]:
        kernels = [sdpa_kernel(call, card, torch).kernel for call in calls]
        return [_as_recorded(kernel, call, card) for kernel, call in zip(kernels, calls, strict=True)]

    wanted = picked(capability)
    kernels = frozenset(kernel for kernel, _ in wanted)
    if kernels == {"flash"}:
        return SdpaPlan("", kernels)
    return SdpaPlan(next((card for card in ALIKE if picked(card) == wanted), capability), kernels)


def _as_recorded(kernel: Kernel, call: Call, card: str) -> tuple[Kernel, bool]:
    """What of a kernel a recording shows: without a mask cuDNN's counts as flash attention, whose tensors it has."""
    if kernel == "cudnn" and not call.masked:
        return "flash", False
    return kernel, kernel == "efficient" and sums_in_memory(max(call.width, call.value_width), card)


def attention_card(m: ModelSpec, recipe: Recipe, length: int, gpu: GpuSpec, padded: bool = False) -> str:
    """What to record a step of rows of `length` tokens for: the same for cards that run the same kernels.

    Of AMD's kernels nothing is mirrored: they count as flash attention, as those of an unknown card.
    """
    return sdpa_plan(m, recipe, "" if gpu.rocm else gpu.compute_capability, slides(m, length), padded).card


def slides(m: ModelSpec, length: int) -> bool:
    """Whether rows of `length` tokens are long enough for the sliding window to need a mask.

    In a model with an indexer: whether they have more tokens than it chooses.
    """
    return m.index_topk < length if m.index_topk else bool(m.sliding_window) and m.sliding_window <= length


Training = Literal["all", "frozen", "first", "after"]
"""A layer of a model whose layers are all trained; one before the first that is, that one, and those after it."""


class LayerKind(NamedTuple):
    """What may differ between the layers of one model; `whole`: linear layers in 16 bits whatever the base."""

    rotated: bool
    whole: tuple[str, ...]
    parameters: Kind
    training: Training
    stores: bool = False  # layers after it take its keys and values
    ends: bool = False  # the last that reads what several layers read: backward begins that gradient here
    sparse: bool = False  # cuts the gate of its MLP at a quantile
    stacked: int = 0  # tokens of images are added to its output: the how many-th layer that is; 0: none are

    @property
    def sliding(self) -> bool:
        """Whether it uses the sliding window."""
        return self.parameters.sliding

    @property
    def attends(self) -> bool:
        """Whether it has attention."""
        return self.parameters.mixer in ATTENDING


def layer_kinds(m: ModelSpec, recipe: Recipe) -> list[LayerKind]:
    """The kind of every layer that is run, in order."""
    first = first_trained_layer(m, recipe)
    stacked = len(m.vision.deepstack_layers) if m.vision is not None and m.vision.row else 0
    rotates, whole = m.position == "rope", whole_linears(m) or ((),) * m.num_hidden_layers
    stores, ends = _storing_layers(m), _ending_layers(m)
    sparse = m.streams.sparse_layers if m.streams is not None else ()
    return [
        LayerKind(
            rotates and not (m.nope_every and (i + 1) % m.nope_every == 0),
            whole[i],
            kind,
            _training(i, first) if recipe.trained_layers else "all",
            i in stores,
            i in ends,
            bool(sparse) and sparse[i],
            i + 1 if i < stacked else 0,
        )
        for i, kind in enumerate(kinds_of(m))
        if not part_of(m, kind).passed_over
    ]


def _storing_layers(m: ModelSpec) -> set[int]:
    """The layers whose keys and values others take: the last of each kind that have their own."""
    if not m.kv_shared_layers:
        return set()
    return set({kind.sliding: i for i, kind in enumerate(kinds_of(m)) if not kind.shares}.values())


def _ending_layers(m: ModelSpec) -> set[int]:
    """The last layers to read what several layers read: shared keys and values, and the embeddings of all layers."""
    found = {kind.sliding: i for i, kind in enumerate(kinds_of(m)) if kind.shares}
    return {*found.values(), *([m.num_hidden_layers - 1] if m.layer_input_size else [])}


def _training(index: int, first: int) -> Training:
    return "frozen" if index < first else "first" if index == first else "after"


def layer_plan(m: ModelSpec, recipe: Recipe, last_apart: bool = False, early: int = 0) -> list[tuple[LayerKind, int]]:
    """Which layers to run and how many each stands for; the first layer stands for itself, and so may the last.

    Runs of equal layers up to the first of each kind, then one layer of each kind for all that follow: so masks
    and tables that only one kind uses live as long as in the full model. Then those that end what several layers read.
    `early`: further layers that stand for themselves, before those that stand for many.
    """
    first, *others = layer_kinds(m, recipe)
    crossing = [index for index, kind in enumerate(others) if kind.parameters.crosses]
    if len(crossing) > 1:  # layers after the last two are the first to run backward, before images have gradients
        begin = crossing[-2] + 1
        return [*plan_of([first, *others[:begin]], early=early), *_runs(others[begin:])]
    ends = [(kind, 1) for kind in others if kind.ends]
    plan = plan_of([first, *(kind for kind in others if not kind.ends)], last_apart and not ends, early)
    return [*plan, *ends]


def _runs(kinds: list[Kinds]) -> list[tuple[Kinds, int]]:
    """Layers in their order, those that are alike and follow each other as one."""
    return [(kind, len(list(run))) for kind, run in groupby(kinds)]


def plan_of(kinds: list[Kinds], last_apart: bool = False, early: int = 0) -> list[tuple[Kinds, int]]:
    """The same for layers of these kinds, of which none ends anything."""
    seen = 1 + max(kinds.index(kind) for kind in set(kinds))
    begin = _runs(kinds[1:seen])
    begin += [(kind, 1) for kind in kinds[seen : seen + early]]
    seen += early
    plan = [(kinds[0], 1), *begin, *((kind, kinds[seen:].count(kind)) for kind in dict.fromkeys(kinds[seen:]))]
    kind, copies = plan[-1]
    return [*plan[:-1], (kind, copies - 1), (kind, 1)] if last_apart and copies > 1 else plan
