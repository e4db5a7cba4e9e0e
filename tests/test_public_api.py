"""The library's door: exactly these names, each of them there, and nothing loaded before it is used."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import advisor
from advisor.frozen import Frozen

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = {
    "advise",
    "all_gpus",
    "compare",
    "estimate",
    "find_gpus",
    "find_model",
    "model_entries",
    "parameter_count",
    "training_file",
}
ERRORS = {
    "AdvisorError",
    "BadConfig",
    "BadValue",
    "InputError",
    "SourceUnavailable",
    "UnknownName",
    "UnsupportedArchitecture",
}
MODELS = {
    "Advice",
    "Candidate",
    "Estimate",
    "GpuSpec",
    "MemoryEstimate",
    "ModelSpec",
    "Pair",
    "Placement",
    "Reason",
    "Recipe",
    "Recommendation",
    "TimeEstimate",
    "Workload",
}
OTHERS = {"Interval", "__version__"}
HEAVY = {"pydantic", "rich", "click", "torch", "numpy"}


def python(code: str) -> Any:
    """What `code` prints as JSON, in a fresh process that has loaded nothing."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def loaded_by(statement: str) -> set[str]:
    return set(python(f"import json, sys\n{statement}\nprint(json.dumps(sorted({HEAVY!r} & set(sys.modules))))"))


def test_all_holds_exactly_the_public_names() -> None:
    assert len(advisor.__all__) == len(set(advisor.__all__))
    assert set(advisor.__all__) == FUNCTIONS | ERRORS | MODELS | OTHERS


def test_all_is_what_a_star_import_gives() -> None:
    names: dict[str, object] = {}
    exec("from advisor import *", names)
    names.pop("__builtins__")
    assert set(names) == set(advisor.__all__)


@pytest.mark.parametrize(("names", "base"), [(ERRORS, advisor.AdvisorError), (MODELS, Frozen)])
def test_classes_have_their_name_and_base(names: set[str], base: type) -> None:
    for name in sorted(names):
        value = getattr(advisor, name)
        assert issubclass(value, base), name
        assert value.__name__ == name


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_have_their_name(name: str) -> None:
    value = getattr(advisor, name)
    assert callable(value)
    assert not isinstance(value, type | ModuleType)
    assert value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'advice_for_life'"):
        _ = advisor.advice_for_life


@pytest.mark.parametrize("name", ["advise", "estimate"])
def test_functions_stay_functions_beside_the_modules(name: str) -> None:
    for module in ("advisor.advice.advise", "advisor.costs.estimation"):
        assert isinstance(importlib.import_module(module), ModuleType)
    value: Callable[..., object] = getattr(advisor, name)
    assert isinstance(value, FunctionType)


@pytest.mark.process
@pytest.mark.parametrize("first", ["", "import advisor.advice.advise, advisor.costs.estimation"])
def test_functions_whatever_is_imported_first(first: str) -> None:
    code = f"import json\n{first}\nfrom advisor import advise, estimate\n"
    assert python(code + "print(json.dumps([type(advise).__name__, type(estimate).__name__]))") == ["function"] * 2


@pytest.mark.process
def test_the_package_alone_loads_nothing() -> None:
    assert loaded_by("import advisor") == set()


@pytest.mark.process
def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_by("import advisor, click") == {"click"}


def test_the_version_is_that_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{advisor.__version__}"' in text
