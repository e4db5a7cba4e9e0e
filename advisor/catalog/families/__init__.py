"""What each architecture's code builds from its config.json: one small function per family, and a table in each file.

Structure (which linear layers exist, where biases, norms and softcaps sit) follows modeling_*.py and the
defaults of missing keys follow configuration_*.py of transformers 5.23 under src/transformers/models/<model_type>.
tests/catalog builds every family on the meta device and compares.
"""

from __future__ import annotations

from advisor.catalog.families import cohere_glm, early, fused, gemma, latent, llama, moe, recent, shared_experts
from advisor.catalog.families.sizes import Family

FAMILIES: dict[str, Family] = {
    **cohere_glm.FAMILIES,
    **early.FAMILIES,
    **fused.FAMILIES,
    **gemma.FAMILIES,
    **latent.FAMILIES,
    **llama.FAMILIES,
    **moe.FAMILIES,
    **recent.FAMILIES,
    **shared_experts.FAMILIES,
}
