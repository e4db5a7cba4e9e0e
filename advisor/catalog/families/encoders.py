"""Encoders: BERT, RoBERTa, XLM-RoBERTa, ModernBERT, trained on masked tokens. Sources: see the package."""

from __future__ import annotations

from advisor.catalog.families.sizes import (
    MAX_POSITIONS,
    Defaults,
    Family,
    Structure,
    activation,
    rope,
    sizes,
    sliding_layers,
    windowed,
)
from advisor.catalog.fields import Fields


def bert(f: Fields) -> Structure:
    """BERT: learned positions, token types, norms after each sum."""
    return _encoder(f, Defaults(30_522, 768, 3072, 12, 12, 512, tied=True, activation="gelu"), 2, 0)


def roberta(f: Fields) -> Structure:
    """RoBERTa and XLM-RoBERTa: two rows of the table of positions are not for tokens."""
    return _encoder(f, Defaults(50_265, 768, 3072, 12, 12, 512, tied=True, activation="gelu"), 2, 2)


def xlm_roberta(f: Fields) -> Structure:
    """XLM-RoBERTa."""
    return _encoder(f, Defaults(30_522, 768, 3072, 12, 12, 512, tied=True, activation="gelu"), 2, 2)


def _encoder(f: Fields, d: Defaults, types: int, offset: int) -> Structure:
    s = sizes(f, d, explicit_head_dim=False)
    for key in ("is_decoder", "add_cross_attention"):
        if f.flag(key, False):
            raise f.unsupported(key, "an encoder that runs as a decoder")
    if f.size("chunk_size_feed_forward", 0, minimum=0):
        raise f.unsupported("chunk_size_feed_forward", "an MLP in chunks of the row")
    if not s["tie_word_embeddings"]:
        raise f.unsupported("tie_word_embeddings", "an encoder whose head is not its embedding")
    if f.size("pad_token_id", offset // 2, minimum=0) != offset // 2 and offset:
        raise f.unsupported("pad_token_id", "positions that begin elsewhere")
    dropout, task = f.number("hidden_dropout_prob", 0.1), _task(f)
    if f.has("classifier_dropout") and (f.number("classifier_dropout", 0.0) > 0) != (dropout > 0):
        raise f.unsupported("classifier_dropout", "dropout in the classifier alone, or everywhere else")
    return {
        **s,
        "num_key_value_heads": s["num_attention_heads"],
        "task": task,
        "bidirectional": True,
        "position": "learned",
        "max_position_embeddings": s["max_position_embeddings"] - offset,
        "position_offset": offset,
        "token_types": f.size("type_vocab_size", types),
        "norm": "layer",
        "norm_bias": True,
        "norm_placement": "post_sum",
        "embedding_norm": True,
        "transform_bias": True,
        "final_norm": False,
        "qkv_bias": True,
        "attention_out_bias": True,
        "mlp": "plain",
        "mlp_bias": True,
        "lm_head_bias": task == "masked_tokens",
        "qkv_names": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "out_name": "attention.output.dense",
        "mlp_names": ("intermediate.dense", "output.dense"),
        "attention_dropout": f.number("attention_probs_dropout_prob", 0.1),
        "residual_dropout": dropout,
        "embedding_dropout": dropout,
    }


def modernbert(f: Fields) -> Structure:
    """ModernBERT: RoPE, gated MLPs, norms before the blocks, a window to both sides in two layers of three."""
    s = sizes(f, Defaults(50_368, 768, 1152, 22, 12, 8192, tied=True, activation="gelu"), explicit_head_dim=False)
    s["activation"] = activation(f, "hidden_activation", "gelu")
    if activation(f, "classifier_activation", "gelu") != s["activation"]:
        raise f.unsupported("classifier_activation", "a head with an activation of its own")
    for key in ("attention_dropout", "mlp_dropout", "classifier_dropout"):
        if f.number(key, 0.0):
            raise f.unsupported(key, "dropout after the embedding")
    if f.flag("sparse_prediction", False):
        raise f.unsupported("sparse_prediction", "logits of the masked tokens alone, whose number the labels decide")
    if not s["tie_word_embeddings"]:
        raise f.unsupported("tie_word_embeddings", "an encoder whose head is not its embedding")
    every = f.size("global_attn_every_n_layers", 3)
    slides = sliding_layers(f, s["num_hidden_layers"], lambda i: bool(i % every))
    bias, task = f.flag("attention_bias", False), _task(f)
    structure = {
        **s,
        "num_key_value_heads": s["num_attention_heads"],
        "task": task,
        "bidirectional": True,
        "norm": "layer",
        "norm_bias": f.flag("norm_bias", False),
        "attention_norm": "after_first",
        "embedding_norm": True,
        "pools_mean": f.text("classifier_pooling", "cls") == "mean",
        "transform_bias": f.flag("classifier_bias", False),
        "fused_qkv": True,
        "qkv_bias": bias,
        "attention_out_bias": bias,
        "mlp": "gated_fused",
        "mlp_bias": f.flag("mlp_bias", False),
        "lm_head_bias": task == "masked_tokens" and f.flag("decoder_bias", True),
        "qkv_names": ("attn.Wqkv",),
        "out_name": "attn.Wo",
        "mlp_names": ("mlp.Wi", "mlp.Wo"),
        "embedding_dropout": f.number("embedding_dropout", 0.0),
        **windowed(f.size("local_attention", 128, minimum=2, maximum=MAX_POSITIONS) // 2, slides),
    }
    return rope(f, structure)


def _task(f: Fields) -> str:
    """What the model is trained for, by the class that the config names; masked tokens where it names none."""
    if f.names_no_head():
        return "embeddings"
    named = str(next(iter(f.items("architectures")), ""))
    if f.names_classifier():
        return "classification"
    if named and not named.endswith(("ForMaskedLM", "ForPreTraining")):
        raise f.unsupported("architectures", f"{named[:40]!r}, a head")
    return "masked_tokens"


FAMILIES: dict[str, Family] = {"bert": bert, "roberta": roberta, "xlm-roberta": xlm_roberta, "modernbert": modernbert}
