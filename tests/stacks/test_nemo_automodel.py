"""NeMo AutoModel: the plain step, and never a promise."""

from __future__ import annotations

import pytest

from advisor.advice.advise import advise
from advisor.catalog import find_model
from advisor.costs.memory import predict_step_memory
from advisor.decoders.stack import THIS_STACK
from advisor.specs import Recipe
from advisor.stacks import named_stack
from advisor.stacks.nemo_automodel import opaque_rms_norm
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape
from benchmarks.tape_bytes import mirrored


def test_its_fused_code_is_not_known() -> None:
    stack = named_stack(("nemo-automodel-0.7",))
    proofs = [stack.proof(find_model(name), Recipe(method="full")) for name in ("llama-3.1-8b", "gemma-2-2b")]
    assert [len(proof.unknown) for proof in proofs] == [1, 1]
    assert "Transformer Engine" in proofs[0].unknown[0]
    assert "Liger" in proofs[1].unknown[0]
    assert len(stack.proof(find_model("llama-3.1-8b"), Recipe(method="lora")).unknown) == 2
    assert stack.name.startswith("nemo-automodel 0.7 over transformers ")


@pytest.mark.parametrize("trains", [False, True])
def test_a_norm_keeps_its_inputs_alone(trains: bool) -> None:
    t = Tape("cuda")
    x = t.empty((2, 64, 128), "bfloat16")
    x.needs_grad = True
    weight = Tensor((128,), "bfloat16", needs_grad=trains)
    size = x.bytes
    found = mirrored(lambda t, x: opaque_rms_norm(t, x, weight), [x], t)
    assert found.kept == size  # its result
    assert found.forward_peak == 2 * 2 * size + size + 4 * 128 + 4 * 2 * 64  # two in fp32, the result, weight, roots
    assert found.left == size + trains * 2 * 128


def test_its_norms_save_what_transformers_keep() -> None:
    m = find_model("llama-3.2-1b")
    chosen = Recipe(method="full", gradient_checkpointing=False, autocast=False)
    stack = named_stack(("nemo-automodel-0.7",))
    own, plain = (predict_step_memory(m, chosen, 1, 1024, stack=one).peak_bytes for one in (stack, THIS_STACK))
    norms, states = 2 * m.num_hidden_layers + 1, 1024 * m.hidden_size
    # transformers': x in fp32, and the normed in 16 bits; its own: x in 16 bits
    assert plain - own == pytest.approx(norms * states * (4 + 2 - 2), rel=0.01)


def test_its_rope_keeps_nothing_more() -> None:
    m = find_model("qwen3-0.6b")
    chosen = Recipe(method="full", gradient_checkpointing=False, autocast=False)
    stack = named_stack(("nemo-automodel-0.7",))
    own, plain = (predict_step_memory(m, chosen, 1, 1024, stack=one) for one in (stack, THIS_STACK))
    assert own.after_forward_bytes == plain.after_forward_bytes
    assert own.peak_bytes >= plain.peak_bytes


@pytest.mark.parametrize("word", ["nemo-automodel", "automodel", "nemo"])
def test_a_job_is_at_best_tight(word: str) -> None:
    answer = advise("llama-3.2-1b", "h100", 1000, trainer=word, method="lora")
    assert answer.trainer.name == "nemo-automodel"
    assert answer.candidates[0].verdict == "tight"
