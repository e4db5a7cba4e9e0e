"""The versions of the libraries that run a step, and how a question names others than the mirrored ones.

A decoder asks `Libraries` for a version, never for a name: what a release changed is a threshold where it acts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from advisor.errors import BadValue, InputError, UnknownName

Version = tuple[int, int]
"""Major and minor: (5, 23). Patch releases count as their minor version."""


class Libraries(NamedTuple):
    """The versions of a stack; the defaults are the mirrored ones."""

    transformers: Version = (5, 23)
    peft: Version = (0, 21)
    bitsandbytes: Version = (0, 50)
    torch: Version = (2, 13)
    code: str = ""
    """The trainer whose own models or kernels run ('unsloth', ...); '' for transformers' models."""
    code_version: Version = (0, 0)

    @property
    def text(self) -> str:
        """In words, for example 'transformers 5.23, peft 0.21, bitsandbytes 0.50, PyTorch 2.13'."""
        own = [f"{self.code} {version_text(self.code_version)}"] if self.code else []
        names = ("transformers", "peft", "bitsandbytes", "PyTorch")
        return ", ".join([*own, *(f"{name} {version_text(at)}" for name, at in zip(names, self[:4], strict=True))])


MIRRORED = Libraries()

OLDEST: dict[str, Version] = {"transformers": (4, 36), "peft": (0, 5), "bitsandbytes": (0, 41), "torch": (2, 1)}
"""The oldest version of each library of which anything is mirrored."""

CODE: dict[str, Version] = {
    "unsloth": (2024, 9),
    "torchtune": (0, 4),
    "litgpt": (0, 5),
    "llamafactory": (0, 9),
    "nemo-automodel": (0, 7),
    "ms-swift": (4, 6),
}
"""Trainers with code of their own, and the oldest version of each that is mirrored."""

OWN_MODELS = frozenset({"torchtune", "litgpt"})
"""Those of them whose models are not transformers'."""

RELEASES: tuple[tuple[Version, Version, Version, Version], ...] = (
    ((4, 36), (0, 7), (0, 41), (2, 1)),
    ((4, 37), (0, 7), (0, 42), (2, 1)),
    ((4, 38), (0, 8), (0, 42), (2, 2)),
    ((4, 39), (0, 9), (0, 43), (2, 2)),
    ((4, 40), (0, 10), (0, 43), (2, 2)),
    ((4, 41), (0, 11), (0, 43), (2, 3)),
    ((4, 44), (0, 12), (0, 43), (2, 4)),
    ((4, 45), (0, 13), (0, 44), (2, 4)),
    ((4, 46), (0, 13), (0, 44), (2, 5)),
    ((4, 47), (0, 13), (0, 45), (2, 5)),
    ((4, 48), (0, 14), (0, 45), (2, 5)),
    ((4, 49), (0, 14), (0, 45), (2, 6)),
    ((4, 50), (0, 15), (0, 45), (2, 6)),
    ((4, 52), (0, 15), (0, 45), (2, 7)),
    ((4, 53), (0, 15), (0, 46), (2, 7)),
    ((4, 54), (0, 16), (0, 46), (2, 7)),
    ((4, 55), (0, 17), (0, 46), (2, 7)),
    ((4, 56), (0, 17), (0, 47), (2, 8)),
    ((4, 57), (0, 17), (0, 48), (2, 8)),
    ((5, 0), (0, 18), (0, 49), (2, 10)),
    ((5, 4), (0, 18), (0, 49), (2, 11)),
    ((5, 6), (0, 19), (0, 49), (2, 11)),
    ((5, 9), (0, 19), (0, 49), (2, 12)),
    ((5, 14), (0, 19), (0, 49), (2, 13)),
    ((5, 15), (0, 20), (0, 50), (2, 13)),
    ((5, 18), (0, 21), (0, 50), (2, 13)),
)
"""(transformers, peft, bitsandbytes, PyTorch): what was newest on PyPI on the day of that release of transformers, by
the upload times there; a release that is not listed came with what the one before it did. PyTorch stops at the
mirrored 2.13."""

TRACED: dict[str, tuple[Version, ...]] = {
    "transformers": ((4, 45), (4, 50), (4, 57), (5, 0), (5, 23)),
    "peft": ((0, 9), (0, 11), (0, 13), (0, 15), (0, 17), (0, 18), (0, 21)),
    "bitsandbytes": ((0, 42), (0, 43), (0, 44), (0, 45), (0, 46), (0, 48), (0, 49), (0, 50)),
}
"""Versions whose steps were traced and compared (`benchmarks.against_stacks`): oldest first, the mirrored one last."""

_NAMED = re.compile(r"([a-z_-]+?)[-=]{1,2}v?(\d{1,4})\.(\d{1,3})(?:\.[\w.]+)?")


def version_text(version: Version) -> str:
    """'4.57'."""
    return f"{version[0]}.{version[1]}"


@lru_cache(maxsize=64)
def libraries_of(names: tuple[str, ...]) -> Libraries:
    """The versions that ('transformers-4.57', 'peft-0.13') stands for; () for the mirrored ones.

    Libraries that are not named are those of the release of transformers that is named, else the mirrored ones.
    Raises UnknownName for a library that is not among them, BadValue for a version that is not known.
    """
    given: dict[str, Version] = {}
    code, code_version = "", (0, 0)
    for name in names:
        library, version = read_stack_name(name)
        if library in CODE:
            if code:
                raise BadValue("--stack", ",".join(names), f"names two trainers' code, {code}'s and {library}'s")
            code, code_version = library, version
        elif library in given:
            raise BadValue("--stack", ",".join(names), f"names {library} twice")
        else:
            given[library] = version
    found = _of_time(given["transformers"]) if "transformers" in given else MIRRORED
    return found._replace(**given, code=code, code_version=code_version)


def read_stack_name(name: str) -> tuple[str, Version]:
    """('transformers', (4, 57)) of 'transformers-4.57', 'transformers==4.57.6' or 'Transformers-4.57'.

    Raises UnknownName or BadValue.
    """
    text = name.strip().lower()
    match = _NAMED.fullmatch(text)
    library = (match[1] if match else re.split(r"[-=\d]", text)[0]).replace("pytorch", "torch").replace("bnb", _BNB)
    known = {**OLDEST, **CODE}
    if library not in known:
        raise UnknownName("library", name, known, f"known: {', '.join(f'{one}-VERSION' for one in known)}")
    if match is None:
        raise BadValue("--stack", name, f"must name a version, for example {library}-{version_text(known[library])}")
    version = (int(match[2]), int(match[3]))
    if version < known[library]:
        raise BadValue("--stack", name, f"must be {library} {version_text(known[library])} or later")
    return library, version


_BNB = "bitsandbytes"


def stack_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the one spelling that a recipe holds. Raises UnknownName or BadValue."""
    read = [read_stack_name(name) for name in names]
    spelled = tuple(f"{library}-{version_text(version)}" for library, version in read)
    libraries_of(spelled)
    return spelled


ALLOCATOR, OLD_ALLOCATOR = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"
"""The environment variables that set PyTorch's allocator: from 2.11 on, and until then.

PyTorch 2.9 brought the new one; 2.9.1 ignores expandable segments in it, 2.11 does not, 2.10 was not tried. All read
the old one, those from 2.9 on with a warning. Source: github.com/pytorch/pytorch/issues/183387,
github.com/karpathy/autoresearch/pull/588; PyTorch 2.13, c10/cuda/CUDAAllocatorConfig.h.
"""


def allocator_variable(names: tuple[str, ...]) -> str:
    """The environment variable that the allocator of a stack reads; torchtune 0.6.1 was made for PyTorch 2.6."""
    libraries = libraries_of(names)
    return OLD_ALLOCATOR if libraries.torch < (2, 11) or libraries.code == "torchtune" else ALLOCATOR


class Gaps(NamedTuple):
    """Libraries of a stack whose version was not traced, in words: those between traced ones, and those beyond them."""

    between: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()


@lru_cache(maxsize=64)
def gaps(libraries: Libraries) -> Gaps:
    """What of a stack no trace has shown: 'transformers 4.52 (traced: 4.50 and 4.57)'."""
    between: list[str] = []
    beyond: list[str] = []
    for name, traced in TRACED.items():
        at: Version = getattr(libraries, name)
        below, above = [v for v in traced if v < at], [v for v in traced if v > at]
        if at in traced:
            continue
        nearest = [version_text(found) for found in (*below[-1:], *above[:1])]
        text = f"{name} {version_text(at)} (traced: {' and '.join(nearest)})"
        (between if below and above else beyond).append(text)
    return Gaps(tuple(between), tuple(beyond))


def wrong_stack(names: tuple[str, ...]) -> str:
    """What is wrong with a recipe's names; '' for nothing."""
    try:
        libraries_of(names)
    except InputError as error:
        return str(error)
    return ""


def _of_time(transformers: Version) -> Libraries:
    """What was newest when that version of transformers came out."""
    row = max((row for row in RELEASES if row[0] <= transformers), default=RELEASES[0])
    return Libraries(transformers, *row[1:])
