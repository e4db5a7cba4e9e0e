"""One training step of one of several cards on fake tensors, every byte recorded: any model at its full size.

PyTorch's fake process group stands for the other cards, as in `calibrate.worker.sharded`, whose FSDP2 also works on
FakeTensors, as the ranks of the mesh alone are values. DDP's reducer is real: a communication hook in the place of the
all-reduce hands each bucket back, as the fake group has no futures.

As the one-card dry run, it counts tensors, not what a kernel needs inside: of the reduction, the CPU's kernel that
joins gradients makes a copy of each which a card's does not (torch._chunk_cat).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from torch._subclasses.fake_tensor import FakeTensorMode

from advisor.specs import Placement, Recipe, RowKind
from calibrate.measurement import Trace
from calibrate.timeline import BUCKETS
from calibrate.worker.build import build_model, step_inputs
from calibrate.worker.dryrun import add_static, short_name, summary
from calibrate.worker.optimizers import make_optimizer
from calibrate.worker.patches import no_data_dependence, quiet, readable_4bit
from calibrate.worker.quantized import materialize
from calibrate.worker.rank_tracker import RankTracker
from calibrate.worker.sharded import fake_group
from calibrate.worker.spread import Spread, spread_over

WARM_UP_STEPS = 2
"""DDP makes its buckets anew in the second step."""


def trace_rank(
    config: Mapping[str, Any],
    recipe: Recipe,
    placement: Placement,
    batch: int,
    seq_len: int,
    *,
    census: bool = False,
    rows: RowKind = "full",
    code: str = "",
) -> Trace:
    """Trace one step of the first of the placement's cards, which has the most rows of every parameter.

    The phases of each micro-batch follow one another; of more than two, the first and the last are run.
    Raises what `trace_step` raises.
    """
    start_s = time.perf_counter()
    with quiet(), fake_group(placement.gpus):
        model = build_model(config, recipe, fake=True, code=code)
        fakes = FakeTensorMode(allow_non_fake_inputs=True)
        with fakes, readable_4bit(), no_data_dependence(rows == "packed"), _packed_weights():
            materialize(model)
            tracker = _run(model, recipe, placement, step_inputs(model, batch, seq_len, rows))
    return summary(tracker, model, recipe, str(config["model_type"]), batch, seq_len, rows, census, False, start_s)


def _run(model: Any, recipe: Recipe, placement: Placement, inputs: Mapping[str, Any]) -> RankTracker:
    """Two steps until the steady state, then one under the tracker."""
    names = {id(module): short_name(name) for name, module in model.named_modules()}
    spread = spread_over(model, recipe, placement, alone=True)
    optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad], recipe.optimizer)
    alone = recipe.model_copy(update={"gradient_accumulation": 1})
    for _ in range(WARM_UP_STEPS):
        _step(spread, optimizer, alone, inputs, lambda _: None)
    tracker = RankTracker(names)
    add_static(tracker, model, optimizer, inputs)
    for bucket in spread.buckets.values():
        tracker.add(bucket, BUCKETS, "")
    with tracker:
        _step(spread, optimizer, recipe, inputs, tracker.mark)
    return tracker


def _step(
    spread: Spread, optimizer: Any, recipe: Recipe, inputs: Mapping[str, Any], mark: Callable[[str], None]
) -> None:
    """As transformers' Trainer does it: only the last micro-batch reduces its gradients."""
    for syncs in (True,) if recipe.gradient_accumulation == 1 else (False, True):
        with nullcontext() if syncs else spread.unsynced():
            mark("forward")
            loss = spread.forward(**inputs).loss
            mark("backward")
            loss.backward()
            del loss
    mark("optimizer")
    optimizer.step()
    optimizer.zero_grad()


@contextmanager
def _packed_weights() -> Iterator[None]:
    """Let a 4-bit layer find its constants where FSDP has made its weight anew, which no fake Params4bit could hold.

    accelerate asks for a state_dict, which it does not use here, and that of such a layer reads a value.
    Source: bitsandbytes 0.50, nn/modules.py, fix_4bit_weight_quant_state_from_module, Linear4bit._save_to_state_dict.
    """

    def restore(module: Any) -> None:
        module.weight.quant_state = module.quant_state

    layers = "bitsandbytes.nn.modules"
    unread = patch(f"{layers}.Linear4bit._save_to_state_dict", lambda *_: None)
    with patch(f"{layers}.fix_4bit_weight_quant_state_from_module", restore), unread:
        yield
