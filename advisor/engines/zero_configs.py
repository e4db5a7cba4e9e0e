"""The sizes in the DeepSpeed configs that trainers ship, by trainer and stage."""

from __future__ import annotations

from typing import NamedTuple


class ZeroConfig(NamedTuple):
    """Part of zero_optimization; of a size, 0 is transformers' "auto".

    Sources: DeepSpeed 0.19.8, runtime/zero/config.py, for what a config leaves out; transformers 5.23,
    integrations/deepspeed.py, trainer_config_finalize, for "auto": the square of the hidden size for buckets, 0.9 of it
    for prefetches, ten times the hidden size for what stays whole.
    """

    reduce_bucket_size: int = 500_000_000  # elements, as all of them
    prefetch_bucket_size: int = 50_000_000
    param_persistence_threshold: int = 100_000
    max_live_parameters: int = 1_000_000_000  # and max_reuse_distance
    sub_group_size: int = 1_000_000_000  # of a rank's part, which the optimizer updates at once
    overlap_comm: bool = False  # of stages 1 and 2, which then have a second bucket

    def bucket(self, hidden: int) -> int:
        """Elements that are reduced at once."""
        return self.reduce_bucket_size or hidden**2

    def prefetch(self, hidden: int) -> int:
        """Elements that are gathered ahead at once: none where none may be live."""
        return (self.prefetch_bucket_size or int(0.9 * hidden**2)) if self.max_live_parameters else 0

    def persistent(self, hidden: int) -> int:
        """Elements up to which a weight stays whole."""
        return self.param_persistence_threshold or 10 * hidden


LEFT_OUT = ZeroConfig()
"""accelerate's own config and those of TRL (trl/accelerate_configs) say nothing of sizes.

Source: accelerate 1.15, utils/dataclasses.py, DeepSpeedPlugin.
"""
_AUTO = ZeroConfig(0, 0, 0)
CONFIGS: dict[str, tuple[ZeroConfig, ZeroConfig]] = {
    # deepspeed_configs/zero1.json, zero2.json, zero3_bf16.json, whose prefetch and persistence are left out or "auto"
    "axolotl": (
        LEFT_OUT._replace(overlap_comm=True),
        LEFT_OUT._replace(reduce_bucket_size=0, max_live_parameters=0, sub_group_size=0),
    ),
    "llamafactory": (LEFT_OUT, _AUTO),  # examples/deepspeed/ds_z2_config.json: 5e8, no overlap; ds_z3_config.json
    "ms-swift": (LEFT_OUT._replace(reduce_bucket_size=200_000_000), _AUTO),  # swift/config/zero2.json, zero3.json
}
"""Of stages 1 and 2, and of stage 3, where a trainer's own differ from what DeepSpeed does without."""


def config_of(trainer: str, third: bool) -> ZeroConfig:
    """The config of a trainer; `third`: of stage 3."""
    return CONFIGS.get(trainer, (LEFT_OUT, LEFT_OUT))[third]
