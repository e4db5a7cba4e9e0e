"""Names taken apart, and kin found by them."""

from __future__ import annotations

import pytest

from advisor.catalog import model_entries
from advisor.catalog.lineage import nearest_kin, smaller_models, taken_apart

SIZES = {entry.name: entry.parameters for entry in model_entries()}


@pytest.mark.parametrize(
    ("name", "lineage", "version"),
    [
        ("llama-3.2-1b", ("llama",), (3, 2)),
        ("qwen3-30b-a3b", ("qwen",), (3,)),
        ("qwen2.5-vl-7b", ("qwen", "vl"), (2, 5)),
        ("gpt-oss-20b", ("gpt", "oss"), ()),
        ("gpt-j-6b", ("gpt", "j"), ()),
        ("gpt2-xl", ("gpt",), (2,)),
        ("mistral-7b-v0.3", ("mistral",), (0, 3)),
        ("mixtral-8x22b", ("mixtral",), ()),
        ("phi-3-medium", ("phi",), (3,)),
        ("gemma-3-270m", ("gemma",), (3,)),
    ],
)
def test_a_name_taken_apart(name: str, lineage: tuple[str, ...], version: tuple[int, ...]) -> None:
    assert taken_apart(name) == (lineage, version)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("llama-3.1-8b", ["llama-3.2-3b", "llama-3.2-1b"]),
        ("llama-3.1-405b", ["llama-3.3-70b", "llama-3.1-70b", "llama-3-70b", "llama-3.1-8b"]),
        ("qwen2.5-7b", ["qwen3.5-4b", "qwen3-4b", "qwen3.5-2b"]),
        ("deepseek-v3", []),
        ("gpt-oss-20b", []),
        ("mixtral-8x22b", ["mixtral-8x7b"]),
        ("no-such-model", []),
    ],
)
def test_kin_in_order(name: str, first: list[str]) -> None:
    found = smaller_models(name, SIZES)
    assert found[: len(first)] == first
    assert bool(found) == bool(first)
    assert all(taken_apart(one).version[:1] >= taken_apart(name).version[:1] for one in found)
    assert all(SIZES[one] < SIZES[name] for one in found)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("qwen3-27b", ["qwen3-30b-a3b", "qwen3-32b"]),
        ("ministral-3-14b", ["ministral-3-8b"]),
        ("gemma-2", ["gemma-2-2b", "gemma-2-9b", "gemma-2-27b"]),
        ("gpt-oss", ["gpt-oss-20b", "gpt-oss-120b"]),
        ("mixtral-8x9b", ["mixtral-8x7b"]),
        ("lama-3.1-8b", []),
        ("8b", []),
        ("llama-0b", ["llama-1-7b"]),
    ],
)
def test_kin_of_a_name_that_is_nobodys(name: str, first: list[str]) -> None:
    found = nearest_kin(name, SIZES)
    assert list(found[: len(first)]) == first
    assert bool(found) == bool(first)
