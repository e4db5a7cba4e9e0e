"""Families with fused projections or a plain MLP: GPT-2, GPT-NeoX, Falcon, Phi. Sources: see the package."""

from __future__ import annotations

from advisor.catalog.families.sizes import (
    MAX_HEADS,
    MAX_LAYERS,
    MAX_POSITIONS,
    Defaults,
    Family,
    Structure,
    activation,
    kv_heads,
    rope,
    rotary_factor,
    sizes,
    window,
)
from advisor.catalog.fields import Fields


def phi(f: Fields) -> Structure:
    """Phi 1, 1.5, 2: attention and MLP in parallel after one LayerNorm, biases everywhere."""
    s = sizes(f, Defaults(51_200, 2048, 8192, 24, 32, 2048, activation="gelu_new"))
    if f.flag("qk_layernorm", False):
        raise f.unsupported("qk_layernorm", "a LayerNorm of queries and keys")
    return rope(
        f,
        {
            **s,
            "norm": "layer",
            "norm_bias": True,
            "norm_placement": "parallel_one",
            "mlp": "plain",
            "qkv_bias": True,
            "attention_out_bias": True,
            "mlp_bias": True,
            "lm_head_bias": True,
            "residual_dropout": f.number("resid_pdrop", 0.0),
            "embedding_dropout": f.number("embd_pdrop", 0.0),
            "out_name": "dense",
            "mlp_names": ("fc1", "fc2"),
        },
        rotary_factor(f, 0.5),
    )


def phi3(f: Fields) -> Structure:
    """Phi 3 and 4: a Llama with fused projections."""
    s = sizes(f, Defaults(32_064, 3072, 8192, 32, 32, 4096))
    return rope(
        f,
        {
            **s,
            "fused_qkv": True,
            "qkv_names": ("qkv_proj",),
            "mlp": "gated_fused",
            "mlp_names": ("gate_up_proj", "down_proj"),
            "sliding_window": window(f, 0) if f.has("sliding_window") else 0,
            "residual_dropout": f.number("resid_pdrop", 0.0),
        },
        rotary_factor(f, 1.0),
    )


def gpt_neox(f: Fields) -> Structure:
    """GPT-NeoX, Pythia: fused projection per head, parallel residual after two LayerNorms."""
    d = Defaults(50_432, 6144, 24_576, 44, 64, 2048, activation="gelu")
    s = sizes(f, d, explicit_head_dim=False, must_divide=True)
    bias, dropout = f.flag("attention_bias", True), f.number("hidden_dropout", 0.0)
    return rope(
        f,
        {
            **s,
            "num_key_value_heads": s["num_attention_heads"],
            "norm": "layer",
            "norm_bias": True,
            "norm_placement": "parallel_two" if f.flag("use_parallel_residual", True) else "pre",
            "fused_qkv": True,
            "qkv_names": ("query_key_value",),
            "qkv_bias": bias,
            "attention_out_bias": bias,
            "out_name": "dense",
            "mlp": "plain",
            "mlp_names": ("dense_h_to_4h", "dense_4h_to_h"),
            "mlp_bias": True,
            "residual_dropout": dropout,
            "embedding_dropout": dropout,
        },
        rotary_factor(f, 0.25, "rotary_pct"),
    )


def _gpt2_like(f: Fields, activation_default: str) -> Structure:
    """GPT-2 and its heirs: learned positions, one fused projection, old and new key spellings (`n_embd` ...)."""
    hidden = f.size(f.key_of("n_embd", "hidden_size"), 768)
    heads_key = f.key_of("n_head", "num_attention_heads")
    heads = f.size(heads_key, 12, maximum=MAX_HEADS)
    if hidden % heads:
        raise f.bad(heads_key, f"is {heads}: the hidden size {hidden} is not a multiple of it")
    if f.flag("add_cross_attention", False):
        raise f.unsupported("add_cross_attention", "cross-attention")
    return {
        "hidden_size": hidden,
        "intermediate_size": f.optional_size("n_inner", 4 * hidden),
        "num_hidden_layers": f.size(f.key_of("n_layer", "num_hidden_layers"), 12, maximum=MAX_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "vocab_size": f.size("vocab_size", 50_257),
        "tie_word_embeddings": f.flag("tie_word_embeddings", True),
        "max_position_embeddings": f.size(f.key_of("n_positions", "max_position_embeddings"), 1024),
        "activation": activation(f, "activation_function", activation_default),
        "position": "learned",
        "norm": "layer",
        "norm_bias": True,
        "mlp": "plain",
        "fused_qkv": True,
        "qkv_bias": True,
        "attention_out_bias": True,
        "mlp_bias": True,
        "qkv_names": ("c_attn",),
        "out_name": "attn.c_proj",
        "mlp_names": ("c_fc", "mlp.c_proj"),
        "attention_dropout": f.number("attn_pdrop", 0.1),
        "residual_dropout": f.number("resid_pdrop", 0.1),
        "embedding_dropout": f.number("embd_pdrop", 0.1),
    }


def gpt2(f: Fields) -> Structure:
    """GPT-2."""
    if f.flag("reorder_and_upcast_attn", False):
        raise f.unsupported("reorder_and_upcast_attn", "attention in fp32")
    return _gpt2_like(f, "gelu_new")


def gpt_bigcode(f: Fields) -> Structure:
    """GPT-2 with one key/value head: StarCoder 1."""
    s = _gpt2_like(f, "gelu_pytorch_tanh")
    return {**s, "num_key_value_heads": 1} if f.flag("multi_query", True) else s


def falcon(f: Fields) -> Structure:
    """Falcon's three generations, told apart by flags; its first files spell `hidden_size` as `n_embed`."""
    hidden_key = "n_embed" if f.has("n_embed") else "hidden_size"
    hidden, heads = f.size(hidden_key, 4544), f.size("num_attention_heads", 71, maximum=MAX_HEADS)
    if hidden % heads:
        raise f.bad("num_attention_heads", f"is {heads}: {hidden_key} {hidden} is not a multiple of it")
    new, multi_query = f.flag("new_decoder_architecture", False), f.flag("multi_query", True)
    alibi, bias = f.flag("alibi", False), f.flag("bias", False)
    for key in ("hidden_dropout", "attention_dropout"):
        if f.number(key, 0.0) > 0:
            raise f.unsupported(key, "dropout in Falcon")
    found = kv_heads(f, "num_kv_heads", heads, heads)
    s: Structure = {
        "hidden_size": hidden,
        "intermediate_size": f.optional_size("ffn_hidden_size", 4 * hidden),
        "num_hidden_layers": f.size("num_hidden_layers", 32, maximum=MAX_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": found if new else 1 if multi_query else heads,
        "head_dim": hidden // heads,
        "vocab_size": f.size("vocab_size", 65_024),
        "tie_word_embeddings": f.flag("tie_word_embeddings", True),
        "max_position_embeddings": f.size("max_position_embeddings", 2048, maximum=MAX_POSITIONS),
        "activation": activation(f, "activation", "gelu"),
        "norm": "layer",
        "norm_bias": True,
        "norm_placement": _falcon_norms(f, new),
        "fused_qkv": True,
        "qkv_names": ("query_key_value",),
        "out_name": "dense",
        "mlp": "plain",
        "mlp_names": ("dense_h_to_4h", "dense_4h_to_h"),
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "mlp_bias": bias,
    }
    return {**s, "position": "alibi"} if alibi else rope(f, s)


def _falcon_norms(f: Fields, new: bool) -> str:
    parallel, norms = f.flag("parallel_attn", True), f.optional_size("num_ln_in_parallel_attn", 2 if new else 1)
    if norms > 2 or (not parallel and new) or (norms == 2 and not new):
        raise f.unsupported("num_ln_in_parallel_attn", "a mixture of Falcon's generations")
    if not parallel:
        return "pre"
    return "parallel_two" if norms == 2 else "parallel_one"


FAMILIES: dict[str, Family] = {
    "falcon": falcon,
    "gpt2": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neox": gpt_neox,
    "phi": phi,
    "phi3": phi3,
}
