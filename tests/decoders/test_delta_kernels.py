"""What the kernels of flash-linear-attention keep: the real layer with stubs that save what their source saves."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog.config_json import model_from_config
from advisor.decoders.gated_delta import gated_delta
from advisor.decoders.kinds import layer_kinds
from advisor.decoders.stack import THIS_STACK
from advisor.decoders.step_inputs import Chunks, LayerInputs, chunks_of
from advisor.decoders.weights import Weights
from advisor.parameters.layers import kinds_of, part_of
from advisor.specs import ModelSpec, Recipe, SequenceKernels
from advisor.tape.graph import Tensor
from advisor.tape.program import BATCH, LENGTH, Program
from advisor.tape.tape import Tape
from tests.decoders.kernel_stubs import convolution_stub
from tests.decoders.tiny import recipe

QWEN: dict[str, Any] = {
    "model_type": "qwen3_5_text",
    "hidden_size": 2560,
    "num_hidden_layers": 4,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}
"""The sizes of Qwen 3.5 4B that its layers without attention have."""
KEPT_BYTES = 94_784
"""Of each token, beyond the layer's input."""
TOKENS = 1024


def layer_inputs(m: ModelSpec, chosen: Recipe, chunks: Chunks | None) -> LayerInputs:
    """What a layer without attention is called with in a batch without padding."""
    kind = layer_kinds(m, chosen)[0]
    return LayerInputs(None, None, 0, None, False, None, None, kind, None, None, chunks)


def kept_bytes(m: ModelSpec, kernels: SequenceKernels, tokens: int) -> int:
    """What one layer with a frozen base keeps for `tokens` tokens of one row, beside its input and output."""
    part = part_of(m, kinds_of(m)[0])
    chosen = recipe(m, "lora", target_modules=("o_proj",), sequence_kernels=kernels, autocast=False)
    t, x = Tape("cuda"), Tensor((BATCH, LENGTH, m.hidden_size), "bfloat16", needs_grad=True)
    given = layer_inputs(m, chosen, chunks_of(m, chosen, 1, tokens))
    out = gated_delta(t, x, Weights(part, chosen, 1, THIS_STACK), given, chosen)
    program = Program(t.events[:], t.slots, t.labels)
    program.chunk = 64
    return sum(program.live_at(len(program.events), 1, tokens, 1)) - tokens * out.shape[-1] * 2


@pytest.fixture(scope="module")
def real() -> Any:
    """The model's own layer and module, without numbers."""
    torch = pytest.importorskip("torch")
    from transformers.models.qwen3_5 import modeling_qwen3_5 as module

    with torch.device("meta"):
        config = module.Qwen3_5TextConfig(**{**QWEN, "vocab_size": 64})
        layer = module.Qwen3_5GatedDeltaNet(config, 0).to(torch.bfloat16)
    return torch, module, layer.requires_grad_(requires_grad=False)


def stubs(torch: Any) -> tuple[Any, Any]:
    """fla-core 0.6.0's ChunkGatedDeltaRuleFunction: what it saves, no more; and the convolution's."""

    class Rule(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, v: Any, g: Any, beta: Any) -> Any:
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
            normed = [torch.empty_like(one) for one in (q, k)]
            roots = [one.new_empty(one.shape[:-1], dtype=torch.float32) for one in (q, k)]
            summed, inverse = torch.empty_like(g, dtype=torch.float32), v.new_empty((*g.shape, 64))
            ctx.save_for_backward(normed[0], roots[0], normed[1], roots[1], v, summed, beta, beta, inverse)
            return torch.empty_like(v)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise NotImplementedError

    def rule(q: Any, k: Any, v: Any, *, g: Any, beta: Any, **_: Any) -> Any:
        return Rule.apply(q, k, v, g, beta), None

    return rule, convolution_stub(torch)


def test_the_real_layer_keeps_as_much(real: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, module, layer = real
    rule, convolution = stubs(torch)
    monkeypatch.setattr(module, "torch_chunk_gated_delta_rule", rule)
    monkeypatch.setattr(module, "causal_conv1d_fn", convolution)
    weights = {one.untyped_storage()._cdata for one in layer.parameters()}
    kept: dict[int, int] = {}

    def pack(x: Any) -> Any:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return x

    x = torch.empty((1, TOKENS, QWEN["hidden_size"]), dtype=torch.bfloat16, device="meta", requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = layer(x)
    assert out.shape == x.shape
    assert sum(kept.values()) // TOKENS == KEPT_BYTES


def test_kernels_keep_a_quarter_of_what_the_models_own_code_keeps() -> None:
    m = model_from_config(QWEN, "qwen", "qwen")
    by_kernels, by_torch = (kept_bytes(m, kernels, TOKENS) // TOKENS for kernels in ("packages", "torch"))
    assert by_kernels == KEPT_BYTES
    assert by_torch == 345_206


def test_a_last_chunk_that_is_not_full_has_a_state_of_its_own() -> None:
    m = model_from_config(QWEN, "qwen", "qwen")
    part = part_of(m, kinds_of(m)[0])
    chosen = recipe(m, "lora", target_modules=("o_proj",), sequence_kernels="packages", autocast=False)
    t, x = Tape("cuda"), Tensor((BATCH, LENGTH, m.hidden_size), "bfloat16")
    gated_delta(t, x, Weights(part, chosen, 1, THIS_STACK), layer_inputs(m, chosen, None), chosen)
    program = Program(t.events[:], t.slots, t.labels)
    program.chunk = 64
    states = [max(program.slot_bytes(1, tokens, 1)) for tokens in (64, 65, 128)]
    assert states == [32 * 128 * 128 * 2, 2 * 32 * 128 * 128 * 2, 2 * 32 * 128 * 128 * 2]
