"""GPUs by name, by size, by file or from the driver: whatever `--gpu` was given becomes GpuSpec.

People's units (MiB, GB/s, TFLOP/s) stand in the files of profiles/gpus and in a user's own GPU file; here they
become the base units of GpuSpec. Names and aliases are exact: spaces, dashes, underscores, capitals and a leading
"NVIDIA" do not matter, everything else does.
"""

from __future__ import annotations

import difflib
import importlib
import json
import re
import stat
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from advisor.errors import BadConfig, SourceUnavailable, UnknownName
from advisor.specs import Frozen, GpuSpec
from advisor.units import GIB, MIB, parse_card_size_gb

UNKNOWN_CARD_USABLE = 0.98
"""Part of the marketed size (as GiB) that we take a card outside the catalog to report.

GeForce cards report 0.995 to 1.0 of it, cards that keep ECC codes in GDDR 0.937; so this errs by at most 5 %.
"""

SMALLEST_CARD_BYTES = 512 * MIB
_FILE_LIMIT_BYTES = 1024**2
_NEXT_STEP = "`advise gpus` lists them, or give a size such as 24GB"
_FILE_SUFFIXES = (".toml", ".json")

Figure = Literal["memory", "bandwidth", "flops", "capability"]
Tflops = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]


class Card(Frozen):
    """One card as a file writes it, in people's units. A rate that is left out does not exist on the card."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9 .,+()/_-]*$")]
    generation: Annotated[str, Field(max_length=40, pattern=r"^[A-Za-z0-9 ._-]*$")] = ""
    reported_as: str = Field("", max_length=120, description="the driver's name, where two cards share it")
    aliases: tuple[str, ...] = Field((), strict=False)
    compute_capability: Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")] = Field("")
    marketed_gb: Annotated[float, Field(ge=0.5, le=10_000, allow_inf_nan=False)]
    memory_mib: Annotated[int, Field(ge=512, le=10_485_760)]
    bandwidth_gb_per_s: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
    bf16_tflops: Tflops = Field(0.0)
    fp16_tflops: Tflops
    tf32_tflops: Tflops = Field(0.0)
    fp32_tflops: Tflops
    sources: dict[Figure, str] = Field(default_factory=dict)

    def to_spec(self, links: Mapping[str, str]) -> GpuSpec:
        """The card in base units; a source that starts with a key of `links` gets its address written out."""
        return GpuSpec(
            name=self.name,
            generation=self.generation,
            compute_capability=self.compute_capability,
            memory_bytes=self.memory_mib * MIB,
            marketed_gb=self.marketed_gb,
            memory_bytes_per_s=self.bandwidth_gb_per_s * 1e9,
            bf16_flop_per_s=self.bf16_tflops * 1e12,
            fp16_flop_per_s=self.fp16_tflops * 1e12,
            tf32_flop_per_s=self.tf32_tflops * 1e12,
            fp32_flop_per_s=self.fp32_tflops * 1e12,
            sources=tuple(f"{figure}: {_resolved(text, links)}" for figure, text in self.sources.items()),
        )


def gpu_names() -> tuple[str, ...]:
    """Names of all catalog cards, in the order of the files."""
    return tuple(spec.name for spec in all_gpus())


@lru_cache(maxsize=1)
def all_gpus() -> tuple[GpuSpec, ...]:
    """All catalog cards, in the order of the files."""
    return tuple(spec for _, spec in _catalog())


@lru_cache(maxsize=1)
def gpu_aliases() -> Mapping[str, str]:
    """Short names that people type, and the catalog name that each stands for."""
    return MappingProxyType({alias: spec.name for card, spec in _catalog() for alias in card.aliases})


def cards_with_at_least(memory_bytes: int) -> tuple[GpuSpec, ...]:
    """Catalog cards whose driver reports `memory_bytes` or more, smallest first, then by name."""
    enough = (spec for spec in all_gpus() if spec.memory_bytes >= memory_bytes)
    return tuple(sorted(enough, key=lambda spec: (spec.memory_bytes, spec.name)))


def find_gpus(text: str) -> tuple[GpuSpec, ...]:
    """The cards that `--gpu TEXT` means: one by name, alias, file or 'auto'; all of a size for "24GB".

    Raises UnknownName (no such card), BadValue (a size out of range), BadConfig (an unusable GPU file) and
    SourceUnavailable ('auto' without NVML, a file that cannot be read).
    """
    wanted = text.strip()
    known = _by_key().get(_key(wanted))
    if known is not None:
        return (known,)
    if wanted.lower() == "auto":
        return (_installed_card(),)
    if wanted.lower().endswith(_FILE_SUFFIXES):
        return (_card_from_file(wanted),)
    is_model_number = wanted.lower().endswith("ti")  # "4080 Ti" is no card, but neither is it 4080 TiB
    size_gb = None if is_model_number else parse_card_size_gb(wanted)
    if size_gb is not None:
        return _cards_of_size(size_gb)
    raise _unknown(wanted)


def _unknown(wanted: str) -> UnknownName:
    """The error for a name that is no card's; it lists the cards of which it is only a part, but picks none."""
    key = _key(wanted)
    longer = [alias for alias in gpu_aliases() if key and key in _key(alias)]
    hint = f"it fits {', '.join(longer)}; {_NEXT_STEP}" if 1 <= len(longer) <= 6 else _NEXT_STEP
    return UnknownName("GPU", wanted, (*gpu_names(), *gpu_aliases()), hint)


@lru_cache(maxsize=1)
def _catalog() -> tuple[tuple[Card, GpuSpec], ...]:
    """Every [[cards]] entry of profiles/gpus with its spec."""
    found = []
    for file in sorted((resources.files("profiles") / "gpus").iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".toml"):
            continue
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        usual = table["defaults"]
        for entry in table["cards"]:
            sources = usual["sources"] | entry.get("sources", {})
            card = Card.model_validate(usual | entry | {"sources": sources})
            found.append((card, card.to_spec(table["links"])))
    return tuple(found)


@lru_cache(maxsize=1)
def _by_key() -> dict[str, GpuSpec]:
    """Catalog cards by normalised name and alias; a test holds that no two cards share one."""
    return {_key(label): spec for card, spec in _catalog() for label in (card.name, *card.aliases)}


def _key(label: str) -> str:
    """`label` without capitals, spaces, dashes, underscores and a leading NVIDIA: people write those differently."""
    return re.sub(r"[\s_-]+", "", label.lower()).removeprefix("nvidia")


def _resolved(source: str, links: Mapping[str, str]) -> str:
    """`source` with its first word, if that is a key of `links`, replaced by the address."""
    first, _, remark = source.partition(" ")
    return f"{links.get(first, first)} {remark}".rstrip()


def _cards_of_size(size_gb: float) -> tuple[GpuSpec, ...]:
    """Catalog cards sold with `size_gb`; when there are none, one card of unknown speed."""
    found = tuple(spec for spec in all_gpus() if spec.marketed_gb == size_gb)
    if found:
        return found
    source = f"memory: {UNKNOWN_CARD_USABLE:.0%} of the size asked for, which no catalog card has"
    return (
        _of_unknown_speed(
            f"a card with {size_gb:g} GB", int(size_gb * GIB * UNKNOWN_CARD_USABLE), size_gb, source
        ),
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
    """This machine's GPU 0, asked through NVML: catalog rates, but the memory that the driver reports here.

    NVML counts all cards of the machine: CUDA_VISIBLE_DEVICES does not change which one is asked.
    """
    otherwise = "name the card instead, for example --gpu rtx4090 or --gpu 24GB"
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        raise SourceUnavailable(
            f"--gpu auto needs the package nvidia-ml-py: pip install nvidia-ml-py, or {otherwise}"
        ) from None
    try:
        nvml.nvmlInit()
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(0)
            reported = nvml.nvmlDeviceGetName(handle)
            memory_bytes = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            capability = "{}.{}".format(*nvml.nvmlDeviceGetCudaComputeCapability(handle))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        raise SourceUnavailable(f"--gpu auto finds no NVIDIA GPU here (NVML: {error}); {otherwise}") from None
    if memory_bytes < SMALLEST_CARD_BYTES:
        raise SourceUnavailable(f"--gpu auto: NVML reports {memory_bytes} bytes for GPU 0; {otherwise}")
    name = reported.decode("utf-8", "replace") if isinstance(reported, bytes) else str(reported)
    return _matched(name, memory_bytes, capability)


def _matched(reported: str, memory_bytes: int, capability: str) -> GpuSpec:
    """The catalog card that the driver calls `reported`, with the memory found; if none, of unknown speed.

    Where two cards share the name, the one whose memory is nearer.
    """
    marketed_gb = float(max(1, round(memory_bytes / GIB)))
    source = f"memory: NVML, {memory_bytes // MIB} MiB on this machine"
    same = [s for card, s in _catalog() if _key(card.reported_as or card.name) == _key(reported)]
    if not same:
        return _of_unknown_speed(reported, memory_bytes, marketed_gb, source, capability)
    spec = min(same, key=lambda s: abs(s.memory_bytes - memory_bytes))
    others = tuple(text for text in spec.sources if not text.startswith("memory:"))
    found: dict[str, Any] = {"memory_bytes": memory_bytes, "sources": (source, *others)}
    if abs(memory_bytes / spec.memory_bytes - 1) > 0.1:  # a slice of the card, or a rebuilt one
        found["marketed_gb"] = marketed_gb
    return spec.model_copy(update=found)


def _card_from_file(path: str) -> GpuSpec:
    """The one card that a .toml or .json file describes, with the fields of a catalog entry."""
    text = _read_small_file(path)
    try:
        table = tomllib.loads(text) if path.lower().endswith(".toml") else json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = Path(path).suffix[1:].upper()
        raise BadConfig(f"GPU file {_shown(path)} is not valid {kind}: {str(error)[:120]}") from None
    if not isinstance(table, dict):
        raise BadConfig(f"GPU file {_shown(path)} holds no table of fields; it needs {_required_fields()}")
    try:
        card = Card.model_validate(table)
    except ValidationError as error:
        raise BadConfig(f"GPU file {_shown(path)}: {_first_problem(error)}") from None
    _check_sizes_agree(path, card)
    return card.to_spec({})


def _read_small_file(path: str) -> str:
    """Text of a regular file of at most 1 MiB. A pipe is refused before it is opened, which could block."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise BadConfig(f"GPU file {_shown(path)} is not a regular file; give a .toml or .json file")
        with Path(path).open("rb") as file:
            data = file.read(_FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise SourceUnavailable(f"GPU file {_shown(path)} does not exist; {_NEXT_STEP}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte or an unencodable character
        reason = getattr(error, "strerror", None) or error
        raise SourceUnavailable(f"GPU file {_shown(path)} cannot be read ({reason}); {_NEXT_STEP}") from None
    if len(data) > _FILE_LIMIT_BYTES:
        raise BadConfig(f"GPU file {_shown(path)} is larger than 1 MiB; it needs only {_required_fields()}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadConfig(f"GPU file {_shown(path)} is not UTF-8 text; give a .toml or .json file") from None


def _shown(path: str) -> str:
    """`path` for a message: short, and without characters that a terminal would obey."""
    return ascii(path if len(path) <= 80 else f"...{path[-77:]}")


def _first_problem(error: ValidationError) -> str:
    """One line about the first field that is wrong: which, what it holds, what is allowed."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{field} is missing; the file needs {_required_fields()}"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field[:80], list(Card.model_fields), n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(Card.model_fields)}"
        return f"unknown field {field[:80]!r}; {hint}"
    value = repr(problem["input"])
    return f"{field[:80]} is {value if len(value) <= 60 else value[:57] + '...'}: {problem['msg']}"


def _check_sizes_agree(path: str, card: Card) -> None:
    """Refuse a card whose two memory sizes contradict each other, which is a slip of the unit."""
    share = card.memory_mib / 1024 / card.marketed_gb
    if not 0.85 <= share <= 1.1:
        raise BadConfig(
            f"GPU file {_shown(path)}: memory_mib is {card.memory_mib}, which is {share:.2g} of marketed_gb "
            f"({card.marketed_gb:g}); expected is 0.85 to 1.1 of it"
        )


def _required_fields() -> str:
    """Names of the fields that a GPU file must have."""
    return ", ".join(name for name, field in Card.model_fields.items() if field.is_required())
