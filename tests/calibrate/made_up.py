"""Records, machines and questions out of thin air."""

from __future__ import annotations

from typing import Any

from advisor.catalog import find_model
from advisor.specs import Recipe
from calibrate.burst_record import BurstFacts, Conditions, DeviceFacts, Run
from calibrate.cut import Whole
from calibrate.measurement import Comparison, Environment, Figures
from calibrate.options import config_of
from calibrate.runner import Machine

GIB = 2**30
CPU = DeviceFacts(kind="cpu", name="Some CPU", memory_bytes=16 * GIB, cores=4, threads=1)
TINY: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


def gpu(name: str = "NVIDIA H200", gib: int = 140) -> DeviceFacts:
    return DeviceFacts(
        kind="cuda",
        name=name,
        memory_bytes=gib * GIB,
        compute_capability="9.0",
        driver="580.1",
        cuda="13.0",
        multiprocessors=132,
        cores=16,
        threads=1,
    )


def environment(device: DeviceFacts | None = CPU) -> Environment:
    return Environment(
        torch="2.13.0",
        transformers="5.23.0",
        peft="0.21.2",
        bitsandbytes="0.50.2",
        accelerate="1",
        python="3.11",
        platform="Linux",
        device=device,
    )


def machine(device: DeviceFacts = CPU, available_gib: float = 12.0, problem: str = "", bf16: bool = True) -> Machine:
    return Machine(environment(device), device, int(available_gib * GIB), Conditions(), problem, bf16)


def whole(name: str) -> Whole:
    spec = find_model(name)
    return Whole(name, config_of(name), spec, "", spec.default_attention)


def run(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "build_s": 0.5,
        "warm_up_s": (0.2, 0.1),
        "step_s": (0.1,) * 9,
        "micro_step_s": (0.09,) * 9,
        "host_s": (0.1,) * 9,
        "trainable_parameters": 7,
        "before": Conditions(),
        "after": Conditions(),
        "cpu_share": 1.0,
        "others_cores": 0.2,
    }
    return Run(**values | changes)


def figures(peak_gib: float = 1.0, step_s: float | None = 0.1) -> Figures:
    return Figures(
        peak_allocated_bytes=int(peak_gib * GIB),
        base_weights_bytes=GIB // 2,
        quantization_bytes=0,
        adapters_bytes=0,
        optimizer_states_bytes=0,
        peak_at="",
        step_s=step_s,
    )


GOOD = run()


def record(
    method: Any = "lora",
    *,
    model: str = "tiny",
    seq_len: int = 64,
    key: str = "",
    id: str = "",
    device: DeviceFacts = CPU,
    predicted: Figures | None = None,
    measured: Figures | None = None,
    outcome: Any = "done",
    verdict: Any = "fits",
    run: Run | None = GOOD,
    **more: Any,
) -> Comparison:
    """A finished burst, predicted 1 % over what was measured unless told otherwise."""
    done = outcome == "done"
    recipe = Recipe(method=method, quant="nf4" if method.startswith("q") else "none", **more)
    return Comparison(
        model=model,
        method=method,
        recipe=recipe,
        batch=1,
        seq_len=seq_len,
        source=device.kind,
        predicted=predicted or figures(1.01, 0.11),
        measured=(measured or figures()) if done else None,
        environment=environment(device),
        burst=BurstFacts(
            id=id or f"{method}-{model}-{seq_len}",
            key=key or f"{method}-{model}-{seq_len}-{device.signature}",
            started_at="2026-01-02T03:04:05+00:00",
            outcome=outcome,
            error="" if done else "it broke",
            config=TINY,
            verdict=verdict,
            limit_bytes=8 * GIB,
            needed_bytes=2 * GIB,
            run=run if done else None,
        ),
    )
