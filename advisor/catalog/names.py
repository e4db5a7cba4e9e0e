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

STORAGE: tuple[tuple[str, str], ...] = (
    ("bitsandbytes 4-bit (nf4), with layers of Unsloth's choice in 16 bits", r"unsloth-bnb-4bit"),
    ("bitsandbytes 4-bit (nf4)", r"bnb-4bit|bnb-nf4(-bf16)?|nf4"),
    ("bitsandbytes 8-bit", r"bnb-8bit"),
    ("GPTQ", r"(auto)?gptq([-_](int\d|\d-?bits?|\d+g|w\d+a\d+|actorder))*"),
    ("AWQ", r"awq([-_](int\d|\d-?bits?|g\d+|w\d+a\d+))*"),
    ("FP8", r"fp8([-_](dynamic|static|pertensor|block|kv))*"),
    ("NVFP4", r"nvfp4"),
    ("MXFP4", r"mxfp4"),
    ("AQLM", r"aqlm([-_]\d+bits?|[-_]\d+x\d+|[-_]pv)*"),
    ("GGUF", r"gguf|ggml|i?q\d(_k|_[01])?(_[sml]|_x+s)?"),
    ("HQQ", r"hqq([-_](\d-?bits?|g\d+))*"),
    ("EXL", r"exl[23]([-_][\d._]+bpw)?"),
    ("MLX", r"mlx([-_]\dbits?)?"),
    ("compressed-tensors", r"(quantized[.-])?w\d+a\d+"),
    ("QAT (trained for 4 bits)", r"qat([-_]q4_0)?([-_]unquantized)?"),
    ("4 bits", r"4-?bits?|int4"),
    ("8 bits", r"8-?bits?|int8"),
)
"""How a checkpoint is stored, for people, and the ending of a name that says so."""
DTYPE = r"bf16|fp16|fp32|f16|float16|bfloat16|dequantized|16-?bits?|hf"
TUNING = (
    r"instruct|it|chat|base|pt|sft|dpo|thinking|think|reasoning|pretrain|pretrained|preview|deduped|text"
    r"|\d{4}|\d{2}-20\d{2}"
)
_RUN_WORDS = frozenset(
    {
        *("base_model", "base_models", "best", "checkpoint", "checkpoints", "ckpt", "ckpts", "default", "dpo", "final"),
        *("hf", "last", "latest", "merged", "model", "models", "out", "output", "outputs", "pytorch", "sft"),
        *("snapshots", "transformers", "weights"),
    }
)
_RUN_NUMBERS = r"checkpoint[-_]\d+|step[-_]?\d+|[0-9a-f]{12,64}|v?\d*"
"""Parts of a path that name a run, a version or a format, not a model."""


class Ending(NamedTuple):
    """One ending of a name: its text, what kind of thing it says, and for storage what it means."""

    text: str
    kind: Kind
    meaning: str


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
def _patterns() -> tuple[tuple[Kind, str, re.Pattern[str]], ...]:
    """Every ending; compiled when a name is first taken apart, because most are listed as they are."""
    endings: tuple[tuple[Kind, str, str], ...] = (
        *(("storage", meaning, pattern) for meaning, pattern in STORAGE),
        ("dtype", "", DTYPE),
        ("tuning", "", TUNING),
    )
    return tuple((kind, meaning, re.compile(rf"[-_.:](?:{pattern})$")) for kind, meaning, pattern in endings)


def shorter(base: str) -> Iterator[tuple[str, tuple[Ending, ...]]]:
    """The base as it is, and with one more ending taken off each time; what was taken off so far, the last first."""
    taken: tuple[Ending, ...] = ()
    while base:
        yield base, taken
        found = [(match[0], kind, meaning) for kind, meaning, p in _patterns() if (match := p.search(base)) is not None]
        if not found:
            return
        text, kind, meaning = max(found, key=lambda one: len(one[0]))
        base, taken = base[: -len(text)], (Ending(text[1:], kind, meaning), *taken)


def storage_of(taken: tuple[Ending, ...]) -> str:
    """How a checkpoint is stored, by the last of its name's endings that says so; '' for a plain one."""
    return next((ending.meaning for ending in reversed(taken) if ending.kind == "storage"), "")


def squashed(base: str) -> str:
    """A spelling without the dashes that people drop: 'tiny-llama-1.1b' is 'tinyllama1.1b'.

    A dash between digits stays (llama-3-3b is not llama-33b), and an underscore between digits is a point (1_8b).
    """
    dotted = re.sub(r"(?<=\d)_(?=\d)", ".", base.lower())
    return re.sub(r"(?<!\d)[-_ ]+|[-_ ]+(?!\d)", "", dotted)
