"""One changed question, tried: the job that it poses, whether that fits, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from advisor.advice.candidates import plan_of, searched, stand_ins
from advisor.advice.catalogs import Catalog
from advisor.advice.job import Job, first_recipe
from advisor.advice.posing import Asked, posed
from advisor.advice.search import Outcome
from advisor.answer import Change, Plan
from advisor.costs.static import static_memory
from advisor.errors import AdvisorError
from advisor.recipes import flag
from advisor.rules.nothing_fits import CODE
from advisor.rules.savings import TRAINS_OTHERWISE
from advisor.rules.wording import DISPLAY, FORMULA, how, needs
from advisor.specs import Method, ModelSpec
from advisor.stacks import stack_for
from advisor.units import MIB, format_gib, format_seconds


class Attempt(NamedTuple):
    """A question of which nothing fits, the method that comes nearest, and where other models and cards are found."""

    asked: Asked
    method: Method
    catalog: Catalog

    def posed(self, settings: Mapping[str, object]) -> Job | None:
        """The job with knobs set; None where the trainer, the model or its checkpoint refuses them."""
        try:
            return posed(self.asked.fixing(settings)).job
        except AdvisorError:
            return None

    def fits(self, job: Job | None, method: Method | None = None) -> Outcome | None:
        """The outcome of a changed job if it fits."""
        method = method or self.method
        if job is None or method not in job.methods or (job.traced is not None and method not in job.traced):
            return None
        try:
            outcome = None if _held_for_good(job, method) > job.smallest_card.memory_bytes else searched(job, method)
        except AdvisorError:  # a traced model answers only for what was traced; older libraries lack some models
            return None
        return outcome if outcome is not None and outcome.verdict == "fits" else None

    def change(
        self, what: str, job: Job, outcome: Outcome, flags: Sequence[str] = (), package: str = "", **fields: Any
    ) -> Change:
        """'--kernels liger: QLoRA then needs 17.1 GiB (at most 18.0) at micro-batch 1 with checkpointing; 2.1 h; ...'.

        `package`: what has to be installed for it.
        """
        recipe = outcome.estimate.recipe
        plan = plan_of(job, outcome.estimate, stand_ins(job, self.catalog))
        chosen = () if self.asked.question.method else (flag("method", recipe.method),)
        costs = (*_costs(plan), *((f"needs {package}",) if package else ()), *_otherwise(fields.get("knobs", ())))
        texts = (f"{what}: {DISPLAY[recipe.method]} then needs {needs(plan)} at {how(recipe)}", *costs)
        return Change(
            code=CODE,
            text="; ".join(texts) + ".",
            source=FORMULA,
            flags=tuple(dict.fromkeys((*flags, *chosen))),
            workload=job.workload,
            plan=plan,
            **{"changes_training": bool(_otherwise(fields.get("knobs", ()))), **fields},
        )


def _held_for_good(job: Job, method: Method) -> int:
    """Bytes of weights, adapters and optimizer states: where these alone are too many, no step need be recorded."""
    if not isinstance(job.model, ModelSpec):
        return 0
    recipe = first_recipe(job, method)
    stack = stack_for(recipe, job.smallest_card, job.workload)
    held = sum(static_memory(stack.built(job.model), recipe, 1, 1, stack=stack).blocks.values())
    spread = job.question.sharding is None or not job.placement.copies_model
    return held // job.placement.gpus if spread else held


def _costs(plan: Plan) -> tuple[str, ...]:
    """Time, memory of the host, and what is not known of the step, each in a few words."""
    texts = [f"likely {format_seconds(plan.time.total_s.likely)}"] if plan.time is not None else []
    if plan.memory.host_bytes >= MIB:
        texts.append(f"{format_gib(plan.memory.host_bytes)} GiB of the host's memory")
    if plan.evidence.unknown:
        texts.append(f"it likely fits; not known: {plan.evidence.unknown[0]}")
    return tuple(texts)


def _otherwise(knobs: Sequence[str]) -> tuple[str, ...]:
    return () if TRAINS_OTHERWISE.isdisjoint(knobs) else ("changes the training",)
