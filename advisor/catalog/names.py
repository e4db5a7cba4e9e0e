"""How people write the names of models: a typed text taken apart, before any catalog is asked.

A name has an organization, a base and endings. Endings say how a checkpoint is stored, in which dtype, and how it was
tuned; `shorter` takes them off one at a time, the longest first, and keeps what each was. Nothing here knows a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

Kind = Literal["storage", "dtype", "tuning"]

MIRRORS = frozenset(
    {
        *("ai-modelscope", "alpindale", "axolotl-ai-co", "axolotl-quants", "bartowski", "casperhansen"),
        *("cognitivecomputations", "hugging-quants", "ista-daslab", "llm-research", "lmstudio-community"),
        *("mistral-community", "mlx-community", "modelscope", "neuralmagic", "nm-testing", "nousresearch"),
        *("redhatai", "study-hjt", "swift", "techxgenus", "thebloke", "unsloth", "zhipuai"),
    }
)
"""Organizations that upload other makers' checkpoints under the makers' names."""
STORING = frozenset({"nvidia"})
"""Organizations that are mirrors only where the name says how the copy is stored: their other models are their own."""

DTYPE = r"bf16|fp16|fp32|f16|float16|bfloat16|dequantized|16-?bits?|hf"
TUNING = (
    r"instruct|it|chat|base|pt|sft|dpo|thinking|think|reasoning|pretrain|pretrained|preview|deduped|text"
    r"|\d{4}|\d{2}-20\d{2}"
)
_RUN_WORDS = frozenset(
    {
        *("base_model", "base_models", "best", "checkpoint", "checkpoints", "ckpt", "ckpts", "default", "dpo", "final"),
        *("hf", "last", "latest", "merged", "model", "model_and_optim", "models", "out", "output", "outputs"),
        *("pytorch", "sft", "snapshots", "transformers", "weights"),
    }
)
_SIZE = r"(?:\d+x)?\d+(?:\.\d+)?[bm]"
"""A part of a path that is a size alone: the folder above it names the family."""
_RUN_NUMBERS = r"checkpoint[-_]\d+|step[-_]?\d+(?:-hf)?|[0-9a-f]{12,64}|v?\d*"
"""Parts of a path that name a run, a version or a format, not a model."""


class Ending(NamedTuple):
    """One ending of a name, and what kind of thing it says; what storage means, `storage` knows."""

    text: str
    kind: Kind


class Name(NamedTuple):
    """A typed name: `organization` and `base` in lower case; either is '' where there is none."""

    text: str
    organization: str
    base: str
    path: bool
    """Whether the name is a path's last telling part."""


def read_names(text: str) -> tuple[Name, ...]:
    """What `text` may name, the likeliest first: a name, a Hub id, Ollama's name:size, or the parts of a path.

    The Hub's cache names an id (models--ORG--NAME), Kaggle a model and its variation (/input/NAME/.../VARIATION/1).
    """
    label = text.strip().replace("\\", "/").rstrip("/")
    parts = [part for part in label.split("/") if part not in ("", ".", "..", "~")]
    if not parts:
        return ()
    cached = next((part for part in parts if part.lower().startswith("models--") and part.count("--") >= 2), "")
    if cached:
        _, organization, base = cached.lower().split("--", 2)
        return (Name(text, organization, base, path=len(parts) > 1),)
    if not _is_path(label, parts):
        organization = parts[0].lower() if len(parts) == 2 else ""
        return (Name(text, organization, _untagged(parts[-1].lower()), path=False),)
    if "input" in parts[:-1]:
        return tuple(Name(text, "", base, path=True) for base in _kaggle(parts[parts.index("input") + 1 :]))
    telling = [part.lower() for part in parts if not _of_a_run(part.lower())]
    if not telling:
        return ()
    if len(telling) > 1 and re.fullmatch(_SIZE, telling[-1]):
        words = [word for word in re.split("[-_]", telling[-2]) if word not in _RUN_WORDS]
        telling[-2:] = ["-".join((*words, telling[-1]))]
    pair = [Name(text, telling[-2], telling[-1], path=True)] if len(telling) > 1 else []
    return (*pair, Name(text, "", telling[-1], path=True))


def _is_path(label: str, parts: list[str]) -> bool:
    """Whether it is no Hub id: rooted, of more than two parts, or below a folder that is named after no one."""
    return (
        label[:1] in ("/", "~", ".")
        or ":/" in label
        or len(parts) > 2
        or (len(parts) == 2 and parts[0].lower() in _RUN_WORDS)
    )


def _of_a_run(part: str) -> bool:
    return part in _RUN_WORDS or re.fullmatch(_RUN_NUMBERS, part) is not None


def _kaggle(parts: list[str]) -> Iterator[str]:
    """NAME-VARIATION, VARIATION and NAME of what follows `input` in a path of Kaggle's."""
    name = parts[0].lower()
    for part in parts[2:3]:
        if not _of_a_run(part.lower()):
            yield from (f"{name}-{part.lower()}", part.lower())
    yield name


def _untagged(base: str) -> str:
    """Ollama's name:size as name-size, without the tag that says nothing."""
    return base.removesuffix(":latest").replace(":", "-").strip("-")


@cache
def _patterns() -> tuple[tuple[Kind, re.Pattern[str]], ...]:
    """Endings of dtype and tuning; compiled when a name is first taken apart, because most are listed as they are."""
    endings: tuple[tuple[Kind, str], ...] = (("dtype", DTYPE), ("tuning", TUNING))
    return tuple((kind, re.compile(rf"[-_.:](?:{pattern})$")) for kind, pattern in endings)


def shorter(base: str) -> Iterator[tuple[str, tuple[Ending, ...]]]:
    """The base as it is, and with one more ending taken off each time; what was taken off so far, the last first."""
    from advisor.catalog.storage import read_ending

    taken: tuple[Ending, ...] = ()
    while base:
        yield base, taken
        found = [Ending(match[0][1:], kind) for kind, p in _patterns() if (match := p.search(base)) is not None]
        stored = read_ending(base)
        if stored is not None:
            found.append(Ending(stored.ending, "storage"))
        if not found:
            return
        longest = max(found, key=lambda one: len(one.text))
        base, taken = base[: -len(longest.text) - 1], (longest, *taken)


def storage_of(taken: tuple[Ending, ...]) -> str:
    """The last of a name's endings that says how its checkpoint is stored; '' for a plain one."""
    return next((ending.text for ending in reversed(taken) if ending.kind == "storage"), "")


def squashed(base: str) -> str:
    """A spelling without the dashes that people drop: 'tiny-llama-1.1b' is 'tinyllama1.1b'.

    A dash between digits stays (llama-3-3b is not llama-33b), and an underscore between digits is a point (1_8b).
    """
    dotted = re.sub(r"(?<=\d)_(?=\d)", ".", base.lower())
    return re.sub(r"(?<!\d)[-_ ]+|[-_ ]+(?!\d)", "", dotted)
