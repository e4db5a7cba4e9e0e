"""The paths of linear layers in transformers' modules, and which of them a pattern names.

peft takes `target_modules` as a text, too: a regular expression that a path has to match from end to end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from advisor.architectures import architecture_of
from advisor.errors import BadValue
from advisor.parameters.layer_inputs import LINEAR_PARENTS
from advisor.parameters.layers import kinds_of, part_of
from advisor.parameters.modules import EXPERTS, layer_linears
from advisor.parameters.targets import target_name
from advisor.specs import ModelSpec

_MARKS = frozenset("*+?()[]{}|^$\\")


def is_pattern(target_modules: tuple[str, ...]) -> bool:
    """Whether the one text is a regular expression: it has a character that no module's name has."""
    return len(target_modules) == 1 and not _MARKS.isdisjoint(target_modules[0])


def named_by(m: ModelSpec, target_modules: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the linear layers that a pattern matches, in the order of the forward; names stay as they are.

    Source: peft 0.21, tuners/tuners_utils.py, match_target_against_key: re.fullmatch.
    Raises BadValue for a pattern that is none, matches nothing, or picks other names in some layers than in others.
    """
    if not is_pattern(target_modules):
        return target_modules
    text = target_modules[0]
    if m.num_experts:
        raise BadValue("--target-modules", text, f"{m.name} has experts: name its layers instead of a pattern")
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise BadValue("--target-modules", text, f"is no regular expression ({error})") from None
    found: dict[str, list[bool]] = {}
    for name, path in _linear_paths(m):
        found.setdefault(name, []).append(pattern.fullmatch(path) is not None)
    names = tuple(name for name, matched in found.items() if any(matched))
    if not names:
        example = next(path for _, path in _linear_paths(m))
        raise BadValue("--target-modules", text, f"matches no path such as {example}")
    if not all(all(found[name]) for name in names):
        raise BadValue("--target-modules", text, "picks some layers only: name modules, and add --trained-layers N")
    return names


def _linear_paths(m: ModelSpec) -> Iterator[tuple[str, str]]:
    """(name, path) of every linear layer of every decoder layer."""
    quirks = architecture_of(m.architecture)
    attention, mlp = quirks.linear_paths
    layer = attention.rpartition(".")[0]
    for index, kind in enumerate(kinds_of(m)):
        part = part_of(m, kind)
        attending = (*part.qkv_names, part.out_name) if part.attends else ()
        for name in layer_linears(part):
            mixer = attention if name in attending or part.mixer == "attention" else quirks.mixer_path
            parent = mlp if name in m.mlp_names else mixer
            if name in LINEAR_PARENTS:
                parent = layer + LINEAR_PARENTS[name]
            yield name, f"{parent.format(index)}.{target_name(name) if name.startswith(EXPERTS) else name}"
