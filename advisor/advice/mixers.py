"""What an answer says about layers that mix tokens without attention: which kernels it counts, and what others need."""

from __future__ import annotations

from advisor.advice.job import Job
from advisor.advice.notes import ASSUMPTION
from advisor.answer import Candidate, Reason
from advisor.parameters.own_weights import fails_quantized
from advisor.parameters.token_mixers import distributions_of
from advisor.specs import ModelSpec, SequenceKernels
from advisor.units import format_gib

SOURCE = "transformers 5.23, integrations/hub_kernels.py, use_kernel_func_from_hub_with_fallback"


def mixer_notes(job: Job, row: Candidate) -> list[Reason]:
    """Which kernels are counted, with what the plan of `row` needs by either; and what packing does to such layers.

    Who installs them: axolotl 0.19.0's METADATA requires flash-linear-attention; that of transformers, TRL 1.16,
    LLaMA-Factory 0.9.5 and ms-swift 4.6 names none of the packages.
    """
    m = job.model
    assert isinstance(m, ModelSpec)
    names = distributions_of(m)
    counted = row.recipe.sequence_kernels
    other: SequenceKernels = "torch" if counted == "packages" else "packages"
    difference = _difference(job, row, other)
    both = " and ".join(names)
    if counted == "packages":
        installed = (
            "axolotl alone installs the first" if "flash-linear-attention" in names else "no trainer installs them"
        )
        text = (
            f"Layers without attention are counted with the kernels of {both} ({installed}). Where they are missing, "
            f"transformers runs its own PyTorch code: the same plan then {difference}; add --sequence-kernels torch."
        )
    else:
        text = (
            "Layers without attention are counted with transformers' own PyTorch code. With the kernels of "
            f"{both} (pip install {' '.join(names)}) the same plan {difference}."
        )
    texts = [text]
    if job.workload.packing:
        texts.append(_packing(both, counted))
    if why := fails_quantized(m):
        texts.append(f"QLoRA {why}.")
    notes = [Reason(code=ASSUMPTION, text=one, source=SOURCE) for one in texts]
    return [*notes, *_on_hopper(job, names, counted)]


def _on_hopper(job: Job, names: tuple[str, ...], counted: SequenceKernels) -> list[Reason]:
    """That the kernels refuse to run backward beside some versions of Triton."""
    hopper = any(card.generation == "Hopper" for card in job.cards)
    if not hopper or counted != "packages" or "flash-linear-attention" not in names:
        return []
    text = (
        "On Hopper cards flash-linear-attention 0.6.0 raises an error beside Triton from 3.4.0 to before 3.7.1, unless "
        "tilelang is installed."
    )
    return [Reason(code=ASSUMPTION, text=text, source="fla-core 0.6.0, fla/ops/common/chunk_o.py, chunk_bwd_dqkwg")]


def _difference(job: Job, row: Candidate, kernels: SequenceKernels) -> str:
    """What the row's plan needs and takes by those kernels, beside what it does by its own."""
    ours, theirs = (
        job.estimate(row.recipe.model_copy(update={"sequence_kernels": one}))
        for one in (row.recipe.sequence_kernels, kernels)
    )
    gib = [format_gib(found.memory.needed_bytes.likely) for found in (theirs, ours)]
    needed = f"needs {gib[0]} GiB" + (f" in place of {gib[1]}" if gib[0] != gib[1] else ", as before")
    if ours.time is None or theirs.time is None:
        return needed
    times = theirs.time.total_s.likely / ours.time.total_s.likely
    return (
        f"{needed}, and takes {times:.2f} times as long" if times >= 0.01 else f"{needed}, in less than 1 % of the time"
    )


def _packing(names: str, counted: SequenceKernels) -> str:
    """What becomes of packed examples."""
    if counted == "torch":
        return (
            "Layers without attention mix packed examples with each other; a collator that passes where each begins "
            f"(cu_seq_lens) makes transformers raise an error without {names}."
        )
    return (
        "Layers without attention mix packed examples with each other, unless the collator passes where each begins "
        "(transformers' DataCollatorWithFlattening with return_flash_attn_kwargs and return_seq_idx)."
    )
