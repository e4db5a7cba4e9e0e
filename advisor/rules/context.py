"""What a rule looks at, what it answers, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from advisor.answer import Candidate, Plan, Reason, TrainerChoice
from advisor.knobs import Question
from advisor.parameters.modules import parameter_count
from advisor.specs import (
    ADAPTER_METHODS,
    Estimate,
    Method,
    Model,
    ModelSpec,
    Placement,
    Priority,
    Recipe,
    TimeEstimate,
    TracedModel,
    Workload,
)


class Context(NamedTuple):
    """One question with its candidates.

    `estimate` costs a further recipe of the same job on the same card, spread over several as a placement says (see
    `beside`); `time_of` says its time on a card of known speed, if there is one, for the ratio of two times.
    """

    model: Model
    workload: Workload
    placement: Placement
    priority: Priority
    memory_bytes: int
    cards: tuple[str, ...]
    has_bf16: bool
    question: Question
    candidates: Mapping[Method, Candidate]
    estimate: Callable[[Recipe, Placement | None], Estimate]
    time_of: Callable[[Recipe], TimeEstimate | None]
    trainer: TrainerChoice = TrainerChoice(name="transformers", version="", traced=True, knobs=())
    """The training stack whose defaults were taken."""
    recommended: Method | None = None
    """The method that a recommending rule chose; set for remarks and warnings only."""

    def beside(self, plan: Plan, recipe: Recipe) -> Estimate:
        """Costs of another recipe, spread over several cards as a plan is: the two are then compared alike."""
        return self.estimate(recipe, plan.placement)

    def fits(self, method: Method) -> bool:
        """Whether the method can be recommended: it fits, or it is tight and no method with adapters fits."""
        row = self.candidates.get(method)
        if row is None:
            return False
        surely = any(self.candidates[m].verdict == "fits" for m in ADAPTER_METHODS if m in self.candidates)
        return row.verdict == "fits" or (row.verdict == "tight" and not surely)

    @property
    def parameters(self) -> int:
        """All parameters of the model."""
        return self.model.parameters if isinstance(self.model, TracedModel) else parameter_count(self.model)

    @property
    def encodes(self) -> bool:
        """Whether the model is an encoder, for which scores of decoders say nothing."""
        return isinstance(self.model, ModelSpec) and self.model.bidirectional

    @property
    def stored_already(self) -> bool:
        """Whether the model's checkpoint is not in 16 bits: what it is in cannot be chosen."""
        return isinstance(self.model, ModelSpec) and self.model.checkpoint is not None

    @property
    def shown(self) -> Candidate | None:
        """The row that remarks and warnings are about: the recommended one, or the only one there is."""
        if self.recommended is not None:
            return self.candidates[self.recommended]
        return next(iter(self.candidates.values())) if len(self.candidates) == 1 else None


def nearest(rows: Mapping[Method, Candidate]) -> Candidate:
    """The row that comes nearest to fitting: the least likely need, DoRA's only where there is no other.

    DoRA never needs less than its counterpart at the same targets, but may have been given fewer of them.
    """
    return min(rows.values(), key=lambda row: (row.recipe.is_dora, row.memory.needed_bytes.likely))


class Finding(NamedTuple):
    """What a rule says; `method` is None for a remark, for a warning, and when nothing fits."""

    reasons: tuple[Reason, ...]
    method: Method | None = None


class Rule(NamedTuple):
    """One rule. `explanation` is its module's docstring, which `advise explain CODE` prints."""

    code: str
    kind: Literal["recommends", "remarks", "warns"]
    explanation: str
    sources: tuple[str, ...]
    check: Callable[[Context], Finding | None]

    @property
    def title(self) -> str:
        """The first line of its explanation."""
        return self.explanation.strip().partition("\n")[0].rstrip(".")

    @property
    def document(self) -> dict[str, Any]:
        """What it is in JSON."""
        return {
            "code": self.code,
            "kind": self.kind,
            "title": self.title,
            "explanation": self.explanation.strip(),
            "sources": self.sources,
        }
