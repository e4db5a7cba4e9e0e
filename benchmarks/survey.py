"""How many of the training files that people publish can be asked, and how many of them with nothing lost.

    python -m benchmarks.survey configs.csv

A row of the file is one configuration of a public repository: tool, model, method, sizes and switches. Each row of one
card, text and supervised fine-tuning is put as a question: "answered" where `advise` gives one, "exact" where no
setting that changes memory or time was left out on the way. Prints both by tool, and what was missing most often.
"""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from advisor.advice.advise import advise
from advisor.errors import AdvisorError
from advisor.knobs import BY_NAME, read_value, stand_in_text
from advisor.libraries import CODE
from advisor.stacks import KERNELS

CARD = "h100"
"""The card that nearly all files leave open."""
ASKED = ("yes", "approx", "no")
"""`expressible` of rows of one card and supervised fine-tuning; others are about several cards or another objective."""
TRAINERS = {
    "llamafactory-v1": "llamafactory",
    "unsloth-notebook": "unsloth",
    "trl-notebook": "trl",
    "alignment-handbook": "trl",
    "peft": "transformers",
}
OTHER_CODE = dict.fromkeys(
    ("scripts/train/debug/oc_sft.sh", "scripts/train/debug/oc_sft_cache.sh"), "OLMo-core's own models"
)
"""Files of a repository that run something else than its trainer: open-instruct's olmo_core_finetune.py."""
ADAPTED = {"lora": "qlora", "dora": "qdora"}
QUANTS = {"hqq4": {"quant": "hqq", "quant_bits": 4}}
"""Forms of a base whose word holds more than one knob."""
UNPACKED = ("mxfp4",)
"""Forms that a trainer unpacks to 16 bits while it loads them: axolotl's files say Mxfp4Config(dequantize=True)."""
CHECKPOINTING = {"on": True, "on(default)": True, "off": False, "none(litgpt 1 GPU)": False}
OFFLOADING = ("unsloth", "unsloth(default)", "offload")
OPTIMIZERS = {
    "torch.optim.AdamW(fused)": "adamw",
    "torch.optim.AdamW": "adamw_foreach",
    "torch.optim.Adam": "adamw_foreach",
    "decoupled_adamw": "adamw_foreach",
    "bitsandbytes.optim.PagedAdamW": "paged_adamw",
    "bitsandbytes.optim.PagedAdamW8bit": "paged_adamw_8bit",
}
SAME_BYTES = ("rslora", "loraplus", "pissa", "loftq", "dft", "asft", "eaft", "init:lora-ga", "init:olora", "init:pissa")
"""Variants of a method that change neither memory nor time of a step."""
SAME_STEP = (
    *("responses_only", "resize-embeddings", "embedding_lr", "vllm", "chunked-ce", "unresolved:lora_alpha"),
    *("streaming", "experts_impl=grouped_mm"),
)
"""Switches that change none, or that the trainer's own stack or the libraries have by themselves."""
REPLACING = ("oft",)
"""Methods that are adapters in LoRA's place."""
SWITCHES: dict[str, dict[str, Any]] = {
    "reentrant": {"reentrant": True},
    "group_by_length": {"group_by_length": True},
    "padding_free": {"padding": "none"},
    "pure_bf16": {"base_dtype": "bfloat16"},
    "neftune": {"neftune": 15.0},
    "quantize_moe_experts": {"quantize_experts": True},
}
BY_ITSELF = "fused LoRA kernels (axolotl, switched on by itself)"
KERNEL_WORDS = {
    "lora-kernels": ("fused_lora",),
    "liger-flce": ("liger_norm", "liger_rope", "liger_mlp", "liger_loss"),
    "liger": ("liger_norm", "liger_rope", "liger_mlp"),
    "cce": ("cce",),
}


class Asked(NamedTuple):
    """A row as a question, what of it has no word there, and why there was no answer ('' where there was one)."""

    tool: str
    knobs: dict[str, Any]
    lost: tuple[str, ...]
    refused: str

    @property
    def exact(self) -> bool:
        """Answered, and nothing lost."""
        return not self.refused and not self.lost


def question(row: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The knobs of a row, and what of it has no knob."""
    lost: list[str] = []
    knobs: dict[str, Any] = dict(_method(row, lost))
    trainer = TRAINERS.get(row["tool"], row["tool"])
    if _reads("trainer", trainer):
        knobs["trainer"] = trainer
    if "trainer" not in knobs or stand_in_text("trainer", trainer):
        lost.append(f"trainer {trainer}")
    if row["path"] in OTHER_CODE:
        lost.append(OTHER_CODE[row["path"]])
    for field, name in (("seq", "seq_len"), ("mb", "micro_batch"), ("rank", "rank")):
        if row[field].isdigit():
            knobs[name] = int(row[field])
    if row["mb"].isdigit() and row["ga"].isdigit():
        knobs["batch_size"] = int(row["mb"]) * int(row["ga"])
    if row["packing"] in ("on", "off"):
        knobs["packing"] = row["packing"] == "on"
    knobs |= dict(_words(row, lost))
    if trainer == "axolotl" and "activation_offload" in row["special_knobs"].split():
        knobs.pop("gradient_checkpointing", None)  # which it then sets itself, whatever the file says
    if knobs.get("method") == "full":
        knobs = {name: value for name, value in knobs.items() if name not in ("rank", "target_modules")}
    return knobs, lost


def _method(row: Mapping[str, str], lost: list[str]) -> Iterator[tuple[str, Any]]:
    method, quant = row["method"], row["quant"]
    for variant in row["variants"].replace("+", ";").split(";"):
        if variant == "dora":
            method = method.replace("lora", "dora")
        elif variant and variant not in SAME_BYTES:
            lost.append(f"method {variant}")
    if method in REPLACING:
        yield "variant", method
        method = "lora"
    if quant in UNPACKED:
        quant, method = "none", method.removeprefix("q")
    if quant != "none":
        method = ADAPTED.get(method, method)
        yield from QUANTS.get(quant, {"quant": quant}).items()
    yield "method", method


def _words(row: Mapping[str, str], lost: list[str]) -> Iterator[tuple[str, Any]]:
    """Settings that are named by words: each as its knob reads it, or lost."""
    if row["gc"] in CHECKPOINTING:
        yield "gradient_checkpointing", CHECKPOINTING[row["gc"]]
    elif row["gc"] in OFFLOADING:
        yield from _offloaded(lost)
    for field, known in (("attention", {}), ("optimizer", OPTIMIZERS)):
        word = known.get(row[field], row[field])
        if stand_in_text(field, word):
            lost.append(f"{field} {word}")
        if word not in ("unset", "") and _reads(field, word):
            yield field, word
        elif word not in ("unset", ""):
            lost.append(f"{field} {word}")
    targets = row["target_modules"]
    if targets and set(targets) & set("*|(^\\") and not _reads("target_modules", targets):
        lost.append("target_modules as a pattern")
    elif targets:
        yield "target_modules", targets
    if row["modules_to_save"] and "modules_to_save" in BY_NAME:
        yield "modules_to_save", tuple(row["modules_to_save"].split("+"))
    elif row["modules_to_save"]:
        lost.append("modules_to_save")
    by_itself = ["lora-kernels"] if BY_ITSELF in row["reason"] else []
    yield from _switches([*row["special_knobs"].split(), *by_itself], lost)


def _offloaded(lost: list[str]) -> Iterator[tuple[str, Any]]:
    if "activations" in KERNELS or "unsloth" in CODE:
        yield "offload", "activations"
    else:
        lost.append("offload")


def _switches(words: list[str], lost: list[str]) -> Iterator[tuple[str, Any]]:
    kernels: dict[str, None] = {}
    for word in words:
        if word in SWITCHES:
            yield from SWITCHES[word].items()
        elif word in KERNEL_WORDS and set(KERNEL_WORDS[word]) <= set(KERNELS):
            kernels |= dict.fromkeys(KERNEL_WORDS[word])
        elif word == "optimizer_in_bwd" and "optimizer_in_backward" in BY_NAME:
            yield "optimizer_in_backward", True
        elif word == "activation_offload":
            yield from _offloaded(lost)
        elif word == "unsloth-kernels" and "unsloth" in CODE:
            continue
        elif word not in SAME_STEP:
            lost.append(word)
    if kernels:
        yield "kernels", tuple(kernels)


def _reads(name: str, value: object) -> bool:
    """Whether a knob takes a value."""
    try:
        read_value(name, value)
    except AdvisorError:
        return False
    return True


def asked(row: Mapping[str, str]) -> Asked:
    """Put a row as a question: the model by its name in the catalog where the file's own is not known."""
    knobs, lost = question(row)
    refused = ""
    for model in dict.fromkeys(name for name in (row["model"], row["catalogue_model"]) if name):
        try:
            advise(model, CARD, 1000, **knobs)
        except AdvisorError as error:
            refused = str(error)
        else:
            return Asked(row["tool"], knobs, tuple(lost), "")
    return Asked(row["tool"], knobs, tuple(lost), refused or "the file names no model")


def lines(found: list[Asked]) -> Iterator[str]:
    """The shares by tool and of all, and what was missing."""
    yield f"{'tool':18} {'files':>5} {'answered':>8} {'exact':>6}"
    for tool in (*dict.fromkeys(one.tool for one in found), "all"):
        some = [one for one in found if tool in ("all", one.tool)]
        answered, exact = sum(not one.refused for one in some), sum(one.exact for one in some)
        yield f"{tool:18} {len(some):5} {answered / len(some):8.0%} {exact / len(some):6.0%}"
    for title, counts in (
        ("lost", Counter(word for one in found if not one.refused for word in one.lost)),
        ("refused", Counter(one.refused.split(";")[0][:110] for one in found if one.refused)),
    ):
        yield f"{title}:"
        yield from (f"{count:5}  {word}" for word, count in counts.most_common(25))


@click.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False))
def main(path: str) -> None:
    """Ask every row of PATH that is about one card, text and supervised fine-tuning; nothing is fetched."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["modality"] == "text" and row["expressible"] in ASKED]
    print("\n".join(lines([asked(row) for row in rows])))


if __name__ == "__main__":
    sys.exit(main())
