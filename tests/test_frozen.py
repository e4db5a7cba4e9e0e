"""Frozen classes: closed, immutable, and of one mind with pydantic about what is allowed."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from advisor import answer, specs
from advisor.costs import device
from advisor.errors import BadValue, InputError, UnknownName
from advisor.frozen import Frozen, Pattern, Range, annotations_of
from advisor.interval import Interval

CLASSES = sorted(
    {
        found
        for module in (specs, answer, device)
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Frozen) and found is not Frozen
    },
    key=lambda found: found.__name__,
)


class Inner(Frozen):
    size: Annotated[int, Range(1, 10)]


class Outer(Frozen):
    """One field of each kind that the fast lane knows, and one that it leaves to pydantic."""

    word: Literal["a", "b"] = "a"
    number: Literal[1] = 1
    whole: Annotated[int, Range(-2, 5)] = 0
    share: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.5
    rate: Annotated[float, Range(0)] = 0.0
    code: Annotated[str, Pattern(r"\d\.\d|")] = ""
    flag: bool = False
    text: str = ""
    names: tuple[str, ...] = ()
    pair: tuple[float, int] = (0.0, 0)
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    span: Interval = Interval(0.0, 0.0, 0.0)
    table: dict[str, int] | None = None


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-4, 12),
    st.sampled_from([10**30, -(10**30)]),
    st.floats(-1, 2),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.0, 1.0]),
    st.sampled_from(["a", "b", "c", "", "1.2", "1.2\n", "1", "0.5", "true"]),
    st.sampled_from([(), (1,), ("a",), ["a"], (0.5, 1), (1, 1), [0.5, 1], (0.5, 1, 2), (Inner(size=2),)]),
    st.sampled_from([Inner(size=1), {"size": 3}, {"size": 11}, {"size": 3, "x": 1}, {"a": 1}, {"a": "b"}]),
    st.sampled_from([Interval(0.0, 1.0, 2.0), {"low": 0, "likely": 1, "high": 2}, (0.0, 1.0, 2.0)]),
)


def made(make: Any, values: dict[str, Any]) -> list[Any] | str:
    """The values of what `make` makes, with their types; or that it refuses."""
    try:
        return [(name, type(value), repr(value)) for name, value in make(values)]
    except (ValidationError, InputError):
        return "refused"


@given(st.dictionaries(st.sampled_from([*Outer.model_fields, "stray"]), VALUES, max_size=4))
@example({"whole": True})
@example({"rate": float("inf")})
@example({"code": "1.2\n"})
@example({"inner": {"size": 3, "x": 1}})
@example({"number": True})
def test_construction_allows_what_pydantic_allows(values: dict[str, Any]) -> None:
    assert made(lambda v: Outer(**v), values) == made(TypeAdapter(Outer).validate_python, values)


@pytest.mark.process
def test_what_is_right_is_made_without_pydantic() -> None:
    line = "import sys; import advisor.specs as s; s.Recipe(method={!r}); print('pydantic' in sys.modules)"
    for method, loaded in (("lora", "False"), ("lorra", "")):
        done = subprocess.run([sys.executable, "-c", line.format(method)], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == loaded, done.stderr
        assert ("method of Recipe is 'lorra', but must be 'full', 'lora'" in done.stderr) == (loaded == "")


@pytest.mark.parametrize(
    "values",
    [{}, {"size": 0}, {"size": 11}, {"size": "many"}, {"size": 1.5}, {"size": None}, {"size": 1, "sise": 2}],
)
def test_wrong_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Inner(**values)
    with pytest.raises(InputError):
        Inner.model_validate(values)
    with pytest.raises(InputError):
        Inner(size=1).model_copy(update=values or {"other": 1})


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Inner(), InputError, "size of Inner is missing; give it"),  # type: ignore[call-arg]
        (lambda: Inner(size=11), BadValue, "size of Inner is 11, but must be less than or equal to 10"),
        (lambda: Inner(size=1, sise=1), UnknownName, "unknown field of Inner 'sise'; did you mean size?"),  # type: ignore[call-arg]
        (lambda: Outer(inner={"size": "x"}), BadValue, "inner.size of Outer is 'x', but must be a valid integer"),  # type: ignore[arg-type]
        (lambda: Inner.model_validate([1]), BadValue, "Inner is [1], but must be a mapping"),  # type: ignore[arg-type]
        (lambda: Inner(size=1).model_copy(update=[1]), BadValue, "Inner is [1], but must be a mapping"),  # type: ignore[arg-type]
        (lambda: Outer(rate=10**400), BadValue, "rate of Outer is 1000"),
        (lambda: Inner.model_validate_json("{"), BadValue, "Inner is '{': Invalid JSON"),
        (
            lambda: specs.Workload(seq_len=10, mean_seq_len=512),
            InputError,
            "Workload: mean_seq_len is 512, but must be",
        ),
        (
            lambda: specs.Workload.model_validate_json('{"seq_len": 10, "mean_seq_len": 11}'),
            InputError,
            "Workload: mean_seq_len is 11, but must be at most seq_len, which is 10",
        ),
    ],
)
def test_a_refusal_is_one_line_of_our_own(make: Any, kind: type[InputError], message: str) -> None:
    with pytest.raises(InputError) as refused:
        make()
    assert type(refused.value) is kind
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_pydantic_converts_what_is_nearly_right() -> None:
    assert Outer(share=0.25, names=["x", "y"], inner={"size": 2}) == Outer(  # type: ignore[arg-type]
        share=0.25, names=("x", "y"), inner=Inner(size=2)
    )
    assert type(Outer(rate=3).rate) is float


def test_nothing_changes_once_it_is_made() -> None:
    one = Inner(size=1)
    with pytest.raises(AttributeError, match="frozen"):
        one.size = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del one.size
    assert one.size == 1
    other = one.model_copy(update={"size": 2})
    assert (one.size, other.size) == (1, 2)
    assert Outer(rate=1.0).model_copy(update={"names": ["x"]}).names == ("x",)  # converted, as a new one is


def test_a_copy_is_checked_as_a_whole() -> None:
    job = specs.Workload(seq_len=512, mean_seq_len=256)
    with pytest.raises(InputError, match="mean_seq_len is 256, but must be at most seq_len, which is 128"):
        job.model_copy(update={"seq_len": 128})


def test_equality_hash_and_text_follow_the_values() -> None:
    assert Inner(size=3) == Inner(size=3) != Inner(size=4)
    assert len({Inner(size=3), Inner(size=3), Inner(size=4)}) == 2
    assert Outer() != Inner(size=3)
    assert repr(Inner(size=3)) == "Inner(size=3)"
    assert dict(Inner(size=3)) == {"size": 3}


def test_copies_and_pickles_are_equal() -> None:
    one = Outer(inner=Inner(size=3), names=("a",))
    assert copy.deepcopy(one) == one
    recipe = specs.Recipe(method="dora")
    assert hash(recipe) == hash(specs.Recipe(method="dora"))
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert recipe.__getstate__() == dict(recipe)  # a hash of texts is another in each process


def test_json_returns_what_went_in() -> None:
    one = Outer(inner=Inner(size=3), names=("a",), span=Interval(0.0, 1.5, 1e300), table={"k": 1})
    assert Outer.model_validate_json(one.model_dump_json()) == one
    assert Outer.model_validate(one.model_dump(mode="json")) == one
    assert one.model_dump()["inner"] == {"size": 3}
    with pytest.raises(UnknownName, match="stray"):
        Outer.model_validate_json('{"stray": 1}')


@pytest.mark.parametrize("spec", CLASSES, ids=lambda spec: spec.__name__)
def test_defaults_are_allowed_values(spec: type[Frozen]) -> None:
    """Nothing checks a default when an object is made."""
    for name, annotation in annotations_of(spec).items():
        if hasattr(spec, name):
            default = getattr(spec, name)
            read = TypeAdapter(annotation).validate_python(default)
            assert (type(read), read) == (type(default), default), name


def test_every_spec_was_looked_at() -> None:
    names = {spec.__name__ for spec in CLASSES}
    assert {"ModelSpec", "GpuSpec", "Workload", "Recipe", "Placement", "Estimate", "Advice", "DeviceProfile"} <= names


def test_a_default_that_depends_on_another_field() -> None:
    assert specs.Workload(seq_len=256).mean_seq_len == 256
    assert specs.Workload.model_validate_json('{"seq_len": 256}').mean_seq_len == 256
    assert specs.Workload(seq_len=4096).mean_seq_len == 512
    with pytest.raises(InputError, match="mean_seq_len is 100, but must be at most seq_len, which is 10"):
        specs.Workload(seq_len=10, mean_seq_len=100)
