"""How the code of each architecture differs from Llama's: one row an architecture, with the line that shows each point.

What a config.json decides is in `ModelSpec`; what the code does whatever the config is here. A field about RoPE, ALiBi,
experts or a fused projection counts for those models of the architecture that have them. Every family of the catalog
has a row: a test checks it. Sources are transformers 5.23 (models/x/modeling_x.py is cited as modeling_x.py) and
peft 0.21, whose _convert_peft_config_moe reads transformers' _MODEL_TO_CONVERSION_PATTERN.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from advisor.errors import UnsupportedArchitecture

NormKind = Literal["rms", "rms_unit_offset", "rms_float", "rms_power", "layer", "layer_unit_offset", "layer_float"]
"""
rms                 Llama's
rms_unit_offset     Gemma's, of (1 + weight)
rms_float           OLMo 2's, cast back after the weight
rms_power           Gemma 4's, of a power instead of a root
layer               nn.LayerNorm
layer_unit_offset   Nemotron's, of (1 + weight)
layer_float         a LayerNorm in fp32 (Cohere's; OLMo's has no weight)
"""


class Architecture(NamedTuple):
    """What the code of an architecture does; each default is what Llama's does."""

    # Whose code runs: the shared one, or one of their own.
    layer: Literal["shared", "bloom", "gemma4", "gptj", "mpt", "opt"] = "shared"
    mixture: Literal["shared", "deepseek_v2", "deepseek_v3", "ernie", "granite", "hunyuan", "phi"] = "shared"
    attention: Literal["shared", "own"] = "shared"

    # Parameters, buffers and what libraries make of them.
    reads_per_layer_config: bool = False  # its config may hold sizes of single layers
    linears_stay_unquantized: bool = False  # of a class of their own, which transformers' bitsandbytes passes over
    bias_apart: bool = False  # a linear layer adds its bias in an operation of its own
    fused_experts_in_peft: bool = False  # peft takes gate, up and down projections for parts of fused experts
    router_returns_several: bool = False  # it is a linear layer that returns several tensors: peft fails on it
    router_in_float: bool = False  # its weight is in fp32 whatever the base
    balancing_bias: Literal["none", "buffer", "parameter"] = "none"  # added to the scores that experts are picked by
    experts_beside_mlp: bool = False  # with three more norms, and learnt scales of the router
    layer_scalar: bool = False  # a buffer of one number that each layer's output is multiplied by
    causal_mask_buffer: bool = False  # of all positions by all positions
    embedding_scales_itself: bool = False  # the multiplier is a buffer of the embedding, not a line of the model

    # Before the first layer.
    position_ids: Literal["shared", "by_row", "not_passed_on", "none"] = "shared"  # one row for all rows of the batch
    keeps_embedding: Literal["undropped", "dropped"] = "undropped"  # what the model has a name for to its end
    alibi: Literal["none", "in_mask", "by_row", "longest_row"] = "none"
    always_makes_mask: bool = False  # also where the attention kernel is causal by itself
    mask_by_row: bool = False  # the mask of sliding layers is made for every row of the batch

    # Rotary positions.
    rope_made: Literal["where_used", "always", "by_kind", "in_layers"] = "where_used"  # by kind: sliding or not
    rope_tables: Literal["base", "float", "half", "complex"] = "base"  # dtype of hidden states; half: each angle once
    spreads_rope_tables: bool = False  # each layer makes tables for neighbouring features
    rope_turn: Literal["base", "float", "float_parts"] = "base"  # fp32 of the inputs, or of both products' operands
    rope_type_reads_positions: bool = False  # any type but the default branches on the values of position ids
    # Whether the turned part of a head is joined with the rest even when nothing is left over, and how long it lives.
    rope_parts: Literal["whole", "joined", "joined_in_expression", "joined_at_return", "kept_in_attention"] = "whole"

    # Queries, keys, values and attention.
    splits_fused: Literal["chunks", "slices", "indices"] = "chunks"  # of one projection for all three
    norms_after_values: bool = False  # values are projected before queries and keys are normed
    norms_after_rope: bool = False
    scales_projected_queries: bool = False  # before attention, which scales no more
    scales_queries_by_position: bool = False
    eager_softmax: Literal["float", "given", "given_uncast"] = "float"  # dtype; uncast: not cast back to that of values

    # The residual stream.
    drops_inside: bool = False  # residual dropout stands at the end of attention and MLP, not in the layer
    keeps_normed: Literal["none", "first", "both"] = "none"  # names for the norms' outputs that last to the layer's end
    keeps_attended: bool = False  # a name for the attention's output that lasts to the layer's end
    parallel_sum: Literal["residual_first", "residual_last", "mlp_first", "mlp_in_place"] = "residual_first"


ARCHITECTURES: dict[str, Architecture] = {
    "apertus": Architecture(
        norms_after_values=True,  # modeling_apertus.py, ApertusAttention.forward: q_norm after v_proj
    ),
    "arcee": Architecture(),
    "bloom": Architecture(
        layer="bloom",  # modeling_bloom.py, BloomBlock.forward: output = self.mlp(layernorm_output, residual)
        position_ids="none",  # modeling_bloom.py, BloomModel.forward: block(...) without position_ids
        alibi="by_row",  # modeling_bloom.py, BloomModel.forward: alibi = alibi.repeat(batch_size, 1, 1)
    ),
    "cohere": Architecture(
        norms_after_values=True,  # modeling_cohere.py, CohereAttention.forward: q_norm after v_proj
        rope_turn="float",  # modeling_cohere.py, apply_rotary_pos_emb: q = q.float()
    ),
    "cohere2": Architecture(
        rope_turn="float",  # modeling_cohere2.py, apply_rotary_pos_emb: q = q.float()
    ),
    "deepseek_v2": Architecture(
        # modeling_deepseek_v2.py, DeepseekV2TopkRouter.forward: scores = router_logits.softmax(...)
        mixture="deepseek_v2",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_deepseek_v2.py, DeepseekV2RotaryEmbedding.forward: freqs_cis = torch.polar(...)
        rope_tables="complex",
    ),
    "deepseek_v3": Architecture(
        # modeling_deepseek_v3.py, DeepseekV3TopkRouter.forward: scores = router_logits.sigmoid()
        mixture="deepseek_v3",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_deepseek_v3.py, DeepseekV3TopkRouter: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="buffer",
    ),
    "dots1": Architecture(
        mixture="deepseek_v3",  # modeling_dots1.py, Dots1TopkRouter.forward: scores = router_logits.sigmoid()
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        balancing_bias="buffer",  # modeling_dots1.py, Dots1TopkRouter: self.e_score_correction_bias = nn.Buffer(...)
    ),
    "ernie4_5": Architecture(
        rope_tables="float",  # modeling_ernie4_5.py, Ernie4_5RotaryEmbedding.forward: return cos, sin
        # modeling_ernie4_5.py, apply_rotary_pos_emb: cos[..., : cos.shape[-1] // 2].repeat_interleave(2, dim=-1)
        spreads_rope_tables=True,
        # modeling_ernie4_5.py, apply_rotary_pos_emb: (q.float() * cos) + (rotate_half(q).float() * sin)
        rope_turn="float_parts",
    ),
    "ernie4_5_moe": Architecture(
        # modeling_ernie4_5_moe.py, Ernie4_5_MoeTopKRouter.forward: with maybe_autocast(..., enabled=False)
        mixture="ernie",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_ernie4_5_moe.py, Ernie4_5_MoePreTrainedModel: _keep_in_fp32_modules_strict = ["gate.weight", ...]
        router_in_float=True,
        # modeling_ernie4_5_moe.py, Ernie4_5_MoeStatics: nn.Parameter(..., requires_grad=False)
        balancing_bias="parameter",
        rope_tables="float",  # modeling_ernie4_5_moe.py, Ernie4_5_MoeRotaryEmbedding.forward: return cos, sin
        # modeling_ernie4_5_moe.py, apply_rotary_pos_emb: cos[..., : cos.shape[-1] // 2].repeat_interleave(2, dim=-1)
        spreads_rope_tables=True,
        # modeling_ernie4_5_moe.py, apply_rotary_pos_emb: (q.float() * cos) + (rotate_half(q).float() * sin)
        rope_turn="float_parts",
    ),
    "exaone4": Architecture(
        norms_after_values=True,  # modeling_exaone4.py, Exaone4Attention.forward: q_norm after v_proj
    ),
    "falcon": Architecture(
        # modeling_falcon.py, FalconAttention.forward: scaled_dot_product_attention(...) without enable_gqa
        attention="own",
        # integrations/bitsandbytes.py, replace_with_bnb_linear: type(module) is nn.Linear
        linears_stay_unquantized=True,
        bias_apart=True,  # modeling_falcon.py, FalconLinear.forward: return hidden_states + self.bias
        # modeling_falcon.py, FalconModel.forward: causal_mask = torch.masked_fill(alibi / ..., causal_mask < -1, ...)
        alibi="in_mask",
        always_makes_mask=True,  # modeling_falcon.py, FalconModel.forward: allow_is_causal_skip=False
        # modeling_falcon.py, FalconModel.forward: position_embeddings = self.rotary_emb(...)
        rope_made="always",
        splits_fused="indices",  # modeling_falcon.py, FalconAttention._split_heads: key = qkv[:, :, :, [-2]]
        keeps_normed="both",  # modeling_falcon.py, FalconDecoderLayer.forward: attention_layernorm_out
        keeps_attended=True,  # modeling_falcon.py, FalconDecoderLayer.forward: attention_output
        parallel_sum="mlp_in_place",  # modeling_falcon.py, FalconDecoderLayer.forward: mlp_output += attention_output
    ),
    "gemma": Architecture(
        # modeling_gemma.py, GemmaTextScaledWordEmbedding: self.embed_scale = nn.Buffer(...)
        embedding_scales_itself=True,
    ),
    "gemma2": Architecture(
        # modeling_gemma2.py, Gemma2TextScaledWordEmbedding: self.embed_scale = nn.Buffer(...)
        embedding_scales_itself=True,
    ),
    "gemma3_text": Architecture(
        # modeling_gemma3.py, Gemma3TextScaledWordEmbedding: self.embed_scale = nn.Buffer(...)
        embedding_scales_itself=True,
        # modeling_gemma3.py, Gemma3RotaryEmbedding: setattr(self, f"{layer_type}_inv_freq", nn.Buffer(...))
        rope_made="by_kind",
        norms_after_values=True,  # modeling_gemma3.py, Gemma3Attention.forward: q_norm after v_proj
    ),
    "gemma4_text": Architecture(
        layer="gemma4",  # modeling_gemma4.py, Gemma4TextAttention.forward: value_states = self.v_norm(value_states)
        reads_per_layer_config=True,  # configuration_gemma4.py, Gemma4TextConfig.__post_init__: "per_layer_config"
        # modeling_gemma4.py, Gemma4TextDecoderLayer.forward: hidden_states = hidden_states_1 + hidden_states_2
        experts_beside_mlp=True,
        layer_scalar=True,  # modeling_gemma4.py, Gemma4TextDecoderLayer.forward: hidden_states *= self.layer_scalar
        # modeling_gemma4.py, Gemma4TextScaledWordEmbedding: self.embed_scale = nn.Buffer(...)
        embedding_scales_itself=True,
        # modeling_gemma4.py, Gemma4TextRotaryEmbedding: setattr(self, f"{layer_type}_inv_freq", nn.Buffer(...))
        rope_made="by_kind",
    ),
    "glm": Architecture(
        # modeling_glm.py, apply_rotary_pos_emb: cos[..., : cos.shape[-1] // 2].repeat_interleave(2, dim=-1)
        spreads_rope_tables=True,
        rope_parts="joined",  # modeling_glm.py, apply_rotary_pos_emb: q_embed = torch.cat([q_embed, q_pass], dim=-1)
    ),
    "glm4": Architecture(
        # modeling_glm4.py, apply_rotary_pos_emb: cos[..., : cos.shape[-1] // 2].repeat_interleave(2, dim=-1)
        spreads_rope_tables=True,
        rope_parts="joined",  # modeling_glm4.py, apply_rotary_pos_emb: q_embed = torch.cat([q_embed, q_pass], dim=-1)
    ),
    "glm4_moe": Architecture(
        mixture="deepseek_v3",  # modeling_glm4_moe.py, Glm4MoeTopkRouter.forward: scores = router_logits.sigmoid()
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_glm4_moe.py, Glm4MoeTopkRouter: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="buffer",
        rope_parts="joined",  # modeling_glm4_moe.py, apply_rotary_pos_emb: q_embed = torch.cat([q_embed, q_pass], ...)
        norms_after_values=True,  # modeling_glm4_moe.py, Glm4MoeAttention.forward: q_norm after v_proj
    ),
    "glm4_moe_lite": Architecture(
        # modeling_glm4_moe_lite.py, Glm4MoeLiteTopkRouter.forward: scores = router_logits.sigmoid()
        mixture="deepseek_v3",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_glm4_moe_lite.py, Glm4MoeLiteTopkRouter: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="buffer",
    ),
    "gpt2": Architecture(
        eager_softmax="given",  # modeling_gpt2.py, eager_attention_forward: softmax(attn_weights, dim=-1)
        drops_inside=True,  # modeling_gpt2.py, GPT2Attention.forward: self.resid_dropout(attn_output)
        keeps_attended=True,  # modeling_gpt2.py, GPT2Block.forward: hidden_states = attn_output + residual
    ),
    "gpt_bigcode": Architecture(
        causal_mask_buffer=True,  # modeling_gpt_bigcode.py, GPTBigCodeModel: self.bias = nn.Buffer(torch.tril(...))
        # modeling_gpt_bigcode.py, GPTBigCodeModel.forward: block(...) without position_ids
        position_ids="not_passed_on",
        drops_inside=True,  # modeling_gpt_bigcode.py, GPTBigCodeAttention.forward: self.resid_dropout(attn_output)
        keeps_attended=True,  # modeling_gpt_bigcode.py, GPTBigCodeBlock.forward: attn_output + residual
    ),
    "gpt_neox": Architecture(
        rope_parts="joined",  # modeling_gpt_neox.py, apply_rotary_pos_emb: q_embed = torch.cat([q_embed, q_pass], ...)
        # modeling_gpt_neox.py, GPTNeoXLayer.forward: hidden_states = mlp_output + attn_output + hidden_states
        parallel_sum="mlp_first",
    ),
    "gpt_oss": Architecture(
        rope_tables="half",  # modeling_gpt_oss.py, GptOssRotaryEmbedding.forward: emb = freqs
        rope_parts="joined",  # modeling_gpt_oss.py, _apply_rotary_emb: return torch.cat((first_, second_), dim=-1)
    ),
    "gptj": Architecture(
        layer="gptj",  # modeling_gptj.py, GPTJBlock.forward: attn_outputs + feed_forward_hidden_states + residual
        rope_made="in_layers",  # modeling_gptj.py, GPTJAttention: self.embed_positions = nn.Buffer(...)
    ),
    "granite": Architecture(),
    "granitemoe": Architecture(),
    "granitemoeshared": Architecture(
        # modeling_granitemoeshared.py, GraniteMoeSharedDecoderLayer.forward: moe_hidden_states + self.shared_mlp(...)
        mixture="granite",
    ),
    "hunyuan_v1_dense": Architecture(
        # modeling_hunyuan_v1_dense.py, HunYuanDenseV1Attention.forward: query_layernorm after apply_rotary_pos_emb
        norms_after_rope=True,
    ),
    "hunyuan_v1_moe": Architecture(
        # modeling_hunyuan_v1_moe.py, HunYuanMoEV1Gate.forward: router_logits = self.wg(hidden_states)
        mixture="hunyuan",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        router_in_float=True,  # modeling_hunyuan_v1_moe.py, HunYuanMoEV1Gate: nn.Linear(..., dtype=torch.float32)
        # modeling_hunyuan_v1_moe.py, HunYuanMoEV1Attention.forward: query_layernorm after apply_rotary_pos_emb
        norms_after_rope=True,
    ),
    "lit-gpt": Architecture(  # in no catalog: the models of its published measurements
        rope_parts="joined",  # lit_gpt/model.py, CausalSelfAttention.forward: q = torch.cat((q_roped, ...), dim=-1)
    ),
    "llama": Architecture(),
    "llama4_text": Architecture(
        router_returns_several=True,  # modeling_llama4.py, Llama4Router.forward: return router_scores, router_logits
        mask_by_row=True,  # masking_utils.py, chunked_overlay: left_padding[batch_idx]
        rope_tables="complex",  # modeling_llama4.py, Llama4TextRotaryEmbedding.forward: freqs_cis = torch.polar(...)
        eager_softmax="given_uncast",  # modeling_llama4.py, eager_attention_forward: softmax(attn_weights, dim=-1)
        # modeling_llama4.py, Llama4TextDecoderLayer.forward: hidden_states = residual + attention_states
        keeps_attended=True,
    ),
    "ministral3": Architecture(
        # modeling_ministral3.py, Ministral3Attention.forward: query_states * get_llama_4_attn_scale(...)
        scales_queries_by_position=True,
    ),
    "mistral": Architecture(),
    "mixtral": Architecture(
        # peft, utils/transformers_weight_conversion.py: _MODEL_TO_CONVERSION_PATTERN["mixtral"] = "mixtral"
        fused_experts_in_peft=True,
    ),
    "mpt": Architecture(
        layer="mpt",  # modeling_mpt.py, MptBlock.forward: output = self.ffn(layernorm_output, residual)
        position_ids="none",  # modeling_mpt.py, MptModel.forward: block(...) without position_ids
        # modeling_mpt.py, MptModel.forward: build_mpt_alibi_tensor(self.num_heads, self.config.max_seq_len, ...)
        alibi="longest_row",
    ),
    "nemotron": Architecture(
        # modeling_nemotron.py, apply_rotary_pos_emb: return torch.cat((q_embed, q_pass), dim=-1), torch.cat(...)
        rope_parts="joined_at_return",
    ),
    "olmo": Architecture(
        rope_tables="float",  # modeling_olmo.py, OlmoRotaryEmbedding.forward: return cos, sin
    ),
    "olmo2": Architecture(
        rope_tables="float",  # modeling_olmo2.py, Olmo2RotaryEmbedding.forward: return cos, sin
    ),
    "olmo3": Architecture(
        # modeling_olmo3.py, Olmo3RotaryEmbedding: setattr(self, f"{layer_type}_inv_freq", nn.Buffer(...))
        rope_made="by_kind",
        rope_tables="float",  # modeling_olmo3.py, Olmo3RotaryEmbedding.forward: return cos, sin
    ),
    "olmoe": Architecture(
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
    ),
    "opt": Architecture(
        layer="opt",  # modeling_opt.py, OPTDecoderLayer.forward: hidden_states = self.fc1(hidden_states)
        position_ids="by_row",  # modeling_opt.py, OPTDecoder.forward: torch.cumsum(position_attention_mask, dim=1)
        # modeling_opt.py, OPTAttention.forward: query_states = self.q_proj(hidden_states) * self.scaling
        scales_projected_queries=True,
    ),
    "phi": Architecture(
        keeps_embedding="dropped",  # modeling_phi.py, PhiModel.forward: inputs_embeds = self.embed_dropout(...)
        # modeling_phi.py, PhiAttention.forward: query_states = torch.cat((query_rot, query_pass), dim=-1)
        rope_parts="kept_in_attention",
        # modeling_phi.py, PhiDecoderLayer.forward: attn_outputs + feed_forward_hidden_states + residual
        parallel_sum="residual_last",
    ),
    "phi3": Architecture(
        # modeling_phi3.py, apply_rotary_pos_emb: torch.cat([(q_rot * cos) + (rotate_half(q_rot) * sin), q_pass], ...)
        rope_parts="joined_in_expression",
        splits_fused="slices",  # modeling_phi3.py, Phi3Attention.forward: query_states = qkv[..., :query_pos]
    ),
    "phimoe": Architecture(
        mixture="phi",  # modeling_phimoe.py, PhimoeTopKRouter.forward: sparsemixer(...)
        # modeling_phimoe.py, PhimoeTopKRouter.forward: return router_logits, routing_weights, selected_experts
        router_returns_several=True,
        # modeling_phimoe.py, PhimoeRotaryEmbedding.forward: seq_len = torch.max(position_ids) + 1
        rope_type_reads_positions=True,
    ),
    "qwen": Architecture(),  # in no catalog: Qwen 1, whose published measurements are checked
    "qwen2": Architecture(),
    "qwen2_moe": Architecture(),
    "qwen3": Architecture(),
    "qwen3_moe": Architecture(
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
    ),
    "seed_oss": Architecture(
        drops_inside=True,  # modeling_seed_oss.py, SeedOssAttention.forward: nn.functional.dropout(attn_output, ...)
    ),
    "smollm3": Architecture(),
    "stablelm": Architecture(
        # modeling_stablelm.py, StableLmAttention.forward: query_states = torch.cat((query_rot, query_pass), dim=-1)
        rope_parts="kept_in_attention",
        norms_after_values=True,  # modeling_stablelm.py, StableLmAttention.forward: q_layernorm after v_proj
        keeps_normed="first",  # modeling_stablelm.py, StableLmDecoderLayer.forward: self.mlp(self.post_attention_...)
        keeps_attended=True,  # modeling_stablelm.py, StableLmDecoderLayer.forward: residual + self_attn_output
    ),
    "starcoder2": Architecture(
        drops_inside=True,  # modeling_starcoder2.py, Starcoder2Attention.forward: nn.functional.dropout(attn_output)
    ),
}


def architecture_of(model_type: str) -> Architecture:
    """The row of transformers' `model_type`. Raises UnsupportedArchitecture for one that has none."""
    found = ARCHITECTURES.get(model_type)
    if found is None:
        raise UnsupportedArchitecture(
            f"architecture {model_type[:60]!r} is not one that the formula knows: `calibrate --dry-run` measures it"
        )
    return found
