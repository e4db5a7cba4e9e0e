"""The tools' definitions, as an agent reads them: every word is paid for in each of its conversations."""

from __future__ import annotations

from typing import Any, NamedTuple

from advisor.advice.brief import Brief
from advisor.knobs import BY_NAME, KNOBS
from advisor.mcp.explained import ABOUT
from advisor.mcp.found import Found

ADVISE, EXPLAIN, FIND = "advise_finetuning", "explain_estimate", "find_models_and_gpus"
FLAT = ("model", "gpu", "examples", "seq_len", "mean_seq_len", "method", "rank", "priority", "gpus", "trainer")
"""Knobs that are arguments of their own; all others are keys of `knobs`."""
ANNOTATIONS = {"readOnlyHint": True, "idempotentHint": True, "openWorldHint": False}
_WORDS = {
    "model": "name or Hub id: qwen3-8b",
    "gpu": "rtx4090, 24GB, 2x3090",
    "examples": "data rows",
    "seq_len": "tokens of the longest row",
    "mean_seq_len": "tokens of the mean row",
    "gpus": "number of cards",
}
_NO_FILES = frozenset({"data", "data_columns", "tokenizer", "skip_bad_lines"})
"""Knobs about a file."""
_TYPES = {"int": "integer", "float": "number", "bool": "boolean"}


class Tool(NamedTuple):
    """One tool: what it is for, its arguments and its answer, both as JSON Schema."""

    name: str
    description: str
    arguments: dict[str, Any]
    answer: dict[str, Any]


def tools(files: bool) -> tuple[Tool, ...]:
    """The three tools; `files` says whether paths in a folder are allowed."""
    question = _question(files)
    return (
        Tool(
            ADVISE,
            "Does a fine-tuning job fit on a GPU, by which method (full, LoRA, DoRA, QLoRA, QDoRA), how long does it "
            "take, what recipe to use? Set only what is known: the rest is chosen. Quote needed_gib and total_s as "
            "ranges; 'tight' is not sure to fit. flags reproduce the plan.",
            _object(question, ("gpu",)),
            {"type": "object", "required": list(Brief.model_fields)},
        ),
        Tool(
            EXPLAIN,
            "One part of the answer to the same question, in detail: where memory or time goes, the sources of its "
            "rule (or of a rule by code, with no question), the training script, the data file.",
            _object(
                {
                    "about": {"type": "string", "description": f"{', '.join(ABOUT)}, or a code: ADV003"},
                    **_bare(question),
                    "part": {"type": "integer", "description": "of a long script"},
                },
                ("about",),
            ),
            {"type": "object", "required": ["about"]},
        ),
        Tool(
            FIND,
            "Names of models and GPUs that contain all words of query.",
            _object(
                {
                    "query": {"type": "string"},
                    "min_gib": {"type": "number", "description": "least memory of a GPU"},
                },
                (),
            ),
            {"type": "object", "required": list(Found.model_fields)},
        ),
    )


def _object(properties: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _bare(question: dict[str, Any]) -> dict[str, Any]:
    """The same arguments without what was already said of them."""
    return {name: {"type": schema["type"]} for name, schema in question.items()}


def _question(files: bool) -> dict[str, Any]:
    """The arguments of a question."""
    others = [knob.name for knob in KNOBS if knob.name not in FLAT and (files or knob.name not in _NO_FILES)]
    paths = "; paths in the server's folder are read" if files else ""
    return {
        **{name: _property(name) for name in FLAT},
        "config": {"type": "object", "description": "config.json of a model that is in no catalog"},
        "knobs": {"type": "object", "description": f"other flags of `advise`: {', '.join(others)}{paths}"},
    }


def _property(name: str) -> dict[str, Any]:
    """The schema of a knob."""
    knob = BY_NAME[name]
    schema: dict[str, Any] = {"type": _TYPES.get(knob.kind, "string")}
    if knob.choices:
        schema["enum"] = list(knob.choices)
    if name in _WORDS:
        schema["description"] = _WORDS[name]
    return schema
