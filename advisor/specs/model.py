"""A model: sizes as config.json names them, structure as its code has it."""

from __future__ import annotations

from typing import Annotated, Literal

from advisor.checkpoints import Checkpoint
from advisor.frozen import Frozen, Range
from advisor.specs.vision import VisionSpec
from advisor.specs.words import Chance, Size

PART_OF = " (text tower of "
"""What stands in the name of a decoder beside a tower that is not described, before the model_type of the whole."""


class LinearShape(Frozen):
    """One linear layer: weight of shape (out_features, in_features), as nn.Linear stores it."""

    name: str
    in_features: int
    out_features: int
    bias: bool = False
    wide: bool = False  # in fp32 whatever the base
    idle: bool = False  # its code runs without gradients: it, or its adapter, is never updated
    weight_alone: bool = False  # the model multiplies by its weight itself, unless it is quantized: not by an adapter

    @property
    def weight_count(self) -> int:
        """Elements of the weight, without the bias."""
        return self.in_features * self.out_features


CAUSAL, EMBEDS, CLASSIFIES = "AutoModelForCausalLM", "AutoModel", "AutoModelForSequenceClassification"
"""The classes that train a model on each next token, for embeddings, or for the scores of rows."""

Mixer = Literal[
    "attention", "conv", "delta", "delta_fused", "delta_apart", "kda", "mamba1", "mamba2", "beside_mamba2", "none"
]
"""What mixes the tokens of a layer: a key of parameters.token_mixers.MIXERS, but for attention.

beside_mamba2: attention, and a state-space layer that reads the same input."""
ATTENDING: frozenset[Mixer] = frozenset(["attention", "beside_mamba2"])


Task = Literal["next_token", "masked_tokens", "embeddings", "classification"]


class Recurrence(Frozen):
    """Sizes of the layers that mix tokens without attention, as config.json names them; 0 = none of that kind."""

    conv_size: Annotated[int, Range(1, 1_000)] = 4  # taps of the causal convolution of each channel
    conv_bias: bool = False
    # gated delta rule: heads of keys (and queries) and of values, and their widths; Mamba 2: its groups of B and C, the
    # size of its state, its heads and their width; Mamba: one group, its state, and as many heads as it has channels
    key_heads: Annotated[int, Range(0, 10_000)] = 0
    value_heads: Annotated[int, Range(0, 1_000_000)] = 0
    key_dim: Annotated[int, Range(0, 100_000)] = 0
    value_dim: Annotated[int, Range(0, 100_000)] = 0
    chunk_size: Annotated[int, Range(0, 100_000)] = 0  # tokens of each chunk that its code works on; 0 = it has none
    doubles_step: bool = False  # of the gated delta rule: from 0 to 2 instead of 0 to 1
    proj_bias: bool = False  # of the projections into a state-space layer and back
    gate_norm: bool = True  # a norm after its gate, in groups
    # of Mamba's layers: the features that its steps are projected from, and norms of steps, B and C
    step_rank: Annotated[int, Range(0, 100_000)] = 0
    step_norms: Literal["none", "learned", "unit"] = "none"

    @property
    def key_size(self) -> int:
        """Width of all key heads together."""
        return self.key_heads * self.key_dim

    @property
    def value_size(self) -> int:
        """Width of all value heads together."""
        return self.value_heads * self.value_dim


class Streams(Frozen):
    """Hidden states of several parallel streams, of which a layer's blocks read the first (Gemma 3n)."""

    count: Annotated[int, Range(2, 64)] = 4
    laurel_rank: Size = 64  # of the two projections beside attention
    sparse_layers: tuple[bool, ...] = ()  # which layers cut the MLP's gate at a quantile


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

    # what it is trained for: the next token of each; those that are masked, by a transformation before the head; the
    # mean of a text's tokens, without a head; or the scores of a row
    task: Task = "next_token"
    labels: Annotated[int, Range(0, 1_000_000)] = 0  # scores of a row: classes, or 1 for a number; 0 = it has none
    pools_mean: bool = False  # an encoder's classifier reads the mean of all tokens, not the first
    bidirectional: bool = False  # tokens see those after them, too: an encoder
    token_types: Annotated[int, Range(0, 1_000)] = 0  # rows of the table of token types

    norm: str = "rms"  # a key of decoders.norms.NORMS
    norm_weight: bool = True
    norm_bias: bool = False
    # pre: before each block; sandwich: before and after (Gemma 2); post: after (OLMo 2); post_sum: after what the block
    # is added to (OPT 350M); parallel_*: attention and MLP read the same input, through one norm or two
    norm_placement: Literal["pre", "sandwich", "post", "post_sum", "parallel_one", "parallel_two"] = "pre"
    # which layers have a norm before attention: every one, or all but the first (ModernBERT), as which none has one
    attention_norm: Literal["every", "after_first", "none"] = "every"
    final_norm: bool = True  # one after the last layer
    # norm of queries and keys: per head (Qwen 3), over all heads (OLMo 2), per head with weights of its own, in one
    # tensor (Command R+) or in one norm a head (StableLM 2 12B); unit: without weights, in layers with RoPE (Llama 4)
    # queries: per head, of queries alone, in layers that share keys
    qk_norm: Literal["none", "head", "full", "each", "each_apart", "unit", "queries"] = "none"
    fused_qkv: bool = False
    qkv_bias: bool = False
    attention_out_bias: bool = False
    # oss_experts: gpt-oss's mixture, whose experts' width is intermediate_size; llama4_experts: Llama 4's, experts: one
    # of gated experts, of expert_size
    mlp: Literal["gated", "gated_fused", "plain", "oss_experts", "llama4_experts", "experts", "none"] = "gated"
    one_block: bool = False  # each layer mixes tokens, or has an MLP where its mixer is none
    num_experts: Annotated[int, Range(0, 100_000)] = 0  # routed experts of a layer
    experts_per_token: Annotated[int, Range(0, 100_000)] = 0
    expert_size: Annotated[int, Range(0, 10_000_000)] = 0  # inner width of one routed expert
    shared_expert_size: Annotated[int, Range(0, 10_000_000)] = 0  # of the expert that every token goes through
    expert_gated: bool = True  # routed experts have three matrices, else two
    expert_latent: Annotated[int, Range(0, 10_000_000)] = 0  # what they are projected to and from; 0 = hidden_size
    shared_expert_gated: bool = False  # its output goes through its own gate
    router_jitter: bool = False  # its input is multiplied by noise, in place, and that of the experts (Phi)
    router_linear: str = ""  # the router's name where it is a plain linear layer
    # routed gated experts in one tensor a projection, which peft adapts where it can (fused) or never (fused_alone), or
    # linear layers of each expert: see parameters.stored
    experts: Literal["fused", "fused_alone", "linears"] = "fused"
    expert_layers: tuple[bool, ...] = ()  # which layers have experts, where only some do; () = all
    # softmax: over all experts, in fp32; softmax_float: of logits cast to fp32; best_softmax: over the chosen only
    router: Literal["softmax", "softmax_float", "best_softmax"] = "softmax"
    router_softcap: bool = False  # its logits go through a tanh (Laguna)
    experts_summed_in_float: bool = False  # they and the shared expert (Hunyuan 3)
    balanced: bool = False  # its config asks for the loss that balances experts (output_router_logits)
    router_normalized: bool = False  # the scores of the chosen experts are made to sum to 1
    mlp_bias: bool = False
    activation: Literal[
        "silu", "gelu", "gelu_tanh", "gelu_new", "gelu_fast", "gelu_bloom", "relu", "relu2", "xielu"
    ] = "silu"
    position: Literal["rope", "learned", "alibi", "none"] = "rope"
    rotary_dim: Annotated[int, Range(0, 100_000)] = 0  # rotated part of head_dim; 0 = all
    sliding_rotary_dim: Annotated[int, Range(0, 100_000)] = 0  # in sliding layers, where it differs; 0 = as the others
    # latent attention (MLA): widths of the latents that queries, keys and values are projected from; 0 = none
    q_lora_rank: Annotated[int, Range(0, 100_000)] = 0
    kv_lora_rank: Annotated[int, Range(0, 100_000)] = 0
    v_head_dim: Annotated[int, Range(0, 100_000)] = 0  # width of a value head; 0 = head_dim
    # sparse attention (DSA): sizes of the indexer that chooses the tokens a layer attends to, how many it chooses (0 =
    # all), and which layers have one, where others take over the choice of the last that has
    index_heads: Annotated[int, Range(0, 10_000)] = 0
    index_head_dim: Annotated[int, Range(0, 100_000)] = 0
    index_topk: Annotated[int, Range(0, 1_000_000_000)] = 0
    choosing_layers: tuple[bool, ...] = ()
    nope_every: Annotated[int, Range(0)] = 0  # every n-th layer has no RoPE (SmolLM 3); 0 = none
    sliding_window: Annotated[int, Range(0)] = 0  # tokens; 0 = full attention everywhere
    sliding_layers: tuple[bool, ...] = ()  # which layers slide, where only some do; () = all
    # layers that do not slide may have heads of their own (Gemma 4): 0 = as the others
    global_head_dim: Annotated[int, Range(0, 100_000)] = 0
    global_key_value_heads: Annotated[int, Range(0, 10_000)] = 0
    keys_are_values: bool = False  # those layers have no projection of values: keys, before their norm, are values
    mixers: tuple[Mixer, ...] = ()  # of each layer, where not all have attention
    mixer: Mixer = "attention"  # of a layer as `parameters.layers.part_of` sees it
    recurrence: Recurrence | None = None
    mixer_norm_placement: Literal["", "pre"] = ""  # of layers without attention, where that differs
    # layers may get an embedding of their own of each token (Gemma 3n, Gemma 4 E): its width and rows, 0 = none
    layer_input_size: Annotated[int, Range(0, 100_000)] = 0
    layer_input_vocab: Annotated[int, Range(0, 10_000_000)] = 0
    kv_shared_layers: Annotated[int, Range(0, 1_000)] = 0  # the last layers, with keys and values of those before
    wide_where_shared: bool = False  # those have an MLP twice as wide
    # which layers attend to what the tower makes of images instead of the row, and are passed over where it has none
    cross_layers: tuple[bool, ...] = ()
    extra_tokens: Annotated[int, Range(0, 10_000)] = 0  # rows of the embedding beyond those of the head
    streams: Streams | None = None
    attention_temperature: bool = False  # layers without RoPE scale queries by their position (Llama 4)
    attention_sinks: bool = False  # one learned score per head beside every row of scores (gpt-oss)
    # what gates the attention's output: a part of the queries' projection, or a linear layer, of each head or feature
    attention_gate: Literal["none", "with_queries", "head", "feature"] = "none"
    sinks_slide: bool = False  # in sliding layers alone
    attention_softcap: bool = False
    final_softcap: bool = False
    position_offset: Annotated[int, Range(0, 100)] = 0  # learned positions beyond those of the context (OPT)
    embedding_size: Annotated[int, Range(0, 10_000_000)] = 0  # of tokens and head, if narrower: projections between
    embedding_norm: bool = False  # a norm right after the embedding (BLOOM)
    transform_bias: bool = False  # of the layer before an encoder's head
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

    vision: VisionSpec | None = None  # the tower that reads images, where it has one
    checkpoint: Checkpoint | None = None  # how its weights are published, where that is not in 16 or 32 bits
    unread: str = ""  # what is not known of it because another model's sizes were taken: then nothing surely fits

    @property
    def part_of(self) -> str:
        """The model_type of the model whose decoder it is beside a tower; '' of one that reads text alone."""
        return self.name.partition(PART_OF)[2].rstrip(")") if self.vision is None else self.vision.model_type

    @property
    def attends(self) -> bool:
        """Whether a layer as `parameters.layers.part_of` sees it has attention."""
        return self.mixer in ATTENDING

    @property
    def crosses(self) -> bool:
        """Whether a layer as `parameters.layers.part_of` sees it attends to what the tower makes of images."""
        return self.cross_layers == (True,)

    @property
    def passed_over(self) -> bool:
        """Whether such a layer is passed over, for the rows have no images."""
        return self.crosses and not (self.vision is not None and self.vision.row)

    @property
    def embedding_rows(self) -> int:
        """Rows of the embedding of tokens."""
        return self.vocab_size + self.extra_tokens

    @property
    def kind(self) -> str:
        """The Auto class of transformers that loads it for training."""
        others = {"masked_tokens": "AutoModelForMaskedLM", "embeddings": EMBEDS, "classification": CLASSIFIES}
        return others.get(self.task, CAUSAL)

    def classifying(self, labels: int) -> ModelSpec:
        """The same model with scores of whole rows in place of its head."""
        changes = {"task": "classification", "labels": labels, "tie_word_embeddings": True, "lm_head_bias": False}
        return self.model_copy(update=changes)

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
