"""ModernBERT: a norm and dropout after the embedding, layers of which the first has no norm before attention.

Source: transformers 5.23, models/modernbert/modeling_modernbert.py; locals live as long as they do there.
"""

from __future__ import annotations

from advisor.decoders.decoder import Decoder
from advisor.decoders.ends import Embedded, noised
from advisor.decoders.norms import Norm
from advisor.decoders.step_inputs import LayerInputs
from advisor.decoders.weights import Weights
from advisor.specs import ModelSpec
from advisor.tape.graph import Tensor
from advisor.tape.ops import add, dropout, embedding
from advisor.tape.tape import Tape


def normed_embedding(
    t: Tape, m: ModelSpec, table: Tensor, norm: Norm, batch: int, length: int, leaf: bool, packed: bool, noise: bool
) -> Embedded:
    """`ModernBertEmbeddings.forward`. `leaf`, `packed` and `noise` as `ends.embed` has them."""
    ids = Tensor((batch, length), "int64") if packed else t.empty((1, length), "int64")
    if not packed:
        t.kernel("elementwise", "int64", 0, ids.bytes)
    x = embedding(t, table, batch, length)
    if leaf and not x.needs_grad:
        x.needs_grad = True
    if noise:
        x = noised(t, x)
    x = norm(t, x)
    if m.embedding_dropout:
        x = dropout(t, x)
    return Embedded(ids, [x], x)


def modernbert_layer(d: Decoder, x: Tensor, w: Weights, given: LayerInputs) -> Tensor:
    """`ModernBertEncoderLayer.forward`: x (B, S, H) -> (B, S, H)."""
    kept: list[Tensor] = []
    *before, norm = w.norms
    attended = d.attention(before[0](d.t, x) if before else x, w, given, kept)
    x = add(d.t, x, attended)
    return add(d.t, x, d.mlp(norm(d.t, x), w))
