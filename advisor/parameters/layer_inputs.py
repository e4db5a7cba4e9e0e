"""What Gemma 3n and Gemma 4 E have beside a plain decoder: an embedding for each layer, and several streams.

Names are those of transformers 5.23, models/gemma3n/modeling_gemma3n.py and models/gemma4/modeling_gemma4.py.
"""

from __future__ import annotations

from advisor.specs import LinearShape, ModelSpec

GATE, PROJECTION, INPUT_NORM = "per_layer_input_gate", "per_layer_projection", "post_per_layer_input_norm"
"""What a layer does with its own embedding."""
MODEL_PROJECTION = "per_layer_model_projection"
"""From the embedding of a token to what every layer gets of it."""
LAUREL, LAUREL_NORM = ("linear_left", "linear_right"), "post_laurel_norm"
PREDICTION, CORRECTION, ROUTER, ROUTER_NORM = "prediction_coefs", "correction_coefs", "modality_router", "router_norm"
OUTPUT_SCALE = "correct_output_scale"

PASSED_OVER = frozenset({CORRECTION})
"""Linear layers whose weight alone the model's code multiplies by: an adapter of them gets no gradient."""

LINEAR_PARENTS: dict[str, str] = {
    **dict.fromkeys(("f_a_proj", "f_b_proj"), ".self_attn.forget_gate"),
    **dict.fromkeys((GATE, PROJECTION), ""),
    **dict.fromkeys(LAUREL, ".laurel"),
    **dict.fromkeys((PREDICTION, CORRECTION, ROUTER), ".altup"),
}
"""The module that holds each of these linear layers, seen from its decoder layer."""


def left_whole(m: ModelSpec) -> tuple[str, ...]:
    """The linear layers of every layer that a quantized base must have in 16 bits, by bitsandbytes' list of them.

    AltUp clamps both weights itself: torch refuses that for packed ones ("result type Float can't be cast to the
    desired output type unsigned char"). Source: modeling_gemma3n.py, Gemma3nTextAltUp.predict and correct.
    """
    return (PREDICTION, CORRECTION) if m.streams is not None else ()


def inner_linears(m: ModelSpec) -> list[LinearShape]:
    """The further linear layers of one decoder layer, in the order in which the forward calls them."""
    h, width, found = m.hidden_size, m.layer_input_size, []
    if m.streams is not None:
        count, rank = m.streams.count, m.streams.laurel_rank
        sizes = {ROUTER: (h, count), PREDICTION: (count, count**2), CORRECTION: (count, count)}
        sizes |= {LAUREL[0]: (h, rank), LAUREL[1]: (rank, h)}
        found += [LinearShape(name=name, in_features=a, out_features=b) for name, (a, b) in sizes.items()]
    if width:
        found.append(LinearShape(name=GATE, in_features=h, out_features=width))
        found.append(LinearShape(name=PROJECTION, in_features=width, out_features=h))
    return found


def inner_norms(m: ModelSpec) -> tuple[str, ...]:
    """The further norms of one decoder layer, over its hidden state."""
    streams = (ROUTER_NORM, LAUREL_NORM) if m.streams is not None else ()
    return (*streams, INPUT_NORM) if m.layer_input_size else streams


def stream_projections(m: ModelSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the linear layers that make the streams after the first, and of those that bring them back."""
    further = range(m.streams.count - 1 if m.streams is not None else 0)
    return tuple(f"altup_projections.{i}" for i in further), tuple(f"altup_unembed_projections.{i}" for i in further)


def further_outer_linears(m: ModelSpec) -> list[LinearShape]:
    """The linear layers around the decoder layers that come of both."""
    h, (there, back) = m.hidden_size, stream_projections(m)
    found = [LinearShape(name=name, in_features=h, out_features=h) for name in (*there, *back)]
    if m.layer_input_size:
        size = m.num_hidden_layers * m.layer_input_size
        found.insert(0, LinearShape(name=MODEL_PROJECTION, in_features=h, out_features=size))
    return found


def layer_table(m: ModelSpec) -> tuple[int, int]:
    """The shape of the table that holds what every layer gets of each token; (0, 0) where there is none."""
    return (m.layer_input_vocab, m.num_hidden_layers * m.layer_input_size) if m.layer_input_size else (0, 0)
