"""Architectures whose mixtures came after DeepSeek V3's, most of them with its sigmoid scores."""

from __future__ import annotations

from advisor.architectures.row import Architecture

SIGMOID_MIXTURES: dict[str, Architecture] = {
    "afmoe": Architecture(
        mixture="afmoe",  # modeling_afmoe.py, AfmoeTokenChoiceRouter.forward: scores = torch.sigmoid(router_logits)
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_afmoe.py, AfmoeSparseMoeBlock: self.expert_bias = nn.Parameter(..., requires_grad=False)
        balancing_bias="base_parameter",
        # modeling_afmoe.py, AfmoeModel.forward: hidden_states = hidden_states * (self.config.hidden_size**0.5)
        keeps_embedding="unscaled",
        # modeling_afmoe.py, AfmoeModel.forward: create_causal_mask(**mask_kwargs) without position_ids
        sees_packed_rows_as_one=True,
        gate_name="self_attn.gate_proj",  # modeling_afmoe.py, AfmoeAttention.forward: torch.sigmoid(gate_states)
    ),
    "deepseek_v32": Architecture(
        # modeling_deepseek_v32.py, DeepseekV32TopkRouter.forward: scores = router_logits.sigmoid()
        mixture="deepseek_v3",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_deepseek_v32.py, DeepseekV32TopkRouter: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="buffer",
        always_makes_mask=True,  # modeling_deepseek_v32.py, DeepseekV32Model.forward: "allow_is_causal_skip": False
    ),
    "glm_moe_dsa": Architecture(
        # modeling_glm_moe_dsa.py, GlmMoeDsaTopkRouter.forward: scores = router_logits.sigmoid()
        mixture="deepseek_v3",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_glm_moe_dsa.py, GlmMoeDsaTopkRouter: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="buffer",
        always_makes_mask=True,  # modeling_glm_moe_dsa.py, GlmMoeDsaModel.forward: "allow_is_causal_skip": False
        # modeling_glm_moe_dsa.py, GlmMoeDsaIndexer.forward: apply_rotary_pos_emb_interleave(q_rot, k_rot, ...)
        indexer_turns_pairs=True,
        # modeling_glm_moe_dsa.py, GlmMoeDsaModel.forward: prev_topk_indices=topk_indices
        passes_choice_on=True,
    ),
    "hy_v3": Architecture(
        mixture="hy_v3",  # modeling_hy_v3.py, HYV3TopKRouter.forward: routing_weights = torch.sigmoid(router_logits)
        balancing_bias="buffer",  # modeling_hy_v3.py, HYV3MoE: self.e_score_correction_bias = nn.Buffer(...)
        norms_after_values=True,  # modeling_hy_v3.py, HYV3Attention.forward: q_norm after v_proj
    ),
    "kimi_linear": Architecture(
        # modeling_kimi_linear.py, KimiLinearTopkRouter.forward: scores = router_logits.sigmoid()
        mixture="deepseek_v3",
        # modeling_kimi_linear.py, KimiLinearTopkRouter: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="base_buffer",
        mixer_path="model.layers.{}.self_attn",  # modeling_kimi_linear.py, KimiLinearDecoderLayer: self.self_attn
    ),
    "laguna": Architecture(
        balances_experts=True,  # modeling_laguna.py, load_balancing_loss_func
        # modeling_laguna.py, LagunaTopKRouter.forward: routing_weights = routing_weights.to(hidden_states.dtype)
        mixture="laguna",
        # modeling_laguna.py, LagunaTopKRouter: self.e_score_correction_bias = nn.Parameter(..., requires_grad=False)
        balancing_bias="base_parameter",
        # modeling_laguna.py, LagunaRotaryEmbedding: setattr(self, f"{layer_type}_inv_freq", nn.Buffer(...))
        rope_made="by_kind",
        rope_parts="joined",  # modeling_laguna.py, apply_rotary_pos_emb: q_embed = torch.cat([q_embed, q_pass], ...)
        norms_after_values=True,  # modeling_laguna.py, LagunaAttention.forward: q_norm after v_proj
        gate_name="g_proj",  # modeling_laguna.py, LagunaAttention.__init__: self.g_proj
        gates_by="softplus",  # modeling_laguna.py, LagunaAttention.forward: F.softplus(self.g_proj(hidden_states)...)
    ),
    "mimo_v2_flash": Architecture(
        # modeling_mimo_v2_flash.py, MiMoV2FlashMoE.forward: self.experts(hidden_states, topk_indices, ...)
        mixture="mimo",
        # modeling_mimo_v2_flash.py, eager_attention_forward: probs = F.softmax(attn_weights, dim=-1, ...)
        attention="mimo",
        # modeling_mimo_v2_flash.py, MiMoV2FlashTopkRouter: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="buffer",
        # modeling_mimo_v2_flash.py, MiMoV2FlashRotaryEmbedding: setattr(self, f"{layer_type}_inv_freq", nn.Buffer(...))
        rope_made="by_kind",
        rope_parts="joined",  # modeling_mimo_v2_flash.py, apply_rotary_pos_emb: torch.cat([q_embed, q_pass], dim=-1)
        # modeling_mimo_v2_flash.py, MiMoV2FlashAttention.forward: self.v_proj(hidden_states) ... * self.v_scale
        scales_values=True,
    ),
    "minimax_m2": Architecture(
        balances_experts=True,  # modeling_minimax_m2.py, load_balancing_loss_func
        # modeling_minimax_m2.py, MiniMaxM2TopKRouter.forward: F.linear(hidden_states.to(self.weight.dtype), ...)
        mixture="minimax_m2",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "minimax_m2": "mixtral"
        # modeling_minimax_m2.py, MiniMaxM2SparseMoeBlock: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="base_buffer",
        rope_parts="joined",  # modeling_minimax_m2.py, apply_rotary_pos_emb: torch.cat([q_embed, q_pass], dim=-1)
    ),
    "mistral4": Architecture(
        mixture="mistral4",  # modeling_mistral4.py, Mistral4TopkRouter.forward: scores = router_logits.softmax(-1)
        # modeling_mistral4.py, Mistral4Attention.forward: query_states * get_llama_4_attn_scale(...)
        scales_queries_by_position=True,
    ),
    "solar_open": Architecture(
        # modeling_solar_open.py, SolarOpenTopkRouter.forward: scores = router_logits.sigmoid()
        mixture="deepseek_v3",
        fused_experts_in_peft=True,  # conversion_mapping.py, _MODEL_TO_CONVERSION_PATTERN: "qwen2_moe"
        # modeling_solar_open.py, SolarOpenTopkRouter: self.e_score_correction_bias = nn.Buffer(...)
        balancing_bias="buffer",
    ),
}
