"""Every error that a user can cause, calibrate's included; a module's own are defined in it, the others here.

AdvisorError                     one line: what, which value, what to do next (exit 2 unless it says otherwise)
├── InputError                   the caller's value is wrong
│   ├── UnknownName              a model, GPU, method, module, rule ... that is not known
│   ├── AmbiguousName            a name that fits several things, or that may not be what it is named after
│   ├── BadValue                 a number or a word outside its allowed range
│   ├── BadConfig                a config.json or GPU file that cannot be used, with the field
│   │   ├── BadProfile           a traced profile that cannot be used
│   │   ├── BadDevice            a card's measured profile that cannot be used
│   │   │   └── BadRates         a file of micro-benchmarks that cannot be used
│   │   └── BadRecord            a line of the store that is not a record
│   │       └── NewerRecord      a record that a newer version wrote
│   ├── NotTraced                a recipe or a shape that no trace covers
│   ├── NothingToRun             no burst of the plan can run here
│   └── NotFitted                a device whose records make no profile
├── UnsupportedArchitecture      a model the tape does not know; `calibrate --dry-run` measures it
├── NotAligned                   a step that makes other tensors at another shape, so that it gets no traced profile
├── BurstRefused                 a job that the child process cannot run, and why
├── BurstFailed                  a child process that crashed, or a library that raised there (exit 1)
│   └── TimedOut                 no answer in time (exit 1)
└── SourceUnavailable            the Hub, NVML, a library or a file could not be reached (exit 4)
    └── NotInstalled             library versions that a dry run needs and that are not on this machine
"""

from __future__ import annotations

from collections.abc import Iterable


def shown(value: object, limit: int = 160) -> str:
    """A path or a name for a message: printable, on one line, of limited length."""
    text = str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


class AdvisorError(Exception):
    """Base of all errors that a user can cause; its text is one printable line."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        """Keep `message`, folded to a single line."""
        super().__init__(" ".join(message.split()))


class InputError(AdvisorError):
    """A value that the caller gave is wrong."""


class UnknownName(InputError):
    """A name that is in no catalog; the message lists near matches."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "", kin: Iterable[str] = ()) -> None:
        """Name the `kind` of thing, the `name` asked for, its `kin`, and else the nearest of the `known` ones."""
        from difflib import get_close_matches  # only a mistake needs it

        shown = name if len(name) <= 80 else name[:77] + "..."
        near = list(kin) or get_close_matches(shown.lower(), sorted({k.lower() for k in known}), n=4, cutoff=0.5)
        parts = [f"unknown {kind} {shown!r}"]
        if near:
            parts.append(f"did you mean {', '.join(near)}?")
        if hint:
            parts.append(hint)
        super().__init__("; ".join(parts))
        self.near = tuple(near)


class AmbiguousName(InputError):
    """A name that is not enough to know what it means; the message lists what it may be."""

    def __init__(self, kind: str, name: str, candidates: Iterable[str], why: str) -> None:
        """Name the `kind` of thing, the `name` asked for, `why` it is not enough, and the `candidates` to give."""
        self.near = tuple(candidates)
        choice = f": {' or '.join(self.near)}" if self.near else ""
        super().__init__(f"{kind} {shown(name, 80)!r}: {why}{choice}")


class BadValue(InputError):
    """A value outside its allowed range."""

    def __init__(self, what: str, value: object, allowed: str) -> None:
        """Say `what` has which `value` and what is `allowed`: 'must be ...' or what to do instead."""
        text = repr(value)
        shown = text if len(text) <= 80 else text[:77] + "..."
        joined = f", but {allowed}" if allowed.startswith("must ") else f": {allowed}"
        super().__init__(f"{what} is {shown}{joined}")


def expect(what: str, value: object, *kinds: type) -> None:
    """Raise BadValue unless `value` is of one of `kinds`: for the library's doors, which untyped code opens too."""
    if not isinstance(value, kinds):
        names = " or ".join("text" if kind is str else f"a {kind.__name__}" for kind in kinds)
        raise BadValue(what, value, f"must be {names}")


class BadConfig(InputError):
    """A configuration file that cannot be used; the message names the file and the field."""


class UnsupportedArchitecture(AdvisorError):
    """A model whose architecture the tape does not know."""


class SourceUnavailable(AdvisorError):
    """Something outside this process (the Hub, NVML, a file) could not be reached."""

    exit_code = 4
