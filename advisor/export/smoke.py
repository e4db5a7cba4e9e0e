"""The part of the script that `--smoke` adds: a tiny random model and a tokenizer, without network or GPU."""

from __future__ import annotations

from advisor.export.run import quoted
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
}
_FIXED = {"falcon": ("head_dim",)}
"""Sizes that an architecture derives from others and does not take."""

IMPORTS = """\
from tokenizers import Tokenizer, decoders, models, pre_tokenizers"""

_FUNCTION = '''
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
        {architecture},
        vocab_size=len(tokenizer),
{sizes}
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
'''


def tiny_model(model: ModelSpec) -> str:
    """The function `save_tiny_model` for the architecture of `model`, as source code."""
    sizes = {name: size for name, size in SIZES.items() if name not in _FIXED.get(model.architecture, ())}
    lines = "\n".join(f"        {name}={size}," for name, size in sizes.items())
    return _FUNCTION.replace("{architecture}", quoted(model.architecture)).replace("{sizes}", lines).strip("\n")
