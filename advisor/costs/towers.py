"""What an estimate of a model that sees stands on."""

from __future__ import annotations

from advisor.decoders.stack import Proof
from advisor.libraries import MIRRORED, libraries_of, version_text
from advisor.specs import ModelSpec, Recipe


def with_tower(proof: Proof, m: ModelSpec, recipe: Recipe) -> Proof:
    """`proof` with what is not known of a vision tower: other code than transformers', older versions, eager attention.

    On rows of text the tower is idle: only a trainer that compiles the whole model is then unknown.
    """
    if m.vision is None:
        return proof
    libraries, unknown = libraries_of(recipe.stack), []
    if libraries.code == "unsloth":
        unknown.append("the code that Unsloth compiles of a vision-language model: counted as its text models'")
    if m.vision.row:
        if libraries.code not in ("", "llamafactory"):
            unknown.append(f"what {libraries.code} does with a vision tower: counted as transformers' code")
        if libraries.transformers < MIRRORED.transformers:
            version = version_text(libraries.transformers)
            unknown.append(
                f"transformers {version}'s code of a vision tower: counted as {version_text(MIRRORED.transformers)}'s"
            )
        if recipe.attention != "sdpa":
            unknown.append(f"{recipe.attention} attention in a vision tower: counted as PyTorch's fused attention")
        if recipe.kernels or recipe.offload != "none":
            unknown.append("what kernels and offloading do with a vision tower: counted without them there")
    if m.vision.row and m.cross_layers and recipe.gradient_checkpointing and recipe.reentrant:
        unknown.append(
            "re-entrant checkpointing, which layers that attend to images fail under where these get gradients"
        )
    if m.vision.row and recipe.trained_layers:
        unknown.append("whether the vision tower is trained beside the last layers: counted as frozen")
    return proof._replace(unknown=(*proof.unknown, *unknown)) if unknown else proof
