"""A made-up profile, small enough to be replayed by hand; how it is found, and every way in which it is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.advice.advise import advise
from advisor.catalog import traced_models
from advisor.catalog.models import find_model
from advisor.cli import main
from advisor.costs.traced import (
    CLEARED,
    COMPLETE,
    GIVEN_BACK,
    GRADIENT,
    KEPT,
    MADE,
    NotTraced,
    traced_parameter_count,
    traced_step_memory,
)
from advisor.errors import AdvisorError, UnsupportedArchitecture
from advisor.files.checked import FOLDER_VARIABLE, LIBRARIES
from advisor.files.traced import (
    BadProfile,
    config_hash,
    pack,
    profile_path,
    profile_text,
    read_profile,
    structure_of,
    unpack,
)
from advisor.specs import METHODS, QUANTIZED_METHODS, Recipe, TracedModel
from advisor.terms import TermName

CONFIG: dict[str, Any] = {"model_type": "odd_net", "hidden_size": 64}
FULL = Recipe(method="full", gradient_checkpointing=False)
KIB = 1024


def regime(batch: tuple[int, int]) -> dict[str, Any]:
    """Weights of 8 KiB; forward keeps 2 KiB a token; backward makes a gradient as large as the weights."""
    slots = [[[8 * KIB, 0]], [[2 * KIB, 3]], [[8, 3]]]
    events = [1 * 4 + MADE, 0 * 4 + MADE, 1 * 4 + GIVEN_BACK, 0 * 4 + COMPLETE, 0 * 4 + CLEARED]
    return {
        "batch": batch,
        "length": [4, 600],
        "slots": slots,
        "categories": [GRADIENT, KEPT, KEPT],
        "static": {"base weights": [[0, 1]], "batch": [[2, 1]]},
        "events": pack(events),
        "marks": [1, 4],
        "flop": [[10**9, 3]],
        "moved": [[10**6, 3]],
        "launches": 100,
        "peak_op": "backward, mm in the model",
    }


def profile(**changes: Any) -> dict[str, Any]:
    structure = {
        "recipe": structure_of(FULL),
        "rank": 0,
        "unfused": False,
        "trained": [[[[64, False], [64, False]], "bfloat16", 1]],
        "regimes": [regime((1, 1)), regime((2, 1000))],
    }
    model = {
        "name": "odd",
        "config_sha256": config_hash(CONFIG),
        "architecture": "odd_net",
        "parameters": 4096,
        "kind": "AutoModelForMaskedLM",
        "max_position_embeddings": 600,
        "default_attention": "sdpa",
        "breaks": [],
    }
    environment = dict.fromkeys((*LIBRARIES, "python", "platform"), "1")
    return {"model": model, "environment": environment, "structures": [structure]} | changes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of an architecture that nobody knows, with a profile; none of the libraries is installed."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "data"))
    monkeypatch.setattr(traced_models, "installed_version", lambda library: None)
    model = tmp_path / "odd"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    path = profile_path(str(model / "config.json"))
    path.parent.mkdir(parents=True)
    path.write_text(profile_text(profile()))
    return model


def model_of(folder: Path) -> TracedModel:
    return traced_models.find_traced(str(folder), UnsupportedArchitecture("not known"))


def test_peak_is_replayed_at_the_shape(folder: Path) -> None:
    model = model_of(folder)
    for batch, length in ((1, 10), (3, 512)):
        found = traced_step_memory(model, FULL.model_copy(update={"micro_batch": batch}), length)
        kept, rows = 2 * KIB * batch * length, -(-8 * batch * length // 512) * 512
        assert found.static == {
            "base weights": 8 * KIB,
            "batch": rows,
            "optimizer states": 16 * KIB,
            "optimizer step counters": 512,
        }
        assert found.moving == {"saved activations": kept, "temporaries": 0, "gradients": 8 * KIB}
        assert found.peak_bytes == sum(found.static.values()) + kept + 8 * KIB
        assert found.after_forward_bytes == sum(found.static.values()) + kept
        assert found.peak_at == "backward, mm in the model"


def test_accumulation_holds_one_gradient_more_until_it_is_added(folder: Path) -> None:
    model = model_of(folder)
    once = traced_step_memory(model, FULL, 10)
    often = traced_step_memory(model, FULL.model_copy(update={"gradient_accumulation": 4}), 10)
    assert often.peak_bytes == once.peak_bytes + 8 * KIB
    assert often.after_backward_bytes == once.after_backward_bytes


def test_every_optimizer_follows_from_the_trained_shapes(folder: Path) -> None:
    model = model_of(folder)
    states = {
        name: traced_step_memory(model, FULL.model_copy(update={"optimizer": name}), 10).static.get(
            "optimizer states", 0
        )
        for name in ("sgd", "adamw", "adafactor", "adamw_8bit")
    }
    assert states == {"sgd": 0, "adamw": 16 * KIB, "adafactor": 2 * 512, "adamw_8bit": 2 * 4096 + 2 * 512 + 2 * 1024}
    foreach = traced_step_memory(model, FULL.model_copy(update={"optimizer": "adamw_foreach"}), 10)
    assert foreach.phase_peaks["optimizer"] == sum(foreach.static.values()) + 16 * KIB
    assert traced_parameter_count(model, FULL, 10) == 4096


def test_lengths_and_recipes_beyond_the_trace_are_refused(folder: Path) -> None:
    model = model_of(folder)
    with pytest.raises(NotTraced, match=r"1 x 601 tokens \(traced: 4 to 600\).*--seq-len 601"):
        traced_step_memory(model, FULL, 601)
    with pytest.raises(NotTraced, match="--attention eager"):
        traced_step_memory(model, FULL.model_copy(update={"attention": "eager"}), 10)


def test_advise_answers_from_the_profile_and_says_so(folder: Path) -> None:
    answer = advise(str(folder), "24GB", 1000)
    assert [row.method for row in answer.candidates] == ["full"]
    row = answer.candidate("full")
    assert (row.evidence.rung, row.verdict, row.recipe.gradient_checkpointing) == ("trace", "fits", False)
    assert answer.parameters == 4096
    assert answer.workload.seq_len == 600
    notes = [note.text for note in answer.notes if note.code == "trace"]
    assert "comes from a trace" in notes[0]
    assert "lora, dora, qlora, qdora" in notes[1]
    assert row.time is not None
    assert row.time.total_s.high > 5 * row.time.total_s.low
    assert json.loads(answer.model_dump_json())["model"]["kind"] == "AutoModelForMaskedLM"


def test_advise_prints_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--model", str(folder), "--gpu", "24GB"])
    printed = capsys.readouterr()
    assert (stop.value.code, printed.err) == (0, "")
    assert "[trace]" in printed.out
    assert "AutoModelForMaskedLM" in printed.out
    assert max(len(line) for line in printed.out.splitlines()) <= 80


def test_nothing_fits_still_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = profile()
    huge["structures"][0]["regimes"] = [regime((1, 1)) | {"slots": [[[2**42, 0]], [[2 * KIB, 3]], [[8, 3]]]}]
    profile_path(str(folder / "config.json")).write_text(profile_text(huge))
    with pytest.raises(SystemExit) as stop:
        main(["--model", str(folder), "--gpu", "24GB", "--batch-size", "1"])
    assert stop.value.code == 3
    assert "Nothing fits" in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("priority", ["quality", "speed", "memory"])
def test_any_part_of_the_methods_is_enough(folder: Path, count: int, priority: str) -> None:
    """Rules compare methods: none may stumble over one that was not traced."""
    for methods in itertools.combinations(METHODS, count):
        structures = []
        for method in methods:
            recipe = Recipe(
                method=method,
                quant="nf4" if method in QUANTIZED_METHODS else "none",
                gradient_checkpointing=method != "full",
            )
            structures.append(profile()["structures"][0] | {"recipe": structure_of(recipe)})
        profile_path(str(folder / "config.json")).write_text(profile_text(profile(structures=structures)))
        for asked in (None, *methods):
            answer = advise(str(folder), "24GB", 1000, priority=priority, method=asked)
            assert answer.recommendation is not None
            assert {row.method for row in answer.candidates} == ({asked} if asked else set(methods))


def test_method_that_was_not_traced(folder: Path) -> None:
    with pytest.raises(NotTraced, match="this recipe of qlora"):
        advise(str(folder), "24GB", method="qlora")


def test_never_traced_is_the_formulas_own_refusal(folder: Path) -> None:
    profile_path(str(folder / "config.json")).unlink()
    with pytest.raises(UnsupportedArchitecture, match="calibrate --dry-run"):
        advise(str(folder), "24GB")
    with pytest.raises(UnsupportedArchitecture):
        find_model(str(folder))


def _cut(path: Path) -> None:
    path.write_text(path.read_text()[:-40])


def _other_number(path: Path) -> None:
    path.write_text(path.read_text().replace('"launches":100', '"launches":101'))


def _other_version(path: Path) -> None:
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 99'))


def _other_library(path: Path) -> None:
    path.write_text(profile_text(profile(environment=dict.fromkeys(LIBRARIES, "0"))))
    traced_models.installed_version = lambda library: "1"  # undone by the fixture


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_text("{"), "not JSON"),
        (lambda path: path.write_text("[]"), "has version None"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "not JSON"),
        (lambda path: path.write_text('{"schema_version": 2, "profile": 3, "checksum": ""}'), "checksum"),
        (_cut, "not JSON"),
        (_other_number, "checksum differs"),
        (_other_version, "version 99"),
        (_other_library, "traced with torch 0, but 1 is installed"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
)
def test_profile_that_cannot_be_used_is_one_line(
    folder: Path, damage: Callable[[Path], object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(profile_path(str(folder / "config.json")))
    with pytest.raises(SystemExit) as stop:
        main(["--model", str(folder), "--gpu", "24GB"])
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert words in printed.err
    assert f"calibrate --dry-run --retrace --model {folder}" in printed.err


def test_model_that_changed_is_refused(folder: Path) -> None:
    noted = CONFIG | {"transformers_version": "9", "_name_or_path": "elsewhere"}
    (folder / "config.json").write_text(json.dumps(noted))
    assert model_of(folder).architecture == "odd_net"
    (folder / "config.json").write_text(json.dumps(CONFIG | {"hidden_size": 65}))
    with pytest.raises(BadProfile, match=r"changed since it was traced.*--retrace"):
        advise(str(folder), "24GB")


def test_events_survive_packing() -> None:
    numbers = [0, 1, 2**32 - 1, *range(500)] * 3
    assert list(unpack(pack(numbers))) == numbers
    for text in ("no base 85 \x00", pack([1])[:-3]):
        with pytest.raises(BadProfile):
            unpack(text)


def test_what_means_nothing_for_a_method_is_no_key() -> None:
    assert structure_of(FULL) == structure_of(FULL.model_copy(update={"double_quant": False, "dropout": 0.1}))
    lora = Recipe(method="lora")
    assert structure_of(lora) != structure_of(lora.model_copy(update={"dropout": 0.1}))
    assert structure_of(lora) == structure_of(lora.model_copy(update={"rank": 99, "optimizer": "sgd"}))


def test_errors_are_the_packages_own() -> None:
    assert issubclass(NotTraced, AdvisorError)
    with pytest.raises(BadProfile):
        read_profile(Path("/nowhere/profile.json"), "x")


def test_a_profile_with_an_older_name_of_a_term_is_read(folder: Path) -> None:
    found = profile()
    for one in found["structures"][0]["regimes"]:
        one["static"]["quantization constants"] = [[0, 1]]
    profile_path(str(folder / "config.json")).write_text(profile_text(found))
    static = traced_step_memory(model_of(folder), FULL, 10).static
    assert static[TermName.QUANTIZATION_CONSTANTS] == static[TermName.BASE_WEIGHTS] == 8 * KIB
