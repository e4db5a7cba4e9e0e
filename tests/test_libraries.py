"""Versions of libraries as a question names them."""

from __future__ import annotations

import itertools

import pytest

from advisor.errors import BadValue, InputError, UnknownName
from advisor.libraries import (
    MIRRORED,
    RELEASES,
    Libraries,
    allocator_variable,
    libraries_of,
    read_stack_name,
    stack_names,
)
from advisor.specs import Recipe


def test_no_names_are_the_mirrored_versions() -> None:
    assert libraries_of(()) == MIRRORED == Libraries((5, 23), (0, 21), (0, 50), (2, 13))


def test_a_release_of_transformers_brings_the_others_of_its_time() -> None:
    assert libraries_of(("transformers-4.57",))[:4] == ((4, 57), (0, 17), (0, 48), (2, 8))
    assert libraries_of(("transformers-4.43",))[:4] == ((4, 43), (0, 11), (0, 43), (2, 3))
    assert libraries_of(("peft-0.11", "transformers-4.57"))[:4] == ((4, 57), (0, 11), (0, 48), (2, 8))
    assert libraries_of(("peft-0.11",)) == MIRRORED._replace(peft=(0, 11))


def test_releases_only_grow() -> None:
    assert len(RELEASES) > 20
    for earlier, later in itertools.pairwise(RELEASES):
        assert later[0] > earlier[0]
        assert all(new >= old for old, new in zip(earlier, later, strict=True))
    assert libraries_of(("transformers-5.23",)) == MIRRORED


@pytest.mark.parametrize(
    "name",
    ["transformers-4.57", "transformers==4.57.6", "Transformers-4.57", "transformers-v4.57"],
)
def test_one_version_has_many_spellings(name: str) -> None:
    assert read_stack_name(name) == ("transformers", (4, 57))
    assert stack_names((name, "bnb-0.42", "pytorch-2.6")) == ("transformers-4.57", "bitsandbytes-0.42", "torch-2.6")


@pytest.mark.parametrize("name", ["numpy-1.2", "", "4.57"])
def test_an_unknown_library_is_refused(name: str) -> None:
    with pytest.raises(UnknownName, match="known: transformers-VERSION"):
        stack_names((name,))


@pytest.mark.parametrize("name", ["transformers", "transformers-new", "transformers-4.1", "transformers-4"])
def test_a_version_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(BadValue, match="--stack is"):
        stack_names((name,))


def test_a_library_is_named_once() -> None:
    with pytest.raises(BadValue, match="names peft twice"):
        stack_names(("peft-0.11", "peft-0.12"))


def test_a_recipe_holds_no_other_names() -> None:
    with pytest.raises(InputError, match="unknown library"):
        Recipe(method="lora", stack=("numpy-1.2",))


@pytest.mark.parametrize(
    ("names", "variable"),
    [
        ((), "PYTORCH_ALLOC_CONF"),
        (("torch-2.11",), "PYTORCH_ALLOC_CONF"),
        (("torch-2.10",), "PYTORCH_CUDA_ALLOC_CONF"),
        (("torch-2.9",), "PYTORCH_CUDA_ALLOC_CONF"),
        (("torchtune-0.6",), "PYTORCH_CUDA_ALLOC_CONF"),
    ],
)
def test_the_allocators_variable_is_one_that_the_version_reads(names: tuple[str, ...], variable: str) -> None:
    assert allocator_variable(names) == variable
