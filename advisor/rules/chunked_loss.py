"""A chunked loss needs another kernel.

transformers computes all logits at once, in fp32: 12 bytes per token and vocabulary entry at the peak. A chunked loss
avoids that, but transformers has none of its own; its Trainer switches Liger's fused one on with use_liger_kernel=True,
which needs the liger-kernel package and supports the common model families only.
"""

from __future__ import annotations

from advisor.answer import Reason
from advisor.rules.context import Context, Finding, Rule

CODE = "ADV109"
SOURCE = "transformers 5.23, TrainingArguments.use_liger_kernel"


def check(context: Context) -> Finding | None:
    """Speaks up when --loss chunked was fixed for transformers' Trainer."""
    if context.question.loss != "chunked" or context.trainer.name != "transformers":
        return None
    text = (
        "--loss chunked: the script uses Liger's kernel for it; install liger-kernel and check your model. "
        "--kernels liger_loss counts that kernel's own bytes."
    )
    return Finding((Reason(code=CODE, text=text, source=SOURCE),))


RULE = Rule(CODE, "warns", __doc__, (SOURCE,), check)
