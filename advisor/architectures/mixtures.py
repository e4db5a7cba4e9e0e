"""Architectures with experts, in all or some layers of all or some of their models."""

from __future__ import annotations

from advisor.architectures.row import Architecture

MIXTURES: dict[str, Architecture] = {
    "deepseek_v2": Architecture(
        # modeling_deepseek_v2.py, DeepseekV2TopkRouter.forward: scores = router_logits.softmax(...)
        mixture="deepseek_v2",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_deepseek_v2.py, DeepseekV2RotaryEmbedding.forward: freqs_cis = torch.polar(...)
        rope_tables="complex",
    ),
    "deepseek_v3": Architecture(
        expert_loop="wide_sum",  # transformers 4.57, modeling_deepseek_v3.py, DeepseekV3MoE.moe
        # modeling_deepseek_v3.py, DeepseekV3TopkRouter.forward: scores = router_logits.sigmoid()
        mixture="deepseek_v3",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_deepseek_v3.py, DeepseekV3TopkRouter: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="buffer",
    ),
    "dots1": Architecture(
        expert_loop="wide_sum",  # transformers 4.57, modeling_dots1.py, Dots1MoE.moe
        mixture="deepseek_v3",  # modeling_dots1.py, Dots1TopkRouter.forward: scores = router_logits.sigmoid()
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        balancing_bias="buffer",  # modeling_dots1.py, Dots1TopkRouter: self.e_score_correction_bias = nn.Buffer(...)
    ),
    "ernie4_5_moe": Architecture(
        balances_experts=True,  # modeling_ernie4_5_moe.py, load_balancing_loss_func
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
    "gemma4_text": Architecture(
        layer="gemma4",  # modeling_gemma4.py, Gemma4TextAttention.forward: value_states = self.v_norm(value_states)
        reads_per_layer_config=True,  # configuration_gemma4.py, Gemma4TextConfig.__post_init__: "per_layer_config"
        norms_after_values=True,  # modeling_gemma4.py, Gemma4TextAttention.forward: k_norm after v_proj
        # modeling_gemma4.py, Gemma4TextDecoderLayer.forward: hidden_states = hidden_states_1 + hidden_states_2
        experts_beside_mlp=True,
        layer_scalar=True,  # modeling_gemma4.py, Gemma4TextDecoderLayer.forward: hidden_states *= self.layer_scalar
        # modeling_gemma4.py, Gemma4TextScaledWordEmbedding: self.embed_scale = nn.Buffer(...)
        embedding_scales_itself=True,
        # modeling_gemma4.py, Gemma4TextRotaryEmbedding: setattr(self, f"{layer_type}_inv_freq", nn.Buffer(...))
        rope_made="by_kind",
    ),
    "glm4_moe": Architecture(
        expert_loop="wide_sum",  # transformers 4.57, modeling_glm4_moe.py, Glm4MoeMoE.moe
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
    "gpt_oss": Architecture(
        balances_experts=True,  # modeling_gpt_oss.py, load_balancing_loss_func
        rope_tables="half",  # modeling_gpt_oss.py, GptOssRotaryEmbedding.forward: emb = freqs
        rope_parts="joined",  # modeling_gpt_oss.py, _apply_rotary_emb: return torch.cat((first_, second_), dim=-1)
    ),
    "granitemoe": Architecture(
        balances_experts=True,  # modeling_granitemoe.py, load_balancing_loss_func
        names_no_experts=True,  # configuration_granitemoe.py: num_local_experts
    ),
    "granitemoehybrid": Architecture(
        balances_experts=True,  # modeling_granitemoehybrid.py, load_balancing_loss_func
        names_no_experts=True,  # configuration_granitemoehybrid.py: num_local_experts
        # modeling_granitemoehybrid.py, GraniteMoeHybridDecoderLayer.forward: moe_hidden_states + self.shared_mlp(...)
        mixture="granite",
        # modeling_granitemoehybrid.py, GraniteMoeHybridDecoderLayer.__init__: self.shared_mlp
        linear_paths=("model.layers.{}.self_attn", "model.layers.{}.shared_mlp"),
        mixer_path="model.layers.{}.mamba",  # modeling_granitemoehybrid.py, GraniteMoeHybridDecoderLayer: self.mamba
        norms_end_in_norm=False,  # modeling_granitemoehybrid.py, GraniteMoeHybridMambaLayer: self.norm
        # modeling_granitemoehybrid.py, GraniteMoeHybridModel.forward: decoder_layer(...) without position_ids
        position_ids="not_passed_on",
        # modeling_granitemoehybrid.py, GraniteMoeHybridModel.forward: create_causal_mask(...) without position_ids
        sees_packed_rows_as_one=True,
    ),
    "granitemoeshared": Architecture(
        balances_experts=True,  # modeling_granitemoeshared.py, load_balancing_loss_func
        names_no_experts=True,  # configuration_granitemoeshared.py: num_local_experts
        # modeling_granitemoeshared.py, GraniteMoeSharedDecoderLayer.forward: moe_hidden_states + self.shared_mlp(...)
        mixture="granite",
    ),
    "hunyuan_v1_moe": Architecture(
        # modeling_hunyuan_v1_moe.py, HunYuanMoEV1Gate.forward: router_logits = self.wg(hidden_states)
        mixture="hunyuan",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        router_in_float=True,  # modeling_hunyuan_v1_moe.py, HunYuanMoEV1Gate: nn.Linear(..., dtype=torch.float32)
        # modeling_hunyuan_v1_moe.py, HunYuanMoEV1Attention.forward: query_layernorm after apply_rotary_pos_emb
        norms_after_rope=True,
    ),
    "lfm2_moe": Architecture(
        # modeling_lfm2_moe.py, Lfm2MoeTopKRouter.forward: scores_for_routing = routing_weights + expert_bias
        mixture="lfm2",
        # modeling_lfm2_moe.py, Lfm2MoeSparseMoeBlock: self.expert_bias = nn.Buffer(...)
        balancing_bias="buffer",
        # modeling_lfm2_moe.py, Lfm2MoeDecoderLayer.__init__: self.feed_forward
        linear_paths=("model.layers.{}.self_attn", "model.layers.{}.feed_forward"),
        mixer_path="model.layers.{}.conv",  # modeling_lfm2_moe.py, Lfm2MoeDecoderLayer.__init__: self.conv
    ),
    "llama4_text": Architecture(
        # modeling_llama4.py, Llama4TextDecoderLayer.__init__: self.feed_forward
        linear_paths=("model.layers.{}.self_attn", "model.layers.{}.feed_forward"),
        router_returns_several=True,  # modeling_llama4.py, Llama4Router.forward: return router_scores, router_logits
        mask_by_row=True,  # masking_utils.py, chunked_overlay: left_padding[batch_idx]
        rope_tables="complex",  # modeling_llama4.py, Llama4TextRotaryEmbedding.forward: freqs_cis = torch.polar(...)
        eager_softmax="given_uncast",  # modeling_llama4.py, eager_attention_forward: softmax(attn_weights, dim=-1)
        # modeling_llama4.py, Llama4TextDecoderLayer.forward: hidden_states = residual + attention_states
        keeps_attended=True,
    ),
    "mixtral": Architecture(
        balances_experts=True,  # modeling_mixtral.py, load_balancing_loss_func
        # transformers 4.47 and 4.48, modeling_mixtral.py, MixtralFlashAttention2.forward: repeat_kv
        flash_repeats_before=(4, 48),
        # transformers 4.45 and 4.47, modeling_mixtral.py, MixtralRotaryEmbedding: register_buffer("cos_cached", ...)
        rope_caches_before_4_48=True,
        expert_loop="shared",  # transformers 4.57, modeling_mixtral.py, MixtralSparseMoeBlock.forward
        # transformers 4.57, modeling_mixtral.py, MixtralBlockSparseTop2MLP.forward
        expert_names=("w1", "w3", "w2"),
        # peft, utils/transformers_weight_conversion.py: _MODEL_TO_CONVERSION_PATTERN["mixtral"] = "mixtral"
        fused_experts_in_peft=True,
    ),
    "jamba": Architecture(
        balances_experts=True,  # modeling_jamba.py, load_balancing_loss_func
        # modeling_jamba.py, JambaAttentionDecoderLayer.__init__: self.feed_forward = ffn_layer_class(config)
        linear_paths=("model.layers.{}.self_attn", "model.layers.{}.feed_forward"),
        mixer_path="model.layers.{}.mamba",  # modeling_jamba.py, JambaMambaDecoderLayer.__init__: self.mamba
        norms_end_in_norm=False,  # modeling_jamba.py, JambaMambaMixer.__init__: self.dt_layernorm = JambaRMSNorm(...)
    ),
    "nemotron_h": Architecture(
        mixture="nemotron_h",  # modeling_nemotron_h.py, NemotronHMoE.forward: self.fc1_latent_proj(hidden_states)
        # modeling_nemotron_h.py, NemotronHBlock.__init__: self.mixer
        linear_paths=("model.layers.{}.mixer", "model.layers.{}.mixer"),
        mixer_path="model.layers.{}.mixer",  # modeling_nemotron_h.py, NemotronHBlock.__init__: self.mixer
        embedding_name="embeddings",  # modeling_nemotron_h.py, NemotronHModel.__init__: self.embeddings
        norms_end_in_norm=False,  # modeling_nemotron_h.py, NemotronHModel.__init__: self.norm_f
        # modeling_nemotron_h.py, NemotronHTopkRouter: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="buffer",
        # peft, tuners/tuners_utils.py, _check_lora_target_modules_mamba: incompatible_modules
        refused_in_peft=("out_proj",),
        # modeling_nemotron_h.py, NemotronHForCausalLM.forward: self.lm_head(...).float()
        logits_in_float=True,
    ),
    "olmoe": Architecture(
        balances_experts=True,  # modeling_olmoe.py, load_balancing_loss_func
        own_sdpa_before_5=True,  # transformers 4.57, modeling_olmoe.py, OlmoeSdpaAttention.forward
        expert_loop="shared",  # transformers 4.57, modeling_olmoe.py, OlmoeSparseMoeBlock.forward
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
    ),
    "phimoe": Architecture(
        balances_experts=True,  # modeling_phimoe.py, load_balancing_loss_func
        names_no_experts=True,  # configuration_phimoe.py: num_local_experts
        mixture="phi",  # modeling_phimoe.py, PhimoeTopKRouter.forward: sparsemixer(...)
        # modeling_phimoe.py, PhimoeTopKRouter.forward: return router_logits, routing_weights, selected_experts
        router_returns_several=True,
        # modeling_phimoe.py, PhimoeRotaryEmbedding.forward: seq_len = torch.max(position_ids) + 1
        rope_type_reads_positions=True,
    ),
    "qwen2_moe": Architecture(
        balances_experts=True,  # modeling_qwen2_moe.py, load_balancing_loss_func
        own_sdpa_before_5=True,  # transformers 4.57, modeling_qwen2_moe.py, Qwen2MoeSdpaAttention.forward
        expert_loop="shared",  # transformers 4.57, modeling_qwen2_moe.py, Qwen2MoeSparseMoeBlock.forward
    ),
    "qwen3_5_moe_text": Architecture(
        balances_experts=True,  # modeling_qwen3_5_moe.py, load_balancing_loss_func
        # modeling_qwen3_5_moe.py, Qwen3_5MoeDecoderLayer.__init__: self.linear_attn
        mixer_path="model.layers.{}.linear_attn",
        # modeling_qwen3_5_moe.py, Qwen3_5MoeTextRotaryEmbedding.forward: position_ids.expand(3, -1, -1)
        rope_by_axis=True,
        rope_parts="joined",  # modeling_qwen3_5_moe.py, apply_rotary_pos_emb: torch.cat([q_embed, q_pass], dim=-1)
    ),
    "qwen3_next": Architecture(
        balances_experts=True,  # modeling_qwen3_next.py, load_balancing_loss_func
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        mixer_path="model.layers.{}.linear_attn",  # modeling_qwen3_next.py, Qwen3NextDecoderLayer: self.linear_attn
        rope_parts="joined",  # modeling_qwen3_next.py, apply_rotary_pos_emb: torch.cat([q_embed, q_pass], dim=-1)
    ),
    "qwen3_moe": Architecture(
        balances_experts=True,  # modeling_qwen3_moe.py, load_balancing_loss_func
        expert_loop="shared",  # transformers 4.57, modeling_qwen3_moe.py, Qwen3MoeSparseMoeBlock.forward
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
    ),
}
