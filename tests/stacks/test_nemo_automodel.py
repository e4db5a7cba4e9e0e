"""NeMo AutoModel: the plain step, and never a promise."""

from __future__ import annotations

import pytest

from advisor.advice.advise import advise
from advisor.catalog import find_model
from advisor.specs import Recipe
from advisor.stacks import named_stack


def test_its_fused_code_is_not_known() -> None:
    stack = named_stack(("nemo-automodel-0.7",))
    proofs = [stack.proof(find_model(name), Recipe(method="full")) for name in ("llama-3.1-8b", "gemma-2-2b")]
    assert [len(proof.unknown) for proof in proofs] == [1, 1]
    assert "Transformer Engine" in proofs[0].unknown[0]
    assert "Liger" in proofs[1].unknown[0]
    assert len(stack.proof(find_model("llama-3.1-8b"), Recipe(method="lora")).unknown) == 2
    assert stack.name.startswith("nemo-automodel 0.7 over transformers ")


@pytest.mark.parametrize("word", ["nemo-automodel", "automodel", "nemo"])
def test_a_job_is_at_best_tight(word: str) -> None:
    answer = advise("llama-3.2-1b", "h100", 1000, trainer=word, method="lora")
    assert answer.trainer.name == "nemo-automodel"
    assert answer.candidates[0].verdict == "tight"
