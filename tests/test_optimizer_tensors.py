"""Bytes that optimizers of further packages kept and allocated when benchmarks/against_optimizers.py ran them.

llamafactory 0.9.5 (Muon), came-pytorch 0.1.3, galore-torch 1.0, apollo-torch 1.0.3 and torchao 0.18, on a CPU, in
blocks of 512 bytes: the states after the second step, and the most that it held beside them.
"""

from __future__ import annotations

import pytest

from advisor.blocks import block_bytes
from advisor.catalog.models import find_model
from advisor.costs.optimizer import optimizer_work
from advisor.decoders.stack import THIS_STACK
from advisor.optimizers import OPTIMIZERS, optimizer_row
from advisor.parameters.trained import Trained, trained_shapes
from advisor.specs import Recipe

TALL = Trained(512, 256, 1, "bfloat16", True, 16)
FLOAT = Trained(256, 768, 1, "float32", True, 16)
VECTOR = Trained(8192, 0, 1, "float32")
OUTER = Trained(300, 100, 1, "bfloat16")


@pytest.mark.parametrize(
    ("name", "p", "states_bytes", "step_bytes"),
    [
        ("muon", TALL, 262_144, 1_572_864),
        ("muon", FLOAT, 786_432, 2_621_440),
        ("muon", VECTOR, 65_536, 65_536),
        ("muon", OUTER, 120_832, 120_832),
        ("came", TALL, 530_944, 2_100_224),
        ("came", FLOAT, 795_136, 2_363_392),
        ("came", VECTOR, 66_048, 98_304),
        ("galore", TALL, 40_960, 1_352_704),
        ("galore", FLOAT, 360_448, 1_720_320),
        ("galore", OUTER, 120_832, 120_832),
        ("apollo", TALL, 41_472, 574_976),
        ("apollo", FLOAT, 115_200, 1_723_904),
        ("apollo", VECTOR, 65_536, 65_536),
        ("adamw_torchao_8bit", TALL, 268_288, 0),
        ("adamw_torchao_8bit", OUTER, 120_832, 0),
        ("adamw_torchao_4bit", TALL, 136_192, 0),
        ("adamw_torchao_4bit", VECTOR, 10_240, 0),
    ],
)
def test_bytes_are_those_of_the_packages(name: str, p: Trained, states_bytes: int, step_bytes: int) -> None:
    row = optimizer_row(name)
    assert sum(map(block_bytes, row.states(p))) == states_bytes
    assert sum(map(block_bytes, row.temporaries(p))) == step_bytes


def test_what_is_not_known_is_said() -> None:
    unknown = {name for name, row in OPTIMIZERS.items() if row.unknown}
    assert unknown == {"adamw_torchao_8bit", "adamw_torchao_4bit", "galore"}
    m = find_model("llama-3.2-1b")
    assert THIS_STACK.proof(m, Recipe(method="full")).unknown == ()
    assert THIS_STACK.proof(m, Recipe(method="full", optimizer="galore")).unknown == (OPTIMIZERS["galore"].unknown,)


def test_only_matrices_of_layers_are_projected_or_orthogonalized() -> None:
    m = find_model("llama-3.2-1b")
    for method in ("full", "lora"):
        for p in trained_shapes(m, Recipe(method=method, optimizer="apollo", optimizer_rank=32)):
            assert (p.projection, p.inner) == ((32, True) if p.columns and p.rows != m.vocab_size else (0, False))
    assert {p.projection for p in trained_shapes(m, Recipe(method="full"))} == {0}


def test_the_products_of_muon_are_counted() -> None:
    p = Trained(4096, 14_336, 3, "bfloat16", True)
    assert optimizer_work([p], "muon").flop == 3 * 5 * (4 * 4096**2 * 14_336 + 2 * 4096**3)
    assert optimizer_work([p], "adamw").flop == 0.0
