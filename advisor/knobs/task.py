"""The task that a question names, in place of the one that a model's config names."""

from __future__ import annotations

from advisor.architectures.classifiers import classifier_of
from advisor.errors import BadValue
from advisor.knobs.question import Question
from advisor.specs import Model, TracedModel

DEFAULT_LABELS = 2
"""Source: transformers 5.23, configuration_utils.py, PreTrainedConfig.num_labels."""


def names_task(question: Question) -> bool:
    """Whether the question says for what the model is trained."""
    return question.task is not None or question.labels is not None


def on_task(model: Model, question: Question) -> Model:
    """The model as it is trained on that task. Raises BadValue or UnsupportedArchitecture where it cannot be."""
    if not names_task(question):
        return model
    if isinstance(model, TracedModel):
        raise BadValue("--task", question.task or "", f"cannot change {model.name}, whose step was traced as it is")
    if question.labels == 0:
        raise BadValue("--labels", 0, "must be at least 1: the classes, or 1 for a number")
    if question.labels and not (question.task or model.labels):
        raise BadValue("--labels", question.labels, "means something with --task classification alone; add that")
    if model.vision is not None:
        raise BadValue("--task", "classification", f"is known of models of text alone, and {model.name} sees")
    classifier_of(model_type=model.architecture)
    return model.classifying(question.labels or model.labels or DEFAULT_LABELS)
