"""Weights that bitsandbytes leaves in 16 bits.

transformers replaces plain nn.Linear layers with 4-bit or 8-bit ones. It does not replace experts stored as fused 3-D
parameters, as transformers 5 does (before, each expert was linear layers of its own), nor the linear layers of models
that define their own class for them (Falcon). Those stay as they were loaded, and k-bit preparation then casts them to
fp32: QLoRA may need several times what the quantized size of the model suggests, and more than LoRA. The rule says how
many bytes stay unquantized.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.parameters.storage import unquantized_layers
from advisor.rules.context import Context, Finding, Rule
from advisor.rules.wording import DISPLAY
from advisor.specs import QUANTIZED_METHODS, ModelSpec
from advisor.units import format_gib

CODE = "ADV111"
SOURCES = (
    "transformers 5.23, integrations/bitsandbytes.py, replace_with_bnb_linear",
    "peft 0.21.2, peft/utils/other.py, prepare_model_for_kbit_training",
)
LEAST_SHARE = 0.1
"""Share of the layers' parameters below which the rule is silent: routers of mixtures hold next to nothing."""


def check(context: Context) -> Finding | None:
    """Speaks up for the first quantized row, the recommended one before others."""
    methods = sorted(QUANTIZED_METHODS, key=lambda method: method != context.recommended)
    row = next((context.candidates[method] for method in methods if method in context.candidates), None)
    if row is None or not isinstance(context.model, ModelSpec):
        return None
    left = unquantized_layers(context.model, row.recipe)
    if left.share < LEAST_SHARE:
        return None
    cast = ""
    if row.recipe.kbit_upcast and row.recipe.base_dtype != "float32":
        cast = f", and k-bit preparation casts them to fp32 (--no-kbit-upcast leaves {format_gib(left.bytes / 2)} GiB)"
    from advisor.parameters.stored import as_linears

    fused = unquantized_layers(as_linears(context.model), row.recipe).share < LEAST_SHARE
    older = " Before transformers 5 they are linear layers, which it quantizes: see --stack transformers-4.57." * fused
    part = f"only {1 - left.share:.0%} of" if left.share < 1 else "none of"
    text = (
        f"{DISPLAY[row.method]} quantizes {part} the parameters in this model's layers: "
        f"bitsandbytes leaves {format_gib(left.bytes)} GiB as they are{cast}.{older}"
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCES[0]),))


RULE = Rule(CODE, "warns", __doc__, SOURCES, check)
