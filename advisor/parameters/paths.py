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


_DECODER = "model"
"""The module that holds the layers of a model that reads text alone, where a whole one has a module for its decoder."""
_DECODERS = {
    **dict.fromkeys(("idefics3", "smolvlm"), "model.text_model"),
    **dict.fromkeys(("qwen2_5_omni", "qwen3_omni_moe"), "thinker.model"),
}
"""The decoder's module in a model that sees or hears, by its model_type; 'model.language_model' in all others.

Source: transformers 5.23, models/*/modeling_*.py: self.language_model of the class that ForConditionalGeneration holds.
"""


def named_by(m: ModelSpec, target_modules: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the linear layers that a pattern matches, in the order of the forward; names stay as they are.

    Source: peft 0.21, tuners/tuners_utils.py, match_target_against_key: re.fullmatch.
    The paths are those of the whole model, where it sees or hears, or of its decoder's own class.
    Raises BadValue for a pattern that is none, matches nothing, or picks other names in some layers than in others.
    """
    if not is_pattern(target_modules):
        return target_modules
    text = target_modules[0]
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise BadValue("--target-modules", text, f"is no regular expression ({error})") from None
    if m.num_experts and _may_name_experts(m, pattern):
        raise BadValue("--target-modules", text, f"{m.name} has experts: name its layers instead of a pattern")
    found: dict[str, list[bool]] = {}
    for name, path in _linear_paths(m):
        found.setdefault(name, []).append(any(pattern.fullmatch(one) for one in _spellings(m, path)))
    names = tuple(name for name, matched in found.items() if any(matched))
    if not names:
        example = next(_spellings(m, path)[0] for _, path in _linear_paths(m))
        raise BadValue("--target-modules", text, f"matches no path such as {example}")
    if not all(all(found[name]) for name in names):
        raise BadValue("--target-modules", text, "picks some layers only: name modules, and add --trained-layers N")
    return names


def _spellings(m: ModelSpec, path: str) -> tuple[str, ...]:
    """A path as the whole model has it, first, and as its decoder's own class does."""
    if not m.part_of or not path.startswith(f"{_DECODER}."):
        return (path,)
    return (_DECODERS.get(m.part_of, "model.language_model") + path.removeprefix(_DECODER), path)


def _may_name_experts(m: ModelSpec, pattern: re.Pattern[str]) -> bool:
    """Whether a pattern reaches into a mixture, whose parts peft renames, or may: their modules are not listed here."""
    row = architecture_of(m.architecture)
    names = {*m.mlp_names, *row.expert_names, *_FUSED, "gate_proj", "up_proj", m.router_linear or "gate"}
    parts = [f"{row.linear_paths[1].format(0)}{inner}.{name}" for inner in _MIXTURES for name in names]
    return m.experts != "fused" or any(pattern.fullmatch(one) for part in parts for one in _spellings(m, part))


_FUSED = ("gate_up_proj", "down_proj")
_MIXTURES = ("", ".experts", ".experts.0", ".shared_expert", ".shared_experts", ".shared_mlp")


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
