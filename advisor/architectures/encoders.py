"""Encoders."""

from __future__ import annotations

from advisor.architectures.row import Architecture

ENCODERS: dict[str, Architecture] = {
    "bert": Architecture(
        # modeling_bert.py, BertSelfOutput.forward: self.LayerNorm(hidden_states + input_tensor)
        layer="bert",
        # modeling_bert.py, BertEncoder.__init__: self.layer
        linear_paths=("bert.encoder.layer.{}", "bert.encoder.layer.{}"),
        # modeling_bert.py, BertEmbeddings.__init__: self.word_embeddings
        embedding_name="word_embeddings",
        # modeling_bert.py, BertLMPredictionHead.__init__: self.decoder
        head_name="decoder",
        # modeling_bert.py, BertPredictionHeadTransform.__init__: self.dense
        transform_name="transform.dense",
        # modeling_bert.py, BertEmbeddings.__init__: self.LayerNorm
        norms_end_in_norm=False,
        # modeling_bert.py, BertEmbeddings.__init__: self.position_ids
        position_buffers=True,
        # modeling_bert.py, BertModel._create_attention_masks: create_bidirectional_mask
        sees_packed_rows_as_one=True,
        # modeling_bert.py, BertModel.forward: embedding_output
        keeps_embedding="dropped",
        # modeling_bert.py, eager_attention_forward: softmax(attn_weights, dim=-1)
        eager_softmax="given_uncast",
    ),
    "modernbert": Architecture(
        # modeling_modernbert.py, ModernBertEncoderLayer.__init__: self.attn_norm = nn.Identity()
        layer="modernbert",
        # modeling_modernbert.py, ModernBertModel.__init__: self.layers
        linear_paths=("model.layers.{}", "model.layers.{}"),
        # modeling_modernbert.py, ModernBertEmbeddings.__init__: self.tok_embeddings
        embedding_name="tok_embeddings",
        # modeling_modernbert.py, ModernBertForMaskedLM.__init__: self.decoder
        head_name="decoder",
        # modeling_modernbert.py, ModernBertPredictionHead.__init__: self.dense
        transform_name="head.dense",
        # modeling_modernbert.py, ModernBertModel.forward: create_bidirectional_mask(**mask_kwargs)
        sees_packed_rows_as_one=True,
        # modeling_modernbert.py, ModernBertModel.forward: mask_kwargs = {... "inputs_embeds": hidden_states
        keeps_embedding="dropped",
        # modeling_modernbert.py, ModernBertModel.forward: encoder_layer(..., position_embeddings=..., **kwargs)
        position_ids="not_passed_on",
        # modeling_modernbert.py, ModernBertRotaryEmbedding.__init__: setattr(self, f"{layer_type}_inv_freq", ...)
        rope_made="by_kind",
        # modeling_modernbert.py, apply_rotary_pos_emb: (q.float() * cos) + (rotate_half(q.float()) * sin)
        rope_turn="float_twice",
        # modeling_modernbert.py, ModernBertForMaskedLM.forward: self.loss_function(logits, labels, ...)
        masked_loss_in_float=True,
    ),
    "roberta": Architecture(
        # modeling_roberta.py, RobertaSelfOutput.forward: self.LayerNorm(hidden_states + input_tensor)
        layer="bert",
        # modeling_roberta.py, RobertaEncoder.__init__: self.layer
        linear_paths=("roberta.encoder.layer.{}", "roberta.encoder.layer.{}"),
        # modeling_roberta.py, RobertaEmbeddings.__init__: self.word_embeddings
        embedding_name="word_embeddings",
        # modeling_roberta.py, RobertaLMHead.__init__: self.decoder
        head_name="decoder",
        # modeling_roberta.py, RobertaLMHead.__init__: self.dense
        transform_name="lm_head.dense",
        # modeling_roberta.py, RobertaEmbeddings.__init__: self.LayerNorm
        norms_end_in_norm=False,
        # modeling_roberta.py, RobertaEmbeddings.__init__: self.position_ids
        position_buffers=True,
        # modeling_roberta.py, RobertaModel._create_attention_masks: create_bidirectional_mask
        sees_packed_rows_as_one=True,
        # modeling_roberta.py, RobertaModel.forward: embedding_output
        keeps_embedding="dropped",
        # modeling_roberta.py, eager_attention_forward: softmax(attn_weights, dim=-1)
        eager_softmax="given_uncast",
        # modeling_roberta.py, RobertaEmbeddings.forward: self.create_position_ids_from_input_ids(
        position_ids="by_row",
    ),
    "xlm-roberta": Architecture(
        # modeling_xlm_roberta.py, XLMRobertaSelfOutput.forward: self.LayerNorm(hidden_states + input_tensor)
        layer="bert",
        # modeling_xlm_roberta.py, XLMRobertaEncoder.__init__: self.layer
        linear_paths=("roberta.encoder.layer.{}", "roberta.encoder.layer.{}"),
        # modeling_xlm_roberta.py, XLMRobertaEmbeddings.__init__: self.word_embeddings
        embedding_name="word_embeddings",
        # modeling_xlm_roberta.py, XLMRobertaLMHead.__init__: self.decoder
        head_name="decoder",
        # modeling_xlm_roberta.py, XLMRobertaLMHead.__init__: self.dense
        transform_name="lm_head.dense",
        # modeling_xlm_roberta.py, XLMRobertaEmbeddings.__init__: self.LayerNorm
        norms_end_in_norm=False,
        # modeling_xlm_roberta.py, XLMRobertaEmbeddings.__init__: self.position_ids
        position_buffers=True,
        # modeling_xlm_roberta.py, XLMRobertaModel._create_attention_masks: create_bidirectional_mask
        sees_packed_rows_as_one=True,
        # modeling_xlm_roberta.py, XLMRobertaModel.forward: embedding_output
        keeps_embedding="dropped",
        # modeling_xlm_roberta.py, eager_attention_forward: softmax(attn_weights, dim=-1)
        eager_softmax="given_uncast",
        # modeling_xlm_roberta.py, XLMRobertaEmbeddings.forward: self.create_position_ids_from_input_ids(
        position_ids="by_row",
    ),
}
