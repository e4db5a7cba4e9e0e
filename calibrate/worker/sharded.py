"""One training step of one of several cards, really executed on the CPU: the oracle of FSDP's memory.

PyTorch's fake process group stands for the other cards: collectives return at once, allocations are those of a rank,
values mean nothing. The model is sharded by accelerate's own code. FSDP frees by resizing storages to nothing, which
only torch.profiler's allocator events see.
Source: PyTorch 2.13, testing/_internal/distributed/fake_pg.py.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType, DynamoBackend, FullyShardedDataParallelPlugin, fsdp_utils
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp._runtime_utils import _reset_flat_param_grad_info_if_needed as free_gradients
from torch.distributed.tensor import DTensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.testing._internal.distributed.fake_pg import FakeStore

from advisor.specs import Placement, Recipe
from calibrate.worker.build import build_model
from calibrate.worker.cpu_memory import MEMORY_EVENT, living_storages, rounded
from calibrate.worker.patches import quiet

MARK = "calibrate: "
WARM_UP_STEPS = 2


class RankStep(NamedTuple):
    """What a rank holds from step to step, in blocks of 512 bytes, and each phase's peak beyond it."""

    static_bytes: int
    forward_bytes: int
    backward_bytes: int


@contextmanager
def fake_group(ranks: int) -> Iterator[None]:
    """A process group of `ranks`, of which this process is the first."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank_step(config: Mapping[str, Any], recipe: Recipe, placement: Placement, batch: int, seq_len: int) -> RankStep:
    """Run steps of `recipe` on the first of the placement's cards, within a `fake_group`.

    For models that fit in the host's memory.
    """
    with quiet():
        torch.manual_seed(0)
        before = set(_living())
        model = build_model(config, recipe, fake=False)
        if recipe.is_quantized:
            store_in(model, getattr(torch, recipe.base_dtype))
        model = sharded(model, recipe, placement)
        optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad])
        ids = torch.zeros((batch, seq_len), dtype=torch.long)
        inputs = {"input_ids": ids, "labels": ids}
        for _ in range(WARM_UP_STEPS):
            _loss(model, inputs, recipe).backward()
            optimizer.step()
            optimizer.zero_grad()
        if isinstance(model, FullyShardedDataParallel):
            free_gradients(model._all_handles)  # as the next forward does first
        static = sum(rounded(size) for storage, size in _living().items() if storage not in before)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            _step(model, optimizer, inputs, recipe)
    return _read(seen, static)


def _loss(model: Any, inputs: Mapping[str, Any], recipe: Recipe) -> Any:
    """accelerate puts autocast around an FSDP1 model's forward, and none around FSDP2's."""
    on = recipe.autocast and isinstance(model, FullyShardedDataParallel)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
        return model(**inputs).loss


def _step(model: Any, optimizer: Any, inputs: Mapping[str, Any], recipe: Recipe) -> None:
    """As transformers' Trainer does it: only the last micro-batch reduces its gradients."""
    for index in range(recipe.gradient_accumulation):
        last = index == recipe.gradient_accumulation - 1
        first_version = isinstance(model, FullyShardedDataParallel)
        if not first_version:
            model.set_requires_gradient_sync(last)
        with model.no_sync() if first_version and not last else nullcontext():
            _mark("forward")
            loss = _loss(model, inputs, recipe)
            _mark("backward")
            loss.backward()
            del loss
    _mark("optimizer")
    optimizer.step()
    optimizer.zero_grad()


def _mark(phase: str) -> None:
    with record_function(MARK + phase):
        pass


def sharded(model: Any, recipe: Recipe, placement: Placement, device: str = "cpu") -> Any:
    """accelerate's FSDP with transformers' defaults.

    Source: accelerate 1.15, utils/fsdp_utils.py, fsdp2_prepare_model, and accelerator.py, prepare_model; transformers
    5.23, training_args.py and distributed/fsdp.py, update_fsdp_plugin_peft.
    """
    first_version = placement.sharding == "fsdp1"
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=1 if first_version else 2,
        auto_wrap_policy="transformer_based_wrap",
        cpu_ram_efficient_loading=False,
        state_dict_type="SHARDED_STATE_DICT",
        **(_of_first_version(placement) if first_version else {"reshard_after_forward": placement.reshard}),
    )
    if recipe.autocast:
        plugin.set_mixed_precision("bf16")
    mesh = _mesh(placement, device)
    state = SimpleNamespace(fsdp_plugin=plugin, dynamo_plugin=SimpleNamespace(backend=DynamoBackend.NO))
    accelerator: Any = SimpleNamespace(
        state=state,
        # FSDP2's trained weights become fp32, unless there are Params4bit, a class that no fake tensor has.
        mixed_precision="bf16" if recipe.autocast and (first_version or not recipe.is_quantized) else "no",
        is_main_process=False,
        device=torch.device(device),
        torch_device_mesh=mesh,
        parallelism_config=None if first_version else SimpleNamespace(fsdp_dim_names=mesh.mesh_dim_names),
    )
    if not first_version:
        return fsdp_utils.fsdp2_prepare_model(accelerator, model)
    if recipe.has_adapters:
        from peft.utils.other import fsdp_auto_wrap_policy

        plugin.auto_wrap_policy = fsdp_auto_wrap_policy(model)
        if recipe.is_quantized:
            plugin.set_mixed_precision(getattr(torch, recipe.base_dtype), override=True)
    accelerator.__dict__.update(_models=[], distributed_type=DistributedType.FSDP, is_fsdp2=False, multi_device=False)
    accelerator.__dict__.update(native_amp=False, fp8_backend=None, delayed_fp8_autocast=False)  # autocast: `_loss`
    accelerator.verify_device_map = lambda model: False
    return Accelerator.prepare_model(accelerator, model, device_placement=False)


def _of_first_version(placement: Placement) -> dict[str, Any]:
    """What the plugin is given for FSDP1; accelerate 1.15 takes its strategy from no other argument."""
    return {
        "sharding_strategy": "FULL_SHARD" if placement.reshard else "SHARD_GRAD_OP",
        "backward_prefetch": "BACKWARD_PRE" if placement.prefetch else "NO_PREFETCH",
        "use_orig_params": True,
    }


def _mesh(placement: Placement, device: str) -> Any:
    """The cards that shard one copy of the model or, with several copies, (copies, shards)."""
    copies = placement.gpus // placement.shards
    names = ("dp_replicate", "dp_shard") if copies > 1 else ("dp_shard",)
    with unset_fake_temporarily():  # its ranks are values
        return init_device_mesh(device, (copies, placement.shards)[-len(names) :], mesh_dim_names=names)


def store_in(model: Any, dtype: torch.dtype) -> None:
    """Packed weights in a floating dtype (bnb_4bit_quant_storage), without which accelerate does not shard them."""
    from bitsandbytes.functional import QuantState

    for module in model.modules():
        if isinstance(getattr(module, "quant_state", None), QuantState):
            weight = module.weight
            weight.data = weight.data.view(-1).view(dtype).view(-1, 1)
            weight.quant_storage = module.quant_storage = dtype


def _living() -> dict[int, int]:
    """Bytes of every storage of this process, by its address. A DTensor's is that of its local part."""
    gc.collect()
    return {storage._cdata: storage.nbytes() for storage in living_storages(without=(DTensor,))}


def _read(seen: Any, static: int) -> RankStep:
    """The peaks of the phases, the highest of all micro-batches."""
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == MEMORY_EVENT or e.name().startswith(MARK)]
    live, phase = 0, ""
    peaks = {"forward": 0, "backward": 0, "optimizer": 0}
    for event in sorted(events, key=lambda one: one.start_ns()):
        if event.name() == MEMORY_EVENT:
            live += rounded(event.nbytes())
        else:
            phase = event.name().removeprefix(MARK)
        if phase:
            peaks[phase] = max(peaks[phase], live)
    return RankStep(static, peaks["forward"], peaks["backward"])
