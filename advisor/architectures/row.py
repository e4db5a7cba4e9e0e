"""What a row of the table of architectures can say."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Architecture(NamedTuple):
    """What the code of an architecture does; each default is what Llama's does."""

    # Whose code runs: the shared code, or the architecture's own.
    layer: Literal[
        "shared",
        "bert",
        "bloom",
        "falcon_h1",
        "gemma3n",
        "gemma4",
        "gptj",
        "mamba",
        "mllama",
        "modernbert",
        "mpt",
        "opt",
    ] = "shared"
    mixture: str = "shared"  # a key of decoders.mixtures.MIXTURES, or of decoders.sigmoid_mixtures.SIGMOID_MIXTURES
    attention: Literal["shared", "own", "mimo"] = "shared"
    own_sdpa_before_5: bool = False  # its own call of PyTorch's attention: repeated keys and values, nothing copied
    flash_repeats_before: tuple[int, int] = (0, 0)  # versions whose own call of flash-attn repeats keys and values
    expert_loop: Literal["none", "shared", "wide_sum"] = "none"  # before transformers 5; none: not mirrored
    expert_names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")  # linear layers of one of its experts

    without_images: str = ""  # the model_type whose class is its layers that rows of text run through; '': its own

    # Parameters, buffers and what libraries make of them.
    embedding_name: str = "embed_tokens"
    head_name: str = "lm_head"  # the last part of the path of the output embedding
    transform_name: str = ""  # of the linear layer before the head of an encoder
    position_buffers: bool = False  # position ids and token types of the longest row
    # Of the modules that hold the linear layers of attention and MLP; {} is the layer's number.
    linear_paths: tuple[str, str] = ("model.layers.{}.self_attn", "model.layers.{}.mlp")
    scales_state_space: bool = False  # a state-space layer's input by a number, its projection by a vector
    mixer_path: str = ""  # of the module that holds a layer's linear layers where that is no attention
    norms_end_in_norm: bool = True  # the names of all its norms end in 'norm'
    reads_per_layer_config: bool = False  # its config may hold sizes of single layers
    linears_stay_unquantized: bool = False  # they have their own class, which transformers' bitsandbytes skips
    linears_are_conv1d: bool = False  # transformers' own class for a linear layer
    bias_apart: bool = False  # a linear layer adds its bias in a separate operation
    refused_in_peft: tuple[str, ...] = ()  # linear layers that peft refuses to adapt
    fused_experts_in_peft: bool = False  # peft mistakes gate, up and down projections for parts of fused experts
    router_returns_several: bool = False  # it is a linear layer that returns several tensors: peft fails on it
    router_in_float: bool = False  # its weight is in fp32 whatever the base
    # Added to the scores that experts are picked by: in fp32, or in the base's dtype.
    balancing_bias: Literal["none", "buffer", "base_buffer", "parameter", "base_parameter"] = "none"
    balances_experts: bool = False  # it can return a second loss, on the logits of its routers
    names_no_experts: bool = False  # its config has no num_experts, which TRL's code of that loss reads
    experts_beside_mlp: bool = False  # with three more norms, and learned scales of the router
    layer_scalar: bool = False  # a buffer of one number that each layer's output is multiplied by
    causal_mask_buffer: bool = False  # of all positions by all positions
    rope_caches_before_4_48: bool = False  # sines and cosines of every position in each layer
    causal_mask_in_layers: bool = False  # the same in each layer, before transformers 5.2
    embedding_scales_itself: bool = False  # the multiplier is a buffer of the embedding, not a line of the model

    indexer_turns_pairs: bool = False  # its RoPE is of neighboring features
    passes_choice_on: bool = False  # each layer is called with the tokens that the one before chose

    # Before the first layer.
    position_ids: Literal["shared", "by_row", "not_passed_on", "none"] = "shared"  # one row for all rows of the batch
    takes_position_ids: bool = True  # from whoever calls the model
    sees_packed_rows_as_one: bool = False  # position ids that begin anew make no mask
    keeps_embedding: Literal["undropped", "dropped", "unscaled"] = (
        "undropped"  # what the model's forward has a name for
    )
    alibi: Literal["none", "in_mask", "by_row", "longest_row"] = "none"
    always_makes_mask: bool = False  # even where the attention kernel is causal by itself
    mask_by_row: bool = False  # the mask of sliding layers is made for every row of the batch

    # Rotary positions.
    rope_made: Literal["where_used", "always", "by_kind", "in_layers"] = "where_used"  # by kind: sliding or not
    rope_tables: Literal["base", "float", "half", "complex"] = "base"  # dtype of hidden states; half: each angle once
    spreads_rope_tables: bool = False  # each layer makes tables for neighboring features
    # fp32 of the inputs; of both products' operands; or of the input twice, whose halves one product swaps
    rope_turn: Literal["base", "float", "float_parts", "float_twice"] = "base"
    rope_for_attention_alone: bool = False  # layers without attention are not handed the tables
    rope_by_axis: bool = False  # three positions a token, equal for text, and tables for every row of the batch
    rope_type_reads_positions: bool = False  # any type but the default branches on the values of position ids
    # Whether the turned part of a head is joined with the rest even when nothing is left over, and how long it lives.
    rope_parts: Literal["whole", "joined", "joined_in_expression", "joined_at_return", "kept_in_attention"] = "whole"

    # Queries, keys, values and attention.
    splits_fused: Literal["chunks", "slices", "indices"] = "chunks"  # of one projection for all three
    norms_after_values: bool = False  # values are projected before queries and keys are normed
    norms_after_rope: bool = False
    gate_name: str = ""  # of the linear layer that gates the attention's output, where a model has one
    gates_by: Literal["sigmoid", "softplus"] = "sigmoid"  # sigmoid: projected before the norms of queries and keys
    scales_projected_keys: bool = False
    scales_projected_queries: bool = False  # before attention, which scales no more
    scales_queries_by_position: bool = False
    scales_values: bool = False
    eager_softmax: Literal["float", "given", "given_uncast"] = "float"  # dtype; uncast: not cast back to that of values

    # The residual stream.
    drops_inside: bool = False  # residual dropout is at the end of attention and MLP, not in the layer
    keeps_normed: Literal["none", "first", "both"] = "none"  # names for the norms' outputs that last to the layer's end
    keeps_attended: bool = False  # a name for the attention's output that lasts to the layer's end
    masked_loss_in_float: bool = False  # that on masked tokens is transformers' own loss function, not the model's
    loss_as_given_before_4_49: bool = False  # that on next tokens is of logits in their own dtype
    head_reads_its_dtype: bool = False  # hidden states are cast to that of the head's weight
    logits_in_float: bool = False  # the model's code casts them, so that those in 16 bits are freed
    parallel_sum: Literal["residual_first", "residual_last", "mlp_first", "mlp_in_place"] = "residual_first"
