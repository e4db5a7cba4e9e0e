"""What Mamba's layers keep by mamba_ssm's kernels: the real layers with stubs that save what the source saves."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog.config_json import model_from_config
from advisor.decoders.mamba1 import mamba1
from advisor.decoders.stack import THIS_STACK
from advisor.decoders.step_inputs import chunks_of
from advisor.decoders.weights import Weights
from advisor.parameters.layers import kinds_of, part_of
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.program import BATCH, LENGTH, Program
from advisor.tape.tape import Tape
from tests.decoders.kernel_stubs import convolution_stub
from tests.decoders.test_delta_kernels import layer_inputs
from tests.decoders.tiny import recipe

JAMBA: dict[str, Any] = {"model_type": "jamba", "hidden_size": 256, "num_hidden_layers": 8, "num_experts": 1}
MAMBA: dict[str, Any] = {"model_type": "falcon_mamba", "hidden_size": 256, "num_hidden_layers": 1}
ROWS, TOKENS = 2, 2049


def kept_bytes(m: ModelSpec) -> int:
    """What one layer with a frozen base keeps, beside its input and output."""
    part = part_of(m, kinds_of(m)[0])
    chosen = recipe(m, "lora", target_modules=("lm_head",), sequence_kernels="packages", autocast=False)
    t, x = Tape("cuda"), Tensor((BATCH, LENGTH, m.hidden_size), "bfloat16", needs_grad=True)
    out = mamba1(t, x, Weights(part, chosen, 1, THIS_STACK), given(m, chosen), chosen)
    program = Program(t.events[:], t.slots, t.labels)
    assert m.recurrence is not None
    program.chunk = m.recurrence.chunk_size
    return sum(program.live_at(len(program.events), ROWS, TOKENS, 1)) - ROWS * TOKENS * out.shape[-1] * 2


def given(m: ModelSpec, chosen: Any) -> Any:
    return layer_inputs(m, chosen, chunks_of(m, chosen, ROWS, TOKENS))


@pytest.mark.parametrize("config", [JAMBA, MAMBA, MAMBA | {"model_type": "mamba"}], ids=lambda c: c["model_type"])
def test_the_real_layer_keeps_as_much(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    module, layer = real_layer(torch, config)
    scan, inner, convolution = stubs(torch)
    monkeypatch.setattr(module, "mamba_selective_scan", scan)
    monkeypatch.setattr(module, "mamba_inner_fn", inner)
    monkeypatch.setattr(module, "causal_conv1d_fn", convolution)
    weights = {one.untyped_storage()._cdata for one in (*layer.parameters(), *layer.buffers())}
    kept: dict[int, int] = {}

    def pack(x: Any) -> Any:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = -(-storage.nbytes() // 512) * 512
        return x

    x = torch.empty((ROWS, TOKENS, config["hidden_size"]), dtype=torch.bfloat16, device="meta", requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = layer(x)
    assert out.shape == x.shape
    assert kept_bytes(model_from_config(config, "tiny", "tiny")) == sum(kept.values())


def real_layer(torch: Any, config: dict[str, Any]) -> tuple[Any, Any]:
    import importlib

    name = config["model_type"]
    module: Any = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    class_name = {"jamba": "Jamba", "mamba": "Mamba", "falcon_mamba": "FalconMamba"}[name]
    made = getattr(module, f"{class_name}Config")(**{**config, "vocab_size": 64, "pad_token_id": 0})
    mixer = getattr(module, "JambaMambaMixer" if name == "jamba" else f"{class_name}Mixer")
    with torch.device("meta"):
        layer = mixer(made, 0).to(torch.bfloat16)
    return module, layer.requires_grad_(requires_grad=False).train()


def stubs(torch: Any) -> tuple[Any, Any, Any]:
    """mamba_ssm 2.3.2's SelectiveScanFn and MambaInnerFn: what they save, no more; and the convolution's."""

    def states(u: Any, a: Any) -> Any:
        return u.new_empty((*u.shape[:2], -(-u.shape[2] // 2048), 2 * a.shape[1]), dtype=torch.float32)

    class Function(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise NotImplementedError

    class Scan(Function):
        @staticmethod
        def forward(ctx: Any, u: Any, delta: Any, a: Any, b: Any, c: Any, skip: Any, z: Any, bias: Any) -> Any:
            u, delta, b, c, z = (one.contiguous() for one in (u, delta, b, c, z))
            out = torch.empty_like(delta)
            ctx.save_for_backward(u, delta, a, b, c, skip, z, bias, states(u, a), out)
            return torch.empty_like(z)

    class Inner(Function):
        @staticmethod
        def forward(ctx: Any, xz: Any, *given: Any) -> Any:
            conv, conv_bias, w_x, w_dt, w_out, _w_out_bias, a, skip, bias = given
            xz = xz.contiguous()
            u, _ = xz.chunk(2, dim=1)
            rows = u.shape[0] * u.shape[2]
            projected, delta = (
                u.new_empty((rows, w_x.shape[0])),
                torch.empty_like(u, memory_format=torch.contiguous_format),
            )
            b, c = (u.new_empty((u.shape[0], 1, a.shape[1], u.shape[2])) for _ in range(2))
            out = torch.empty_like(delta)
            ctx.save_for_backward(
                xz, conv, conv_bias, projected, w_x, w_dt, w_out, a, b, c, skip, bias, states(u, a), out
            )
            return u.new_empty((u.shape[0], u.shape[2], w_out.shape[0]))

    def scan(u: Any, delta: Any, a: Any, b: Any, c: Any, **named: Any) -> Any:
        return Scan.apply(u, delta, a, b, c, named["D"], named["z"], named["delta_bias"])

    def inner(xz: Any, *given: Any, **named: Any) -> Any:
        *weights, _b, _c, skip = given
        return Inner.apply(xz, *weights, skip, named["delta_bias"])

    return scan, inner, convolution_stub(torch)
