"""torchtune's own decoder and loss: in plain PyTorch, with torchao's NF4 for a quantized base."""

from __future__ import annotations

from dataclasses import dataclass, replace

from advisor.blocks import ITEM_BYTES
from advisor.decoders.attention import model_repeat_kv
from advisor.decoders.linear import Linear, LinearCode
from advisor.decoders.norms import NormFunction, NormPlace, rms_norm_float
from advisor.decoders.rope import Rope
from advisor.decoders.stack import LossInputs, Proof, Stack
from advisor.libraries import version_text
from advisor.parameters.buffers import rope_width
from advisor.specs import GpuSpec, ModelSpec, Recipe, Workload
from advisor.stacks.chunked_logits import loss_of_kept_chunks
from advisor.stacks.rotation import turned_in_pairs
from advisor.tape.graph import Tensor
from advisor.tape.tape import Tape

BUILT = ("llama", "mistral", "gemma", "gemma2", "phi3", "qwen2")
"""The architectures that torchtune 0.6.1 has builders for (torchtune/models)."""
PAIRED = ("llama", "mistral", "gemma", "gemma2")
"""Those whose RoPE turns neighboring features; the others turn halves of a head, as transformers does."""
FUSED_NORM = (0, 5)
"""The first version whose RMSNorm is `F.rms_norm`: of fp32 times a weight in 16 bits PyTorch composes it."""
CHUNKS = 8
"""num_output_chunks of CEWithChunkedOutputLoss, which all its configs name."""


@dataclass(frozen=True)
class Torchtune(Stack):
    """Its norm, its RoPE, its attention, which expands keys and values, its loss in chunks, and torchao's NF4."""

    chunks: int = CHUNKS
    """0: torch.nn.CrossEntropyLoss, for which the model upcasts all logits."""

    packed: bool = False
    """Several examples share a row."""

    @property
    def name(self) -> str:
        """The libraries and versions whose code this is."""
        return f"torchtune {version_text(self.libraries.code_version)}, torchao 0.9"

    def proof(self, m: ModelSpec, recipe: Recipe) -> Proof:
        """Its modules were traced on a CPU; what was not, by what the recipe asks for."""
        read = ["CUDA's own kernels, from their source"]
        if recipe.is_dora:
            read.append("DoRALinear (torchtune/modules/peft/dora.py), taken to be peft's")
        unknown = [] if m.architecture in BUILT else [f"torchtune {self._version} has no builder for {m.architecture}"]
        unknown += ["flex attention, which packed rows run compiled: counted as flash attention"] if self.packed else []
        return Proof(("its decoder, adapters, loss and NF4, tensor by tensor, on a CPU",), tuple(read), tuple(unknown))

    @property
    def _version(self) -> str:
        return version_text(self.libraries.code_version)

    @property
    def keeps_attended(self) -> bool:
        """torchtune 0.6.1, modules/transformer.py, TransformerSelfAttentionLayer.forward: `attn_out`."""
        return True

    def placed(self, gpu: GpuSpec, workload: Workload) -> Stack:
        """Packed rows get a block mask.

        Source: torchtune 0.6.1, modules/attention_utils.py, packed_block_causal_mask.
        """
        return replace(self, packed=True) if workload.packing else self

    @property
    def linear(self) -> LinearCode:
        """torchao's NF4, which its own PyTorch code dequantizes."""
        return LinearCode(dequantize=nf4_weight)

    def leaf_under_checkpointing(self, recipe: Recipe) -> bool:
        """A frozen embedding's output takes no gradient: the wrapped layers need none.

        Source: torchtune 0.6.1, training/memory.py, set_activation_checkpointing.
        """
        return False

    def masks(self, padded: bool) -> bool:
        """Padding makes no mask. Source: torchtune 0.6.1, data/_collate.py, padded_collate_sft."""
        return False

    def standing_bytes(self, m: ModelSpec, recipe: Recipe, batch: int, length: int) -> tuple[int, ...]:
        """One table of cosines and sines for every position that the model knows, in fp32.

        Source: torchtune 0.6.1, models/llama3_1/_position_embeddings.py, build_rope_cache.
        """
        return (4 * m.max_position_embeddings * rope_width(m, False),) if m.position == "rope" else ()

    def norm(self, m: ModelSpec, place: NormPlace) -> NormFunction | None:
        """From 0.5 on multiplied by the weight before it is cast back; until then as transformers has it.

        Sources: torchtune 0.4.0 and 0.6.1, modules/rms_norm.py; PyTorch 2.13, aten/src/ATen/native/layer_norm.cpp,
        rms_norm_composite, which a weight of another dtype than the input's takes.
        """
        fused = m.norm == "rms" and self.libraries.code_version >= FUSED_NORM
        return rms_norm_float if fused else super().norm(m, place)

    def rotated(
        self, t: Tape, m: ModelSpec, q: Tensor, k: Tensor, rope: Rope
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Pairs of neighboring features are turned in fp32, by a table that is held anyway; nothing is saved.

        Source: torchtune 0.6.1, modules/position_embeddings.py, RotaryPositionalEmbeddings.forward.
        """
        if m.architecture not in PAIRED:
            return super().rotated(t, m, q, k, rope)
        return turned_in_pairs(t, q), turned_in_pairs(t, k), ()

    def attended(self, t: Tape, m: ModelSpec, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Expanded to every query head. Source: torchtune 0.6.1, modules/attention.py, MultiHeadAttention.forward."""
        return model_repeat_kv(t, m, k), model_repeat_kv(t, m, v)

    def loss(self, t: Tape, given: LossInputs) -> Tensor:
        """Head and cross entropy in 8 chunks of each row, of which one at a time is upcast.

        Source: torchtune 0.6.1, modules/loss/ce_chunked_output_loss.py; modules/transformer.py, chunked_output.
        """
        if given.recipe.loss == "chunked" or not self.chunks:
            return super().loss(t, given)
        hidden, head = [given.hidden], given.head
        del given
        return loss_of_kept_chunks(t, hidden, head, self.chunks)


def nf4_weight(t: Tape, m: Linear) -> Tensor:
    """The weight (O, I) of torchao's NF4 store: each half of a byte becomes an index of 8 bytes first.

    14 bytes a weight at its highest, 2 of which stay. Source: torchao 0.9, dtypes/nf4tensor.py, get_original_weight.
    Ignores: the tensors of its constants but the last, a 32nd of the weight's size.
    """
    dtype, half = m.weight.dtype, (m.weight.count // 2,)
    item = ITEM_BYTES[dtype]

    def made(shape: tuple[int, ...], kind: str, read: int) -> Tensor:
        out = t.empty(shape, kind)
        t.kernel("elementwise", kind, 0, read + out.bytes)
        return out

    nibbles = []
    for _ in range(2):
        byte = made(half, "uint8", half[0])
        nibbles.append(made(half, "int64", byte.bytes))
        del byte
    values = [made(half, dtype, one.bytes) for one in nibbles]
    scalers = made((m.weight.count // 64,), dtype, m.weight.count // 64)
    scaled = []
    for value in values:
        repeated = made(half, dtype, scalers.bytes)
        scaled.append(made(half, dtype, 2 * value.bytes))
        del repeated
    return made(m.weight.shape, dtype, m.weight.count * item)
