"""What an answer says about layers that mix tokens without attention: which kernels it counts, and what others need."""

from __future__ import annotations

from advisor.advice.job import Job
from advisor.advice.notes import ASSUMPTION
from advisor.answer import Candidate, Reason
from advisor.parameters.token_mixers import distributions_of
from advisor.specs import Estimate, ModelSpec, SequenceKernels
from advisor.units import format_gib, format_seconds

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
    ours, theirs = (_needs(job, row, kernels) for kernels in (counted, other))
    both = " and ".join(names)
    if counted == "packages":
        installed = "axolotl alone installs the first" if "flash-linear-attention" in names else "no trainer installs"
        text = (
            f"Layers without attention are counted with the kernels of {both} ({installed}): {ours}. Without them "
            f"transformers runs its own PyTorch code, and the same plan needs {theirs}: --sequence-kernels torch."
        )
    else:
        text = (
            f"Layers without attention are counted with transformers' own PyTorch code: {ours}. With the kernels of "
            f"{both} (pip install {' '.join(names)}) the same plan needs {theirs}."
        )
    texts = [text]
    if job.workload.packing:
        texts.append(_packing(both, counted))
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


def _needs(job: Job, row: Candidate, kernels: SequenceKernels) -> str:
    """GiB and time of the row's plan by those kernels."""
    found: Estimate = job.estimate(row.recipe.model_copy(update={"sequence_kernels": kernels}))
    needed = f"{format_gib(found.memory.needed_bytes.likely)} GiB"
    return needed if found.time is None else f"{needed}, {format_seconds(found.time.total_s.likely)}"


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
