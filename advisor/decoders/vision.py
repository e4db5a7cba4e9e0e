"""A vision tower on the tape: its weights, which of its blocks are run, and how its tokens join those of the text.

Patches of all images of a micro-batch are one matrix (P, H). The number of calls of attention depends on the rows, so a
recording with images is of one micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from advisor.decoders.kinds import plan_of
from advisor.decoders.linear import Linear
from advisor.decoders.norms import WRITTEN_OUT, Norm
from advisor.decoders.stack import Stack
from advisor.parameters.storage import other_dtype
from advisor.parameters.tower_targets import tower_adapted
from advisor.parameters.towers import tower_parts, tower_quant, tower_trained
from advisor.specs import LinearShape, ModelSpec, Recipe, VisionSpec
from advisor.tape.graph import Tensor
from advisor.tape.program import BATCH
from advisor.tape.tape import Tape


class BlockKind(NamedTuple):
    """What differs between the blocks of a tower."""

    windowed: bool  # patches attend within a window
    stacked: int = 0  # its output is projected as well: the how many-th that is; 0: it is not
    unread: bool = False  # no token is made of its output


def block_plan(v: VisionSpec) -> list[tuple[BlockKind, int]]:
    """Which blocks to run and how many each stands for."""
    stacked = {place: number for number, place in enumerate(v.deepstack_layers, 1)}
    if v.joined_blocks:  # the outputs of all blocks are held until the last has run
        return [(BlockKind(False), 1)] * v.num_hidden_layers
    windows, read = v.window_size > 0, v.num_hidden_layers - v.unread_blocks
    return plan_of(
        [
            BlockKind(windows and place not in v.full_layers, stacked.get(place, 0), place >= read)
            for place in range(v.num_hidden_layers)
        ]
    )


class TowerWeights:
    """The weights of a tower and its projector as the tape sees them; blocks as `block_plan` lists them.

    `read`: the blocks that tokens are made of.
    """

    def __init__(self, m: ModelSpec, v: VisionSpec, recipe: Recipe, rank: int, stack: Stack) -> None:
        self.trains, self.dtype = tower_trained(recipe), other_dtype(recipe)
        parts, names = tower_parts(v), tower_adapted(m, recipe)
        base = recipe.base_dtype

        def made(shape: LinearShape) -> Linear:
            adapted = rank if shape.name in names else 0
            quant = tower_quant(v, recipe, shape.name)
            return Linear(
                shape, recipe, adapted, quant, self.dtype, stack.linear, frozen=not self.trains, bias_dtype=base
            )

        self.tensors = [self._made(shape) for shape in parts.tensors]
        self.around = {name: made(shape) for name, shape in parts.around.items()}
        self.norms = {name: self._norm(v, width) for name, width in parts.norms.items()}
        self.loose = {name: self._made((width,)) for name, width in parts.loose.items()}
        self.blocks = [
            BlockWeights(
                {name: made(shape) for name, shape in parts.block.items()},
                [self._norm(v, width) for width in parts.block_norms],
                {name: self._made((width,)) for name, width in parts.block_loose.items()},
            )
            for _ in block_plan(v)
        ]
        self.read = [block for block, (kind, _) in zip(self.blocks, block_plan(v), strict=True) if not kind.unread]
        self.unread = parts.unread

    def _made(self, shape: tuple[int, ...]) -> Tensor:
        return Tensor(shape, self.dtype, needs_grad=self.trains)

    def _norm(self, v: VisionSpec, width: int) -> Norm:
        kind = v.code.norm
        return Norm(kind, width, self.dtype, self.trains, kind == "layer", code=WRITTEN_OUT.get(kind))

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that get gradients."""
        norms = [norm for name, norm in self.norms.items() if name not in self.unread]
        norms += [norm for block in self.read for norm in block.norms]
        linears = [*self.around.values(), *(one for block in self.read for one in block.linears.values())]
        loose = [*self.loose.values(), *(one for block in self.read for one in block.loose.values())]
        own = [p for p in (*self.tensors, *loose) if p.needs_grad]
        return own + [p for norm in norms for p in norm.trained] + [p for part in linears for p in part.trained]


class BlockWeights(NamedTuple):
    """The weights of one block."""

    linears: dict[str, Linear]
    norms: list[Norm]
    loose: dict[str, Tensor]


class Tower(NamedTuple):
    """What a tower's code works with."""

    t: Tape
    v: VisionSpec
    recipe: Recipe
    stack: Stack
    weights: TowerWeights
    card: str
    rows: int  # of the micro-batch
    enter: Callable[[int], None]
    """Begins the part of a block, by its number in `block_plan`."""

    @property
    def patches(self) -> int:
        """Of the micro-batch, in the powers of the tape."""
        return BATCH * self.v.row_patches

    @property
    def features(self) -> int:
        """Tokens of images in the micro-batch, in the powers of the tape."""
        return BATCH * self.v.row_features


class Across(NamedTuple):
    """What layers that attend to images (K tokens a row) are called with beside these."""

    mask: Tensor  # (B, 1, S, K), numbers: which tokens of the row attend to which of the images
    attending: Tensor  # (B, S, 1): which attend to any


class Seen(NamedTuple):
    """What a tower makes of the images."""

    tokens: Tensor  # (F, H) in the order of the row
    stacked: list[Tensor]  # further ones, added to the output of the first decoder layers
    kept: list[Tensor]  # what the model's forward holds to its end
    across: Across | None = None
