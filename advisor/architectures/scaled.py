"""What peft's IA3 scales of each architecture."""

from __future__ import annotations

SCALED: dict[str, tuple[tuple[str, ...], str]] = {
    "bloom": (("query_key_value", "dense_4h_to_h"), "dense_4h_to_h"),
    "falcon": (("query_key_value", "dense_4h_to_h"), "dense_4h_to_h"),
    "gemma": (("q_proj", "v_proj", "down_proj"), "down_proj"),
    "gemma2": (("q_proj", "v_proj", "down_proj"), "down_proj"),
    "gemma3_text": (("q_proj", "v_proj", "down_proj"), "down_proj"),
    "gpt2": (("c_attn", "mlp.c_proj"), "mlp.c_proj"),
    "gpt_bigcode": (("c_attn", "mlp.c_proj"), "mlp.c_proj"),
    "gpt_neox": (("query_key_value", "dense_4h_to_h"), "dense_4h_to_h"),
    "gptj": (("q_proj", "v_proj", "fc_out"), "fc_out"),
    "llama": (("k_proj", "v_proj", "down_proj"), "down_proj"),
    "mistral": (("k_proj", "v_proj", "down_proj"), "down_proj"),
    "mixtral": (("k_proj", "v_proj"), ""),  # 'w2' is in no module's name since transformers 5
    "opt": (("q_proj", "k_proj", "fc2"), "fc2"),
    "phi": (("q_proj", "v_proj", "fc2"), "fc2"),
    "qwen2": (("q_proj", "v_proj", "down_proj"), "down_proj"),
    "qwen3": (("q_proj", "v_proj", "down_proj"), "down_proj"),
}
"""The layers that IA3 scales by default, and of those the one whose input it scales, not its output.

Source: peft 0.21, utils/constants.py, TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING and ..._FEEDFORWARD_MODULES_...
"""

READ_SCALED = frozenset(name for _, name in SCALED.values() if name)
"""The layers whose input is scaled."""


def scaled_modules(*, architecture: str) -> tuple[str, ...]:
    """The layers that are scaled by default; () where peft names none."""
    return SCALED[architecture][0] if architecture in SCALED else ()
