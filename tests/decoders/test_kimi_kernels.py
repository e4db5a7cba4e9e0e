"""What Kimi's layer keeps by flash-linear-attention's kernels: the real layer with stubs that save what it saves."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog.config_json import model_from_config
from advisor.decoders.kimi_linear import kimi_delta
from advisor.decoders.stack import THIS_STACK
from advisor.decoders.weights import Weights
from advisor.parameters.layers import kinds_of, part_of
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.program import BATCH, LENGTH, Program
from advisor.tape.tape import Tape
from tests.decoders.kernel_stubs import convolution_stub
from tests.decoders.test_delta_kernels import layer_inputs
from tests.decoders.tiny import recipe

KIMI: dict[str, Any] = {"model_type": "kimi_linear", "hidden_size": 512, "linear_num_heads": 4, "num_hidden_layers": 2}
TOKENS = 1024


def kept_bytes(m: ModelSpec) -> int:
    """What one layer with a frozen base keeps for a row, beside its input and output."""
    part = part_of(m, kinds_of(m)[0])
    chosen = recipe(m, "lora", target_modules=("kv_b_proj",), sequence_kernels="packages", autocast=False)
    t, x = Tape("cuda"), Tensor((BATCH, LENGTH, m.hidden_size), "bfloat16", needs_grad=True)
    out = kimi_delta(t, x, Weights(part, chosen, 1, THIS_STACK), layer_inputs(m, chosen, None), chosen)
    return (
        sum(Program(t.events[:], t.slots, t.labels).live_at(len(t.events), 1, TOKENS, 1)) - TOKENS * out.shape[-1] * 2
    )


def test_the_real_layer_keeps_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from transformers.models.kimi_linear import modeling_kimi_linear as module

    with torch.device("meta"):
        config = module.KimiLinearConfig(**{**KIMI, "vocab_size": 64, "pad_token_id": 0})
        layer = module.KimiLinearDeltaAttention(config, 0).to(torch.bfloat16).requires_grad_(requires_grad=False)
    rule, convolution = stubs(torch)
    monkeypatch.setattr(module, "chunk_kimi_delta_attention", rule)
    monkeypatch.setattr(module, "causal_conv1d_fn", convolution)
    weights = {one.untyped_storage()._cdata for one in layer.parameters()}
    kept: dict[int, int] = {}

    def pack(x: Any) -> Any:
        storage = x.untyped_storage()
        if storage._cdata not in weights and storage.nbytes() > 8 * config.linear_num_heads * config.linear_head_dim:
            kept[storage._cdata] = storage.nbytes()  # but for copies of vectors in fp32
        return x

    x = torch.empty((1, TOKENS, KIMI["hidden_size"]), dtype=torch.bfloat16, device="meta", requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = layer(x)
    assert out.shape == x.shape
    assert sum(kept.values()) == pytest.approx(kept_bytes(model_from_config(KIMI, "kimi", "kimi")), abs=4096)


def stubs(torch: Any) -> tuple[Any, Any]:
    """fla-core 0.6.0's ChunkKDAFunction: what it saves, no more; and the convolution's."""

    class Rule(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, v: Any, g: Any, beta: Any) -> Any:
            q, k, v, g, beta = (one.contiguous() for one in (q, k, v, g, beta))
            normed = [torch.empty_like(one) for one in (q, k)]
            roots = [one.new_empty(one.shape[:-1], dtype=torch.float32) for one in (q, k)]
            weighed = [v.new_empty((*beta.shape, 64)) for _ in range(2)]
            summed = torch.empty_like(g, dtype=torch.float32)
            ctx.save_for_backward(normed[0], roots[0], normed[1], roots[1], v, summed, g, beta, *weighed)
            return torch.empty_like(v)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise NotImplementedError

    def rule(q: Any, k: Any, v: Any, *, g: Any, beta: Any, **_: Any) -> Any:
        return Rule.apply(q, k, v, g, beta), None

    return rule, convolution_stub(torch)
