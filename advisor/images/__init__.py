"""How many tokens and patches an image becomes: the rules of the models' image processors, a file a family.

Source: transformers 5.23, models/*/image_processing_*.py and processing_*.py (`_get_num_multimodal_tokens`). A test
compares every rule with them.
"""

from __future__ import annotations

from advisor.images.rules import picture, pictures, shrunk, with_pictures

__all__ = ["picture", "pictures", "shrunk", "with_pictures"]
