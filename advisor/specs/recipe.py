"""How a job is run: every knob of one step, the cards, and what they cost."""

from __future__ import annotations

from typing import Annotated, Literal

from advisor.checkpoints import STORES, Quantization
from advisor.frozen import Frozen, Range
from advisor.libraries import wrong_stack
from advisor.optimizers import Optimizer
from advisor.specs.words import (
    ADAPTER_METHODS,
    DORA_METHODS,
    FUSED_LOSSES,
    REPLACING,
    Attention,
    Chance,
    DType,
    KernelSet,
    Link,
    Loss,
    Method,
    Offload,
    SequenceKernels,
    Sharding,
    StateOffload,
    TrainedDType,
    Variant,
)


class Recipe(Frozen):
    """How one training step is run: every knob that changes its memory or its time."""

    method: Method
    rank: Annotated[int, Range(1, 16_384)] = 16
    alpha: Annotated[float, Range(0, 1_000_000, open_low=True)] = 32.0
    target_modules: tuple[str, ...] = ("all-linear",)  # ('all-linear',), ('attention',) or names
    modules_to_save: tuple[str, ...] = ()  # trained whole: beside adapters as copies, or beside the last layers
    trained_layers: Annotated[int, Range(0, 1_000)] = 0  # the last so many layers get adapters or are trained; 0 = all
    trained_dtype: TrainedDType = "base"  # of weights that modules_to_save or trained_layers train; base: as loaded
    train_tower: bool = True  # of a model that sees: off leaves its tower and projector as they are
    variant: Variant = "plain"  # of LoRA's scaling, start or rates: no byte differs; REPLACING: in its place
    dropout: Chance = 0.0
    base_dtype: DType = "bfloat16"
    adapter_dtype: DType = "float32"
    magnitude_dtype: DType = "float32"  # of DoRA's magnitudes: TRL keeps them in fp32 beside bf16 adapters
    quant: Quantization = "none"
    double_quant: bool = True
    quant_bits: Annotated[int, Range(1, 8)] = 4  # of a gptq, awq or hqq base
    # weights that share a scale: in a row, of gptq and awq; in blocks of a row or a column, of hqq; in squares of so
    # many rows and columns, of fp8; 0 = all of a row, of fp8 all of a tensor
    quant_group: Annotated[int, Range(0, 10_000_000)] = 128
    kbit_upcast: bool = True
    quantize_experts: bool = False  # stacks of experts, too, which bitsandbytes passes over unless it is told
    autocast: bool = True
    optimizer: Optimizer = "adamw"
    optimizer_rank: Annotated[int, Range(1, 16_384)] = 128  # of the projections of GaLore and APOLLO
    gradient_checkpointing: bool = True
    reentrant: bool = False
    attention: Attention = "sdpa"
    loss: Loss = "full"
    upcast_logits: bool = True  # off: the loop itself calls cross entropy, on logits in their own dtype
    neftune: Annotated[float, Range(0, 1_000_000)] = 0.0  # alpha of the noise on embedded tokens; 0 = none
    stack: tuple[str, ...] = ()  # 'transformers-4.57', ...: libraries other than the mirrored ones (advisor.libraries)
    kernels: tuple[KernelSet, ...] = ()  # in place of the model's own code
    sequence_kernels: SequenceKernels = "packages"  # of layers without attention; torch: the model's own functions
    offload: Offload = "none"  # activations: what backward needs of layers waits in the host's memory
    optimizer_in_backward: bool = False  # each parameter is updated as soon as its gradient is there
    micro_batch: Annotated[int, Range(1, 1_000_000)] = 1
    gradient_accumulation: Annotated[int, Range(1, 1_000_000)] = 1  # micro-batches of each card per optimizer step
    expandable_segments: bool = False  # of PyTorch's allocator
    eval_batch: Annotated[int, Range(0, 1_000_000)] = 0  # rows of a card's evaluation batch; 0 = no evaluation

    @property
    def has_adapters(self) -> bool:
        """LoRA or DoRA, on any base."""
        return self.method in ADAPTER_METHODS

    @property
    def has_lora(self) -> bool:
        """Adapters of two matrices and a scale."""
        return self.has_adapters and self.variant not in REPLACING

    @property
    def has_rank(self) -> bool:
        """Adapters of a rank: LoRA's and VeRA's."""
        return self.has_lora or (self.replaces_lora and self.variant == "vera")

    @property
    def replaces_lora(self) -> bool:
        """Adapters that are none of LoRA's."""
        return self.has_adapters and self.variant in REPLACING

    @property
    def is_dora(self) -> bool:
        """DoRA or QDoRA."""
        return self.method in DORA_METHODS

    @property
    def is_quantized(self) -> bool:
        """Base weights stored in 4 or 8 bits."""
        return self.quant != "none"

    def _contradiction(self) -> str:
        widths = STORES[self.quant].bits if self.is_quantized else ()
        if widths and self.quant_bits not in widths:
            return f"quant_bits is {self.quant_bits}, but a {self.quant} base has {', '.join(map(str, widths))}"
        if self.optimizer_in_backward and self.gradient_accumulation > 1:
            return "optimizer_in_backward allows no accumulation, but gradient_accumulation is more than 1"
        if self.quantize_experts and self.is_quantized and self.quant not in ("nf4", "fp4"):
            return f"quantize_experts takes nf4 or fp4: what a step does with stacks in {self.quant} is not known"
        losses = [*(set(FUSED_LOSSES) & set(self.kernels)), *(["loss chunked"] if self.loss == "chunked" else [])]
        if len(losses) > 1:
            return f"{' and '.join(sorted(losses))} replace the same code; leave one out"
        return wrong_stack(self.stack) if self.stack else ""


class Placement(Frozen):
    """How many GPUs share one job, and how.

    ddp copies the model to each and averages their gradients; fsdp1 is PyTorch's FullyShardedDataParallel, fsdp2 its
    fully_shard; hsdp shards by fully_shard inside a node and copies between nodes; zero1, zero2 and zero3 are
    DeepSpeed's stages.
    """

    gpus: Annotated[int, Range(1, 100_000)] = 1  # of all nodes together
    nodes: Annotated[int, Range(1, 100_000)] = 1
    sharding: Sharding = "none"
    reshard: bool = True  # fsdp1, fsdp2, hsdp: a layer's weights are freed after its forward and gathered again
    prefetch: bool = False  # fsdp1: backward gathers the layer before early (BACKWARD_PRE, accelerate config's choice)
    offload: StateOffload = "none"
    bucket_elements: Annotated[int, Range(0, 10**12)] = (
        0  # zero1-3: DeepSpeed's reduce_bucket_size; 0 = its usual value
    )
    configs: Literal["", "axolotl", "llamafactory", "ms-swift"] = ""  # zero1-3: whose config; '': accelerate's own
    link: Link = "auto"
    network_gbit: Annotated[float, Range(0, 1_000_000)] = 0.0  # Gbit/s of each card's way out of its node; 0 = unknown
    host_memory_gb: Annotated[float, Range(0, 1_000_000)] = 0.0  # of each node, as memory is sold (GiB); 0 = unknown

    @property
    def copies_model(self) -> bool:
        """Whether each card holds all of the model."""
        return self.gpus == 1 or self.effective_sharding in ("none", "ddp")

    @property
    def spreads_weights(self) -> bool:
        """Whether each card holds a part of the weights alone."""
        return not self.copies_model and self.sharding not in ("zero1", "zero2")

    @property
    def loads_on_host(self) -> bool:
        """Whether a quantized base can be made on the host, and each card gets its part of it from there.

        With ZeRO-3 transformers takes no device_map: 5.23, integrations/accelerate.py, check_and_set_device_map.
        """
        return self.spreads_weights and self.sharding != "zero3"

    @property
    def effective_sharding(self) -> Sharding:
        """How the cards work together: several that shard nothing run as plain data parallelism."""
        return "ddp" if self.gpus > 1 and self.sharding == "none" else self.sharding

    @property
    def node_gpus(self) -> int:
        """Cards of one node."""
        return self.gpus // self.nodes

    @property
    def shards(self) -> int:
        """Cards that one copy of the model is spread over; 1 where each holds all of it."""
        if self.copies_model:
            return 1
        return self.node_gpus if self.sharding == "hsdp" else self.gpus

    def _contradiction(self) -> str:
        if self.gpus % self.nodes:
            return f"nodes is {self.nodes}, but must divide gpus, which is {self.gpus}"
        if self.sharding == "hsdp" and self.nodes == 1:
            return "hsdp copies between nodes, but nodes is 1; use fsdp2"
        return "" if self.gpus == 1 or self.offload == "none" else self._wrong_offload()

    def _wrong_offload(self) -> str:
        """What an engine cannot keep on the host, and which can; '' where it can."""
        what, engine = f"offload is {self.offload}", self.effective_sharding
        if self.copies_model:
            return f"{what}, but {engine} has no offload; use fsdp2"
        if engine == "fsdp1":
            return f"{what}, but {engine}'s is not known; use fsdp2"
        if engine in ("zero1", "zero2") and self.offload == "parameters":
            return f"{what}, but {engine} keeps whole weights on each card; use zero3"
        if engine in ("fsdp2", "hsdp") and self.offload == "optimizer":
            return f"{what}, but {engine} offloads parameters with it or nothing; use zero2"
        return ""


class Rental(Frozen):
    """What a card costs where it is rented."""

    price_per_hour: Annotated[float, Range(0, 1_000_000)] = 0.0  # of one card, in any currency; 0 = not asked
