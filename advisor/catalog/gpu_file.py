"""Cards as people write them: the TOML files of profiles/gpus and a user's own GPU file, in people's units.

Loaded only for a user's file and to write the catalog's index; an ordinary question reads that index instead.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from advisor.errors import BadConfig
from advisor.files.guarded import named_path, read_text
from advisor.specs import GpuSpec
from advisor.units import MIB

_HINT = "give a .toml or .json file, a card that `advise gpus` lists, or a size such as 24GB"
_FILE_LIMIT_BYTES = 1024**2

Figure = Literal["memory", "bandwidth", "flops", "capability", "power"]
Tflops = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]


class Card(BaseModel):
    """One card as a file writes it, in people's units. A rate that is left out does not exist on the card."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9 .,+()/_-]*$")]
    generation: Annotated[str, Field(max_length=40, pattern=r"^[A-Za-z0-9 ._-]*$")] = ""
    reported_as: str = Field("", max_length=120, description="the driver's name, where two cards share it")
    aliases: tuple[str, ...] = Field((), strict=False)
    compute_capability: Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")] = Field("")
    marketed_gb: Annotated[float, Field(ge=0.5, le=10_000, allow_inf_nan=False)]
    memory_mib: Annotated[int, Field(ge=512, le=10_485_760)]
    bandwidth_gb_per_s: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] = Field(0.0)
    bf16_tflops: Tflops = Field(0.0)
    fp16_tflops: Tflops = Field(0.0)
    tf32_tflops: Tflops = Field(0.0)
    fp32_tflops: Tflops = Field(0.0)
    power_w: Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)] = Field(0.0, description="0 = unknown")
    for_training: bool = Field(True, description="false for boards that are not sold for training")
    unified_memory: bool = Field(False, description="the GPU shares the CPU's memory")
    links: Annotated[int, Field(ge=0, le=1000)] = Field(0, description="of NVLink or Infinity Fabric; 0 = none")
    link_cards: Annotated[int, Field(ge=0, le=1000)] = Field(0, description="that a bridge joins; 0 = all of a node")
    peer_to_peer: bool = Field(True, description="false where cards reach each other through the host's memory")
    sources: dict[Figure, str] = Field(default_factory=dict)

    def missing_rate(self) -> str:
        """A rate that is required besides the given ones; '' if none is missing or none is given."""
        rates = {name: value for name, value in self if name.endswith(("_gb_per_s", "_tflops"))}
        needed = ("bandwidth_gb_per_s", "fp16_tflops", "fp32_tflops")
        return next((name for name in needed if not rates[name]), "") if any(rates.values()) else ""

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
            power_w=float(self.power_w),
            for_training=self.for_training and "Laptop" not in self.name,
            unified_memory=self.unified_memory,
            links=self.links,
            link_cards=self.link_cards,
            peer_to_peer=self.peer_to_peer and "GeForce" not in self.name,
            sources=tuple(f"{figure}: {_resolved(text, links)}" for figure, text in self.sources.items()),
        )


def _resolved(source: str, links: Mapping[str, str]) -> str:
    """`source` with its first word, if that is a key of `links`, replaced by the address."""
    first, _, remark = source.partition(" ")
    return f"{links.get(first, first)} {remark}".rstrip()


def card_from_file(path: str) -> GpuSpec:
    """The one card that a .toml or .json file describes, with the fields of a catalog entry."""
    name = f"GPU file {_shown(path)}"
    text = read_text(named_path(path), name, _HINT, _FILE_LIMIT_BYTES)
    try:
        table = tomllib.loads(text) if path.lower().endswith(".toml") else json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = Path(path).suffix[1:].upper()
        raise BadConfig(f"{name} is not valid {kind}: {str(error)[:120]}") from None
    if not isinstance(table, dict):
        raise BadConfig(f"{name} holds no table of fields; it needs {_required_fields()}")
    try:
        card = Card.model_validate(table)
    except ValidationError as error:
        raise BadConfig(f"{name}: {_first_problem(error)}") from None
    _check_sizes_agree(name, card)
    if missing := card.missing_rate():
        raise BadConfig(
            f"{name}: {missing} is missing; give it, or leave out all rates if you do not know the card's speed"
        )
    return card.to_spec({})


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
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(Card.model_fields)}"
        return f"unknown field {field[:80]!r}; {hint}"
    value = repr(problem["input"])
    return f"{field[:80]} is {value if len(value) <= 60 else value[:57] + '...'}: {problem['msg']}"


def _check_sizes_agree(name: str, card: Card) -> None:
    """Refuse a card whose two memory sizes contradict each other: one of them is in the wrong unit."""
    share = card.memory_mib / 1024 / card.marketed_gb
    if not 0.85 <= share <= 1.1:
        raise BadConfig(
            f"{name}: memory_mib is {card.memory_mib}, which is {share:.2g} of marketed_gb "
            f"({card.marketed_gb:g}); expected 0.85 to 1.1 of it"
        )


def _required_fields() -> str:
    """Names of the fields that a GPU file must have."""
    return ", ".join(name for name, field in Card.model_fields.items() if field.is_required())


def catalog_cards(folder: Path) -> Iterator[tuple[Card, GpuSpec]]:
    """Every [[cards]] entry of the TOML files in `folder`, in their order, with its spec."""
    for path in sorted(folder.glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        usual = table["defaults"]
        for entry in table["cards"]:
            sources = usual["sources"] | entry.get("sources", {})
            card = Card.model_validate(usual | entry | {"sources": sources})
            yield card, card.to_spec(table["links"])
