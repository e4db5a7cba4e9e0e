"""The dry run's fake tensors against the same step really executed on the CPU: every architecture, to the byte.

Variants of a family as well: EVERY_COMBINATION=1.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from advisor.specs import METHODS
from calibrate.worker.dryrun import real_step, trace_step
from tests.decoders.tiny import CONFIGS, config, recipe, spec
from tests.every import EVERY_COMBINATION, in_turn

# One method a family, checkpointing in every second round: each method meets each kind of layer somewhere. By default
# every second family: fake tensors are PyTorch's, and hardly know what runs on them.
FAMILIES = [name for name in CONFIGS if EVERY_COMBINATION or "-" not in name]
CASES = in_turn([(name, METHODS[i % 5], bool(i // 5 % 2)) for i, name in enumerate(FAMILIES)], 2)


@pytest.mark.parametrize(("name", "method", "checkpointing"), CASES)
def test_every_phase_peaks_at_the_same_byte(name: str, method: str, checkpointing: bool) -> None:
    m, built = spec(name, 2), config(name, 2)
    wanted = recipe(m, method, gradient_checkpointing=checkpointing, rank=4)
    fake, real = (step(built, wanted, 2, 40, name_modules=False) for step in (trace_step, real_step))
    assert [p.peak_bytes for p in fake.phases] == [p.peak_bytes for p in real.phases]
    assert (fake.base_weights_bytes, fake.trainable_parameters) == (real.base_weights_bytes, real.trainable_parameters)
