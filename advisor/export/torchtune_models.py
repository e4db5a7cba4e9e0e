"""The builders of torchtune 0.6.1: which sizes each makes, what reads its tokens, and how its checkpoint is stored.

Sources: torchtune 0.6.1, torchtune/models/*/_model_builders.py, for sizes and names; recipes/configs/*/*.yaml, for
tokenizers, `model_type` and the files of checkpoints; Llama 3 8B's are those of meta-llama/Meta-Llama-3-8B-Instruct.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from advisor.errors import InputError
from advisor.specs import ModelSpec

_SHARDS, _BIN = "model-{}-of-{}.safetensors", "pytorch_model-{}-of-{}.bin"


class Family(NamedTuple):
    """What the builders of one folder of torchtune/models share."""

    loads: str
    """transformers' model_type of the checkpoints that it loads."""
    rope_base: int
    model_type: str
    """As the checkpointer calls it."""
    tokenizer: str
    """Its builder, below torchtune.models."""
    words: Mapping[str, str]
    """The tokenizer's arguments that name files of the checkpoint's folder."""
    file_format: str = _SHARDS
    """Of the checkpoint, where it has several files."""
    takes_longer: bool = False
    """Whether it makes models of more positions, too: RoPE is not stretched to their number."""


class Builder(NamedTuple):
    """The model that a function of torchtune.models makes."""

    family: str
    name: str
    sizes: tuple[int, int, int, int, int, int]
    """Width, inner width, layers, heads, heads of keys and values, words."""
    positions: int
    tied: bool = False
    files: int = 0
    """Of its checkpoint; 0: its configurations name none."""
    adapts_output: bool = True
    """Whether its LoRA builder can put adapters on the head."""
    has_dora: bool = True

    def component(self, prefix: str = "") -> str:
        """The path of the builder: 'torchtune.models.llama3.lora_llama3_8b' for the prefix 'lora_'."""
        return f"torchtune.models.{self.family}.{prefix}{self.name}"


_MODEL = {"path": "tokenizer.model"}
_META = {"path": "original/tokenizer.model"}
_VOCABULARY = {"path": "vocab.json", "merges_file": "merges.txt"}
FAMILIES: Mapping[str, Family] = {
    "llama2": Family("llama", 10_000, "LLAMA2", "llama2.llama2_tokenizer", _MODEL, _BIN),
    "code_llama2": Family("llama", 1_000_000, "LLAMA2", "llama2.llama2_tokenizer", _MODEL, _BIN),
    "llama3": Family("llama", 500_000, "LLAMA3", "llama3.llama3_tokenizer", _META),
    "llama3_1": Family("llama", 500_000, "LLAMA3", "llama3.llama3_tokenizer", _META),
    "llama3_2": Family("llama", 500_000, "LLAMA3_2", "llama3.llama3_tokenizer", _META),
    "llama3_3": Family("llama", 500_000, "LLAMA3", "llama3.llama3_tokenizer", _META),
    "mistral": Family("mistral", 10_000, "MISTRAL", "mistral.mistral_tokenizer", _MODEL, _BIN),
    "gemma": Family("gemma", 10_000, "GEMMA", "gemma.gemma_tokenizer", _MODEL),
    "gemma2": Family("gemma2", 10_000, "GEMMA2", "gemma.gemma_tokenizer", _MODEL),
    "phi3": Family("phi3", 10_000, "PHI3_MINI", "phi3.phi3_mini_tokenizer", _MODEL),
    "phi4": Family(
        "phi3", 10_000, "PHI4", "phi4.phi4_tokenizer", {"vocab_path": "vocab.json", "merges_path": "merges.txt"}
    ),
    "qwen2": Family("qwen2", 1_000_000, "QWEN2", "qwen2.qwen2_tokenizer", _VOCABULARY, takes_longer=True),
    "qwen2_5": Family("qwen2", 1_000_000, "QWEN2", "qwen2_5.qwen2_5_tokenizer", _VOCABULARY, takes_longer=True),
}
BY_ARCHITECTURE: Mapping[str, frozenset[str]] = {
    kind: frozenset(name for name, one in FAMILIES.items() if one.loads == kind)
    for kind in {one.loads for one in FAMILIES.values()}
}
BUILDERS = (
    Builder("llama2", "llama2_7b", (4096, 11008, 32, 32, 32, 32000), 4096, files=2),
    Builder("llama2", "llama2_13b", (5120, 13824, 40, 40, 40, 32000), 4096, files=3),
    Builder("llama2", "llama2_70b", (8192, 28672, 80, 64, 8, 32000), 4096, files=15),
    Builder("code_llama2", "code_llama2_7b", (4096, 11008, 32, 32, 32, 32016), 16384, files=3),
    Builder("code_llama2", "code_llama2_13b", (5120, 13824, 40, 40, 40, 32016), 16384),
    Builder("code_llama2", "code_llama2_70b", (8192, 28672, 80, 64, 8, 32016), 16384),
    Builder("llama3", "llama3_8b", (4096, 14336, 32, 32, 8, 128256), 8192, files=4),
    Builder("llama3", "llama3_70b", (8192, 28672, 80, 64, 8, 128256), 8192, files=30),
    Builder("llama3_1", "llama3_1_8b", (4096, 14336, 32, 32, 8, 128256), 131072, files=4),
    Builder("llama3_1", "llama3_1_70b", (8192, 28672, 80, 64, 8, 128256), 131072, files=30),
    Builder("llama3_1", "llama3_1_405b", (16384, 53248, 126, 128, 8, 128256), 131072, files=191, has_dora=False),
    Builder("llama3_2", "llama3_2_1b", (2048, 8192, 16, 32, 8, 128256), 131072, True, 1),
    Builder("llama3_2", "llama3_2_3b", (3072, 8192, 28, 24, 8, 128256), 131072, True, 2),
    Builder("llama3_3", "llama3_3_70b", (8192, 28672, 80, 64, 8, 128256), 131072, files=30),
    Builder("mistral", "mistral_7b", (4096, 14336, 32, 32, 8, 32000), 32768, files=2),
    Builder("gemma", "gemma_2b", (2048, 16384, 18, 8, 1, 256000), 8192, True, 2, False),
    Builder("gemma", "gemma_7b", (3072, 24576, 28, 16, 16, 256000), 8192, True, 4, False),
    Builder("gemma2", "gemma2_2b", (2304, 9216, 26, 8, 4, 256000), 8192, True, 3, False),
    Builder("gemma2", "gemma2_9b", (3584, 14336, 42, 16, 8, 256000), 8192, True, 8, False),
    Builder("gemma2", "gemma2_27b", (4608, 36864, 46, 32, 16, 256000), 8192, True, 24, False),
    Builder("phi3", "phi3_mini", (3072, 8192, 32, 32, 32, 32064), 4096, files=2),
    Builder("phi4", "phi4_14b", (5120, 17920, 40, 40, 10, 100352), 16384, files=6),
    Builder("qwen2", "qwen2_0_5b", (896, 4864, 24, 14, 2, 151936), 32768, True, 1, False),
    Builder("qwen2", "qwen2_1_5b", (1536, 8960, 28, 12, 2, 151936), 32768, True, 1, False),
    Builder("qwen2", "qwen2_7b", (3584, 18944, 28, 28, 4, 152064), 32768, files=4),
    Builder("qwen2_5", "qwen2_5_0_5b", (896, 4864, 24, 14, 2, 151936), 32768, True, 1),
    Builder("qwen2_5", "qwen2_5_1_5b_base", (1536, 8960, 28, 12, 2, 151936), 131072, True, 1),
    Builder("qwen2_5", "qwen2_5_1_5b_instruct", (1536, 8960, 28, 12, 2, 151936), 32768, True, 1),
    Builder("qwen2_5", "qwen2_5_3b", (2048, 11008, 36, 16, 2, 151936), 32768, True, 2),
    Builder("qwen2_5", "qwen2_5_7b_base", (3584, 18944, 28, 28, 4, 152064), 131072, files=4),
    Builder("qwen2_5", "qwen2_5_7b_instruct", (3584, 18944, 28, 28, 4, 152064), 32768, files=4),
    Builder("qwen2_5", "qwen2_5_14b_base", (5120, 13824, 48, 40, 8, 152064), 131072, files=8),
    Builder("qwen2_5", "qwen2_5_14b_instruct", (5120, 13824, 48, 40, 8, 152064), 32768, files=8),
    Builder("qwen2_5", "qwen2_5_32b_base", (5120, 27648, 64, 40, 8, 152064), 131072, files=17),
    Builder("qwen2_5", "qwen2_5_32b_instruct", (5120, 27648, 64, 40, 8, 152064), 32768, files=17),
    Builder("qwen2_5", "qwen2_5_72b_base", (8192, 29568, 80, 64, 8, 152064), 131072, files=37),
    Builder("qwen2_5", "qwen2_5_72b_instruct", (8192, 29568, 80, 64, 8, 152064), 32768, files=37),
)
"""Of models that are trained on next tokens and see no images. A base's files are those of its tuned sibling."""


def builder_of(model: ModelSpec, name: str) -> Builder:
    """The builder that makes `model`, a checkpoint called `name`: of several, that whose name stands in it.

    Raises InputError for a model that no builder makes. Models of one size differ in how RoPE is stretched to their
    number of positions, so that this must be the same; that of Qwen is not stretched, so its table may be shorter.
    """
    sizes = (
        model.hidden_size,
        model.intermediate_size,
        model.num_hidden_layers,
        model.num_attention_heads,
        model.num_key_value_heads,
        model.vocab_size,
    )
    most, families = model.max_position_embeddings, BY_ARCHITECTURE.get(model.architecture, frozenset())
    fitting = [
        one
        for one in BUILDERS
        if one.family in families
        and (one.sizes, one.tied) == (sizes, model.tie_word_embeddings)
        and (one.positions == most or (FAMILIES[one.family].takes_longer and one.positions <= most))
        and not model.part_of
    ]
    if not fitting:
        raise InputError(
            f"torchtune 0.6.1 has no builder for {model.name} ({model.architecture}, {model.num_hidden_layers} layers "
            f"of {model.hidden_size:,}, {model.vocab_size:,} words): use --write python, trl or axolotl"
        )
    return max(fitting, key=lambda one: (_named(one, name), one.positions == most))


def _named(builder: Builder, name: str) -> int:
    """How much of a builder's name stands in the name of a checkpoint, letters and digits alone."""
    letters = "".join(filter(str.isalnum, name.lower().replace("meta-", "")))
    whole = builder.name.replace("_", "")
    short = whole.removesuffix("instruct").removesuffix("base")
    tuned = "instruct" in letters
    return 2 * (short in letters) + (builder.name.endswith("instruct" if tuned else "base"))
