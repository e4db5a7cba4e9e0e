"""The table of architectures: complete, sourced, and the only place that tells architectures apart by name."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor import architectures
from advisor.architectures import ARCHITECTURES, Architecture, architecture_of
from advisor.architectures.traced import DIFFERS, EXACT, untraced_code
from advisor.catalog import families, find_model, model_entries
from advisor.catalog.families import all_families
from advisor.decoders.layers import LAYERS
from advisor.decoders.mixtures import MIXTURES
from advisor.decoders.norms import NORMS, WRITTEN_OUT, Norm
from advisor.decoders.sigmoid_mixtures import SIGMOID_MIXTURES
from advisor.errors import UnknownName, UnsupportedArchitecture
from advisor.libraries import MIRRORED, TRACED
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(architectures.__file__).parent
OF_PUBLISHED_ROWS = {"lit-gpt", "qwen"}
"""Models of other code, which only `advisor.validation` knows."""

BY_NAME = (TABLE, ROOT / "advisor/catalog")
"""Where an architecture's name decides: the table, and how its config.json is read."""


def python_files(*folders: str) -> list[Path]:
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in files if not any(path.is_relative_to(place) for place in BY_NAME)]


def strings(node: ast.AST) -> set[str]:
    """The string constants in an expression."""
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def comparisons_with_a_name(source: str) -> Iterator[str]:
    """Expressions that compare something with the name of an architecture, or ask whether a name begins so."""
    names = set(ARCHITECTURES)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare | ast.MatchValue):
            found = strings(node) & names
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and "with" in node.func.attr:
            found = {s for part in node.args for s in strings(part) if len(s) > 2 and any(s in name for name in names)}
        else:
            continue
        if found:
            yield ast.unparse(node)


def other_uses_of_a_name(source: str, of_a_trainer: bool = False) -> Iterator[str]:
    """What is done with `x.architecture` besides asking for its row, handing it on by keyword, or printing it.

    Code of a trainer may ask the trainer's own list of models, a constant, as well.
    """
    for parent in ast.walk(ast.parse(source)):
        asks = isinstance(parent, ast.Call) and getattr(parent.func, "id", "") == "architecture_of"
        for child in ast.iter_child_nodes(parent):
            named = isinstance(child, ast.Attribute) and child.attr == "architecture"
            listed = of_a_trainer and isinstance(parent, ast.Compare | ast.Call) and _asks_a_list(parent)
            if named and not (asks or listed) and not isinstance(parent, ast.keyword | ast.FormattedValue):
                yield ast.unparse(parent)


def _asks_a_list(node: ast.Compare | ast.Call) -> bool:
    """`x in CONSTANT`, or `CONSTANT.get(x, ...)`."""
    if isinstance(node, ast.Compare):
        constant: ast.expr = node.comparators[0]
        asks = isinstance(node.ops[0], ast.In | ast.NotIn)
    else:
        asks = isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        constant = node.func.value if isinstance(node.func, ast.Attribute) else node.func
    return asks and isinstance(constant, ast.Name) and constant.id.isupper()


def unsourced_fields(source: str) -> Iterator[str]:
    """Fields of rows without a comment that names a source file, beside them or on the line above."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    lines = source.splitlines()
    for name, row in rows(source):
        for field in row.keywords:
            above = field.lineno - 1
            own_line = lines[above - 1].strip().startswith("#")
            beside = comments.get(field.lineno, "") or (comments.get(above, "") if own_line else "")
            if ".py" not in beside:
                yield f"{name}.{field.arg}"


def rows(source: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                assert isinstance(key, ast.Constant)
                assert isinstance(value, ast.Call)
                yield key.value, value


def test_every_family_has_a_row_and_every_row_a_family() -> None:
    assert set(ARCHITECTURES) - OF_PUBLISHED_ROWS == set(all_families())
    assert set(ARCHITECTURES) >= OF_PUBLISHED_ROWS
    assert list(ARCHITECTURES) == sorted(ARCHITECTURES)


def test_no_family_stands_in_two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(all_families()) > 50
    monkeypatch.setitem(families.COMMON, "gemma", families.COMMON["llama"])
    with pytest.raises(ValueError, match="in two files: gemma"):
        all_families()


def test_a_family_is_found_in_whichever_file_it_is() -> None:
    assert all(families.find_family(name) is family for name, family in all_families().items())
    assert families.find_family("llama5") is None


@pytest.mark.parametrize("name", ["", "llama5", "Llama", "falcon "])
def test_an_unknown_architecture_is_an_error(name: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=f"architecture '{name}'"):
        architecture_of(name)


def test_llama_is_the_default() -> None:
    assert architecture_of("llama") == Architecture()


def test_every_layer_and_mixture_has_its_code() -> None:
    assert {row.layer for row in ARCHITECTURES.values()} == set(LAYERS)
    assert {row.mixture for row in ARCHITECTURES.values()} == MIXTURES.keys() | SIGMOID_MIXTURES.keys()


@pytest.mark.parametrize("kind", NORMS)
def test_every_norm_has_its_code(kind: str) -> None:
    t = Tape("cpu")
    out = Norm(kind, 8, "bfloat16", trained=True, has_bias=False, code=WRITTEN_OUT.get(kind))(
        t, Tensor((1, 2, 8), "bfloat16")
    )
    assert (out.shape, out.dtype) == ((1, 2, 8), "bfloat16")
    assert len(t.kernels) >= 1


def test_norms_are_those_that_families_have() -> None:
    used = {find_model(entry.name).norm for entry in model_entries()}
    assert used <= set(NORMS)
    assert len(used) >= 6
    with pytest.raises(UnknownName, match="norm 'rsm'; did you mean rms"):
        Norm("rsm", 8, "bfloat16", trained=True, has_bias=False)


def test_rows_say_only_what_differs_and_from_where() -> None:
    sources = [(TABLE / name).read_text() for name in ("dense.py", "mixtures.py", "sigmoid_mixtures.py", "encoders.py")]
    found = dict(row for source in sources for row in rows(source))
    assert set(found) == set(ARCHITECTURES)
    assert sum(len(list(rows(source))) for source in sources) == len(ARCHITECTURES)
    defaults = Architecture()
    idle = [
        f"{name}.{field.arg}"
        for name, row in found.items()
        for field in row.keywords
        if getattr(ARCHITECTURES[name], str(field.arg)) == getattr(defaults, str(field.arg))
    ]
    assert idle == []
    assert [field for source in sources for field in unsourced_fields(source)] == []


def test_every_field_is_some_rows_and_read_somewhere() -> None:
    code = "".join(path.read_text() for path in [*python_files("advisor", "calibrate"), *BY_NAME[1].rglob("*.py")])
    defaults = Architecture()
    for field in Architecture._fields:
        assert any(getattr(row, field) != getattr(defaults, field) for row in ARCHITECTURES.values()), field
        assert f".{field}" in code, field


def test_a_row_without_its_source_is_found() -> None:
    source = 'ARCHITECTURES: dict[str, A] = {"x": A(\n  a=1,  # x.py: a\n  b=2,\n  c=3,  # so\n)}'
    assert list(unsourced_fields(source)) == ["x.b", "x.c"]


def test_no_other_file_compares_an_architectures_name() -> None:
    files = python_files("advisor", "calibrate", "benchmarks")
    assert len(files) >= 150
    found = {f"{path}: {hit}" for path in files for hit in comparisons_with_a_name(path.read_text())}
    for path in python_files("advisor"):
        hits = other_uses_of_a_name(path.read_text(), of_a_trainer=path.parent.name in ("stacks", "export"))
        found |= {f"{path}: {hit}" for hit in hits}
    assert found == set()


@pytest.mark.parametrize(
    "line",
    [
        'falcon = m.architecture == "falcon"',
        'if name in ("phi3", "falcon"): pass',
        'x = name.startswith(("gemma3", "olmo3"))',
        'x = m.architecture.startswith("ernie")',
        'match name:\n    case "gptj": pass',
    ],
)
def test_a_comparison_is_found(line: str) -> None:
    assert list(comparisons_with_a_name(line))


@pytest.mark.parametrize(
    "line",
    ["x = m.architecture in BALANCED", "f = OWN.get(m.architecture)", "f = OWN[m.architecture]", "n = m.architecture"],
)
def test_a_name_put_to_another_use_is_found(line: str) -> None:
    assert list(other_uses_of_a_name(line))


def test_a_name_may_be_asked_about_handed_on_and_printed() -> None:
    source = 'q = architecture_of(m.architecture); f(architecture=m.architecture); print(f"{m.architecture}")'
    assert list(other_uses_of_a_name(source)) == []


def test_every_architecture_that_was_traced_under_another_version_is_known() -> None:
    assert set(EXACT) == set(TRACED["transformers"]) - {MIRRORED.transformers}
    for version, names in EXACT.items():
        assert names <= set(ARCHITECTURES)
        assert not names & set(DIFFERS.get(version, {}))


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("llama", (4, 57), False),
        ("llama", (4, 47), False),  # exact on both sides
        ("qwen3", (4, 52), False),  # exact in 4.57; 4.50 does not know it
        ("olmo2", (4, 52), True),  # exact in 4.57, not in 4.50
        ("mistral", (4, 45), True),
        ("falcon", (5, 9), True),  # not in 5.0
        ("phimoe", (4, 57), True),  # not traced
    ],
)
def test_code_counts_as_traced_where_the_nearest_traces_agree(
    name: str, version: tuple[int, int], expected: bool
) -> None:
    assert untraced_code(architecture=name, transformers=version) is expected
