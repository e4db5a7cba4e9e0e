"""How transformers' classes for sequence classification turn hidden states into a row's scores, by model_type.

Source: transformers 5.23, modeling_layers.py, GenericForSequenceClassification, and the classes of that kind in
models/*/modeling_*.py. Models that are not here have none.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.errors import UnsupportedArchitecture


class Classifier(NamedTuple):
    """What follows a model's hidden states; the default is a linear layer on every token, of which the last counts."""

    head: str = "score"  # the linear layer that gives the scores
    module: str = "score"  # what peft trains of it whole
    inner: str = ""  # a linear layer before it, which reads one vector a row
    normed: bool = False  # that layer is an encoder's head transform; else a tanh follows it
    drops_input: bool = False  # dropout before that layer, too


_SCORED = (
    *("arcee", "bloom", "deepseek_v2", "deepseek_v3", "exaone4", "falcon", "gemma", "gemma2", "gemma3_text", "glm"),
    *("glm4", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "hunyuan_v1_dense", "hunyuan_v1_moe", "jamba"),
    *("llama", "ministral3", "mistral", "mistral4", "mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmo3", "opt"),
    *("phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_5_text", "qwen3_moe", "qwen3_next", "seed_oss"),
    *("smollm3", "stablelm", "starcoder2"),
)

_ROBERTA = Classifier("classifier.out_proj", "classifier", "classifier.dense", drops_input=True)

CLASSIFIERS: dict[str, Classifier] = {
    **dict.fromkeys(_SCORED, Classifier()),
    # modeling_bert.py, BertPooler, BertForSequenceClassification
    "bert": Classifier("classifier", "classifier", "pooler.dense"),
    # modeling_modernbert.py, ModernBertForSequenceClassification.forward: pooled_output = self.head(last_hidden_state)
    "modernbert": Classifier("classifier", "classifier", "head.dense", normed=True),
    "roberta": _ROBERTA,  # modeling_roberta.py, RobertaClassificationHead
    "xlm-roberta": _ROBERTA,  # modeling_xlm_roberta.py, XLMRobertaClassificationHead
}


def classifier_of(model_type: str) -> Classifier:
    """The classifier of transformers' `model_type`. Raises UnsupportedArchitecture for one that has none."""
    found = CLASSIFIERS.get(model_type)
    if found is None:
        raise UnsupportedArchitecture(f"transformers 5.23 has no classifier of architecture {model_type[:60]!r}")
    return found
