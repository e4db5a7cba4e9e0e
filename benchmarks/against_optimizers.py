r"""Optimizers of further packages, their own classes run on the CPU, against advisor/optimizer_tensors.py.

The packages are not a dependency: unpack their wheels into one folder and name it. Of torchao only the states are
compared, because its step is compiled; of GaLore the step that makes a new projection.

    pip download --no-deps -d wheels galore-torch==1.0 apollo-torch==1.0.3 came-pytorch==0.1.3 torchao==0.18.0 \
        llamafactory==0.9.5 && cd wheels && for wheel in *.whl; do unzip -qo $wheel -d ../packages; done
    python -m benchmarks.against_optimizers --source packages
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch

from advisor.blocks import block_bytes
from advisor.optimizers import optimizer_row
from advisor.parameters.trained import Trained
from calibrate.worker.tracker import AllocationTracker

RANK = 16
SHAPES = (
    Trained(512, 256, 1, "bfloat16", True, RANK),
    Trained(256, 512, 1, "bfloat16", True, RANK),
    Trained(512, 256, 1, "float32", True, RANK),
    Trained(256, 768, 1, "float32", True, RANK),
    Trained(8192, 0, 1, "float32"),
    Trained(300, 100, 1, "bfloat16"),
)
COMPILED = ("adamw_torchao_8bit", "adamw_torchao_4bit")
Maker = Callable[[torch.nn.Parameter, Trained], Any]


def _low_rank(module: str, name: str, **options: Any) -> Maker:
    def make(parameter: torch.nn.Parameter, p: Trained) -> Any:
        group: dict[str, Any] = {"params": [parameter]}
        if p.projection:
            group |= {"rank": p.projection, "update_proj_gap": 1, "scale": 1.0, "proj_type": "std", **options}
        return getattr(importlib.import_module(module), name)([group], lr=1e-5)

    return make


def _torchao(name: str) -> Maker:
    def make(parameter: torch.nn.Parameter, p: Trained) -> Any:
        adam = importlib.import_module("torchao.optim.adam")
        adam.torch.compile = lambda function, **_: function
        kind = getattr(importlib.import_module("torchao.optim"), name)
        return kind([parameter], lr=1e-5, block_size=256, bf16_stochastic_round=False)

    return make


def _came(parameter: torch.nn.Parameter, p: Trained) -> Any:
    return importlib.import_module("came_pytorch").CAME([parameter], lr=1e-5, weight_decay=0.0)


def _muon(source: Path) -> Maker:
    """LLaMA-Factory's, from its file alone: its package imports more than is installed."""

    def make(parameter: torch.nn.Parameter, p: Trained) -> Any:
        path = source / "llamafactory" / "third_party" / "muon" / "muon.py"
        spec = importlib.util.spec_from_file_location("muon_of_llamafactory", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        given = [parameter] if p.inner else []
        return module.Muon(muon_params=given, adamw_params=[] if p.inner else [parameter], lr=1e-5)

    return make


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The plain tensors in an optimizer's state."""
    if isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif hasattr(value, "ortho_matrix"):
        yield value.ortho_matrix
    elif isinstance(value, torch.Tensor):
        names = [] if type(value) is torch.Tensor else value.__tensor_flatten__()[0]
        yield from (getattr(value, name) for name in names) if names else (value,)


def measured(make: Maker, p: Trained) -> tuple[int, int]:
    """(bytes of the states, most bytes that a step allocates beside them), in blocks, of the second step."""
    dtype = getattr(torch, p.dtype)
    size = (p.rows, p.columns) if p.columns else (p.rows,)
    parameter = torch.nn.Parameter(torch.randn(size).to(dtype))
    optimizer = make(parameter, p)
    peak = 0
    for _ in range(2):
        parameter.grad = torch.randn(size).to(dtype)
        tracker = AllocationTracker({}, name_modules=False)
        for held in (parameter, parameter.grad, *_tensors(dict(optimizer.state))):
            tracker.add(held, "held", "")
        del held
        with tracker:
            tracker.mark("optimizer")
            optimizer.step()
        phase = tracker.timeline.phase_peaks()[-1]
        peak = phase.peak_bytes - phase.begin_bytes
    states = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in _tensors(dict(optimizer.state))}
    on_card = [size for size in states.values() if size != 4 or not _torchao_step(optimizer)]
    return sum(map(block_bytes, on_card)), peak


def _torchao_step(optimizer: Any) -> bool:
    """Whether the optimizer counts its steps in a tensor of four bytes on the CPU."""
    return type(optimizer).__module__.startswith("torchao")


@click.command()
@click.option("--source", required=True, type=click.Path(exists=True, path_type=Path), help="folder of the packages")
def main(source: Path) -> None:
    """Compare each optimizer's states and temporaries at several shapes."""
    warnings.simplefilter("ignore")
    sys.path.append(str(source))
    makers = {
        "muon": _muon(source),
        "came": _came,
        "galore": _low_rank("galore_torch", "GaLoreAdamW"),
        "apollo": _low_rank("apollo_torch", "APOLLOAdamW", proj="random", scale_type="channel"),
        "adamw_torchao_8bit": _torchao("AdamW8bit"),
        "adamw_torchao_4bit": _torchao("AdamW4bit"),
    }
    for name, make in makers.items():
        row = optimizer_row(name)
        for p in SHAPES:
            states, peak = measured(make, p)
            ours = sum(map(block_bytes, row.states(p)))
            temporaries = sum(map(block_bytes, row.temporaries(p)))
            shape = f"{p.rows} x {p.columns} {p.dtype}"
            text = "" if name in COMPILED else f"  step {peak:>9,} run, {temporaries:>9,} counted"
            click.echo(f"{name:18} {shape:20} states {states:>9,} kept, {ours:>9,} counted{text}")


if __name__ == "__main__":
    main()
