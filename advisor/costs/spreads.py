"""How far the time on a card and on its host may lie from ours: low, likely and high, over likely."""

from __future__ import annotations

from advisor.interval import Interval

SPREAD, FEW_SPREAD, UNPUBLISHED_SPREAD = Interval(0.86, 1.0, 1.25), Interval(0.75, 1.0, 1.35), Interval(0.65, 1.0, 1.6)
"""Time of kernels on a card: where products, copies and attention were measured, where few were, where hardly any.

Low: the best published products and copies (`costs.device`) are 3 to 14 % faster than our rates. High: 259 cards of one
model, H100 PCIe, differ by up to 34.5 % in 16-bit products (SiliconMark on 3,500 rented cards, IEEE Spectrum, May
2026), half of it to either side, and libraries by the rest. Two published times of one run of PEFT's, 836 and 619 s,
are 1.35 times apart, so that no interval may be narrower. An RTX 5090's best product reaches 224 TFLOP/s where we say
189 (main-horse.github.io/posts/5090-mm-perf). Less certain kernels add to it (`costs.attention_rates.unsure`).
"""

LAUNCH_SPREAD = Interval(0.6, 1.0, 1.7)
"""Time of the host, over that of the host which comes with a card (`costs.device`).

Low: a core of 2024 beside an old card. High: public steps of hosts of 2019 to 2023 take 1.3 times ours, and a virtual
core shares its cache and its clock; Python before 3.11 takes 1.25 times as long as 3.11 (its release notes).
"""
