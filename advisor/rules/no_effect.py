"""A setting that has no effect.

A knob was fixed that means nothing for the methods in question, for example --rank with --method full. It is
kept out of the recipe; the warning is there so that nobody waits for what it would have done.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.knobs import ONLY_ADAPTERS, ONLY_QUANTIZED
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import FORMULA
from advisor.specs import ADAPTER_METHODS, DORA_METHODS, QUANTIZED_METHODS

CODE = "ADV104"


def check(context: Context) -> Finding | None:
    """One reason for each idle knob."""
    found = [
        Reason(code=CODE, text=f"--{name.replace('_', '-')} has no effect {why}.", source=FORMULA)
        for name, why in _idle(context)
    ]
    return Finding(tuple(found)) if found else None


def _idle(context: Context) -> list[tuple[str, str]]:
    fixed, methods = context.fixed, tuple(context.candidates)
    idle: list[tuple[str, str]] = []
    if not any(method in ADAPTER_METHODS for method in methods):
        idle += [(name, "without adapters (--method full)") for name in ONLY_ADAPTERS if name in fixed]
    elif "magnitude_dtype" in fixed and not any(method in DORA_METHODS for method in methods):
        idle.append(("magnitude_dtype", "without DoRA's magnitudes"))
    if not any(method in QUANTIZED_METHODS for method in methods):
        why = f"without a quantised base (--method {methods[0]})"
        idle += [(name, why) for name in ONLY_QUANTIZED if name in fixed]
    elif fixed.get("quant") == "int8" and "double_quant" in fixed:
        idle.append(("double_quant", "with --quant int8, which has no second level"))
    if "reentrant" in fixed and fixed.get("gradient_checkpointing") is False:
        idle.append(("reentrant", "without gradient checkpointing"))
    if "data" in fixed and all(name in fixed for name in ("examples", "seq_len", "mean_seq_len")):
        idle.append(("data", "when --examples, --seq-len and --mean-seq-len are given"))
    if "sharding" in fixed and context.placement.gpus == 1:
        idle.append(("sharding", "on one card"))
    return idle


RULE = Rule(CODE, "a setting without effect", "warns", __doc__, (FORMULA,), check)
