"""A model: sizes as config.json names them, structure as its code has it."""

from __future__ import annotations

from typing import Annotated, Literal

from advisor.checkpoints import Checkpoint
from advisor.frozen import Frozen, Range
from advisor.specs.vision import VisionSpec
from advisor.specs.words import Chance, Size


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

    vision: VisionSpec | None = None  # the tower that reads images, where it has one
    checkpoint: Checkpoint | None = None  # how its weights are published, where that is not in 16 or 32 bits

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
