"""How the trainers' own formats switch kernels on, and what none of them can."""

from __future__ import annotations

from advisor.errors import BadValue
from advisor.specs import KernelSet, Recipe

LIGER: dict[KernelSet, str] = {
    "liger_norm": "rms_norm",
    "liger_rope": "rope",
    "liger_mlp": "swiglu",
    "liger_loss": "fused_linear_cross_entropy",
}
"""liger_kernel_config of transformers 5.23's TrainingArguments; the gated MLP of some models is named geglu there."""


def liger_config(
    recipe: Recipe, known: tuple[KernelSet, ...] = tuple(LIGER), chunks: bool = False
) -> dict[str, bool] | None:
    """What liger_kernel_config has to say beside use_liger_kernel; None where Liger is off, {} where all is on.

    `chunks`: the trainer has no chunked loss but Liger's, which is then on.
    """
    by_loss = chunks and recipe.loss == "chunked"
    wanted = [name for name in known if name in recipe.kernels or (by_loss and name == "liger_loss")]
    if not wanted:
        return None
    off = [LIGER[name] for name in known if name not in wanted]
    return dict.fromkeys([*off, *(["geglu"] if "swiglu" in off else [])], False)


def refuse(
    recipe: Recipe, trainer: str, kernels: tuple[KernelSet, ...], offloads: bool = False, in_backward: bool = False
) -> None:
    """Raise BadValue for what a file of `trainer` cannot say, though the estimate counts on it."""
    for name in recipe.kernels:
        if name not in kernels:
            raise BadValue("--kernels", name, f"a file for {trainer} cannot switch it on: --kernels none to write one")
    if recipe.offload != "none" and not offloads:
        raise BadValue(
            "--offload", recipe.offload, f"a file for {trainer} cannot ask for it: --offload none to write one"
        )
    if recipe.optimizer_in_backward and not in_backward:
        raise BadValue("--optimizer-in-backward", True, f"a file for {trainer} cannot ask for it; leave it out")
