"""The data set and how long to train."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated

from advisor.frozen import Frozen, Pattern, Range
from advisor.interval import Interval
from advisor.lengths import Quantiles, RowLengths, wrong_quantiles
from advisor.specs.words import PackingStrategy, Padding

ImageSize = Annotated[str, Pattern(r"[1-9]\d{0,4}x[1-9]\d{0,4}")]
KNOWN = Interval.exact(1.0)


class Workload(Frozen):
    """The data set and the training length. Sequence lengths are in tokens."""

    examples: Annotated[int, Range(1, 10**12)] = 10_000
    epochs: Annotated[float, Range(0, 10_000, open_low=True)] = 1.0
    seq_len: Annotated[int, Range(1, 10_000_000)] = 1024  # longest row, before it is rounded up
    mean_seq_len: Annotated[int, Range(1, 10_000_000)] = 512  # mean row; at most seq_len
    packing: bool = False
    # wrapped: examples attend to those before them; position_ids: kept apart by a mask, or by flash attention;
    # varlen: kept apart by the attention kernel, whichever it is
    packing_strategy: PackingStrategy = "wrapped"
    padding: Padding = "longest"  # to the longest row of a micro-batch, to seq_len, or none: rows one after the other
    pad_to_multiple_of: Annotated[int, Range(1, 1_000_000)] = 1  # tokens
    group_by_length: bool = False  # micro-batches of rows of about the same length
    batch_size: Annotated[int, Range(1, 1_000_000)] = 16  # effective: rows per optimizer step, over all cards
    eval_examples: Annotated[int, Range(0, 10**12)] = 0  # rows of an evaluation; 0 = none, or not stated
    eval_steps: Annotated[int, Range(0, 10**9)] = 0  # optimizer steps from one evaluation to the next; 0 = an epoch
    images: Annotated[int, Range(0, 10_000)] = 0  # of a row; its lengths hold their tokens
    image_size: ImageSize = "1024x1024"  # width x height, in pixels
    max_pixels: Annotated[int, Range(0, 10**9)] = 0  # of an image; 0 = what the model's processor allows
    length_quantiles: Quantiles = ()  # of a data file's rows; () = the law that mean and maximum imply
    # What the two lengths may be, over what they are said to be; (1, 1, 1) where they are known
    seq_len_factor: Interval = KNOWN
    mean_seq_len_factor: Interval = KNOWN

    _derived = MappingProxyType({"mean_seq_len": lambda given: min(512, given["seq_len"])})

    @property
    def ends(self) -> tuple[Workload, Workload] | None:
        """The workload with the shortest and with the longest rows that are possible; None if lengths are known."""
        if self.seq_len_factor.is_exact and self.mean_seq_len_factor.is_exact:
            return None
        low, high = (
            self._scaled(longest, mean)
            for longest, mean in (
                (self.seq_len_factor.low, self.mean_seq_len_factor.low),
                (self.seq_len_factor.high, self.mean_seq_len_factor.high),
            )
        )
        return low, high

    @property
    def image_width(self) -> int:
        """Pixels of an image from left to right."""
        return int(self.image_size.partition("x")[0])

    @property
    def image_height(self) -> int:
        """Pixels of an image from top to bottom."""
        return int(self.image_size.partition("x")[2])

    @property
    def lengths(self) -> RowLengths:
        """The law of the lengths of its rows; of packed rows, that of the examples in them."""
        return RowLengths(self.mean_seq_len, self.seq_len, self.length_quantiles)

    def _scaled(self, longest: float, mean: float) -> Workload:
        """The workload with its two lengths times these, and known."""
        scaled = self.lengths.scaled(mean, longest)
        return self.model_copy(
            update={
                "seq_len": scaled.limit,
                "mean_seq_len": scaled.mean,
                "length_quantiles": scaled.quantiles,
                "seq_len_factor": KNOWN,
                "mean_seq_len_factor": KNOWN,
            }
        )

    def _contradiction(self) -> str:
        if self.mean_seq_len > self.seq_len:
            return f"mean_seq_len is {self.mean_seq_len:,}, but must be at most seq_len, which is {self.seq_len:,}"
        if self.packing and self.group_by_length:
            return "group_by_length is set, but packed rows have one length"
        if self.images and self.packing:
            return "packing is set, but rows with images are not packed"
        return wrong_quantiles(self.length_quantiles, self.seq_len)
