"""--simulate: the recommended plan's memory from a replay, and every way in which it is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from advisor.advice import simulation
from advisor.advice.advise import advise
from advisor.advice.simulation import Simulating, check
from advisor.answer import Advice, Simulation
from advisor.cli import cli
from advisor.errors import BadValue, InputError
from advisor.interval import Interval
from advisor.units import GIB
from tests.costs.test_simulation import MODEL

FEW = Simulating(steps=6)
ASKED: dict[str, Any] = {
    "method": "lora",
    "rank": 8,
    "micro_batch": 2,
    "batch_size": 2,
    "seq_len": 512,
    "mean_seq_len": 200,
    "gradient_checkpointing": True,
}


@pytest.fixture(scope="module")
def answer() -> Advice:
    return advise(MODEL, "24GB", simulate=FEW, **ASKED)


def test_the_recommended_plans_memory_is_that_of_the_replay(answer: Advice) -> None:
    found, plain = answer.simulation, advise(MODEL, "24GB", **ASKED)
    assert found is not None
    assert plain.simulation is None
    row, before = answer.candidate("lora"), plain.candidate("lora")
    assert (row.memory.needed_bytes, row.memory.peak_reserved_bytes) == (found.needed_bytes, found.reserved_bytes)
    assert row.memory.peak_allocated_bytes == before.memory.peak_allocated_bytes
    assert sum(term.bytes for term in row.memory.terms) == round(row.memory.needed_bytes.likely)
    assert "replay of 6 steps" in row.evidence.memory
    assert [one.code for one in answer.notes].count("simulate") == 1
    assert (found.steps, found.orders, found.seed, found.out_of_memory_chance) == (6, 5, 0, 0.0)


def test_the_same_seed_gives_the_same_answer(answer: Advice) -> None:
    assert advise(MODEL, "24GB", simulate=FEW, **ASKED) == answer


def test_remedies_name_their_flags(answer: Advice) -> None:
    assert answer.simulation is not None
    flags = [one.flags[0] if one.flags else "" for one in answer.simulation.remedies]
    assert flags == ["--group-by-length", "--pad-to-multiple-of 256", "", "--expandable-segments"]
    assert all(one.flags.count(one.flags[0]) == 1 for one in answer.simulation.remedies if one.flags)


def test_one_length_has_nothing_to_remedy() -> None:
    found = advise(MODEL, "24GB", simulate=FEW, **{**ASKED, "mean_seq_len": 512}).simulation
    assert found is not None
    assert (found.orders, found.remedies) == (1, ())


def test_a_job_of_few_steps_is_replayed_as_a_whole() -> None:
    found = advise(MODEL, "24GB", examples=8, simulate=FEW, **ASKED).simulation
    assert found is not None
    assert found.steps == 4


def test_progress_is_told_and_never_beyond_the_end() -> None:
    told: list[tuple[int, int]] = []
    advise(MODEL, "24GB", simulate=FEW, progress=lambda done, total: told.append((done, total)), **ASKED)
    assert len(told) > 6
    assert all(0 < done <= total for done, total in told)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (Simulating(steps=-1), "--simulate-steps is -1, but must be a whole number from 0 to 100,000"),
        (Simulating(seed=-1), "--seed is -1, but must be a whole number from 0 to 4,294,967,296"),
        (Simulating(seed=True), "--seed is True, but must be"),
    ],
)
def test_numbers_out_of_range_are_refused(asked: Simulating, text: str) -> None:
    with pytest.raises(BadValue, match="^" + text):
        check(asked, MODEL)


def test_a_traced_model_is_refused_in_one_line() -> None:
    class Traced:
        name = "odd-1b"

    with pytest.raises(BadValue, match=r"^--simulate is 'odd-1b': this model was only traced, .* leave it out$"):
        check(FEW, Traced())


@pytest.mark.parametrize("flag", ["--seed", "--simulate-steps"])
def test_flags_without_simulate_are_refused(flag: str) -> None:
    found = CliRunner().invoke(cli, ["--model", "llama-8b", "--gpu", "24GB", flag, "3"], standalone_mode=False)
    assert str(found.exception) == f"{flag} has no effect without --simulate"


def test_the_command_prints_the_replay_as_json() -> None:
    question = "--model qwen2.5-0.5b --gpu 24GB --method lora --micro-batch 1 --batch-size 1 --seq-len 256"
    found = CliRunner().invoke(cli, f"{question} --json --simulate --simulate-steps 2 --seed 7")
    replay = json.loads(found.stdout)["simulation"]
    assert (replay["steps"], replay["seed"]) == (2, 7)
    assert replay["needed_bytes"]["likely"] > 0


def test_a_chance_to_fail_is_warned_of_and_what_is_reserved_beyond_the_card_is_explained() -> None:
    found = Simulation(
        steps=10,
        seed=0,
        orders=3,
        reserved_bytes=Interval(30.0 * GIB, 40.0 * GIB, 50.0 * GIB),
        needed_bytes=Interval(22.0 * GIB, 23.0 * GIB, 25.0 * GIB),
        out_of_memory_chance=0.25,
    )
    warning = simulation._warning(found, 24 * GIB)
    assert warning is not None
    assert "with a chance of 25%: it needs 22.0 to 25.0 of 24.0 GiB" in warning.text
    assert simulation._warning(found.model_copy(update={"out_of_memory_chance": 0.01}), 24 * GIB) is None
    assert "empties its cache" in simulation._note(found, 24 * GIB).text
    assert "empties its cache" not in simulation._note(found, 48 * GIB).text


def test_without_numba_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "COMPILED", False)
    with pytest.raises(InputError, match=r"--simulate needs numba: pip install 'finetune-advisor\[simulate\]'"):
        advise(MODEL, "24GB", simulate=FEW, **ASKED)
