"""Step times that others measured, beside ours.

    python benchmarks/published_time.py [--rows FILE] [--group GROUP ...]

Reads profiles/measured/published.jsonl or, with --rows, a file of the same fields. Prints a row per measurement:
measured and predicted seconds per optimizer step, the error, what binds, and the same as a ratio to one row of the
same source and model, where everything that the rows share cancels. Nothing is fitted to these rows.

Rows trained under torch.compile are shown, with ratios among themselves, but not counted: our step is eager. Rows with
an optimizer of their own (LoRA-FA) are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from advisor.catalog.gpus import find_gpus
from advisor.catalog.models import find_model
from advisor.device import profile_for
from advisor.specs import Placement, Recipe, TimeEstimate, Workload
from advisor.steptime import time_estimate
from advisor.tape.step import step_program

Row = dict[str, Any]

GROUPS = ("peft-mm", "qwen1", "torchtune")
BASELINES = {"peft-mm": "lora", "qwen1": "lora", "torchtune": "full"}
CARDS = {"A100 80GB (inferred)": "NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB": "NVIDIA A100-SXM4-80GB"}
DTYPES = {"bf16": "bfloat16", "bfloat16": "bfloat16", "nf4": "bfloat16"}
OPTIMIZERS = (("8bit", "adamw_8bit"), ("adamw", "adamw_foreach"))
MODULES = {
    "c_attn": ("q_proj", "k_proj", "v_proj"),
    "c_proj": ("o_proj", "down_proj"),
    "w1": ("up_proj",),
    "w2": ("gate_proj",),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}


class Comparison(NamedTuple):
    """One measured row with our estimate, both as seconds per optimizer step."""

    row: Row
    measured_s: float
    estimate: TimeEstimate

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.estimate.step_s.likely / self.measured_s - 1


def usable(row: Row) -> bool:
    """Measured on one card, with the facts that a step time needs."""
    return bool(
        row.get("completeness_time") in ("A", "B") and row.get("step_time_s") and row.get("tokens_per_step")
        and row.get("num_gpus") == 1 and optimizer_of(row)
    )


def optimizer_of(row: Row) -> str:
    """The row's optimizer under our name; '' for one that we do not model."""
    named = row["optimizer"].lower()
    return next((ours for theirs, ours in OPTIMIZERS if theirs in named), "")


def read_rows(path: Path | None) -> list[Row]:
    """The published rows, from a file or from those that ship with the package."""
    source = path or resources.files("profiles") / "measured" / "published.jsonl"
    return [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]


def target_modules(row: Row) -> tuple[str, ...]:
    """The row's modules under the names of our model table."""
    named: Iterable[str] = row.get("target_modules", ())
    found = [name for given in named for name in MODULES.get(given, (given,))]
    return tuple(dict.fromkeys(found)) or ("all-linear",)


def recipe_of(row: Row) -> Recipe:
    """How the row says that it was trained."""
    return Recipe.model_validate({
        "method": row["method"],
        "rank": row.get("rank", 16),
        "alpha": row.get("alpha", 32),
        "target_modules": target_modules(row),
        "dropout": row.get("lora_dropout", 0.0),
        "base_dtype": DTYPES[row["base_dtype"]],
        "adapter_dtype": "float32" if row["adapter_dtype"].startswith("float32") else "bfloat16",
        "quant": "nf4" if row["method"] == "qlora" else "none",
        "double_quant": row.get("double_quant", True),
        "kbit_upcast": False,
        "autocast": "AMP" in row["compute_dtype"],
        "optimizer": optimizer_of(row),
        "gradient_checkpointing": str(row["gradient_checkpointing"]).startswith("True"),
        "attention": "flash" if row["attn_impl"] == "fa2" else "sdpa",
        "loss": "chunked" if "chunked" in row["loss_impl"].lower() else "full",
        "micro_batch": row["micro_batch"],
        "gradient_accumulation": row["grad_accum"],
    })


def compare(row: Row) -> Comparison:
    """Predict a row at its mean tokens per micro-batch."""
    recipe = recipe_of(row)
    m = find_model(row["model_id"], offline=True)
    (gpu,) = find_gpus(CARDS.get(row["gpu"], row["gpu"]))
    length = round(row["tokens_per_step"] / (recipe.micro_batch * recipe.gradient_accumulation))
    work = Workload(examples=1, seq_len=length, mean_seq_len=length)
    program = step_program(m, recipe, recipe.micro_batch, length, "cuda")
    kernels = program.kernels(recipe.micro_batch, length, recipe.rank)
    estimate = time_estimate(m, recipe, work, gpu, profile_for(gpu), kernels, Placement())
    return Comparison(row, float(row["step_time_s"]), estimate)


def label(row: Row) -> str:
    """What tells a row from its neighbours."""
    parts = [row["id"], row["model_id"].split("/")[-1].replace("-Instruct", ""), row["method"]]
    if row["method"] != "full":
        parts.append(f"r{row['rank']}")
    parts.append(f"{round(row['tokens_per_step'] / row['grad_accum'])} tok")
    if str(row["gradient_checkpointing"]).startswith("True"):
        parts.append("ckpt")
    if row.get("compile"):
        parts.append("compiled")
    return " ".join(parts)


def baseline(c: Comparison, group: Sequence[Comparison]) -> Comparison:
    """The row that `c` is divided by: of its model, compiled or not as it is, the longest of the plainest method."""
    method = BASELINES[c.row["group"]]
    alike = [
        other for other in group
        if other.row["model_id"] == c.row["model_id"] and other.row.get("compile") == c.row.get("compile")
    ]  # fmt: skip
    plain = [other for other in alike if other.row["method"] == method] or alike
    return max(plain, key=lambda other: other.row["tokens_per_step"])


def print_group(group: str, compared: Sequence[Comparison]) -> None:
    """A table of one source."""
    print(f"\n{group}, {compared[0].row['gpu']}: seconds per optimizer step, and ratios to the row marked =")
    heads = ("measured", "likely", "low..high", "error", "meas.", "ours", "error")
    print("{:60} {:>8} {:>8} {:>16} {:>6} {:>7} {:>6} {:>7}  bound".format("row", *heads))
    for c in compared:
        base = baseline(c, compared)
        step = c.estimate.step_s
        measured = c.measured_s / base.measured_s
        ours = step.likely / base.estimate.step_s.likely
        inside = " " if step.low <= c.measured_s <= step.high else "*"
        print(
            f"{label(c.row) + (' =' if base is c else ''):60} {c.measured_s:8.3f} {step.likely:8.3f} "
            f"{step.low:7.3f}..{step.high:6.3f}{inside} {c.error:+6.0%} {measured:7.3f} {ours:6.3f} "
            f"{ours / measured - 1:+7.1%}  {c.estimate.bound}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 1 when no row could be used."""
    parser = argparse.ArgumentParser(description="Published step times beside ours.")
    parser.add_argument("--rows", type=Path, help="a file of published rows, one JSON object a line")
    parser.add_argument("--group", action="append", choices=GROUPS, help="only this source; may be repeated")
    options = parser.parse_args(arguments)
    rows = [row for row in read_rows(options.rows) if usable(row)]
    errors = []
    for group in options.group or GROUPS:
        compared = [compare(row) for row in rows if row["group"] == group]
        if compared:
            print_group(group, compared)
            errors += [abs(c.error) for c in compared if not c.row.get("compile")]
    if not errors:
        print("no row with a step time in these groups", file=sys.stderr)
        return 1
    errors.sort()
    print(f"\n{len(errors)} eager rows; median absolute error {errors[len(errors) // 2]:.0%}, worst {errors[-1]:.0%}")
    print("* outside our interval")
    return 0


if __name__ == "__main__":
    sys.exit(main())
