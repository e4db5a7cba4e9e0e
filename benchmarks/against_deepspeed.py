"""What a rank allocates under DeepSpeed's own engine, beside what `advisor.engines` says of it.

    python -m benchmarks.against_deepspeed llama full,lora zero1,zero2,zero3 --ranks 2,8 --set gradient_accumulation=2

DeepSpeed 0.19.8 runs on PyTorch's fake process group: one process on the CPU is one rank of so many, and collectives
return at once; the most of all ranks is printed. Bytes are then a rank's own, without gloo's copies;
losses mean nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from advisor.costs.rank_memory import predict_rank_memory
from advisor.specs import ModelSpec, Placement, Recipe
from tests.decoders.tiny import config, recipe, spec

PHASES = ("forward", "backward", "optimizer")
MARK = "phase: "
BUCKET = 60_000
SCALAR_BYTES = 8
"""A number that multiplies a tensor, kept for backward: on the host beside a card, as a generator's state is."""


class Found(NamedTuple):
    """Bytes of a rank: what stands before a step, and the most above it in each phase."""

    static: int
    peaks: dict[str, int]


def recipe_of(m: ModelSpec, method: str, knobs: dict[str, Any]) -> Recipe:
    """A recipe in mixed precision."""
    return recipe(
        m, method, autocast=True, base_dtype="bfloat16", adapter_dtype="float32", optimizer="adamw_foreach", **knobs
    )


def real(
    name: str, r: Recipe, stage: int, rank: int, ranks: int, shape: tuple[int, int], zero: dict[str, Any]
) -> Found:
    """The second step of the real engine; one process runs one of them."""
    import torch
    import torch.distributed as dist
    from torch.profiler import record_function
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from calibrate.worker.build import build_model

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(ranks), "DS_ACCELERATOR": "cpu"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    import deepspeed

    torch.backends.mkldnn.enabled = False  # its products have buffers of their own, which no card has
    constants = _constants()
    model = build_model(config(name, 4), r, fake=False)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [[p for n, p in trained if ("norm" in n or "bias" in n) is kind] for kind in (False, True)]
    optimizer = torch.optim.AdamW([{"params": group} for group in groups if group], foreach=True)
    settings = {
        "train_micro_batch_size_per_gpu": shape[0],
        "gradient_accumulation_steps": r.gradient_accumulation,
        "bf16": {"enabled": True},
        "gradient_clipping": 1.0,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, **zero},
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)
    ids = torch.randint(0, 100, shape)

    def step() -> None:
        for _ in range(r.gradient_accumulation):
            with record_function(MARK + "forward"):
                pass
            loss = engine(input_ids=ids, labels=ids).loss
            with record_function(MARK + "backward"):
                pass
            engine.backward(loss)
            del loss
            with record_function(MARK + "optimizer"):
                pass
            engine.step()

    step()
    return _watched(step, constants)


def _watched(step: Callable[[], None], constants: frozenset[int]) -> Found:
    """Allocations of a step, by phase; what another step before it left is known to the profiler."""
    import gc

    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    from calibrate.worker.cpu_memory import MEMORY_EVENT, living_storages, rounded

    host = (SCALAR_BYTES, torch.get_rng_state().nbytes)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
        gc.collect()
        real_ones = [one for one in living_storages() if one.device.type != "meta" and one._cdata not in constants]
        live = static = sum(rounded(one.nbytes()) for one in real_ones)
        with record_function(MARK):
            pass
        step()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == MEMORY_EVENT or e.name().startswith(MARK)]
    peaks, phase = dict.fromkeys(PHASES, 0), ""
    events.sort(key=lambda e: e.start_ns())
    first = next(index for index, event in enumerate(events) if event.name() == MARK)
    for event in events[first + 1 :]:
        if event.name() != MEMORY_EVENT:
            phase = event.name()[len(MARK) :]
        elif abs(event.nbytes()) not in host:
            live += rounded(event.nbytes())
        peaks[phase or PHASES[0]] = max(peaks[phase or PHASES[0]], live - static)
    return Found(static, peaks)


def _constants() -> frozenset[int]:
    """Tensors of the libraries themselves, which belong to no model."""
    import peft  # noqa: F401
    import torch
    from bitsandbytes.functional import quantize_4bit

    from calibrate.worker.cpu_memory import living_storages

    quantize_4bit(torch.zeros(64), compress_statistics=True, quant_type="nf4")
    return frozenset(one._cdata for one in living_storages())


def compared(name: str, method: str, sharding: str, ranks: int, shape: tuple[int, int], knobs: list[str]) -> str:
    """One line: the real engine's bytes, and what is predicted minus them."""
    m = spec(name, 4)
    given = dict(one.split("=") for one in knobs)
    r = recipe_of(m, method, {key: int(value) for key, value in given.items()})
    asked = [name, method, sharding, "--ranks", str(ranks), "--shape", ",".join(map(str, shape)), "--real"]
    command = [sys.executable, "-m", "benchmarks.against_deepspeed", *asked, "--set", *knobs, "--rank"]
    found: list[list[int]] = []
    for rank in range(1 if sharding == "zero3" else ranks):  # stage 3 asks other ranks whether they do the same
        out = subprocess.run([*command, str(rank)], capture_output=True, text=True, check=False)
        lines = [line for line in out.stdout.splitlines() if line.startswith("FOUND ")]
        if not lines:
            return f"{name} {method} {sharding} N={ranks}: {out.stderr.strip().splitlines()[-1:]}"
        found.append([int(one) for one in lines[0].split()[1:]])
    static, *peaks = (max(one) for one in zip(*found, strict=True))
    placement = Placement(gpus=ranks, sharding=sharding, bucket_elements=BUCKET, configs="llamafactory")
    p = predict_rank_memory(m, r, placement, *shape, device="cpu")
    base = sum(p.static_blocks.values())
    parts = [f"static {static:,} {base - static:+,}"]
    for phase, most in zip(PHASES, peaks, strict=True):
        said = p.phase_peaks[phase]
        parts.append(f"{phase} {most:,} {100 * (said / (most + static) - 1):+.2f} % ({said - base - most:+,})")
    return f"{name} {method} {sharding} N={ranks} {shape} {' '.join(knobs)}: " + "; ".join(parts)


def main() -> None:
    """Every combination of what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for one in ("names", "methods", "shardings"):
        parser.add_argument(one)
    parser.add_argument("--ranks", default="2")
    parser.add_argument("--shape", default="2,49", help="rows and their length")
    parser.add_argument("--set", nargs="*", default=[], help="knobs of the recipe, NAME=NUMBER")
    parser.add_argument("--rank", type=int, default=0, help="with --real: which of them")
    parser.add_argument("--real", action="store_true", help="run the real engine in this process, and print its bytes")
    args = parser.parse_args()
    rows, length = map(int, args.shape.split(","))
    if args.real:
        m = spec(args.names, 4)
        r = recipe_of(m, args.methods, {key: int(value) for key, value in (one.split("=") for one in args.set)})
        stage = int(args.shardings[-1])
        zero: dict[str, Any] = {"reduce_bucket_size": BUCKET, "overlap_comm": False}
        if stage == 3:
            h = m.hidden_size
            zero |= {"stage3_prefetch_bucket_size": int(0.9 * h * h), "stage3_param_persistence_threshold": 10 * h}
        found = real(args.names, r, stage, args.rank, int(args.ranks), (rows, length), zero)
        print("FOUND", found.static, *found.peaks.values())
        return
    for name in args.names.split(","):
        for method in args.methods.split(","):
            for sharding in args.shardings.split(","):
                for ranks in args.ranks.split(","):
                    print(compared(name, method, sharding, int(ranks), (rows, length), args.set), flush=True)


if __name__ == "__main__":
    main()
