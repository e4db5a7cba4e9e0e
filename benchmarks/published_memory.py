"""Predicted memory beside what others measured and published, row by row.

    python benchmarks/published_memory.py

Rows of profiles/measured/published.jsonl, groups peft-mm (peft's own method comparison on an L40S) and
fsdp_qlora-nb (a notebook of snapshots on a 16 GB card). Nothing is fitted: a row is predicted as it was run, and where
its libraries were older than the ones that the tape mirrors, the mechanisms are switched on that its code had then
(advisor.tape.stack). Exits with 1 when a row is off by more than 8 %.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

from advisor.catalog import find_gpus, find_model
from advisor.device import profile_for
from advisor.memory import StepMemory, predict_step_memory
from advisor.specs import ModelSpec, Recipe
from advisor.tape.stack import Stack

BAR = 0.08
GIB, GB = 2.0**30, 1e9
EARLY_2024 = Stack(mean_of_logits=True, keeps_quantized_input=True, caches_keys=True)
NOTEBOOK_MODEL = ModelSpec(
    name="notebook-1b", architecture="llama", hidden_size=2048, intermediate_size=4096, num_hidden_layers=24,
    num_attention_heads=16, num_key_value_heads=16, head_dim=128, vocab_size=32_000,
)  # fmt: skip
NOTEBOOK_POSITIONS = 2048
CUBLAS_WORKSPACE_BYTES = 8_519_680


class Line(NamedTuple):
    """One measured figure with its prediction, in the unit of the source."""

    row: str
    what: str
    unit: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Prediction over measurement, minus 1."""
        return self.predicted / self.measured - 1


def published_rows(*groups: str) -> list[dict[str, Any]]:
    """The rows of these groups."""
    text = (resources.files("profiles") / "measured" / "published.jsonl").read_text(encoding="utf-8")
    return [row for row in map(json.loads, text.splitlines()) if row["group"] in groups]


def _peft_line(row: dict[str, Any]) -> Line:
    """Peak reserved of the longest batch; peft's loop holds the outputs, and pads to at most 768 tokens."""
    model = find_model("llama-3.2-3b")
    adapters: dict[str, Any] = {}
    if row["method"] != "full":
        adapters = {"rank": row["rank"], "target_modules": tuple(row["target_modules"])}
    recipe = Recipe(method=row["method"], gradient_checkpointing=False, autocast=False,
                    optimizer="adamw_foreach", **adapters)  # fmt: skip
    stack = Stack(keeps_outputs=True, freezes_lora_a=row["optimizer"] == "lora-fa")
    step = predict_step_memory(model, recipe, row["micro_batch"], row["seq_len"], "cuda", stack)
    profile = profile_for(find_gpus("l40s")[0])
    reserved = profile.reserved(step.peak_bytes + profile.workspace_bytes).likely
    return Line(row["id"], "peak reserved", "GiB", row["peak_mem_gib"], reserved / GIB)


def _notebook_step(row: dict[str, Any]) -> StepMemory:
    adapters: dict[str, Any] = {}
    if row["method"] != "full":
        adapters = {"rank": row["rank"], "target_modules": tuple(row["target_modules"]), "dropout": row["lora_dropout"]}
    recipe = Recipe(
        method=row["method"], quant="nf4" if row["method"] == "qlora" else "none", double_quant=False,
        kbit_upcast=False, adapter_dtype="bfloat16", autocast=False, optimizer="sgd",
        gradient_checkpointing=bool(row["gradient_checkpointing"]), **adapters,
    )  # fmt: skip
    return predict_step_memory(NOTEBOOK_MODEL, recipe, 1, row["seq_len"], "cuda", EARLY_2024)


def _notebook_lines(row: dict[str, Any]) -> Iterator[Line]:
    """Snapshots of allocated bytes after load, forward and backward, or the peak over both.

    Beside the tape's tensors stand each layer's tables of sines and cosines for 2,048 positions (transformers before
    4.39) and a cuBLAS workspace.
    """
    step, m = _notebook_step(row), NOTEBOOK_MODEL
    tables = 2 * 2 * NOTEBOOK_POSITIONS * m.head_dim * m.num_hidden_layers
    aside = tables + CUBLAS_WORKSPACE_BYTES
    if "peak_mem_gib" in row:
        yield Line(row["id"], "peak allocated", "GiB", row["peak_mem_gib"], (step.peak_bytes + aside) / GIB)
        return
    measured = row["mem_extra"]
    loaded = sum(step.static_blocks.values()) + aside
    for what, key, predicted in (
        ("after load", "alloc_model_gb", loaded),
        ("after forward", "alloc_after_fwd_gb", step.after_forward_bytes + aside),
        ("after backward", "alloc_after_bwd_gb", step.after_backward_bytes + aside),
    ):
        yield Line(row["id"], what, "GB", measured[key], predicted / GB)


def lines() -> list[Line]:
    """Every figure of both groups."""
    found = [_peft_line(row) for row in published_rows("peft-mm")]
    for row in published_rows("fsdp_qlora-nb"):
        found += _notebook_lines(row)
    return found


def main() -> int:
    """Print the table; 1 when a row misses the bar."""
    found = lines()
    for line in found:
        print(f"{line.row:20} {line.what:15} measured {line.measured:7.3f} {line.unit:3}  "
              f"predicted {line.predicted:7.3f}  {line.error:+6.1%}")  # fmt: skip
    worst = max(found, key=lambda line: abs(line.error))
    median = sorted(abs(line.error) for line in found)[len(found) // 2]
    print(f"{len(found)} figures of {len({line.row for line in found})} rows: "
          f"median {median:.1%}, worst {worst.error:+.1%} ({worst.row}, {worst.what}); bar {BAR:.0%}")  # fmt: skip
    return int(abs(worst.error) > BAR)


if __name__ == "__main__":
    sys.exit(main())
