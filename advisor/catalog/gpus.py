"""GPUs by name, by size, by file or from the driver: what `--gpu` was given, as GpuSpecs.

People write cards in profiles/gpus/*.toml and in their own files (gpu_file.py reads those); a look-up opens only
profiles/gpus/index.json, which repeats the catalog in base units and is generated (index.py).
Names and aliases are exact: spaces, dashes, underscores, capitals and a leading "NVIDIA" or "AMD" do not matter,
everything else does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from advisor.catalog.data import data_text
from advisor.errors import BadValue, SourceUnavailable, UnknownName, expect
from advisor.specs import GpuSpec
from advisor.units import GIB, MIB, parse_card_size_gb

UNKNOWN_CARD_USABLE = 0.98
"""Share of the marketed size (as GiB) that we assume a card outside the catalog reports.

GeForce cards report 0.995 to 1.0 of it, cards that keep ECC codes in GDDR 0.937; so this errs by at most 5 %.
"""

SMALLEST_CARD_BYTES = 512 * MIB
_NEXT_STEP = "`advise gpus` lists them, or give a size such as 24GB"
_FILE_SUFFIXES = (".toml", ".json")
_SEVERAL = re.compile(r"\s*(\d{1,3}|\d{5,7}|\d{4}(?=[xX×][^tTxX\s]))\s*[xX×]\s*(\S.*?)\s*")  # a "7900 XT" is one card
_APPLE = re.compile(r"apple.*|mps|metal|m[1-9](pro|max|ultra)?")


class _Entry(NamedTuple):
    """One line of the index; `reported_as` is the driver's name, which two cards may share."""

    name: str
    aliases: tuple[str, ...]
    reported_as: str
    fields: dict[str, Any]

    @property
    def spec(self) -> GpuSpec:
        """The card itself, made when it is asked for."""
        return _spec(self.name)


@cache
def _catalog() -> dict[str, _Entry]:
    """The index by name, in the order of the files."""
    rows = json.loads(data_text("gpus", "index.json"))
    entries = (_Entry(row["spec"]["name"], tuple(row["aliases"]), row["reported_as"], row["spec"]) for row in rows)
    return {entry.name: entry for entry in entries}


@cache
def _spec(name: str) -> GpuSpec:
    fields = _catalog()[name].fields
    return GpuSpec(**{**fields, "sources": tuple(fields["sources"])})


def gpu_names() -> tuple[str, ...]:
    """Names of all catalog cards, in the order of the files."""
    return tuple(_catalog())


@lru_cache(maxsize=1)
def all_gpus() -> tuple[GpuSpec, ...]:
    """All catalog cards, in the order of the files."""
    return tuple(entry.spec for entry in _catalog().values())


@lru_cache(maxsize=1)
def gpu_aliases() -> Mapping[str, str]:
    """Short names that people type, and the catalog name that each stands for."""
    return MappingProxyType({alias: e.name for e in _catalog().values() for alias in e.aliases})


def cards_with_at_least(memory_bytes: int) -> tuple[GpuSpec, ...]:
    """Ordinary cards for training whose driver reports `memory_bytes` or more, smallest first, then by name."""
    enough = (spec for spec in _ordinary_cards() if spec.for_training and spec.memory_bytes >= memory_bytes)
    return tuple(sorted(enough, key=lambda spec: (spec.memory_bytes, spec.name)))


def _ordinary(spec: GpuSpec) -> bool:
    """Whether a size alone may stand for the card: PyTorch drives it by CUDA, and it has memory of its own."""
    return not spec.rocm and not spec.unified_memory


@lru_cache(maxsize=1)
def _ordinary_cards() -> tuple[GpuSpec, ...]:
    return tuple(filter(_ordinary, all_gpus()))


NEAR = 0.25
"""Cards whose memory differs by at most this share may stand in for one whose speed is not known."""


def cards_near(memory_bytes: int) -> tuple[GpuSpec, ...]:
    """Ordinary cards with about `memory_bytes`; when there are none, the nearest below and above."""
    near = [spec for spec in _ordinary_cards() if abs(spec.memory_bytes - memory_bytes) <= NEAR * memory_bytes]
    if near:
        return tuple(near)
    ordered = sorted(_ordinary_cards(), key=lambda spec: spec.memory_bytes)
    below = [spec for spec in ordered if spec.memory_bytes < memory_bytes][-1:]
    return (*below, *cards_with_at_least(memory_bytes)[:1])


def several(text: str) -> tuple[int | None, str]:
    """(2, "3090") for "2x3090"; (None, text) for what names no number of cards, a file's name included."""
    match = None if text.strip().lower().endswith(_FILE_SUFFIXES) else _SEVERAL.fullmatch(text)
    return (None, text) if match is None else (int(match[1]), match[2])


def other_sizes(text: str) -> tuple[tuple[str, GpuSpec], ...]:
    """Cards that are sold under the name `text` with another memory, each with the alias that says so.

    "a100" is the 40 GB card; there is an a100-80gb. A name that states the size has none.
    """
    key = _key(text)
    card = _by_key().get(key)
    if card is None:
        return ()
    asked = {label.lower() for label in (card, *_catalog()[card].aliases) if _key(label) == key}
    found: dict[float, tuple[str, GpuSpec]] = {}
    for entry in _catalog().values():
        size = entry.fields["marketed_gb"]
        for alias in entry.aliases:
            longer = alias.endswith(f"-{size:g}gb") and any(alias.startswith(f"{label}-") for label in asked)
            if longer and size != _catalog()[card].fields["marketed_gb"]:
                found.setdefault(size, (alias, entry.spec))
    return tuple(found.values())


def reads_machine(text: str) -> bool:
    """Whether `--gpu TEXT`, after its number of cards, asks this machine: its driver, or one of its files."""
    wanted = several(text)[1].strip().lower()
    return wanted == "auto" or wanted.endswith(_FILE_SUFFIXES)


def find_gpus(text: str) -> tuple[GpuSpec, ...]:
    """The cards that `--gpu TEXT` means: one by name, alias, file or 'auto'; all of a size for "24GB".

    Raises UnknownName (no such card), BadValue (a size out of range), BadConfig (an unusable GPU file) and
    SourceUnavailable ('auto' without NVML, a file that cannot be read).
    """
    expect("gpu", text, str)
    wanted = text.strip()
    name = _by_key().get(_key(wanted))
    if name is not None:
        return (_spec(name),)
    if wanted.lower() == "auto":
        return (_installed_card(),)
    if wanted.lower().endswith(_FILE_SUFFIXES):
        from advisor.catalog.gpu_file import card_from_file

        return (card_from_file(wanted),)
    is_model_number = wanted.lower().endswith("ti")  # "4080 Ti" is not a card, but it is not 4080 TiB either
    size_gb = None if is_model_number else parse_card_size_gb(wanted)
    if size_gb is not None:
        return _cards_of_size(size_gb)
    if _APPLE.fullmatch(_key(wanted)):
        raise BadValue(
            "--gpu",
            wanted,
            "Apple's GPUs are not estimated: PyTorch's MPS backend has other kernels and another allocator than CUDA, "
            "and nothing here was checked on it; name a CUDA or ROCm card, or a size such as 24GB",
        )
    raise _unknown(wanted)


def _unknown(wanted: str) -> UnknownName:
    """The error for an unknown name; it lists the cards whose names contain it, but picks none."""
    key = _key(wanted)
    longer = [alias for alias in gpu_aliases() if key and key in _key(alias)]
    hint = f"it matches {', '.join(longer)}; {_NEXT_STEP}" if 1 <= len(longer) <= 6 else _NEXT_STEP
    return UnknownName("GPU", wanted, (*gpu_names(), *gpu_aliases()), hint)


@lru_cache(maxsize=1)
def _by_key() -> dict[str, str]:
    """Names of catalog cards by normalized name and alias; a test checks that no two cards share one."""
    return {_key(label): entry.name for entry in _catalog().values() for label in (entry.name, *entry.aliases)}


def _key(label: str) -> str:
    """`label` without capitals, spaces, dashes, underscores and a leading maker: people write those differently."""
    return re.sub(r"[\s_-]+", "", label.lower()).removeprefix("nvidia").removeprefix("amd")


def _cards_of_size(size_gb: float) -> tuple[GpuSpec, ...]:
    """Ordinary cards sold with `size_gb`; when there are none, one card of unknown speed."""
    same = (entry.spec for entry in _catalog().values() if entry.fields["marketed_gb"] == size_gb)
    found = tuple(filter(_ordinary, same))
    if found:
        return found
    source = f"memory: {UNKNOWN_CARD_USABLE:.0%} of the size asked for, which no catalog card has"
    return (
        _of_unknown_speed(f"a card with {size_gb:g} GB", int(size_gb * GIB * UNKNOWN_CARD_USABLE), size_gb, source),
    )


def _of_unknown_speed(
    name: str, memory_bytes: int, marketed_gb: float, source: str, compute_capability: str = ""
) -> GpuSpec:
    """A card of which only the memory is known."""
    return GpuSpec(
        name=name,
        generation="",
        compute_capability=compute_capability,
        memory_bytes=memory_bytes,
        marketed_gb=marketed_gb,
        memory_bytes_per_s=0.0,
        bf16_flop_per_s=0.0,
        sources=(source,),
    )


def _installed_card() -> GpuSpec:
    """This machine's GPU 0, as NVML reports it: the catalog's rates, but the memory that the driver reports here.

    NVML counts all cards of the machine: CUDA_VISIBLE_DEVICES does not change which one is GPU 0.
    """
    from advisor.catalog.nvml import nvml_module, open_card

    otherwise = "name the card instead, for example --gpu rtx4090 or --gpu 24GB"
    try:
        nvml = nvml_module()
    except ImportError:
        raise SourceUnavailable(
            f"--gpu auto needs the package nvidia-ml-py: pip install nvidia-ml-py, or {otherwise}"
        ) from None
    try:
        handle = open_card(nvml)
        try:
            reported = nvml.nvmlDeviceGetName(handle)
            name = reported.decode("utf-8", "replace") if isinstance(reported, bytes) else str(reported)
            unified = _unified_card(name)
            if unified is not None:
                return unified
            memory_bytes = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            capability = "{}.{}".format(*nvml.nvmlDeviceGetCudaComputeCapability(handle))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        raise SourceUnavailable(f"--gpu auto found no NVIDIA GPU here (NVML: {error}); {otherwise}") from None
    if memory_bytes < SMALLEST_CARD_BYTES:
        raise SourceUnavailable(f"--gpu auto: NVML reports {memory_bytes} bytes for GPU 0; {otherwise}")
    return reported_card(name, memory_bytes, capability)


def _unified_card(reported: str) -> GpuSpec | None:
    """The catalog machine of this name, the smallest, if its GPU shares the CPU's memory, which NVML does not count.

    Source: https://docs.nvidia.com/dgx/dgx-spark/known-issues.html.
    """
    named = [entry.spec for entry in _catalog().values() if _key(entry.reported_as) == _key(reported)]
    return min((spec for spec in named if spec.unified_memory), key=lambda spec: spec.memory_bytes, default=None)


def reported_card(reported: str, memory_bytes: int, capability: str) -> GpuSpec:
    """The catalog card that the driver calls `reported`, with the memory found; if none, of unknown speed.

    Where two cards share the name, the one whose memory is nearer.
    """
    marketed_gb = float(max(1, round(memory_bytes / GIB)))
    source = f"memory: NVML, {memory_bytes // MIB} MiB on this machine"
    same = [entry.spec for entry in _catalog().values() if _key(entry.reported_as) == _key(reported)]
    if not same:
        return _of_unknown_speed(reported, memory_bytes, marketed_gb, source, capability)
    spec = min(same, key=lambda s: abs(s.memory_bytes - memory_bytes))
    others = tuple(text for text in spec.sources if not text.startswith("memory:"))
    found: dict[str, Any] = {"memory_bytes": memory_bytes, "sources": (source, *others)}
    if abs(memory_bytes / spec.memory_bytes - 1) > 0.1:  # a slice of the card, or a rebuilt one
        found["marketed_gb"] = marketed_gb
    return spec.model_copy(update=found)
