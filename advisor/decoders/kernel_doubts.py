"""What kernels of packages would be handed and cannot take: an answer then knows less."""

from __future__ import annotations

from advisor.parameters.storage import other_dtype
from advisor.parameters.token_mixers import STATE_SPACES, one_function
from advisor.specs import ModelSpec, Recipe

_PACKED_WEIGHT = (
    "that mamba-ssm's kernel runs on a quantized base: transformers hands it out_proj's stored weight, which it "
    "multiplies by as it is (--sequence-kernels torch does not)"
)
"""Source: mamba_ssm 2.3.2.post1, ops/triton/ssd_combined.py, MambaSplitConv1dScanCombinedFn.forward, and
ops/selective_scan_interface.py, MambaInnerFn.forward: `F.linear`."""

_MIXED_DTYPES = (
    "that mamba-ssm's kernel runs beside norms in fp32 under autocast: they make B and C fp32, and it takes these in "
    "the dtype of its input alone (--no-kbit-upcast leaves norms in 16 bits, --sequence-kernels torch takes both)"
)
"""Source: mamba_ssm 2.3.2.post1, csrc/selective_scan/selective_scan.cpp, selective_scan_fwd: TORCH_CHECK of B and C."""


def kernel_doubt(m: ModelSpec, recipe: Recipe) -> str:
    """Why the kernels that a model's layers call may not run for this recipe; '' where nothing is known of it."""
    if recipe.sequence_kernels != "packages":
        return ""
    if recipe.is_quantized and (one_function(m) or not STATE_SPACES.isdisjoint(m.mixers)):
        return _PACKED_WEIGHT
    normed = m.recurrence is not None and m.recurrence.step_norms == "learned"
    return _MIXED_DTYPES if normed and recipe.autocast and other_dtype(recipe) == "float32" else ""
