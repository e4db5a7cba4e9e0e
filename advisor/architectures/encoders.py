"""Encoders."""

from __future__ import annotations

from advisor.architectures.row import Architecture

_BERT = Architecture(
    layer="bert",  # modeling_bert.py, BertSelfOutput.forward: self.LayerNorm(hidden_states + input_tensor)
    # modeling_bert.py, BertEncoder.__init__: self.layer = nn.ModuleList(...)
    linear_paths=("bert.encoder.layer.{}", "bert.encoder.layer.{}"),
    embedding_name="word_embeddings",  # modeling_bert.py, BertEmbeddings.__init__: self.word_embeddings
    head_name="decoder",  # modeling_bert.py, BertLMPredictionHead.__init__: self.decoder
    transform_name="transform.dense",  # modeling_bert.py, BertPredictionHeadTransform.__init__: self.dense
    norms_end_in_norm=False,  # modeling_bert.py, BertEmbeddings.__init__: self.LayerNorm
    position_buffers=True,  # modeling_bert.py, BertEmbeddings.__init__: self.position_ids = nn.Buffer(...)
    # modeling_bert.py, BertModel._create_attention_masks: create_bidirectional_mask(...) without position_ids
    sees_packed_rows_as_one=True,
    keeps_embedding="dropped",  # modeling_bert.py, BertModel.forward: embedding_output
    eager_softmax="given_uncast",  # modeling_bert.py, eager_attention_forward: softmax(attn_weights, dim=-1)
)
_ROBERTA = _BERT._replace(
    transform_name="lm_head.dense",  # modeling_roberta.py, RobertaLMHead.__init__: self.dense
    # modeling_roberta.py, RobertaEmbeddings.forward: self.create_position_ids_from_input_ids(...)
    position_ids="by_row",
    # modeling_roberta.py, RobertaForMaskedLM.__init__: self.roberta
    linear_paths=("roberta.encoder.layer.{}", "roberta.encoder.layer.{}"),
)

ENCODERS: dict[str, Architecture] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,  # modeling_xlm_roberta.py, XLMRobertaForMaskedLM.__init__: self.roberta
}
