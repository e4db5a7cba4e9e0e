"""What a processor hands a vision-language model beside the tokens: pixels, grids, the kind of each token."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from advisor.specs import Picture

COUNTED = (torch.bool, torch.int32, torch.int64)
GRIDS = (
    "get_vision_attention_seqlens",
    "get_vision_interpolation_indices_and_weights",
    "get_vision_position_ids",
    "get_vision_window_index",
)
"""Functions of transformers 5.23, vision_utils.py, that read the sizes of images."""


def picture_inputs(model: Any, input_ids: torch.Tensor, pictures: tuple[Picture, ...]) -> dict[str, Any]:
    """The inputs of a micro-batch whose rows begin with a token of text and hold these images, one after the other.

    `input_ids` gets the marks of the images. What says how large they are has values, on fake tensors, too. Source:
    transformers 5.23, models/qwen2_vl/processing_qwen2_vl.py.
    """
    config = model.config
    vision, batch = config.vision_config, input_ids.shape[0]
    with unset_fake_temporarily():
        kinds = torch.zeros_like(input_ids)
        begin = 1
        for one in pictures:
            input_ids[:, begin : begin + one.tokens] = config.image_token_id
            kinds[:, begin : begin + one.tokens] = 1
            begin += one.tokens + 1
        grid = torch.tensor([[1, one.high, one.wide] for _ in range(batch) for one in pictures])
    patches = batch * sum(one.patches for one in pictures)
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {"pixel_values": torch.zeros(patches, width), "image_grid_thw": grid, "mm_token_type_ids": kinds}


TOWERS = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector", "embed_vision")
"""What the modules of towers and projectors are called."""


def tower_parameters(model: Any) -> set[int]:
    """The ids of the parameters of a vision tower and its projector; empty where the model has none."""
    return {id(parameter) for name, parameter in model.named_parameters() if in_tower(name)}


def in_tower(path: str) -> bool:
    """Whether a module or parameter of that path is a part of a tower or its projector."""
    return any(part in TOWERS for part in path.split("."))


@contextlib.contextmanager
def real_grids(model: Any, pictures: tuple[Picture, ...]) -> Iterator[None]:
    """Let a model on fake tensors read the sizes of its images and where their tokens are, which have values."""
    if not pictures:
        yield
        return
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    module = sys.modules[type(base).__module__]
    with contextlib.ExitStack() as stack:
        for name in GRIDS:
            if hasattr(module, name):
                stack.enter_context(patch.object(module, name, _with_values(getattr(module, name))))
        if hasattr(base.model, "get_rope_index"):
            stack.enter_context(patch.object(base.model, "get_rope_index", _with_values(base.model.get_rope_index)))
        stack.enter_context(_Values())  # type: ignore[no-untyped-call]
        yield


def _with_values(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` run for real; of what it returns, whole numbers keep their values."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            found = function(*args, **kwargs)
        return tree_map_only(torch.Tensor, lambda x: x if x.dtype in COUNTED else x.new_empty(x.shape), found)

    return run


def _have_values(*values: Any) -> bool:
    """Whether all tensors among these, of which there is one, are real and count something."""
    tensors = [one for one in tree_leaves(values) if isinstance(one, torch.Tensor)]
    return bool(tensors) and all(not isinstance(one, FakeTensor) and one.dtype in COUNTED for one in tensors)


class _Values(TorchDispatchMode):
    """Runs for real what is made of real whole numbers alone, and gives shapes to what a mask with values picks."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _have_values(args, kwargs):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is torch.ops.aten.masked_scatter_backward.default:
            return args[0].new_empty(args[2])
        if str(func).startswith(("aten.index.", "aten.index_put", "aten._index_put", "aten._unsafe_index_put")):
            args = (args[0], _places(args[1]), *args[2:])
        return func(*args, **kwargs)


def _places(indices: Any) -> list[Any]:
    """Indices with whole numbers in place of masks."""
    found: list[Any] = []
    for one in indices:
        if isinstance(one, torch.Tensor) and one.dtype == torch.bool and not isinstance(one, FakeTensor):
            with unset_fake_temporarily():
                found += one.nonzero(as_tuple=True)
        else:
            found.append(one)
    return found
