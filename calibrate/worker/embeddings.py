"""A model without a head as embedding models are trained: one vector a text, texts against each other.

As sentence-transformers 5 does it: models/Pooling.py and losses/MultipleNegativesRankingLoss.py. Every token counts in
the mean, whatever the padding: no tensor's size depends on it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModelForMaskedLM

SCALE = 20.0


def with_loss(model: Any) -> Any:
    """The model, whose forward returns the loss of its texts (rows): of their means, a decoder's of last tokens."""
    encode, causal = model.forward, type(model.config) not in AutoModelForMaskedLM._model_mapping

    def forward(input_ids: Any, labels: Any = None, attention_mask: Any = None) -> Any:
        hidden = encode(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SimpleNamespace(loss=_contrasted(hidden[:, -1] if causal else _mean_of_tokens(hidden, input_ids)))

    model.forward = forward
    return model


def _mean_of_tokens(hidden: Any, input_ids: Any) -> Any:
    wide = torch.ones_like(input_ids).unsqueeze(-1).expand(hidden.size()).to(hidden.dtype)
    total = torch.sum(hidden * wide, 1)
    return total / torch.clamp(wide.sum(1), min=1e-9)


def _contrasted(texts: Any) -> Any:
    unit = functional.normalize(texts, p=2, dim=1)
    scores = torch.mm(unit, unit.transpose(0, 1)) * SCALE
    return functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))
