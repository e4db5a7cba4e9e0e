"""The folded inputs: which knobs stand together, and what each is where nobody asks for anything else."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from advisor.advice.phrases import value_text
from advisor.answer import Advice
from advisor.catalog.trainers import Preset, PresetKnob, find_trainer
from advisor.knobs import BY_NAME, KNOBS, Knob
from advisor.page.flags import NOT_ASKED
from advisor.specs import METHODS

FIRST = ("model", "gpu", "examples", "seq_len")
"""The four inputs in the first row."""
GROUPS: dict[str, tuple[str, ...]] = {
    "The job": ("trainer", "method", "priority", "gpus", "epochs", "batch_size", "mean_seq_len", "price_per_hour"),
    "Adapters and what is trained": (
        *("rank", "alpha", "target_modules", "variant", "dropout", "modules_to_save", "trained_layers"),
        *("trained_dtype", "train_tower", "task", "labels"),
    ),
    "Numbers and storage": (
        *("base_dtype", "adapter_dtype", "magnitude_dtype", "autocast", "quant", "double_quant", "quant_bits"),
        *("quant_group", "kbit_upcast", "quantize_experts"),
    ),
    "The step": (
        *("micro_batch", "gradient_checkpointing", "reentrant", "attention", "loss", "upcast_logits", "optimizer"),
        *("optimizer_rank", "optimizer_in_backward", "offload", "kernels", "sequence_kernels", "expandable_segments"),
        *("neftune", "stack"),
    ),
    "Rows": (
        *("packing", "packing_strategy", "padding", "pad_to_multiple_of", "group_by_length", "images", "image_size"),
        *("max_pixels", "eval_examples", "eval_batch", "eval_steps"),
    ),
    "Several cards": (
        *("nodes", "sharding", "reshard", "prefetch", "bucket_elements", "link", "network_gbit", "host_memory_gb"),
    ),
}
"""All other knobs that a page asks for, by what they are about."""
_LABELS = {
    "gpu": "Card, or its GB",
    "seq_len": "Longest row in tokens",
    "mean_seq_len": "Mean row in tokens",
    "gpus": "Number of cards",
    "nodes": "Number of machines",
    "batch_size": "Rows of a step",
    "micro_batch": "Rows of a micro-batch",
    "base_dtype": "Base model's dtype",
    "adapter_dtype": "Adapters' dtype",
    "magnitude_dtype": "Magnitudes' dtype",
    "trained_dtype": "Trained weights' dtype",
    "neftune": "NEFTune",
    "quant": "Quantization",
    "network_gbit": "Network, Gbit/s",
    "host_memory_gb": "Host memory, GB",
}
_HINTS = {"model": "llama-8b", "gpu": "24GB", "examples": "10k", "seq_len": "1024"}


def label_of(knob: Knob) -> str:
    """What its input is called."""
    return _LABELS.get(knob.name) or knob.name.replace("_", " ").capitalize()


def form_html(values: Mapping[str, str]) -> str:
    """All inputs, filled with these texts; the first four in a row, the others folded by what they are about."""
    first = "".join(_field(BY_NAME[name], values.get(name, "")) for name in FIRST)
    groups = "".join(
        f'<fieldset class="group"><legend>{escape(title)}</legend>'
        + "".join(_field(BY_NAME[name], values.get(name, "")) for name in names)
        + "</fieldset>"
        for title, names in GROUPS.items()
    )
    return (
        f'<div class="first">{first}</div><details id="knobs"><summary>All other knobs, their defaults and where '
        f'these come from</summary><div class="groups">{groups}</div></details>'
    )


def _field(knob: Knob, value: str) -> str:
    inner = _choice(knob, value) if knob.kind in ("choice", "bool") else _text(knob, value)
    about = "" if knob.name in FIRST else f'<p class="about" id="{knob.name}-about">{escape(_about(knob))}</p>'
    hint = f'{about}<p class="hint" id="{knob.name}-hint"></p><p class="wrong" id="{knob.name}-wrong" hidden></p>'
    title = f'<label for="{knob.name}">{escape(label_of(knob))}</label>'
    return f'<div class="field" data-knob="{knob.name}">{title}{inner}{hint}</div>'


def _about(knob: Knob) -> str:
    """What it is, and of numbers what is allowed; the choices stand in its list."""
    return knob.explanation if knob.kind in ("int", "float") else knob.help


def _attributes(knob: Knob) -> str:
    about = "" if knob.name in FIRST else f"{knob.name}-about "
    return f'id="{knob.name}" name="{knob.name}" aria-describedby="{about}{knob.name}-hint {knob.name}-wrong"'


def _text(knob: Knob, value: str) -> str:
    mode = {"int": ' inputmode="numeric"', "float": ' inputmode="decimal"'}.get(knob.kind, "")
    box = ""
    if knob.name in ("model", "gpu"):
        box = f' role="combobox" aria-expanded="false" aria-autocomplete="list" aria-controls="{knob.name}-list"'
    text = (
        f'<input type="text" {_attributes(knob)} value="{escape(value)}" placeholder="{_HINTS.get(knob.name, "")}"'
        f'{mode}{box} autocomplete="off" autocapitalize="off" spellcheck="false">'
    )
    if not box:
        return text
    title = escape(label_of(knob))
    return (
        f'<div class="combobox">{text}<ul id="{knob.name}-list" role="listbox" aria-label="{title}" hidden></ul></div>'
    )


def _choice(knob: Knob, value: str) -> str:
    names = ("on", "off") if knob.kind == "bool" else knob.choices
    options = "".join(f"<option{' selected' if name == value else ''}>{escape(name)}</option>" for name in names)
    return f'<select {_attributes(knob)}><option value="">default</option>{options}</select>'


def hints_of(advice: Advice) -> dict[str, dict[str, str]]:
    """What each knob is in this answer, and who says so: the trainer, with its source, or the answer itself."""
    preset = find_trainer(advice.trainer.name, advice.gpu.gpus)
    method = advice.recommendation.method if advice.recommendation else advice.candidates[0].method
    row = advice.candidate(method)
    placement = {} if row.placement is None else dict(row.placement)
    values: dict[str, Any] = {**placement, **dict(advice.workload), **dict(row.recipe)}
    values |= {"trainer": f"{advice.trainer.name} {advice.trainer.version}", "priority": advice.priority}
    values |= {"method": f"all {len(METHODS)} compared", "gpus": advice.gpu.gpus}
    found = {}
    for knob in KNOBS:
        if knob.name in (*NOT_ASKED, "model", "gpu") or knob.name in advice.fixed or values.get(knob.name) is None:
            continue
        value = value_text(values[knob.name]) or "none"
        source = _source(preset, knob.name, method) if knob.name in advice.trainer.knobs else ""
        who = f"{preset.name} sets it" if source else "chosen" if knob.name in advice.chosen else "default"
        found[knob.name] = {"value": value, "who": who, "source": source}
    return found


def _source(preset: Preset, name: str, method: str) -> str:
    """Where the trainer's code sets a knob; '' where it does not."""
    set_here = (knob for knob in preset.knobs if knob.name == name and method in knob.methods)
    found: PresetKnob | None = next(set_here, None)
    return "" if found is None else found.source
