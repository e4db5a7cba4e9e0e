"""transformers 4.56 and 4.57 without an attention mask in the batch: packed rows, flattened batches, bare loops."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.stacks.own_loop import OwnLoop


@dataclass(frozen=True)
class Unmasked4(OwnLoop):
    """A bool mask is made for every batch that brings none, as if its rows were packed: of any length, also of one.

    `find_packed_sequence_indices` returned a tensor always, since a None broke exports; 5.0 returns None. A mask of
    ones, as a collator makes it, is dropped in all versions.
    Source: transformers 4.57, masking_utils.py, find_packed_sequence_indices, _preprocess_mask_arguments.
    """

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return "transformers 4.56 and 4.57 without attention masks, in a loop that holds the outputs"

    def masks(self, padded: bool) -> bool:
        """Keys and values are repeated and each layer keeps a bias, as for padded rows."""
        return True
