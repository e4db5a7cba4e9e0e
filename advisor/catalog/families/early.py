"""Families of 2021 to 2023 with their own code: OPT, GPT-J, BLOOM, MPT. Sources: see the package."""

from __future__ import annotations

from advisor.catalog.families.sizes import MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, Family, Structure, activation, rope
from advisor.catalog.fields import Fields


class _Names:
    """How a family spells its sizes."""

    def __init__(self, hidden: str, heads: str, layers: str) -> None:
        self.hidden, self.heads, self.layers = hidden, heads, layers


def _sizes(f: Fields, names: _Names, hidden: int, heads: int, layers: int) -> Structure:
    """Sizes of a model in which every head has its own keys and values."""
    hidden_key = f.key_of(names.hidden, "hidden_size")
    heads_key = f.key_of(names.heads, "num_attention_heads")
    hidden, heads = f.size(hidden_key, hidden), f.size(heads_key, heads, maximum=MAX_HEADS)
    if hidden % heads:
        raise f.bad(heads_key, f"is {heads}: {hidden_key} {hidden} is not a multiple of it")
    return {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "num_hidden_layers": f.size(f.key_of(names.layers, "num_hidden_layers"), layers, maximum=MAX_LAYERS),
        "intermediate_size": 4 * hidden,
        "norm": "layer",
        "norm_bias": True,
        "mlp": "plain",
    }


def _no_dropout(f: Fields, *keys: str) -> None:
    for key in keys:
        if f.number(key, 0.0) > 0:
            raise f.unsupported(key, "dropout in this architecture")


def opt(f: Fields) -> Structure:
    """OPT: learned positions (two more than stated), queries scaled before attention; 350M norms after its blocks."""
    s = _sizes(f, _Names("hidden_size", "num_attention_heads", "num_hidden_layers"), 768, 12, 12)
    width, before = f.optional_size("word_embed_proj_dim", s["hidden_size"]), f.flag("do_layer_norm_before", True)
    if not f.flag("layer_norm_elementwise_affine", True):
        raise f.unsupported("layer_norm_elementwise_affine", "norms without weights")
    if f.number("layerdrop", 0.0) > 0:
        raise f.unsupported("layerdrop", "layers skipped at random")
    bias = f.flag("enable_bias", True)
    return {
        **s,
        "intermediate_size": f.size("ffn_dim", 3072),
        "vocab_size": f.size("vocab_size", 50_272),
        "embedding_size": 0 if width == s["hidden_size"] else width,
        "norm_placement": "pre" if before else "post_sum",
        "final_norm": before and not f.flag("_remove_final_layer_norm", False),
        "max_position_embeddings": f.size("max_position_embeddings", 2048, maximum=MAX_POSITIONS),
        "position": "learned",
        "position_offset": 2,
        "tie_word_embeddings": f.flag("tie_word_embeddings", True),
        "activation": activation(f, "activation_function", "relu"),
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "mlp_bias": bias,
        "out_name": "out_proj",
        "mlp_names": ("fc1", "fc2"),
        "attention_dropout": f.number("attention_dropout", 0.0),
        "residual_dropout": f.number("dropout", 0.1),
    }


def gptj(f: Fields) -> Structure:
    """GPT-J: attention and MLP in parallel after one LayerNorm, rotary tables in every layer, a biased head."""
    s = _sizes(f, _Names("n_embd", "n_head", "n_layer"), 4096, 16, 28)
    _no_dropout(f, "resid_pdrop", "embd_pdrop", "attn_pdrop")
    if f.is_null("rotary_dim"):
        raise f.unsupported("rotary_dim", "rotary tables as wide as the hidden states")
    rotary = f.size("rotary_dim", 64)
    if rotary > s["head_dim"]:
        raise f.bad("rotary_dim", f"is {rotary}: a head has {s['head_dim']} features")
    return rope(
        f,
        {
            **s,
            "intermediate_size": f.optional_size("n_inner", 4 * s["hidden_size"]),
            "vocab_size": f.size("vocab_size", 50_400),
            "tie_word_embeddings": f.flag("tie_word_embeddings", False),
            "max_position_embeddings": f.size(f.key_of("n_positions", "max_position_embeddings"), 2048),
            "activation": activation(f, "activation_function", "gelu_new"),
            "norm_placement": "parallel_one",
            "mlp_bias": True,
            "lm_head_bias": True,
            "out_name": "out_proj",
            "mlp_names": ("fc_in", "fc_out"),
            "default_attention": "eager",
        },
        rotary / s["head_dim"],
    )


def bloom(f: Fields) -> Structure:
    """BLOOM: ALiBi inside a fused product, a norm after the embedding, a GELU with its own backward."""
    hidden_key = "n_embed" if f.has("n_embed") else "hidden_size"
    s = _sizes(f, _Names(hidden_key, "n_head", "n_layer"), 64, 8, 2)
    _no_dropout(f, "hidden_dropout", "attention_dropout")
    if f.flag("apply_residual_connection_post_layernorm", False):
        raise f.unsupported("apply_residual_connection_post_layernorm", "residuals taken after the norms")
    if f.size("pretraining_tp", 1) > 1 and f.flag("slow_but_exact", False):
        raise f.unsupported("slow_but_exact", "projections in slices")
    return {
        **s,
        "vocab_size": f.size("vocab_size", 250_880),
        "tie_word_embeddings": f.flag("tie_word_embeddings", True),
        "position": "alibi",
        "max_position_embeddings": f.optional_size("seq_length", 2048, maximum=MAX_POSITIONS),
        "embedding_norm": True,
        "fused_qkv": True,
        "qkv_bias": True,
        "attention_out_bias": True,
        "mlp_bias": True,
        "activation": "gelu_bloom",
        "qkv_names": ("query_key_value",),
        "out_name": "dense",
        "mlp_names": ("dense_h_to_4h", "dense_4h_to_h"),
        "default_attention": "eager",
    }


def mpt(f: Fields) -> Structure:
    """MPT: ALiBi as an fp32 bias, norms without biases, no biases at all."""
    s = _sizes(f, _Names("d_model", "n_heads", "n_layers"), 2048, 16, 24)
    attention = f.part("attn_config")
    if attention.has("clip_qkv") and attention.config["clip_qkv"]:
        raise attention.unsupported("clip_qkv", "queries, keys and values clamped")
    _no_dropout(attention, "attn_pdrop")
    return {
        **s,
        "vocab_size": f.size("vocab_size", 50_368),
        "tie_word_embeddings": f.flag("tie_word_embeddings", True),
        "position": "alibi",
        "max_position_embeddings": f.size("max_seq_len", 2048, maximum=MAX_POSITIONS),
        "norm_bias": False,
        "fused_qkv": True,
        "activation": "gelu",
        "qkv_names": ("Wqkv",),
        "out_name": "out_proj",
        "mlp_names": ("up_proj", "down_proj"),
        "default_attention": "eager",
    }


FAMILIES: dict[str, Family] = {
    "bloom": bloom,
    "gptj": gptj,
    "mpt": mpt,
    "opt": opt,
}
