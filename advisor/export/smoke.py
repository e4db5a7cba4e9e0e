"""The part of the script that `--smoke` adds: a tiny random model and a tokenizer, without network or GPU."""

from __future__ import annotations

from string import Template

from advisor.architectures import architecture_of
from advisor.parameters.layers import attends_anywhere
from advisor.specs import ModelSpec

STEPS = 3
ROWS = 64
MOST_TOKENS = 512
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MOST_TOKENS,
    "interleave_moe_layer_step": 3,  # Llama 4's: beyond its layers, so none has experts
}
_LATENT = {
    "num_key_value_heads": 4,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "first_k_dense_replace": 2,  # all of its layers: none has experts
}
_EXPERTS = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}

IMPORTS = """\
from tokenizers import Tokenizer, decoders, models, pre_tokenizers"""

_FUNCTION = Template('''
def save_tiny_model(folder):
    """For --smoke: save a random model of the same architecture and the model's tokenizer, if it is at hand."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_id)
    except (OSError, ValueError):
        print("--smoke: the tokenizer cannot be loaded; instead, each byte is a token")
        tokens = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        words = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
        words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        words.decoder = decoders.ByteLevel()
        special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    config = AutoConfig.for_model(
        $architecture,
        vocab_size=len(tokenizer),
$sizes
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
''')


def tiny_model(model: ModelSpec) -> str:
    """The function `save_tiny_model` for the architecture of `model`, as source code."""
    lines = "\n".join(f"        {name}={size}," for name, size in _sizes(model).items())
    alone = architecture_of(model.architecture).without_images
    named = f'"{alone}"' if alone else f'"{model.architecture}"'
    return _FUNCTION.substitute(architecture=named, sizes=lines).strip("\n")


def _sizes(model: ModelSpec) -> dict[str, int]:
    """The sizes by the names of the architecture's config; names that it does not know have no effect."""
    sizes = dict(SIZES)
    if model.kv_lora_rank or model.fused_qkv:
        del sizes["head_dim"]  # which some of their configs do not take
    sizes |= {"rotary_dim": 8} if model.rotary_dim else {}
    if not attends_anywhere(model):
        sizes["num_heads"] = 2 * sizes["hidden_size"] // sizes["head_dim"]  # of its state-space layers, twice as wide
    return sizes | (_LATENT if model.kv_lora_rank else _EXPERTS if model.num_experts else {})
