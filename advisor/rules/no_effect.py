"""A setting that has no effect.

A knob was set that means nothing for the methods in question, for example --rank with --method full. It is
left out of the recipe; the warning makes sure that nobody counts on its effect. The same holds for ways to pad rows
that are packed, or that have one length, and for names in --target-modules that no layer of the model has: peft passes
over them as long as another name matches. And for an adapter of a layer whose weight the code multiplies by itself,
without calling the layer: the projection at the end of a state-space layer under mamba-ssm's kernel, for one.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.answer import Reason
from advisor.knobs import SPREADING_KNOBS, idle_knobs
from advisor.parameters.layer_inputs import PASSED_OVER
from advisor.parameters.targets import never_called, passed_over, unmatched_targets
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import FORMULA
from advisor.specs import ADAPTER_METHODS, ModelSpec, Recipe, Workload

CODE = "ADV104"
GEMMA3N = "transformers 5.23, models/gemma3n/modeling_gemma3n.py, Gemma3nTextAltUp.correct"
JAMBA = "transformers 5.23, models/jamba/modeling_jamba.py, JambaMambaMixer.forward"
PEFT = "https://github.com/huggingface/peft/blob/main/src/peft/tuners/tuners_utils.py"

MAMBA = "https://github.com/state-spaces/mamba/blob/main/mamba_ssm/ops/triton/ssd_combined.py"


def check(context: Context) -> Finding | None:
    """One reason for each idle knob."""
    found = [
        Reason(code=CODE, text=f"--{name.replace('_', '-')} has no effect {why}.", source=FORMULA)
        for name, why in _idle(context)
    ]
    if strangers := _strangers(context):
        text = (
            f"--target-modules {','.join(strangers)} has no effect: no linear layer of {context.model.name} has "
            f"{'that name' if len(strangers) == 1 else 'one of these names'}, and peft adapts the others only."
        )
        found.append(Reason(code=CODE, text=text, source=PEFT))
    for name in sorted(PASSED_OVER.intersection(_named(context)) - set(strangers)):
        text = f"An adapter of {name} has no effect: the model's code multiplies by that layer's weight alone."
        found.append(Reason(code=CODE, text=text, source=GEMMA3N))
    if alone := _passed_over(context, never_called):
        text = (
            f"An adapter on {', '.join(alone)} has no effect: the model's code multiplies by that layer's weight "
            "itself, unless the base is quantized."
        )
        found.append(Reason(code=CODE, text=text, source=JAMBA))
    if over := _passed_over(context, passed_over):
        text = (
            f"An adapter on {', '.join(over)} has no effect: mamba-ssm's kernel reads that layer's own weight. Name "
            "the other layers in --target-modules; --sequence-kernels torch uses it."
        )
        found.append(Reason(code=CODE, text=text, source=MAMBA))
    return Finding(tuple(found)) if found else None


def _passed_over(context: Context, over: Callable[[ModelSpec, Recipe], tuple[str, ...]]) -> tuple[str, ...]:
    if not isinstance(context.model, ModelSpec) or not context.model.mixers:
        return ()
    found = (over(context.model, row.recipe) for row in context.candidates.values())
    return next(filter(None, found), ())


def _strangers(context: Context) -> tuple[str, ...]:
    return unmatched_targets(context.model, _named(context)) if isinstance(context.model, ModelSpec) else ()


def _named(context: Context) -> tuple[str, ...]:
    """The target modules that were asked for, where any method has some."""
    adapted = any(method in ADAPTER_METHODS for method in context.candidates)
    return (context.question.target_modules or ()) if adapted else ()


def _idle(context: Context) -> list[tuple[str, str]]:
    question = context.question
    fixed, checkpointing = question.fixed, question.gradient_checkpointing in (None, True)
    # What is idle for one method only may be there for another.
    each = [
        idle_knobs(method, row.recipe.quant, checkpointing, question.trained_layers or 0, row.recipe.variant)
        for method, row in context.candidates.items()
    ]
    idle = [(name, why) for name, why in each[-1].items() if name in fixed and all(name in one for one in each)]
    if "trained_dtype" in fixed and not question.modules_to_save and not question.trained_layers:
        idle.append(("trained_dtype", "without --modules-to-save or --trained-layers"))
    casts = all(row.recipe.autocast for row in context.candidates.values())
    if "upcast_logits" in fixed and question.upcast_logits is False and casts:
        idle.append(("no_upcast_logits", "with --autocast, under which PyTorch runs cross entropy in fp32"))
    if "data" not in fixed:
        idle += [(name, "without --data") for name in ("data_columns", "tokenizer", "skip_bad_lines") if name in fixed]
    if "eval_steps" in fixed and not question.eval_examples:
        idle.append(("eval_steps", "without --eval-examples"))
    if "sequence_kernels" in fixed and isinstance(context.model, ModelSpec) and not context.model.mixers:
        idle.append(("sequence_kernels", f"on {context.model.name}, whose layers all have attention"))
    if context.placement.gpus == 1:
        idle += [(name, "on one card") for name in SPREADING_KNOBS if name in fixed]
    elif context.placement.copies_model and "reshard" in fixed:
        idle.append(("reshard", f"with --sharding {context.placement.effective_sharding}"))
    return idle + [(name, why) for name, why in _idle_of_rows(context.workload) if name in fixed]


def _idle_of_rows(workload: Workload) -> list[tuple[str, str]]:
    """Ways to make micro-batches that change nothing for these rows."""
    if workload.packing:
        return [(name, "with --packing, which fills every row") for name in ("padding", "pad_to_multiple_of")]
    idle = [("packing_strategy", "without --packing")]
    if workload.lengths.alike:
        idle += [(name, "where all rows have one length") for name in ("padding", "group_by_length")]
    elif workload.padding != "longest":
        idle.append(("group_by_length", f"with --padding {workload.padding}"))
    if workload.padding == "none":
        idle.append(("pad_to_multiple_of", "with --padding none"))
    return idle


RULE = Rule(CODE, "warns", __doc__, (FORMULA, PEFT, GEMMA3N, JAMBA, MAMBA), check)
