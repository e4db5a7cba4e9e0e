"""Typed names taken apart: paths, organizations, endings; no catalog is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.names import MIRRORS, read_names, shorter, squashed, storage_of


@pytest.mark.parametrize(
    ("text", "labels", "path"),
    [
        ("llama-8b", ["llama-8b"], False),
        (" Qwen/Qwen3-8B/ ", ["qwen/qwen3-8b"], False),
        ("gemma2:2b", ["gemma2-2b"], False),
        ("qwen3:latest", ["qwen3"], False),
        ("models/Qwen3-1.7B-Base", ["qwen3-1.7b-base"], True),
        ("checkpoints/meta-llama/Llama-3.2-1B", ["meta-llama/llama-3.2-1b", "llama-3.2-1b"], True),
        ("/data/ckpts/Llama-3.1-8B/checkpoint-500/merged", ["data/llama-3.1-8b", "llama-3.1-8b"], True),
        ("/weka/Olmo-3-7B-Think-SFT/model_and_optim", ["weka/olmo-3-7b-think-sft", "olmo-3-7b-think-sft"], True),
        ("C:\\models\\Qwen3-8B", ["c:/qwen3-8b", "qwen3-8b"], True),
        ("models--Qwen--Qwen2.5-7B", ["qwen/qwen2.5-7b"], False),
        (f"~/hub/models--Qwen--Qwen2.5-7B/snapshots/{'0a' * 20}", ["qwen/qwen2.5-7b"], True),
        ("/kaggle/input/gemma/transformers/2b-it/3", ["gemma-2b-it", "2b-it", "gemma"], True),
        ("/kaggle/input/my-llama/", ["my-llama"], True),
        ("./final/", [], True),
        ("", [], False),
    ],
)
def test_what_a_text_may_name(text: str, labels: list[str], path: bool) -> None:
    found = read_names(text)
    assert [f"{name.organization}/{name.base}".lstrip("/") for name in found] == labels
    assert all(name.path == path for name in found)


@pytest.mark.parametrize(
    ("base", "left", "kinds", "stored"),
    [
        ("qwen3-14b-base-unsloth-bnb-4bit", "qwen3-14b", ["tuning", "storage"], "unsloth-bnb-4bit"),
        ("llama-2-7b-chat-gptq-int4", "llama-2-7b", ["tuning", "storage"], "gptq-int4"),
        ("llama-2-7b-aqlm-2bit-1x16-hf", "llama-2-7b", ["storage"], "aqlm-2bit-1x16-hf"),
        ("qwen3-8b-fp8-dynamic", "qwen3-8b", ["storage"], "fp8-dynamic"),
        ("gemma-4-31b-it-nvfp4", "gemma-4-31b", ["tuning", "storage"], "nvfp4"),
        ("llama3.2-3b-instruct-q4_k_m", "llama3.2-3b", ["tuning", "storage"], "q4_k_m"),
        ("llama-3-8b.q4_k_m.gguf", "llama-3-8b", ["storage", "storage"], "gguf"),
        ("gemma-3-4b-it-qat-q4_0-gguf", "gemma-3-4b", ["tuning", "storage", "storage"], "q4_0-gguf"),
        ("llama-3.3-70b-instruct-quantized.w4a16", "llama-3.3-70b", ["tuning", "storage"], "quantized.w4a16"),
        ("llama-3.1-405b-bnb-nf4-bf16", "llama-3.1-405b", ["storage"], "bnb-nf4-bf16"),
        ("gpt-oss-20b-mxfp4", "gpt-oss-20b", ["storage"], "mxfp4"),
        ("qwen-7b-chat-int8", "qwen-7b", ["tuning", "storage"], "int8"),
        ("qwen3-30b-a3b-instruct-2507", "qwen3-30b-a3b", ["tuning", "tuning"], ""),
        ("c4ai-command-r-08-2024", "c4ai-command-r", ["tuning"], ""),
        ("gpt-oss-120b-dequantized", "gpt-oss-120b", ["dtype"], ""),
        ("codellama-7b-python", "codellama-7b-python", [], ""),
        ("qwen2.5-7b-instruct-1m", "qwen2.5-7b-instruct-1m", [], ""),
    ],
)
def test_endings_are_taken_off_and_kept(base: str, left: str, kinds: list[str], stored: str) -> None:
    *_, (shortest, taken) = shorter(base)
    assert shortest == left
    assert [ending.kind for ending in taken] == kinds
    assert storage_of(taken).startswith(stored)
    assert bool(storage_of(taken)) == bool(stored)


def test_one_ending_at_a_time_so_that_a_version_of_its_own_is_found_first() -> None:
    assert [base for base, _ in shorter("qwen3-4b-instruct-2507-fp8")] == [
        "qwen3-4b-instruct-2507-fp8",
        "qwen3-4b-instruct-2507",
        "qwen3-4b-instruct",
        "qwen3-4b",
    ]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("tiny-llama-1.1b", "TinyLlama-1.1B", True),
        ("llama3.2-1b", "llama-3.2-1b", True),
        ("qwen-1_8b", "qwen-1.8b", True),
        ("open_llama_3b", "open-llama-3b", True),
        ("llama-3-3b", "llama-33b", False),
        ("qwen2-7b", "qwen-27b", False),
        ("qwen3.5-4b", "qwen3-4b", False),
    ],
)
def test_spellings(one: str, other: str, same: bool) -> None:
    assert (squashed(one) == squashed(other)) == same


def test_mirrors_are_written_in_lower_case() -> None:
    assert len(MIRRORS) >= 17
    assert {name.lower() for name in MIRRORS} == MIRRORS


@given(st.text(max_size=80))
def test_any_text_is_read(text: str) -> None:
    for name in read_names(text):
        *_, (shortest, taken) = shorter(name.base) if name.base else [("", ())]
        assert len(shortest) + sum(len(ending.text) + 1 for ending in taken) == len(name.base)
