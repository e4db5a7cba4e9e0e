"""The file of a traced profile: what `calibrate --dry-run` found out about a model that the formula does not know.

One JSON file per model in the user's data folder: {"schema_version", "checksum", "profile"}, where the checksum is the
SHA-256 of the profile's own text. `calibrate.traced_profile` writes what is in a profile, `costs.traced` evaluates
it. A profile that is damaged, from another version or about another config is refused: tracing again takes minutes,
and a wrong profile would go unnoticed.
"""

from __future__ import annotations

import base64
import binascii
import sys
import zlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.errors import BadConfig
from advisor.files.checked import canonical_text, data_folder, file_text, read_file, text_hash
from advisor.knobs import idle_knobs
from advisor.specs import Recipe

SCHEMA_VERSION = 2
MAX_FILE_BYTES = 64 * 2**20
MAX_EVENTS_BYTES = 256 * 2**20
EVALUATED = (
    "method",
    "rank",
    "alpha",
    "optimizer",
    "optimizer_rank",
    "micro_batch",
    "gradient_accumulation",
    "expandable_segments",
)
"""Knobs of a recipe that do not change which tensors its step makes, or that are stored under separate keys."""

LATER: dict[str, object] = {
    "stack": (),
    "kernels": (),
    "offload": "none",
    "optimizer_in_backward": False,
    "quantize_experts": False,
    "modules_to_save": (),
    "trained_layers": 0,
    "trained_dtype": "base",
    "variant": "plain",
    "upcast_logits": True,
    "neftune": False,
}
"""Knobs that came after profiles had been written, with what those profiles were traced with: left out where equal."""

_VOLATILE = ("_name_or_path", "transformers_version", "use_cache")


class BadProfile(BadConfig):
    """A traced profile that cannot be used; the message says how to trace the model again."""


def profile_folder() -> Path:
    """The folder of the profiles."""
    return data_folder() / "traced"


def profile_path(label: str) -> Path:
    """The file of the model that is called `label`: a Hub id, or the absolute path of its config.json."""
    words = "".join(c if c.isalnum() and c.isascii() else "-" for c in label.removesuffix("/config.json"))[-40:]
    return profile_folder() / f"{words.strip('-')}-{text_hash(label)[:12]}.json"


def config_hash(config: Mapping[str, object]) -> str:
    """What identifies a model: a hash of its config without the keys that libraries add for bookkeeping."""
    return text_hash(canonical_text({key: value for key, value in config.items() if key not in _VOLATILE}))


def structure_of(recipe: Recipe) -> dict[str, Any]:
    """The knobs that decide which tensors the step of a recipe makes, as a profile stores them."""
    found: dict[str, Any] = {name: value for name, value in recipe if name not in EVALUATED}
    found["dropout"] = recipe.dropout > 0
    found["variant"] = recipe.variant if recipe.replaces_lora else "plain"
    found["neftune"] = recipe.neftune > 0
    found["reentrant"] = recipe.reentrant and recipe.gradient_checkpointing
    found["target_modules"] = list(recipe.target_modules)
    for name, usual in LATER.items():
        if found[name] == usual:
            del found[name]
    idle = idle_knobs(recipe.method, recipe.quant)
    return {"method": recipe.method, **{name: value for name, value in found.items() if name not in idle}}


def profile_text(profile: Mapping[str, Any]) -> str:
    """The file's text for a profile."""
    return file_text(SCHEMA_VERSION, profile)


def read_profile(path: Path, model: str) -> tuple[str, dict[str, Any]]:
    """(checksum, profile) of a file; errors name `model` and how to trace it again. Raises BadProfile."""
    again = f"trace it again: `calibrate --dry-run --retrace --model {model}`"
    return read_file(path, SCHEMA_VERSION, MAX_FILE_BYTES, "the traced profile", again, BadProfile)


def pack(events: Sequence[int]) -> str:
    """Whole numbers below 2^32 as text: a step repeats itself layer by layer, so it compresses well."""
    return base64.b85encode(zlib.compress(_little(array("I", events)).tobytes(), 9)).decode("ascii")


def unpack(text: str) -> array[int]:
    """The numbers that `pack` wrote. Raises BadProfile."""
    try:
        found, stream = array("I"), zlib.decompressobj()
        found.frombytes(stream.decompress(base64.b85decode(text), MAX_EVENTS_BYTES))
        if not stream.eof:
            raise ValueError("cut short")
    except (ValueError, zlib.error, binascii.Error):
        raise BadProfile("the traced profile's events are damaged; trace it again with --retrace") from None
    return _little(found)


def _little(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
