"""What a vision-language model has beside its decoder: the tower that reads images, and its projector."""

from __future__ import annotations

from typing import Annotated

from advisor.architectures.towers import SeeBothWays, TowerRow, tower_row
from advisor.frozen import Frozen, Range
from advisor.specs.words import Size

Count = Annotated[int, Range(0, 10_000_000)]


class Picture(Frozen):
    """An image as a processor hands it to the model: `tiles` grids of patches, and the tokens that stand for it."""

    tokens: Annotated[int, Range(1, 10_000_000)]  # in the row, marks included
    high: Size  # patches
    wide: Size  # patches
    tiles: Annotated[int, Range(1, 10_000)] = 1
    height: Count = 0  # pixels before the processor, where the model is told them; else 0
    width: Count = 0

    @property
    def patches(self) -> int:
        """Patches that the tower reads."""
        return self.high * self.wide * self.tiles


class VisionSpec(Frozen):
    """A tower and its projector: sizes as config.json and preprocessor_config.json name them."""

    model_type: str  # transformers', of the whole model, for example 'qwen2_5_vl'
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Annotated[int, Range(1, 1_000)]
    num_attention_heads: Annotated[int, Range(1, 10_000)]
    output_size: Size  # width of an image's token, as the decoder takes it
    patch_size: Annotated[int, Range(1, 10_000)]
    temporal_patch_size: Annotated[int, Range(1, 100)] = 1  # frames of a patch; an image is repeated
    channels: Annotated[int, Range(1, 100)] = 3
    merge_size: Annotated[int, Range(1, 100)] = 1  # side of the square of patches that becomes one token
    activation: str = "gelu"
    clips: bool = False  # inputs and outputs of its linear layers (Gemma 4)
    standardizes: bool = False  # what leaves the tower (Gemma 4)
    sees_ahead: bool = False  # in sliding layers, tokens of an image attend to each other both ways (Gemma 4)
    qkv_bias: bool = True  # of queries, keys and values, where a config says
    image_size: Count = 0  # side of an image, or of its tiles; 0: as the rule for images makes it
    image_tokens: Count = 0  # of an image, or of its tiles, where all have as many
    position_rows: Count = 0  # of the table of learned positions
    window_size: Count = 0  # pixels of the square in which patches attend to each other; 0: all of an image
    full_layers: tuple[int, ...] = ()  # blocks without that window
    unread_blocks: Count = 0  # at its end, whose output no token is made of: they run, and get no gradients
    global_blocks: Count = 0  # the last blocks, with gates, after a norm and the places of tiles (Llama 3.2)
    joined_blocks: tuple[int, ...] = ()  # whose outputs are joined to that of the last in each token
    tile_shapes: Count = 0  # how tiles of an image may lie
    deepstack_layers: tuple[int, ...] = ()  # blocks whose output is projected as well, into the first decoder layers
    least_pixels: Annotated[int, Range(0, 10**12)] = 0  # of an image after the processor; 0: no limit
    most_pixels: Annotated[int, Range(0, 10**12)] = 0
    longest_edge: Count = 0  # pixels
    most_tiles: Annotated[int, Range(0, 10_000)] = 0
    row: tuple[Picture, ...] = ()  # the images of each row of the job; () for rows of text

    @property
    def code(self) -> TowerRow:
        """What its code does."""
        return tower_row(self.model_type)

    @property
    def head_dim(self) -> int:
        """Width of one head of the tower's attention."""
        return self.hidden_size // self.num_attention_heads

    @property
    def places_by_axes(self) -> bool:
        """Whether tokens have positions on three axes, so that each row has rotary tables of its own (Qwen)."""
        return self.code.places_by_axes

    @property
    def hides_places(self) -> bool:
        """Whether layers are given no position ids: those on three axes are none; on rows of text Qwen 3 adds a fourth.

        Source: transformers 5.23, models/qwen2_5_vl and qwen3_vl, modeling_*.py: text_position_ids.
        """
        return self.places_by_axes and (bool(self.row) or not self.code.text_places_beside)

    @property
    def sees_both_ways(self) -> SeeBothWays:
        """In which layers tokens of the row's images attend to each other both ways."""
        if not self.row:
            return ""
        return "sliding" if self.sees_ahead else self.code.see_both_ways

    @property
    def masks_patches(self) -> bool:
        """Whether its attention is given a mask for the row's images."""
        return self.code.masks or any(one.patches < self.most_patches for one in self.row)

    @property
    def most_patches(self) -> int:
        """To which images are filled up; 0: they are not."""
        return self.image_tokens * self.merge_size**2 if self.code.fills_up else 0

    @property
    def patch_width(self) -> int:
        """Numbers of one patch."""
        return self.channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merged_size(self) -> int:
        """Width of the patches that become one token, side by side."""
        return self.hidden_size * self.merge_size**2

    @property
    def row_patches(self) -> int:
        """Patches of a row."""
        return sum(one.patches for one in self.row)

    @property
    def row_pixels(self) -> int:
        """Numbers that a row's images are; square tiles reach beyond their last whole patch (384 = 27 * 14 + 6)."""
        if self.code.squares:
            return sum(one.tiles for one in self.row) * self.channels * self.image_size**2
        return (len(self.row) * self.most_patches or self.row_patches) * self.patch_width

    @property
    def row_features(self) -> int:
        """Tokens of a row that the tower makes."""
        return self.row_patches // self.merge_size**2

    @property
    def row_tokens(self) -> int:
        """Tokens of a row that stand for its images."""
        return sum(one.tokens for one in self.row)
