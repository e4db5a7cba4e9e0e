"""What each architecture's code builds from its config.json: one small function a family, and their table.

Structure (which linear layers exist, where biases, norms and softcaps sit) follows modeling_*.py and the
defaults of missing keys follow configuration_*.py of transformers 5.23 under src/transformers/models/<model_type>.
tests/catalog builds every family on the meta device and compares.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.catalog.families.cohere_glm import cohere, cohere2, glm, glm4
from advisor.catalog.families.early import bloom, gptj, mpt, opt
from advisor.catalog.families.fused import falcon, gpt2, gpt_bigcode, gpt_neox, phi, phi3
from advisor.catalog.families.gemma import gemma, gemma2, gemma3, gemma4
from advisor.catalog.families.latent import deepseek_v2, deepseek_v3, gpt_oss, llama4_text
from advisor.catalog.families.llama import (
    granite,
    llama,
    mistral,
    olmo,
    olmo2,
    qwen2,
    qwen3,
    smollm3,
    stablelm,
    starcoder2,
)
from advisor.catalog.families.moe import granitemoe, mixtral, olmoe, qwen2_moe, qwen3_moe
from advisor.catalog.families.recent import (
    apertus,
    arcee,
    ernie4_5,
    exaone4,
    hunyuan_dense,
    ministral3,
    nemotron,
    olmo3,
    seed_oss,
)
from advisor.catalog.families.shared_experts import (
    dots1,
    ernie4_5_moe,
    glm4_moe,
    glm4_moe_lite,
    granitemoeshared,
    hunyuan_moe,
    phimoe,
)
from advisor.catalog.families.sizes import Structure
from advisor.catalog.fields import Fields

LAYERS_OF_TWO_KINDS = frozenset({"gemma4_text"})
"""Their families read `per_layer_config`."""

FAMILIES: dict[str, Callable[[Fields], Structure]] = {
    "apertus": apertus,
    "arcee": arcee,
    "bloom": bloom,
    "cohere": cohere,
    "cohere2": cohere2,
    "deepseek_v2": deepseek_v2,
    "deepseek_v3": deepseek_v3,
    "dots1": dots1,
    "ernie4_5": ernie4_5,
    "ernie4_5_moe": ernie4_5_moe,
    "exaone4": exaone4,
    "falcon": falcon,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3_text": gemma3,
    "gemma4_text": gemma4,
    "glm": glm,
    "glm4": glm4,
    "glm4_moe": glm4_moe,
    "glm4_moe_lite": glm4_moe_lite,
    "gpt2": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neox": gpt_neox,
    "gpt_oss": gpt_oss,
    "gptj": gptj,
    "granite": granite,
    "granitemoe": granitemoe,
    "granitemoeshared": granitemoeshared,
    "hunyuan_v1_dense": hunyuan_dense,
    "hunyuan_v1_moe": hunyuan_moe,
    "llama": llama,
    "llama4_text": llama4_text,
    "ministral3": ministral3,
    "mistral": mistral,
    "mixtral": mixtral,
    "mpt": mpt,
    "nemotron": nemotron,
    "olmo": olmo,
    "olmo2": olmo2,
    "olmo3": olmo3,
    "olmoe": olmoe,
    "opt": opt,
    "phi": phi,
    "phi3": phi3,
    "phimoe": phimoe,
    "qwen2": qwen2,
    "qwen2_moe": qwen2_moe,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "seed_oss": seed_oss,
    "smollm3": smollm3,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
}
