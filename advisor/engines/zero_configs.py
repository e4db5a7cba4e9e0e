"""The sizes in the DeepSpeed configs that trainers ship, by the code of their stack and the stage."""

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
    overlap_comm: bool = False  # of stages 1 and 2, which then have a second bucket

    def bucket(self, hidden: int) -> int:
        """Elements that are reduced at once."""
        return self.reduce_bucket_size or hidden**2

    def prefetch(self, hidden: int) -> int:
        """Elements that are gathered ahead at once."""
        return self.prefetch_bucket_size or int(0.9 * hidden**2)

    def persistent(self, hidden: int) -> int:
        """Elements up to which a weight stays whole."""
        return self.param_persistence_threshold or 10 * hidden


LEFT_OUT = ZeroConfig()
"""accelerate's own config and those of TRL (trl/accelerate_configs) say nothing of sizes.

Source: accelerate 1.15, utils/dataclasses.py, DeepSpeedPlugin. Axolotl's zero1.json and zero2.json leave them out, too.
"""
_AUTO = ZeroConfig(0, 0, 0)
CONFIGS: dict[str, tuple[ZeroConfig, ZeroConfig]] = {
    "llamafactory": (LEFT_OUT, _AUTO),  # examples/deepspeed/ds_z2_config.json: 5e8, no overlap; ds_z3_config.json
    "ms-swift": (LEFT_OUT._replace(reduce_bucket_size=200_000_000), _AUTO),  # swift/config/zero2.json, zero3.json
}
"""Of stages 1 and 2, and of stage 3, where a trainer's own differ from what DeepSpeed does without."""


def config_of(code: str, third: bool) -> ZeroConfig:
    """The config of a trainer, by the code of its stack; `third`: of stage 3."""
    return CONFIGS.get(code, (LEFT_OUT, LEFT_OUT))[third]
