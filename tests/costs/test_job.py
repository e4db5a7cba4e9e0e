"""A job as the allocator's requests, against the tape's own peak."""

from __future__ import annotations

import pytest

from advisor.blocks import block_bytes
from advisor.costs import compiled
from advisor.costs.job import Job, Run
from advisor.costs.memory import predict_step_memory
from advisor.costs.micro_batches import MicroBatch
from advisor.costs.moments import predict_evaluation_memory
from advisor.decoders.stack import Stack
from advisor.parameters.trained import trained_shapes
from advisor.specs import ModelSpec, Recipe
from advisor.stacks.early_2024 import Early2024
from advisor.stacks.own_loop import OwnLoop
from advisor.units import MIB

MODEL = ModelSpec(
    name="small",
    architecture="llama",
    hidden_size=512,
    intermediate_size=1024,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=128,
    vocab_size=8192,
)
BATCH = MicroBatch(2, 512)
WIDE = MicroBatch(64, 512)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("stack", [Stack(), Early2024()])
@pytest.mark.parametrize("method", ["full", "lora", "dora"])
def test_a_job_allocates_the_peak_of_the_tape(method: str, checkpointing: bool, stack: Stack) -> None:
    recipe = Recipe(method=method, rank=8, gradient_checkpointing=checkpointing, reentrant=checkpointing, micro_batch=2)
    step = predict_step_memory(MODEL, recipe, *BATCH[:2], "cuda", stack)
    run = Run(Job(MODEL, recipe, [BATCH], stack))
    assert all(run.step([BATCH]) for _ in range(3))
    # blocks may be a little larger than what was asked for
    assert run.peak_allocated_bytes == pytest.approx(step.peak_bytes, rel=0.02)
    assert run.peak_reserved_bytes >= run.peak_allocated_bytes


def test_further_steps_of_one_length_reserve_nothing_new() -> None:
    run = Run(Job(MODEL, Recipe(method="full", micro_batch=2), [BATCH]))
    held = [run.step([BATCH]) and run.reserved_bytes for _ in range(20)]
    assert held[2:] == held[2:3] * 18


def test_accumulation_keeps_gradients_between_micro_steps() -> None:
    def peak(micro_steps: int) -> int:
        recipe = Recipe(method="full", micro_batch=2, gradient_accumulation=micro_steps)
        run = Run(Job(MODEL, recipe, [BATCH]))
        assert all(run.step([BATCH] * micro_steps) for _ in range(3))
        return run.peak_allocated_bytes

    once = predict_step_memory(MODEL, Recipe(method="full", micro_batch=2), *BATCH[:2]).peak_bytes
    more = Recipe(method="full", micro_batch=2, gradient_accumulation=4)
    assert peak(4) - peak(1) == pytest.approx(predict_step_memory(MODEL, more, *BATCH[:2]).peak_bytes - once, rel=0.03)


def test_the_optimizers_temporaries_are_allocated() -> None:
    short = MicroBatch(1, 8)  # the optimizer's step is the peak

    def peak(optimizer: str) -> int:
        recipe = Recipe.model_validate({"method": "full", "optimizer": optimizer})
        run = Run(Job(MODEL, recipe, [short]))
        assert all(run.step([short]) for _ in range(2))
        return run.peak_allocated_bytes

    shapes = trained_shapes(MODEL, Recipe(method="full"))
    copies = sum(block_bytes(p.bytes) * p.times for p in shapes)
    assert peak("adamw_foreach") - peak("adamw") == pytest.approx(copies, abs=MIB)


def test_a_loop_of_ones_own_holds_the_logits_into_the_next_step() -> None:
    recipe = Recipe(method="lora", rank=8, micro_batch=2, gradient_checkpointing=False)
    held = []
    for stack in (Stack(), OwnLoop()):
        run = Run(Job(MODEL, recipe, [BATCH], stack))
        after = [run.step([BATCH]) and int(run.state[compiled.ALLOCATED]) for _ in range(3)]
        assert after[1:] == after[:1] * 2
        held.append(after[0])
    logits = BATCH.rows * BATCH.tokens * MODEL.vocab_size * 2
    assert held[1] - held[0] == pytest.approx(logits, abs=4096)  # and the loss


def test_a_job_fails_for_good_where_the_memory_does_not_suffice() -> None:
    job = Job(MODEL, Recipe(method="lora", rank=8, micro_batch=2), [BATCH])
    run = Run(job, capacity_bytes=Run(job).reserved_bytes + 2 * MIB)
    assert not run.failed
    assert not run.step([BATCH])
    assert not run.step([BATCH])
    assert run.steps == 0


def test_an_evaluation_leaves_nothing_behind_and_its_peak_is_the_tapes() -> None:
    recipe = Recipe(method="full", micro_batch=2, eval_batch=16)
    evaluation = MicroBatch(16, 512)
    run = Run(Job(MODEL, recipe, [BATCH], evaluations=[evaluation]))
    assert all(run.step([BATCH]) for _ in range(3))
    before = int(run.state[compiled.ALLOCATED]), run.peak_allocated_bytes
    assert run.evaluate([evaluation])
    assert int(run.state[compiled.ALLOCATED]) == before[0]
    alone = predict_evaluation_memory(MODEL, recipe, *evaluation[:2]).peak_bytes
    assert run.peak_allocated_bytes == pytest.approx(alone, rel=0.02)
    assert run.peak_allocated_bytes > before[1]
    assert run.step([BATCH])


def test_an_evaluation_fails_where_the_memory_does_not_suffice() -> None:
    job = Job(MODEL, Recipe(method="lora", rank=8, micro_batch=2, eval_batch=64), [BATCH], evaluations=[WIDE])
    roomy = Run(job)
    assert roomy.step([BATCH])
    run = Run(job, capacity_bytes=roomy.peak_reserved_bytes)
    assert run.step([BATCH])
    assert not run.evaluate([WIDE])
    assert run.failed


def test_what_changed_nothing_is_not_played_again_and_makes_no_difference() -> None:
    lengths = [MicroBatch(2, 256 + 32 * (step * 7 % 8)) for step in range(60)]
    recipe = Recipe(method="full", micro_batch=2)
    known, anew = (Run(Job(MODEL, recipe, lengths)) for _ in range(2))
    for batch in lengths:
        anew._idle.clear()
        assert known.step([batch]) == anew.step([batch])
        assert known.reserved_bytes == anew.reserved_bytes
    assert known._idle
    assert known.peak_allocated_bytes == anew.peak_allocated_bytes
