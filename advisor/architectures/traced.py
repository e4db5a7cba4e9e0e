"""Architectures whose steps were traced under other versions of transformers, and how the tape compared.

Tiny models of every architecture, full fine-tuning and one of LoRA and QLoRA, without checkpointing; those of
`benchmarks.against_stacks` by all methods, at real widths. What stands in neither set was not traced under that
version: transformers did not know it, its experts are not mirrored, or it reads values that fake tensors do not have.
"""

from __future__ import annotations

EXACT: dict[tuple[int, int], frozenset[str]] = {
    (5, 0): frozenset(
        [
            "arcee",
            "bloom",
            "cohere",
            "deepseek_v3",
            "dots1",
            "ernie4_5",
            "ernie4_5_moe",
            "gemma",
            "gemma2",
            "gemma3_text",
            "glm",
            "glm4",
            "glm4_moe",
            "glm4_moe_lite",
            "gpt2",
            "gpt_bigcode",
            "gpt_neox",
            "gpt_oss",
            "gptj",
            "granite",
            "hunyuan_v1_dense",
            "hunyuan_v1_moe",
            "llama",
            "llama4_text",
            "ministral3",
            "mistral",
            "mixtral",
            "mpt",
            "olmo",
            "olmo2",
            "olmoe",
            "phi3",
            "qwen2",
            "qwen2_moe",
            "qwen3",
            "qwen3_moe",
            "seed_oss",
            "smollm3",
            "starcoder2",
        ]
    ),
    (4, 57): frozenset(
        [
            "arcee",
            "bloom",
            "cohere",
            "cohere2",
            "dots1",
            "ernie4_5",
            "exaone4",
            "gemma",
            "gemma2",
            "gemma3_text",
            "glm",
            "glm4",
            "glm4_moe",
            "gpt2",
            "gpt_bigcode",
            "gpt_neox",
            "granite",
            "hunyuan_v1_dense",
            "llama",
            "mistral",
            "mixtral",
            "mpt",
            "olmo",
            "olmo2",
            "olmo3",
            "olmoe",
            "phi",
            "phi3",
            "qwen2",
            "qwen2_moe",
            "qwen3",
            "qwen3_moe",
            "seed_oss",
            "smollm3",
            "starcoder2",
        ]
    ),
    (4, 50): frozenset(
        [
            "bloom",
            "cohere",
            "falcon",
            "gemma",
            "gemma2",
            "glm",
            "gpt2",
            "gpt_bigcode",
            "gpt_neox",
            "granite",
            "llama",
            "mixtral",
            "mpt",
            "nemotron",
            "olmo",
            "olmoe",
            "phi",
            "qwen2",
            "stablelm",
            "starcoder2",
        ]
    ),
    (4, 45): frozenset(["falcon", "gpt2", "llama", "olmoe", "qwen2"]),
}
"""Within 0.1 % of the peak."""

DIFFERS: dict[tuple[int, int], dict[str, float]] = {
    (5, 0): {
        "cohere2": -0.007,
        "deepseek_v2": -0.008,
        "falcon": 0.004,
        "nemotron": -0.02,
        "olmo3": 0.002,
        "phimoe": -0.023,
    },
    (4, 57): {"deepseek_v3": 0.002, "gptj": 0.005, "nemotron": -0.019, "stablelm": -0.016},
    (4, 50): {
        "cohere2": -0.002,
        "gemma3_text": -0.001,
        "gptj": 0.003,
        "mistral": 0.002,
        "olmo2": 0.03,
        "phi3": -0.006,
        "qwen2_moe": 0.002,
    },
    (4, 45): {
        "gemma": -0.005,
        "gemma2": -0.004,
        "gpt_neox": -0.034,
        "mistral": -0.003,
        "mixtral": 0.006,
        "olmo": -0.003,
        "phi3": 0.007,
        "qwen2_moe": 0.002,
        "starcoder2": 0.004,
    },
}
"""The worst error of a peak, prediction over trace minus 1, where it is beyond that."""


def untraced_code(architecture: str, transformers: tuple[int, int]) -> bool:
    """Whether an architecture's code in a version older than the mirrored one was not shown to be what is mirrored.

    Between traced versions the nearest on both sides count: one has to be exact, and none other than that.
    """
    below = [version for version in EXACT if version <= transformers]
    above = [version for version in EXACT if version >= transformers]
    nearest = {*([max(below)] if below else []), *([min(above)] if above else [])}
    differs = any(architecture in DIFFERS.get(version, {}) for version in nearest)
    return differs or not any(architecture in EXACT[version] for version in nearest)
