"""Architectures without experts."""

from __future__ import annotations

from advisor.architectures.row import Architecture

DENSE: dict[str, Architecture] = {
    "apertus": Architecture(
        norms_after_values=True,  # modeling_apertus.py, ApertusAttention.forward: q_norm after v_proj
    ),
    "arcee": Architecture(),
    "bloom": Architecture(
        loss_as_given_before_4_49=True,  # transformers 4.48, modeling_bloom.py, BloomForCausalLM: loss_fct
        # modeling_bloom.py, BloomBlock.__init__: self.self_attention
        linear_paths=("transformer.h.{}.self_attention", "transformer.h.{}.mlp"),
        embedding_name="word_embeddings",  # modeling_bloom.py, BloomModel.__init__: self.word_embeddings
        norms_end_in_norm=False,  # modeling_bloom.py, BloomModel.__init__: self.ln_f
        layer="bloom",  # modeling_bloom.py, BloomBlock.forward: output = self.mlp(layernorm_output, residual)
        position_ids="none",  # modeling_bloom.py, BloomModel.forward: block(...) without position_ids
        takes_position_ids=False,  # modeling_bloom.py, BloomForCausalLM.forward: attention_mask without position_ids
        alibi="by_row",  # modeling_bloom.py, BloomModel.forward: alibi = alibi.repeat(batch_size, 1, 1)
    ),
    "cohere": Architecture(
        norms_after_values=True,  # modeling_cohere.py, CohereAttention.forward: q_norm after v_proj
        rope_turn="float",  # modeling_cohere.py, apply_rotary_pos_emb: q = q.float()
    ),
    "cohere2": Architecture(
        rope_turn="float",  # modeling_cohere2.py, apply_rotary_pos_emb: q = q.float()
    ),
    "ernie4_5": Architecture(
        rope_tables="float",  # modeling_ernie4_5.py, Ernie4_5RotaryEmbedding.forward: return cos, sin
        # modeling_ernie4_5.py, apply_rotary_pos_emb: cos[..., : cos.shape[-1] // 2].repeat_interleave(2, dim=-1)
        spreads_rope_tables=True,
        # modeling_ernie4_5.py, apply_rotary_pos_emb: (q.float() * cos) + (rotate_half(q).float() * sin)
        rope_turn="float_parts",
    ),
    "exaone4": Architecture(
        norms_after_values=True,  # modeling_exaone4.py, Exaone4Attention.forward: q_norm after v_proj
    ),
    "bamba": Architecture(
        # modeling_bamba.py, BambaDecoderLayer.__init__: self.feed_forward
        linear_paths=("model.layers.{}.self_attn", "model.layers.{}.feed_forward"),
        mixer_path="model.layers.{}.mamba",  # modeling_bamba.py, BambaDecoderLayer.__init__: self.mamba
        norms_end_in_norm=False,  # modeling_bamba.py, BambaMixer.__init__: self.norm
        rope_parts="joined",  # modeling_bamba.py, apply_rotary_pos_emb: q_embed = torch.cat([q_embed, q_pass], dim=-1)
    ),
    "falcon_h1": Architecture(
        layer="falcon_h1",  # modeling_falcon_h1.py, FalconH1DecoderLayer.forward: mamba_hidden_states + attention_...
        # modeling_falcon_h1.py, FalconH1DecoderLayer.__init__: self.feed_forward
        linear_paths=("model.layers.{}.self_attn", "model.layers.{}.feed_forward"),
        mixer_path="model.layers.{}.mamba",  # modeling_falcon_h1.py, FalconH1DecoderLayer.__init__: self.mamba
        norms_end_in_norm=False,  # modeling_falcon_h1.py, FalconH1Mixer.__init__: self.norm
        scales_state_space=True,  # modeling_falcon_h1.py, FalconH1Mixer.forward: projected_states * self.mup_vector
        # modeling_falcon_h1.py, FalconH1Attention.forward: key_states = ... * self.key_multiplier
        scales_projected_keys=True,
        # peft, tuners/tuners_utils.py, _check_lora_target_modules_mamba: incompatible_modules
        refused_in_peft=("out_proj",),
    ),
    "falcon": Architecture(
        loss_as_given_before_4_49=True,  # transformers 4.48, modeling_falcon.py, FalconForCausalLM: loss_fct
        # modeling_falcon.py, FalconDecoderLayer.__init__: self.self_attention
        linear_paths=("transformer.h.{}.self_attention", "transformer.h.{}.mlp"),
        embedding_name="word_embeddings",  # modeling_falcon.py, FalconModel.__init__: self.word_embeddings
        norms_end_in_norm=False,  # modeling_falcon.py, FalconModel.__init__: self.ln_f
        # modeling_falcon.py, FalconAttention.forward: scaled_dot_product_attention(...) without enable_gqa
        attention="own",
        # integrations/bitsandbytes.py, replace_with_bnb_linear: type(module) is nn.Linear
        linears_stay_unquantized=True,
        bias_apart=True,  # modeling_falcon.py, FalconLinear.forward: return hidden_states + self.bias
        # modeling_falcon.py, FalconModel.forward: causal_mask = torch.masked_fill(alibi / ..., causal_mask < -1, ...)
        alibi="in_mask",
        always_makes_mask=True,  # modeling_falcon.py, FalconModel.forward: allow_is_causal_skip=False
        # modeling_falcon.py, FalconModel.forward: create_causal_mask(...) without position_ids
        sees_packed_rows_as_one=True,
        # modeling_falcon.py, FalconModel.forward: position_embeddings = self.rotary_emb(...)
        rope_made="always",
        splits_fused="indices",  # modeling_falcon.py, FalconAttention._split_heads: key = qkv[:, :, :, [-2]]
        keeps_normed="both",  # modeling_falcon.py, FalconDecoderLayer.forward: attention_layernorm_out
        keeps_attended=True,  # modeling_falcon.py, FalconDecoderLayer.forward: attention_output
        parallel_sum="mlp_in_place",  # modeling_falcon.py, FalconDecoderLayer.forward: mlp_output += attention_output
    ),
    "falcon_mamba": Architecture(
        layer="mamba",  # modeling_falcon_mamba.py, FalconMambaBlock.forward: residual = residual.to(torch.float32)
        # modeling_falcon_mamba.py, FalconMambaModel.__init__: self.layers
        linear_paths=("backbone.layers.{}.mixer", "backbone.layers.{}.mixer"),
        mixer_path="backbone.layers.{}.mixer",  # modeling_falcon_mamba.py, FalconMambaBlock.__init__: self.mixer
        embedding_name="embeddings",  # modeling_falcon_mamba.py, FalconMambaModel.__init__: self.embeddings
        norms_end_in_norm=False,  # modeling_falcon_mamba.py, FalconMambaModel.__init__: self.norm_f
        # modeling_falcon_mamba.py, FalconMambaModel.forward: mixer_block(...) without position_ids
        position_ids="none",
        # modeling_falcon_mamba.py, FalconMambaForCausalLM.forward: attention_mask without position_ids
        takes_position_ids=False,
        # peft, tuners/tuners_utils.py, _check_lora_target_modules_mamba: incompatible_modules
        refused_in_peft=("out_proj",),
        # modeling_falcon_mamba.py, FalconMambaForCausalLM.forward: hidden_states.to(self.lm_head.weight.dtype)
        head_reads_its_dtype=True,
        # modeling_falcon_mamba.py, FalconMambaForCausalLM.forward: self.lm_head(...).float()
        logits_in_float=True,
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
    "gemma3n_text": Architecture(
        layer="gemma3n",  # modeling_gemma3n.py, Gemma3nTextDecoderLayer.forward: self.altup.predict(hidden_states)
        # modeling_gemma3n.py, Gemma3nTextScaledWordEmbedding: self.embed_scale = nn.Buffer(...)
        embedding_scales_itself=True,
        # modeling_gemma3n.py, Gemma3nRotaryEmbedding: setattr(self, f"{layer_type}_inv_freq", nn.Buffer(...))
        rope_made="by_kind",
    ),
    "gemma4_unified_text": Architecture(
        layer="gemma4",  # modeling_gemma4_unified.py, Gemma4UnifiedTextAttention.forward: self.v_norm(value_states)
        # configuration_gemma4_unified.py, Gemma4UnifiedTextConfig.__post_init__: "per_layer_config"
        reads_per_layer_config=True,
        norms_after_values=True,  # modeling_gemma4_unified.py, Gemma4UnifiedTextAttention.forward: k_norm after v_proj
        # modeling_gemma4_unified.py, Gemma4UnifiedTextDecoderLayer.forward: hidden_states *= self.layer_scalar
        layer_scalar=True,
        # modeling_gemma4_unified.py, Gemma4UnifiedTextScaledWordEmbedding: self.embed_scale = nn.Buffer(...)
        embedding_scales_itself=True,
        # modeling_gemma4_unified.py, Gemma4UnifiedTextRotaryEmbedding: setattr(self, f"{layer_type}_inv_freq", ...)
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
    "gpt2": Architecture(
        loss_as_given_before_4_49=True,  # transformers 4.48, modeling_gpt2.py, GPT2LMHeadModel: loss_fct
        linears_are_conv1d=True,  # modeling_gpt2.py, GPT2Attention.__init__: self.c_attn = Conv1D(...)
        # modeling_gpt2.py, GPT2Block.__init__: self.attn
        linear_paths=("transformer.h.{}.attn", "transformer.h.{}.mlp"),
        embedding_name="wte",  # modeling_gpt2.py, GPT2Model.__init__: self.wte
        norms_end_in_norm=False,  # modeling_gpt2.py, GPT2Block.__init__: self.ln_1
        # transformers 4.57 and 5.0, modeling_gpt2.py, GPT2Attention: self.register_buffer("bias", ...)
        causal_mask_in_layers=True,
        eager_softmax="given",  # modeling_gpt2.py, eager_attention_forward: softmax(attn_weights, dim=-1)
        drops_inside=True,  # modeling_gpt2.py, GPT2Attention.forward: self.resid_dropout(attn_output)
        keeps_attended=True,  # modeling_gpt2.py, GPT2Block.forward: hidden_states = attn_output + residual
    ),
    "gpt_bigcode": Architecture(
        loss_as_given_before_4_49=True,  # transformers 4.48, modeling_gpt_bigcode.py, GPTBigCodeForCausalLM: loss_fct
        # modeling_gpt_bigcode.py, GPTBigCodeBlock.__init__: self.attn
        linear_paths=("transformer.h.{}.attn", "transformer.h.{}.mlp"),
        embedding_name="wte",  # modeling_gpt_bigcode.py, GPTBigCodeModel.__init__: self.wte
        norms_end_in_norm=False,  # modeling_gpt_bigcode.py, GPTBigCodeBlock.__init__: self.ln_1
        causal_mask_buffer=True,  # modeling_gpt_bigcode.py, GPTBigCodeModel: self.bias = nn.Buffer(torch.tril(...))
        # modeling_gpt_bigcode.py, GPTBigCodeModel.forward: block(...) without position_ids
        position_ids="not_passed_on",
        drops_inside=True,  # modeling_gpt_bigcode.py, GPTBigCodeAttention.forward: self.resid_dropout(attn_output)
        keeps_attended=True,  # modeling_gpt_bigcode.py, GPTBigCodeBlock.forward: attn_output + residual
    ),
    "gpt_neox": Architecture(
        loss_as_given_before_4_49=True,  # transformers 4.48, modeling_gpt_neox.py, GPTNeoXForCausalLM: loss_fct
        # modeling_gpt_neox.py, GPTNeoXLayer.__init__: self.attention
        linear_paths=("gpt_neox.layers.{}.attention", "gpt_neox.layers.{}.mlp"),
        embedding_name="embed_in",  # modeling_gpt_neox.py, GPTNeoXModel.__init__: self.embed_in
        rope_parts="joined",  # modeling_gpt_neox.py, apply_rotary_pos_emb: q_embed = torch.cat([q_embed, q_pass], ...)
        # modeling_gpt_neox.py, GPTNeoXLayer.forward: hidden_states = mlp_output + attn_output + hidden_states
        parallel_sum="mlp_first",
    ),
    "gptj": Architecture(
        # modeling_gptj.py, GPTJBlock.__init__: self.attn
        linear_paths=("transformer.h.{}.attn", "transformer.h.{}.mlp"),
        embedding_name="wte",  # modeling_gptj.py, GPTJModel.__init__: self.wte
        norms_end_in_norm=False,  # modeling_gptj.py, GPTJBlock.__init__: self.ln_1
        layer="gptj",  # modeling_gptj.py, GPTJBlock.forward: attn_outputs + feed_forward_hidden_states + residual
        rope_made="in_layers",  # modeling_gptj.py, GPTJAttention: self.embed_positions = nn.Buffer(...)
    ),
    "granite": Architecture(),
    "hunyuan_v1_dense": Architecture(
        # modeling_hunyuan_v1_dense.py, HunYuanDenseV1Attention.forward: query_layernorm after apply_rotary_pos_emb
        norms_after_rope=True,
    ),
    "lit-gpt": Architecture(  # not in the catalog: the models of its published measurements
        rope_parts="joined",  # lit_gpt/model.py, CausalSelfAttention.forward: q = torch.cat((q_roped, ...), dim=-1)
    ),
    "lfm2": Architecture(
        # modeling_lfm2.py, Lfm2DecoderLayer.__init__: self.feed_forward = Lfm2MLP(config)
        linear_paths=("model.layers.{}.self_attn", "model.layers.{}.feed_forward"),
        mixer_path="model.layers.{}.conv",  # modeling_lfm2.py, Lfm2DecoderLayer.__init__: self.conv
    ),
    "llama": Architecture(),
    "ministral3": Architecture(
        # modeling_ministral3.py, Ministral3Attention.forward: query_states * get_llama_4_attn_scale(...)
        scales_queries_by_position=True,
    ),
    "mamba": Architecture(
        layer="mamba",  # modeling_mamba.py, MambaBlock.forward: residual = residual.to(torch.float32)
        # modeling_mamba.py, MambaModel.__init__: self.layers
        linear_paths=("backbone.layers.{}.mixer", "backbone.layers.{}.mixer"),
        mixer_path="backbone.layers.{}.mixer",  # modeling_mamba.py, MambaBlock.__init__: self.mixer
        embedding_name="embeddings",  # modeling_mamba.py, MambaModel.__init__: self.embeddings
        norms_end_in_norm=False,  # modeling_mamba.py, MambaModel.__init__: self.norm_f
        position_ids="none",  # modeling_mamba.py, MambaModel.forward: mixer_block(...) without position_ids
        # modeling_mamba.py, MambaForCausalLM.forward: attention_mask without position_ids
        takes_position_ids=False,
        # peft, tuners/tuners_utils.py, _check_lora_target_modules_mamba: incompatible_modules
        refused_in_peft=("out_proj",),
        # modeling_mamba.py, MambaForCausalLM.forward: hidden_states.to(self.lm_head.weight.dtype)
        head_reads_its_dtype=True,
        # modeling_mamba.py, MambaForCausalLM.forward: self.lm_head(...).float()
        logits_in_float=True,
    ),
    "mamba2": Architecture(
        layer="mamba",  # modeling_mamba2.py, Mamba2Block.forward: residual = residual.to(torch.float32)
        # modeling_mamba2.py, Mamba2Model.__init__: self.layers
        linear_paths=("backbone.layers.{}.mixer", "backbone.layers.{}.mixer"),
        mixer_path="backbone.layers.{}.mixer",  # modeling_mamba2.py, Mamba2Block.__init__: self.mixer
        embedding_name="embeddings",  # modeling_mamba2.py, Mamba2Model.__init__: self.embeddings
        norms_end_in_norm=False,  # modeling_mamba2.py, Mamba2Model.__init__: self.norm_f
        position_ids="none",  # modeling_mamba2.py, Mamba2Model.forward: mixer_block(...) without position_ids
        # modeling_mamba2.py, Mamba2ForCausalLM.forward: attention_mask without position_ids
        takes_position_ids=False,
        # peft, tuners/tuners_utils.py, _check_lora_target_modules_mamba: incompatible_modules
        refused_in_peft=("out_proj",),
        # modeling_mamba2.py, Mamba2ForCausalLM.forward: hidden_states.to(self.lm_head.weight.dtype)
        head_reads_its_dtype=True,
        # modeling_mamba2.py, Mamba2ForCausalLM.forward: self.lm_head(...).float()
        logits_in_float=True,
    ),
    # transformers 4.47 and 4.48, modeling_mistral.py, MistralFlashAttention2.forward: repeat_kv
    "mistral": Architecture(flash_repeats_before=(4, 48)),
    "mllama_text_model": Architecture(
        layer="mllama",  # modeling_mllama.py, MllamaCrossAttentionDecoderLayer; MllamaTextModel.forward
        without_images="llama",  # modeling_mllama.py, MllamaSelfAttentionDecoderLayer, as LlamaDecoderLayer
    ),
    "mpt": Architecture(
        loss_as_given_before_4_49=True,  # transformers 4.48, modeling_mpt.py, MptForCausalLM: loss_fct
        # modeling_mpt.py, MptBlock.__init__: self.ffn
        linear_paths=("transformer.blocks.{}.attn", "transformer.blocks.{}.ffn"),
        embedding_name="wte",  # modeling_mpt.py, MptModel.__init__: self.wte
        norms_end_in_norm=False,  # modeling_mpt.py, MptBlock.__init__: self.norm_1
        layer="mpt",  # modeling_mpt.py, MptBlock.forward: output = self.ffn(layernorm_output, residual)
        position_ids="none",  # modeling_mpt.py, MptModel.forward: block(...) without position_ids
        takes_position_ids=False,  # modeling_mpt.py, MptForCausalLM.forward: attention_mask without position_ids
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
    "olmo_hybrid": Architecture(
        # modeling_olmo_hybrid.py, OlmoHybridLinearAttentionDecoderLayer.__init__: self.linear_attn
        mixer_path="model.layers.{}.linear_attn",
        rope_tables="float",  # modeling_olmo_hybrid.py, OlmoHybridRotaryEmbedding.forward: return cos, sin
        # modeling_olmo_hybrid.py, OlmoHybridModel.forward: layer_position_embeddings = ... if ... == "full_attention"
        rope_for_attention_alone=True,
    ),
    "opt": Architecture(
        loss_as_given_before_4_49=True,  # transformers 4.48, modeling_opt.py, OPTForCausalLM: loss_fct
        # modeling_opt.py, OPTDecoderLayer.__init__: self.fc1
        linear_paths=("model.decoder.layers.{}.self_attn", "model.decoder.layers.{}"),
        layer="opt",  # modeling_opt.py, OPTDecoderLayer.forward: hidden_states = self.fc1(hidden_states)
        position_ids="by_row",  # modeling_opt.py, OPTDecoder.forward: torch.cumsum(position_attention_mask, dim=1)
        sees_packed_rows_as_one=True,  # modeling_opt.py, OPTDecoder.forward: create_causal_mask without position_ids
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
        flash_repeats_before=(4, 48),  # transformers 4.47 and 4.48, modeling_phi3.py, Phi3FlashAttention2: repeat_kv
        # modeling_phi3.py, apply_rotary_pos_emb: torch.cat([(q_rot * cos) + (rotate_half(q_rot) * sin), q_pass], ...)
        rope_parts="joined_in_expression",
        splits_fused="slices",  # modeling_phi3.py, Phi3Attention.forward: query_states = qkv[..., :query_pos]
    ),
    "qwen": Architecture(),  # not in the catalog: Qwen 1, whose published measurements are checked
    # transformers 4.47 and 4.48, modeling_qwen2.py, Qwen2FlashAttention2.forward: repeat_kv
    "qwen2": Architecture(flash_repeats_before=(4, 48)),
    "qwen3": Architecture(),
    "qwen3_5_text": Architecture(
        mixer_path="model.layers.{}.linear_attn",  # modeling_qwen3_5.py, Qwen3_5DecoderLayer.__init__: self.linear_attn
        # modeling_qwen3_5.py, Qwen3_5TextRotaryEmbedding.forward: position_ids = position_ids.expand(3, -1, -1)
        rope_by_axis=True,
        rope_parts="joined",  # modeling_qwen3_5.py, apply_rotary_pos_emb: torch.cat([q_embed, q_pass], dim=-1)
    ),
    "seed_oss": Architecture(
        drops_inside=True,  # modeling_seed_oss.py, SeedOssAttention.forward: nn.functional.dropout(attn_output, ...)
    ),
    "smollm3": Architecture(),
    "stablelm": Architecture(
        loss_as_given_before_4_49=True,  # transformers 4.48, modeling_stablelm.py, StableLmForCausalLM: loss_fct
        # modeling_stablelm.py, StableLmAttention.forward: query_states = torch.cat((query_rot, query_pass), dim=-1)
        rope_parts="kept_in_attention",
        norms_after_values=True,  # modeling_stablelm.py, StableLmAttention.forward: q_layernorm after v_proj
        keeps_normed="first",  # modeling_stablelm.py, StableLmDecoderLayer.forward: self.mlp(self.post_attention_...)
        keeps_attended=True,  # modeling_stablelm.py, StableLmDecoderLayer.forward: residual + self_attn_output
    ),
    "starcoder2": Architecture(
        # transformers 4.47 and 4.48, modeling_starcoder2.py, Starcoder2FlashAttention2: repeat_kv
        flash_repeats_before=(4, 48),
        drops_inside=True,  # modeling_starcoder2.py, Starcoder2Attention.forward: nn.functional.dropout(attn_output)
    ),
}
