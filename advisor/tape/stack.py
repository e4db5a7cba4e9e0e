"""Other versions of the libraries and other training loops, where they hold other tensors than ours.

The tape mirrors transformers 5.23's Trainer. Measurements that others published stand on older code; each flag is
one mechanism of that code, read in its source, so that a row can be predicted as it was run.
"""

from __future__ import annotations

from typing import NamedTuple


class Stack(NamedTuple):
    """What differs from the mirrored stack; all off is the stack itself."""

    keeps_outputs: bool = False
    """The loop holds the model's outputs, hence the logits, until after backward (`out = model(...)`)."""

    mean_of_logits: bool = False
    """The loss is the mean of fp32 logits: transformers before 4.45 upcast them in the model."""

    keeps_quantized_input: bool = False
    """bitsandbytes before 0.43: MatMul4Bit holds its input on the graph, outside checkpointing's reach."""

    caches_keys: bool = False
    """transformers before 5: `use_cache` stays on in training, so that the outputs hold keys and values after
    backward. They are the tensors that attention saved; checkpointing turns the cache off."""

    norms_keep_twice: bool = False
    """Each RMSNorm whose input takes a gradient keeps two fp32 tensors instead of one: as if `x.float()` ran twice.

    Not read in any source: it follows from fsdp_qlora's notebook, whose versions are not stated. What the card held
    after forward beyond today's code is 4 bytes per hidden unit and token for 49 norms of 49 in full fine-tuning, 48 in
    LoRA and QLoRA (the first one sees a frozen embedding), and one under checkpointing (the last, outside its regions).
    """

    cuts_embedding: bool = False
    """Checkpointing was enabled after peft had wrapped the model: a frozen embedding's output takes no gradient."""

    freezes_lora_a: bool = False
    """peft's LoRA-FA: the A matrices are not trained."""

    tables_by_layer: bool = False
    """transformers before 4.39: each layer indexes or makes its own rotary tables, which autograd then keeps."""

    shifts_logits: bool = False
    """transformers before 4.45: logits are upcast in the model, and the loss reads a contiguous copy without the last
    token's."""

    padded_update: int = 0
    """lit-gpt: LoRA's update of q and v, so many features wide, is copied into zeros as wide as q, k and v together;
    `index_copy` keeps its source (lit_gpt/lora.py, LoRAQKVLinear.zero_pad; derivatives.yaml)."""

    sliced_head: int = 0
    """lit-gpt: head and loss run on slices of so many tokens, whose logits Fabric casts to fp32
    (`lm_head_chunk_size`; lightning 2.1, plugins/precision/half.py, convert_output)."""

    quantized_head: bool = False
    """Fabric's bitsandbytes plugin replaces every nn.Linear, the head too."""

    repeated_keys: bool = False
    """lit-gpt and torchtune: keys and values are expanded to every query head before attention."""
