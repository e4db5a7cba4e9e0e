"""A linear layer without its adapter: what autocast hands to its matrix product."""

from __future__ import annotations

from advisor.decoders.linear import autocast_operand
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape


def test_a_cached_cast_belongs_to_its_own_weight() -> None:
    """Weights that nothing else holds: Python gives the id of one that is gone to the next."""
    t = Tape("cuda", autocast="bfloat16")
    t.grad_enabled = False
    for size in range(1, 50):
        cast = autocast_operand(t, Tensor((size,), "float32", needs_grad=True))
        assert (cast.shape, cast.dtype) == ((size,), "bfloat16")
    assert len(t.autocast_cache) == 49


def test_a_weight_is_cast_once() -> None:
    t = Tape("cuda", autocast="bfloat16")
    weight = Tensor((8, 8), "float32", needs_grad=True)
    assert autocast_operand(t, weight) is autocast_operand(t, weight)
    assert len(t.kernels) == 1
