"""The nouns of a question, frozen: what is trained, on what, with which data, how.

ModelSpec   sizes and structure of a decoder        (from a Hugging Face config.json)
GpuSpec     a card: memory, rates, capability       (from profiles/gpus)
Workload    the data set and how long to train
Recipe      how one training step is run: every knob that changes memory or time
Placement   how many GPUs, and what is sharded over them
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal, get_args

from advisor.frozen import Frozen, Pattern, Range
from advisor.interval import Interval
from advisor.lengths import Quantiles, RowLengths, wrong_quantiles
from advisor.libraries import wrong_stack
from advisor.optimizers import Optimizer
from advisor.terms import TermName

Method = Literal["full", "lora", "dora", "qlora", "qdora"]
DType = Literal["float32", "bfloat16", "float16"]
Quantization = Literal["none", "nf4", "fp4", "int8"]
Attention = Literal["sdpa", "eager", "flash"]
Loss = Literal["full", "chunked"]
Sharding = Literal["none", "ddp"]
Priority = Literal["quality", "speed", "memory"]
Padding = Literal["longest", "max_length", "none"]
PackingStrategy = Literal["wrapped", "position_ids", "varlen"]
KernelSet = Literal["liger_norm", "liger_rope", "liger_mlp", "liger_loss", "cce", "fused_lora"]
Offload = Literal["none", "activations"]
RowKind = Literal["full", "padded", "packed"]
"""Rows of a micro-batch: all full; of different lengths, with a mask; several examples in one, with position ids."""
Trainer = Literal["transformers", "trl", "axolotl", "llamafactory", "unsloth", "torchtune", "litgpt"]

METHODS: tuple[Method, ...] = get_args(Method)
ADAPTER_METHODS: tuple[Method, ...] = ("lora", "dora", "qlora", "qdora")
QUANTIZED_METHODS: tuple[Method, ...] = ("qlora", "qdora")
DORA_METHODS: tuple[Method, ...] = ("dora", "qdora")

Size = Annotated[int, Range(1, 10_000_000)]
Chance = Annotated[float, Range(0, 1, open_high=True)]
Rate = Annotated[float, Range(0)]
KNOWN = Interval.exact(1.0)


class LinearShape(Frozen):
    """One linear layer: weight of shape (out_features, in_features), as nn.Linear stores it."""

    name: str
    in_features: int
    out_features: int
    bias: bool = False
    wide: bool = False  # in fp32 whatever the base

    @property
    def weight_count(self) -> int:
        """Elements of the weight, without the bias."""
        return self.in_features * self.out_features


class ModelSpec(Frozen):
    """A dense decoder-only language model: sizes as config.json names them, structure as its code has it."""

    name: str
    architecture: str  # transformers' model_type, for example 'llama'
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Annotated[int, Range(1, 1_000)]
    num_attention_heads: Annotated[int, Range(1, 10_000)]
    num_key_value_heads: Annotated[int, Range(1, 10_000)]
    head_dim: Annotated[int, Range(1, 100_000)]
    vocab_size: Size
    max_position_embeddings: Annotated[int, Range(1, 1_000_000_000)] = 2048
    tie_word_embeddings: bool = False

    norm: str = "rms"  # a key of decoders.norms.NORMS
    norm_weight: bool = True
    norm_bias: bool = False
    # pre: before each block; sandwich: before and after (Gemma 2); post: after (OLMo 2); post_sum: after what the block
    # is added to (OPT 350M); parallel_*: attention and MLP read the same input, through one norm or two
    norm_placement: Literal["pre", "sandwich", "post", "post_sum", "parallel_one", "parallel_two"] = "pre"
    final_norm: bool = True  # one after the last layer
    # norm of queries and keys: per head (Qwen 3), over all heads (OLMo 2), per head with weights of its own, in one
    # tensor (Command R+) or in one norm a head (StableLM 2 12B); unit: without weights, in layers with RoPE (Llama 4)
    qk_norm: Literal["none", "head", "full", "each", "each_apart", "unit"] = "none"
    fused_qkv: bool = False
    qkv_bias: bool = False
    attention_out_bias: bool = False
    # oss_experts: gpt-oss's mixture, whose experts' width is intermediate_size; llama4_experts: Llama 4's, experts: one
    # of gated experts, of expert_size
    mlp: Literal["gated", "gated_fused", "plain", "oss_experts", "llama4_experts", "experts"] = "gated"
    num_experts: Annotated[int, Range(0, 100_000)] = 0  # routed experts of a layer
    experts_per_token: Annotated[int, Range(0, 100_000)] = 0
    expert_size: Annotated[int, Range(0, 10_000_000)] = 0  # inner width of one routed expert
    shared_expert_size: Annotated[int, Range(0, 10_000_000)] = 0  # of the expert that every token goes through
    shared_expert_gated: bool = False  # its output goes through its own gate
    router_jitter: bool = False  # its input is multiplied by noise, in place, and that of the experts (Phi)
    router_linear: str = ""  # the router's name where it is a plain linear layer
    # routed gated experts in one tensor a projection, which peft adapts where it can (fused) or never (fused_alone), or
    # linear layers of each expert: see parameters.stored
    experts: Literal["fused", "fused_alone", "linears"] = "fused"
    expert_layers: tuple[bool, ...] = ()  # which layers have experts, where only some do; () = all
    # softmax: over all experts, in fp32; softmax_float: of logits cast to fp32; best_softmax: over the chosen only
    router: Literal["softmax", "softmax_float", "best_softmax"] = "softmax"
    router_normalised: bool = False  # the scores of the chosen experts are made to sum to 1
    mlp_bias: bool = False
    activation: Literal[
        "silu", "gelu", "gelu_tanh", "gelu_new", "gelu_fast", "gelu_bloom", "relu", "relu2", "xielu"
    ] = "silu"
    position: Literal["rope", "learned", "alibi", "none"] = "rope"
    rotary_dim: Annotated[int, Range(0, 100_000)] = 0  # rotated part of head_dim; 0 = all
    # latent attention (MLA): widths of the latents that queries, keys and values are projected from; 0 = none
    q_lora_rank: Annotated[int, Range(0, 100_000)] = 0
    kv_lora_rank: Annotated[int, Range(0, 100_000)] = 0
    v_head_dim: Annotated[int, Range(0, 100_000)] = 0  # width of a value head; 0 = head_dim
    nope_every: Annotated[int, Range(0)] = 0  # every n-th layer has no RoPE (SmolLM 3); 0 = none
    sliding_window: Annotated[int, Range(0)] = 0  # tokens; 0 = full attention everywhere
    sliding_layers: tuple[bool, ...] = ()  # which layers slide, where only some do; () = all
    # layers that do not slide may have heads of their own (Gemma 4): 0 = as the others
    global_head_dim: Annotated[int, Range(0, 100_000)] = 0
    global_key_value_heads: Annotated[int, Range(0, 10_000)] = 0
    keys_are_values: bool = False  # those layers have no projection of values: keys, before their norm, are values
    attention_temperature: bool = False  # layers without RoPE scale queries by their position (Llama 4)
    attention_sinks: bool = False  # one learned score per head beside every row of scores (gpt-oss)
    attention_softcap: bool = False
    final_softcap: bool = False
    position_offset: Annotated[int, Range(0, 100)] = 0  # learned positions beyond those of the context (OPT)
    embedding_size: Annotated[int, Range(0, 10_000_000)] = 0  # of tokens and head, if narrower: projections between
    embedding_norm: bool = False  # a norm right after the embedding (BLOOM)
    embedding_multiplier: bool = False
    residual_multiplier: bool = False
    logits_multiplier: bool = False
    lm_head_bias: bool = False
    attention_dropout: Chance = 0.0  # of the attention weights
    residual_dropout: Chance = 0.0  # of what each block adds to the residual stream
    embedding_dropout: Chance = 0.0
    default_attention: Literal["sdpa", "eager"] = "sdpa"  # what transformers picks by default

    qkv_names: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    out_name: str = "o_proj"
    mlp_names: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")

    @property
    def q_size(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def token_size(self) -> int:
        """Width of an embedded token, and of what the head reads."""
        return self.embedding_size or self.hidden_size

    @property
    def position_rows(self) -> int:
        """Rows of the table of learned positions."""
        return self.max_position_embeddings + self.position_offset

    @property
    def kv_size(self) -> int:
        """Width of all key heads (or value heads) together."""
        return self.num_key_value_heads * self.head_dim

    @property
    def value_dim(self) -> int:
        """Width of one value head."""
        return self.v_head_dim or self.head_dim

    @property
    def attended_size(self) -> int:
        """Width of what attention hands to its output projection."""
        return self.num_attention_heads * self.value_dim


class TracedModel(Frozen):
    """A model that the formula does not know, whose step was traced: what is known about it without its code."""

    name: str
    architecture: str  # transformers' model_type
    kind: str  # the Auto class that loads it for training, for example 'AutoModelForMaskedLM'
    parameters: Annotated[int, Range(1)]
    max_position_embeddings: Annotated[int, Range(1, 1_000_000_000)]
    default_attention: Literal["sdpa", "eager"] = "sdpa"
    position: Literal["unknown"] = "unknown"
    source: str  # what `--model` is given to name it: a Hub id, or the path of its config.json
    profile: str  # the file that holds its traces
    checksum: str
    traced_with: str  # versions of the libraries whose step was traced


Model = ModelSpec | TracedModel


class GpuSpec(Frozen):
    """A card as the driver and the data sheet describe it. FLOP/s are dense, with fp32 accumulation."""

    name: str  # as nvidia-smi and torch print it, for example 'NVIDIA GeForce RTX 4090'
    generation: str  # Turing, Ampere, Ada, Hopper, Blackwell, CDNA3, RDNA4 ...; '' when unknown
    compute_capability: Annotated[str, Pattern(r"(\d{1,2}\.\d)?")] = ""
    memory_bytes: Annotated[int, Range(2**28, 2**50)]  # total memory that the driver reports
    marketed_gb: Annotated[float, Range(0, open_low=True)]  # what is printed on the box, in GB
    memory_bytes_per_s: Rate = 0.0  # peak bandwidth; 0 = unknown
    bf16_flop_per_s: Rate = 0.0  # 0 = no bf16 matrix units, or unknown
    fp16_flop_per_s: Rate = 0.0
    tf32_flop_per_s: Rate = 0.0
    fp32_flop_per_s: Rate = 0.0
    power_w: Rate = 0.0  # what the maker lets it draw; 0 = unknown
    for_training: bool = True  # not a board for virtual desktops or inference, nor a part of a laptop
    unified_memory: bool = False  # shared with the CPU: the operating system and every program take their part
    sources: tuple[str, ...] = ()

    @property
    def speed_known(self) -> bool:
        """Whether a step time can be computed for this card."""
        return self.memory_bytes_per_s > 0 and self.fp32_flop_per_s > 0

    @property
    def rocm(self) -> bool:
        """Whether it is an AMD card, which PyTorch drives by ROCm in CUDA's place."""
        return self.generation.startswith(("CDNA", "RDNA"))


class Workload(Frozen):
    """The data set and the training length. Sequence lengths are in tokens."""

    examples: Annotated[int, Range(1, 10**12)] = 10_000
    epochs: Annotated[float, Range(0, 10_000, open_low=True)] = 1.0
    seq_len: Annotated[int, Range(1, 10_000_000)] = 1024  # longest row, before it is rounded up
    mean_seq_len: Annotated[int, Range(1, 10_000_000)] = 512  # mean row; at most seq_len
    packing: bool = False
    # wrapped: examples attend to those before them; position_ids: kept apart by a mask, or by flash attention;
    # varlen: kept apart by the attention kernel, whichever it is
    packing_strategy: PackingStrategy = "wrapped"
    padding: Padding = "longest"  # to the longest row of a micro-batch, to seq_len, or none: rows one after the other
    pad_to_multiple_of: Annotated[int, Range(1, 1_000_000)] = 1  # tokens
    group_by_length: bool = False  # micro-batches of rows of about the same length
    batch_size: Annotated[int, Range(1, 1_000_000)] = 16  # effective: rows per optimizer step, over all cards
    eval_examples: Annotated[int, Range(0, 10**12)] = 0  # rows of an evaluation; 0 = none, or not stated
    eval_steps: Annotated[int, Range(0, 10**9)] = 0  # optimizer steps from one evaluation to the next; 0 = an epoch
    length_quantiles: Quantiles = ()  # of a data file's rows; () = the law that mean and maximum imply
    # What the two lengths may be, over what they are said to be; (1, 1, 1) where they are known
    seq_len_factor: Interval = KNOWN
    mean_seq_len_factor: Interval = KNOWN

    _derived = MappingProxyType({"mean_seq_len": lambda given: min(512, given["seq_len"])})

    @property
    def ends(self) -> tuple[Workload, Workload] | None:
        """The workload with the shortest and with the longest rows that are possible; None if lengths are known."""
        if self.seq_len_factor.is_exact and self.mean_seq_len_factor.is_exact:
            return None
        low, high = (
            self._scaled(longest, mean)
            for longest, mean in (
                (self.seq_len_factor.low, self.mean_seq_len_factor.low),
                (self.seq_len_factor.high, self.mean_seq_len_factor.high),
            )
        )
        return low, high

    @property
    def lengths(self) -> RowLengths:
        """The law of the lengths of its rows; of packed rows, that of the examples in them."""
        return RowLengths(self.mean_seq_len, self.seq_len, self.length_quantiles)

    def _scaled(self, longest: float, mean: float) -> Workload:
        """The workload with its two lengths times these, and known."""
        scaled = self.lengths.scaled(mean, longest)
        return self.model_copy(
            update={
                "seq_len": scaled.limit,
                "mean_seq_len": scaled.mean,
                "length_quantiles": scaled.quantiles,
                "seq_len_factor": KNOWN,
                "mean_seq_len_factor": KNOWN,
            }
        )

    def _contradiction(self) -> str:
        if self.mean_seq_len > self.seq_len:
            return f"mean_seq_len is {self.mean_seq_len:,}, but must be at most seq_len, which is {self.seq_len:,}"
        if self.packing and self.group_by_length:
            return "group_by_length is set, but packed rows have one length"
        return wrong_quantiles(self.length_quantiles, self.seq_len)


class Recipe(Frozen):
    """How one training step is run: every knob that changes its memory or its time."""

    method: Method
    rank: Annotated[int, Range(1, 16_384)] = 16
    alpha: Annotated[float, Range(0, 1e6, open_low=True)] = 32.0
    target_modules: tuple[str, ...] = ("all-linear",)  # ('all-linear',), ('attention',) or names
    dropout: Chance = 0.0
    base_dtype: DType = "bfloat16"
    adapter_dtype: DType = "float32"
    magnitude_dtype: DType = "float32"  # of DoRA's magnitudes: TRL keeps them in fp32 beside bf16 adapters
    quant: Quantization = "none"
    double_quant: bool = True
    kbit_upcast: bool = True
    autocast: bool = True
    optimizer: Optimizer = "adamw"
    gradient_checkpointing: bool = True
    reentrant: bool = False
    attention: Attention = "sdpa"
    loss: Loss = "full"
    stack: tuple[str, ...] = ()  # 'transformers-4.57', ...: libraries other than the mirrored ones (advisor.libraries)
    kernels: tuple[KernelSet, ...] = ()  # in place of the model's own code
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
    def is_dora(self) -> bool:
        """DoRA or QDoRA."""
        return self.method in DORA_METHODS

    @property
    def is_quantized(self) -> bool:
        """Base weights stored in 4 or 8 bits."""
        return self.quant != "none"

    def _contradiction(self) -> str:
        if self.optimizer_in_backward and self.gradient_accumulation > 1:
            return "optimizer_in_backward allows no accumulation, but gradient_accumulation is more than 1"
        losses = [*({"liger_loss", "cce"} & set(self.kernels)), *(["loss chunked"] if self.loss == "chunked" else [])]
        if len(losses) > 1:
            return f"{' and '.join(sorted(losses))} replace the same code; leave one out"
        return wrong_stack(self.stack) if self.stack else ""


class Placement(Frozen):
    """How many GPUs share one job, and how: `ddp` copies the model to each and averages their gradients."""

    gpus: Annotated[int, Range(1, 100_000)] = 1
    sharding: Sharding = "none"

    @property
    def effective_sharding(self) -> Sharding:
        """How the cards work together: several that shard nothing run as plain data parallelism."""
        return "ddp" if self.gpus > 1 and self.sharding == "none" else self.sharding


class Rental(Frozen):
    """What a card costs where it is rented."""

    price_per_hour: Annotated[float, Range(0, 1_000_000)] = 0.0  # of one card, in any currency; 0 = not asked


class Term(Frozen):
    """A named part of a memory peak."""

    name: TermName
    bytes: int


MomentName = Literal["step", "evaluation", "loading", "preparation"]
"""preparation: peft's prepare_model_for_kbit_training."""


class Moment(Frozen):
    """The peak of one part of a job, in bytes."""

    name: MomentName
    peak_allocated_bytes: Interval
    needed_bytes: Interval  # as in MemoryEstimate


class MemoryEstimate(Frozen):
    """Peak memory of one GPU in bytes, by counter: each the largest of its `moments`."""

    peak_allocated_bytes: Interval  # torch.cuda.max_memory_allocated
    peak_reserved_bytes: Interval  # torch.cuda.max_memory_reserved
    needed_bytes: Interval  # what must fit: the least to reserve, plus CUDA context
    device_bytes: Interval  # what nvidia-smi shows where there is room: reserved plus CUDA context
    peak_at: str  # phase and operation at which the peak occurs
    terms: tuple[Term, ...]  # they add up to needed_bytes.likely
    moments: tuple[Moment, ...] = ()  # the parts of the job that were estimated; () = the step alone
    host_bytes: int = 0  # of the host's memory, for what waits there until backward

    @property
    def highest(self) -> str:
        """The name of the moment that needs the most: 'step' where it is the only one."""
        return max(self.moments, key=lambda one: one.needed_bytes.likely).name if self.moments else "step"

    def bytes_of(self, name: TermName) -> int:
        """Bytes of one term; 0 where the peak has no such part."""
        return sum(term.bytes for term in self.terms if term.name is name)


class TimeEstimate(Frozen):
    """Time of the job on one GPU (or over all of a placement), in seconds; start-up and saving excluded."""

    micro_step_s: Interval
    step_s: Interval
    total_s: Interval  # with the evaluations, where their rows are stated
    steps: int
    tokens_per_s: float
    bound: Literal["compute", "memory", "launch"]
    flop_per_step: float  # that one card's part of a step needs, recomputation left out
    mfu: float  # model FLOPs utilization: the time of those at the data sheet's rates, over the time they take
    energy_j: Interval | None  # of all cards over the whole job; null when the card's power is not known
    evaluation_s: Interval | None = (
        None  # of all evaluations together; null when none is asked for, or of no stated rows
    )


class AttentionUse(Frozen):
    """A kernel that attention runs on this card, and why PyTorch or the model's code picks it."""

    # math: composed of products; none: what was asked for does not run there
    kernel: Literal["cudnn", "flash", "efficient", "math", "flash_attn", "eager", "unknown", "none"]
    masked: bool = False  # it is given a mask: padding, or a sliding window
    why: str = ""  # '' where the first in PyTorch's order runs
    another_from: str = ""  # math only: the PyTorch from which on a fused kernel runs in its place; '' for none


class Evidence(Frozen):
    """What an estimate is based on."""

    rung: Literal["formula", "trace", "burst"]
    memory: str
    time: str
    attention: tuple[AttentionUse, ...] = ()  # () where it is not known
    stack: str = ""  # the libraries and versions whose step it is; '' of a model that was traced
    declined: tuple[str, ...] = ()  # kernels that were asked for and do not run, each with who says so
    unknown: tuple[str, ...] = ()  # what runs in that step and is not mirrored: where there is any, nothing "fits"


class Estimate(Frozen):
    """One recipe on one card: what it needs and how long it takes."""

    recipe: Recipe
    memory: MemoryEstimate
    time: TimeEstimate | None  # null when the card's speed is not known
    trainable_parameters: int
    evidence: Evidence
