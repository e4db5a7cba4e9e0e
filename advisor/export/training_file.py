"""What to run, in the form that the assumed trainer reads: a script, or a configuration file."""

from __future__ import annotations

from advisor.answer import Advice, Candidate
from advisor.specs import TracedModel, Trainer

_CONFIGS = {"trl": "trl_yaml", "axolotl": "axolotl_yaml", "llamafactory": "llamafactory_yaml"}


def file_name(trainer: Trainer) -> str:
    """The name that the text of `training_file` expects."""
    return "train.yaml" if trainer in _CONFIGS else "train.py"


def training_file(advice: Advice, row: Candidate) -> str:
    """The text of the file that runs `row`; for a trainer without an export the transformers script, which says so."""
    if isinstance(advice.model, TracedModel):
        return (
            f"# No script yet for a model that stands on a trace: load it with\n# "
            f"{advice.model.kind}.from_pretrained({advice.model_id!r}) and set the knobs above.\n"
        )
    trainer, gpus, bf16 = advice.trainer.name, advice.gpu.gpus, advice.gpu.bf16
    if trainer in _CONFIGS:
        from advisor.export import configs

        write = getattr(configs, _CONFIGS[trainer])
        text = write(advice.model_id, advice.model, row.recipe, advice.workload, gpus=gpus, bf16=bf16)
        return _run_with(row, str(text))
    from advisor.export.peft_snippet import peft_snippet

    script = peft_snippet(advice.model_id, advice.model, row.recipe, advice.workload, gpus=gpus, bf16=bf16)
    script = _run_with(row, script)
    if trainer == "transformers":
        return script
    return f"# Written for transformers, with the same knobs: there is no export for {trainer} yet.\n{script}"


def _run_with(row: Candidate, text: str) -> str:
    """The text with the allocator's setting in its run command, where the recipe asks for it."""
    if not row.recipe.expandable_segments:
        return text
    return text.replace("# run: ", "# run: PYTORCH_ALLOC_CONF=expandable_segments:True ", 1)
