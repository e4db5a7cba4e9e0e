from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from advisor.specs import Recipe
from calibrate.worker import dryrun
from calibrate.worker.trace_worker import answer

ROOT = Path(__file__).resolve().parents[3]


def job(config: dict[str, Any], **knobs: Any) -> dict[str, Any]:
    recipe = Recipe(method="lora", rank=4, **knobs)
    return {"config": config, "recipe": recipe.model_dump(mode="json"), "batch": 1, "seq_len": 16}


def test_refusal_is_an_answer(tiny: dict[str, dict[str, Any]]) -> None:
    assert "flash" in answer(job(tiny["llama"], attention="flash"))["refused"]


def test_facts_and_shapes_are_answers_too(tiny: dict[str, dict[str, Any]]) -> None:
    facts = answer({"config": tiny["gemma2"]})["facts"]
    assert (facts["default_attention"], facts["kind"]) == ("eager", "AutoModelForCausalLM")
    assert facts["breaks"] == [4096]  # Gemma 2's window
    asked = {key: value for key, value in job(tiny["llama"]).items() if key in ("config", "recipe")}
    found = answer(asked | {"shapes": [[1, 8], [2, 8]]})["shapes"]
    assert [(step["batch"], step["seq_len"]) for step in found["steps"]] == [(1, 8), (2, 8)]
    assert "refused" in answer({"config": {"model_type": "no_such_model"}})


def test_error_of_a_library_is_an_answer(tiny: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Expected\nBF16")

    monkeypatch.setattr(dryrun, "trace_step", fail)
    assert answer(job(tiny["llama"])) == {"failed": "RuntimeError: Expected BF16"}


def test_answers_alone_on_standard_output(tiny: dict[str, dict[str, Any]]) -> None:
    """Two jobs, of which the first is refused, in one process; what libraries print stays away."""
    jobs = [job(tiny["llama"], attention="flash"), job(tiny["llama"])]
    done = subprocess.run(
        [sys.executable, "-m", "calibrate.worker.trace_worker"],
        cwd=ROOT,
        input="".join(json.dumps(j) + "\n" for j in jobs),
        capture_output=True,
        text=True,
        check=True,
    )
    hello, refused, traced = (json.loads(line) for line in done.stdout.splitlines())
    assert hello["environment"]["torch"].startswith("2.")
    assert list(refused) == ["refused"]
    assert traced["trace"]["model_type"] == "llama"
