"""`trl sft` runs its file: five methods, the forms that TRL reads, three real steps on the CPU each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from advisor.answer import DataForm
from advisor.export.run import Run
from advisor.export.trl import write
from advisor.specs import METHODS, Method, Workload
from tests.export.runs import ran
from tests.export.test_configs import recipe_of, rows_of
from tests.fakes import MODEL

pytestmark = pytest.mark.process

MESSAGES = [{"role": "user", "content": "What comes after one?"}, {"role": "assistant", "content": "Two."}]
FORMS: dict[DataForm, tuple[dict[str, Any], str]] = {
    "text": ({"text": "One, two. "}, "One, two. </s>"),
    "messages": ({"messages": MESSAGES}, "Two.</s>"),
    "prompt_completion": ({"prompt": "One, ", "completion": "two."}, "two.</s>"),
}
"""By form, a row, and what of it is to be learned."""

CASES: list[tuple[Method, DataForm]] = [("full", form) for form in FORMS] + [("qdora", form) for form in FORMS]
CASES += [(method, "prompt_completion") for method in METHODS if method not in ("full", "qdora")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, dict[str, Any]]:
    """What each run left."""
    for name in ("trl", "bitsandbytes"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("trl")
    jobs = {}
    for method, form in CASES:
        row, _ = FORMS[form]
        rows = folder / f"{form}.jsonl"
        rows.write_text((json.dumps(row | {"unused": 1}) + "\n") * 8)
        recipe = recipe_of("trl", method, micro_batch=2, rank=4, alpha=12.0)
        run = Run(str(folder / "model"), MODEL, recipe, Workload(seq_len=64), rows_of(form, path=str(rows)))
        config = folder / f"{method}-{form}.yaml"
        here = write(run).text.replace('output_dir: "out"', f"output_dir: {json.dumps(str(folder / config.stem))}")
        config.write_text(here + "use_cpu: true\nmax_steps: 3\nlogging_steps: 1\n")
        jobs[method, form] = {"config": str(config), "model": str(folder / "model")}
    return ran("tests.export.trl_runs", jobs, folder)


@pytest.mark.parametrize(("method", "form"), CASES)
def test_trl_trains_what_was_asked(runs: dict[Any, dict[str, Any]], method: Method, form: DataForm) -> None:
    done = runs[method, form]
    assert done["steps"] == 3
    assert done["loss_finite"]
    assert done["end_with_eos"]
    assert done["learned"].replace(" ", "") == FORMS[form][1].replace(" ", "")
    assert done["alpha"] == (None if method == "full" else 12)
    assert {"tokenizer.json", "model.safetensors" if method == "full" else "adapter_model.safetensors"} <= set(
        done["saved"]
    )
