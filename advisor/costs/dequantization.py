"""How fast older bitsandbytes makes 16-bit weights, over its version 0.50."""

from __future__ import annotations

BRANCHING_RATE = {
    **dict.fromkeys(("pascal", "volta", "ampere hbm", "hopper", "hopper cut", "blackwell hbm"), 0.59),
    "turing": 0.66,
}
"""4 bits before 0.48, by class of card; 1 for all others.

They took 1.36 to 2.07 times as long on a P100, an A100 and an H100, 1.25 to 1.8 times on a T4, and as long as today on
an A10 and an RTX 4090, unless they are small (github.com/bitsandbytes-foundation/bitsandbytes/pull/1747).
"""

NESTED_RATE_OF_2023 = 0.25
"""4 bits with nested constants in 0.41: about a quarter, by public steps; its source shows no single cause."""
