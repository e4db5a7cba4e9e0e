"""Files that start a trainer's own file on rented or shared machines: batch scripts of Slurm, tasks of SkyPilot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from advisor.configs.found import Found, Use
from advisor.configs.tree import Tree
from advisor.errors import AdvisorError

SCRIPTS = (".sbatch", ".slurm")
_SLURM = {
    "nodes": re.compile(r"^#SBATCH\s+(?:--nodes[= ]|-N\s*)(\d+)", re.MULTILINE),
    "cards": re.compile(r"^#SBATCH\s+(?:--gpus-per-node|--gres)[= ](?:gpu:)?(?:\w+:)?(\d+)", re.MULTILINE),
}
_FILE = re.compile(r"[\w./~-]+\.(?:ya?ml|json|py|ipynb|sh)\b")
_SIZE = re.compile(r"(?:\w+:)?(\d+GB)\+?(?::(\d+))?", re.IGNORECASE)


class Starter(NamedTuple):
    """What such a file says."""

    files: tuple[str, ...]
    """Those that its commands name and that stand beside it."""
    uses: tuple[Use, ...]
    cards: int = 1
    """Of a machine."""
    machines: int = 1
    card: str = ""

    def started(self, found: Found) -> Found:
        """What it starts, on its machines."""
        cards = {"gpus": self.cards * self.machines} if self.cards * self.machines > 1 else {}
        machines = {"nodes": self.machines} if self.machines > 1 else {}
        return found._replace(
            knobs=found.knobs | cards | machines, uses=(*self.uses, *found.uses), card=self.card or found.card
        )


def slurm_starter(path: str, text: str) -> Starter | None:
    """What a batch script of Slurm starts; None for one that starts nothing that stands beside it."""
    found = {name: pattern.search(text) for name, pattern in _SLURM.items()}
    numbers = {name: int(match[1]) if match else 1 for name, match in found.items()}
    files = _beside(path, "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    lines = {name: text[: match.start()].count("\n") + 1 for name, match in found.items() if match}
    uses = tuple(_use(key, numbers[name], lines[name], numbers) for name, key in _KEYS.items() if name in lines)
    return Starter(files, uses, numbers["cards"], numbers["nodes"]) if files else None


_KEYS = {"cards": "--gpus-per-node", "nodes": "--nodes"}


def skypilot_starter(path: str, tree: Tree) -> Starter | None:
    """What a task of SkyPilot starts; None for another file, and for one that starts nothing that stands beside it."""
    if not {"run", "resources"} <= set(tree.values):
        return None
    files = _beside(path, str(tree.values.get("run") or ""))
    resources = tree.values.get("resources")
    wanted = resources.get("accelerators") if isinstance(resources, Mapping) else None
    card, cards = _cards_of(wanted)
    nodes = tree.values.get("num_nodes")
    numbers = {"cards": cards, "nodes": nodes if isinstance(nodes, int) and nodes > 0 else 1}
    uses = []
    if wanted:
        line = tree.lines.get("resources.accelerators", 0)
        one = _use("resources.accelerators", cards, line, numbers)
        shown = f"--gpu '{card}'" if " " in card else f"--gpu {card}" if card else ""
        uses.append(one.model_copy(update={"flags": f"{shown} {one.flags}".strip(), "value": str(wanted)[:60]}))
    if numbers["nodes"] > 1:
        uses.append(_use("num_nodes", numbers["nodes"], tree.lines.get("num_nodes", 0), numbers))
    return Starter(files, tuple(uses), cards, numbers["nodes"], card) if files else None


def _use(key: str, value: int, line: int, numbers: Mapping[str, int]) -> Use:
    both = numbers["cards"] * numbers["nodes"]
    flags = f"--nodes {value}" if key.endswith("nodes") else f"--gpus {both}"
    return Use(key=key, value=str(value), line=line, flags=flags)


def _beside(path: str, commands: str) -> tuple[str, ...]:
    """The files of the folder that commands name, each once."""
    folder = Path(path).parent
    named = dict.fromkeys(folder / word for word in _FILE.findall(commands) if "~" not in word)
    return tuple(str(one) for one in named if one.is_file())


def _cards_of(wanted: Any) -> tuple[str, int]:
    """The card that SkyPilot's names mean, as `--gpu` takes it, and how many; '' for several of different sizes."""
    if isinstance(wanted, Mapping):
        names = tuple(wanted)
        counts = {int(one) for one in wanted.values() if isinstance(one, int | float) and one >= 1} or {1}
    else:
        pairs = [str(one).partition(":") for one in (wanted if isinstance(wanted, list) else [wanted or ""])]
        size = _SIZE.fullmatch(str(wanted))
        if size is not None:
            return size[1].upper(), int(size[2] or 1)
        names = tuple(name for name, _, _ in pairs)
        counts = {int(count) for _, _, count in pairs if count.isdigit()} or {1}
    return _card_called(names), min(counts)


def _card_called(names: tuple[str, ...]) -> str:
    from advisor.export.skypilot import NAMES

    for card, known in NAMES.items():
        if names == known:
            return card
    cards = [card for card, known in NAMES.items() if set(known) & set(names)]
    if len(names) == 1:
        return cards[0] if cards else names[0]
    return _size_of(cards)


def _size_of(cards: list[str]) -> str:
    """The size that cards have in common, '24GB'; '' for cards that differ."""
    from advisor.catalog import find_gpus

    try:
        sizes = {one.marketed_gb for card in cards for one in find_gpus(card)}
    except AdvisorError:
        return ""
    return f"{sizes.pop():g}GB" if len(sizes) == 1 else ""
