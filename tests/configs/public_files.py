"""Twelve files that people publish, told by their facts: the keys that matter, their values, and what they mean.

`benchmarks/public_files.py` compares each with the file itself at its commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class PublicFile(NamedTuple):
    """A file of a repository at a commit, and the run that a person who knows its tool reads in it."""

    repository: str
    commit: str
    path: str
    facts: str
    """Its keys that change memory or time, in an order and in words of our own."""
    knobs: dict[str, Any]
    """Each knob that it sets, by itself or by what its tool does where it says nothing."""
    verdict: str
    """On an H100 of 80 GB; '' where a line is asked for instead."""
    more: Mapping[str, Any] = MappingProxyType({})
    """What it says beside knobs: rows, rows held out, evaluations an epoch, the last step, the card."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rsplit("/", 1)[-1]


_AXOLOTL = ("axolotl-ai-cloud/axolotl", "067b021c8b87a9e5e380b9173c704cf7340e30f5")
_LLAMAFACTORY = ("hiyouga/LLaMA-Factory", "ff6d4d12eeb035d6ce06805a5733dd7b29f2ac30")
_TORCHTUNE = ("pytorch/torchtune", "bd2a0fc7c31430972728494fa01aaeeb0ebf1ba1")
_QWEN_LORA = """
finetuning_type: lora
stage: sft
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
lora_target: all
lora_rank: 8
cutoff_len: 2048
dataset: identity,alpaca_en_demo
max_samples: 1000
num_train_epochs: 3.0
per_device_train_batch_size: 1
bf16: true
"""
_QWEN_KNOBS = {
    **{"model": "Qwen/Qwen3-4B-Instruct-2507", "method": "lora", "rank": 8, "target_modules": "all"},
    **{"seq_len": 2048, "packing": False, "micro_batch": 1, "epochs": 3.0, "optimizer": "adamw_torch_fused"},
    **{"gradient_checkpointing": True, "expandable_segments": False, "attention": "sdpa", "kernels": "none"},
    "trainer": "llamafactory",
}
PUBLIC_FILES = (
    PublicFile(
        *_AXOLOTL,
        "examples/llama-3/qlora.yml",
        """
adapter: qlora
load_in_4bit: true
base_model: NousResearch/Meta-Llama-3-8B
lora_target_linear: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
sequence_len: 4096
sample_packing: true
val_set_size: 0
evals_per_epoch: 4
num_epochs: 4
micro_batch_size: 2
gradient_accumulation_steps: 4
optimizer: paged_adamw_32bit
bf16: auto
attn_implementation: flash_attention_2
gradient_checkpointing: true
""",
        {
            **{"model": "NousResearch/Meta-Llama-3-8B", "method": "qlora", "quant": "nf4", "rank": 32, "alpha": 16},
            **{"dropout": 0.05, "target_modules": "all-linear", "seq_len": 4096, "packing": True, "epochs": 4},
            **{"micro_batch": 2, "batch_size": 8, "optimizer": "paged_adamw_32bit", "gradient_checkpointing": True},
            **{"attention": "flash_attention_2", "kernels": ("fused_lora",), "trainer": "axolotl"},
        },
        "fits",
        {"evaluations": 4.0},
    ),
    PublicFile(
        *_AXOLOTL,
        "examples/llama-3/lora-8b.yml",
        """
adapter: lora
load_in_8bit: true
base_model: NousResearch/Meta-Llama-3-8B
lora_target_linear: true
lora_modules_to_save: [embed_tokens, lm_head]
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
sequence_len: 4096
sample_packing: true
eval_sample_packing: false
val_set_size: 0.05
evals_per_epoch: 4
num_epochs: 4
micro_batch_size: 2
gradient_accumulation_steps: 4
optimizer: adamw_bnb_8bit
bf16: auto
attn_implementation: flash_attention_2
gradient_checkpointing: true
""",
        {
            **{"model": "NousResearch/Meta-Llama-3-8B", "method": "qlora", "quant": "int8", "rank": 32, "alpha": 16},
            **{"dropout": 0.05, "target_modules": "all-linear", "modules_to_save": ["embed_tokens", "lm_head"]},
            **{"seq_len": 4096, "packing": True, "epochs": 4, "micro_batch": 2, "batch_size": 8},
            **{"optimizer": "adamw_bnb_8bit", "gradient_checkpointing": True, "attention": "flash_attention_2"},
            **{"kernels": "none", "trainer": "axolotl"},
        },
        "fits",
        {"held_out": 0.05, "evaluations": 4.0},
    ),
    PublicFile(
        *_AXOLOTL,
        "examples/llama-3/fft-8b.yaml",
        """
base_model: NousResearch/Meta-Llama-3.1-8B
sequence_len: 8192
sample_packing: true
val_set_size: 0.05
evals_per_epoch: 2
num_epochs: 1
micro_batch_size: 1
gradient_accumulation_steps: 8
optimizer: paged_adamw_8bit
bf16: auto
attn_implementation: flash_attention_2
gradient_checkpointing: true
gradient_checkpointing_kwargs: {use_reentrant: false}
""",
        {
            **{"model": "NousResearch/Meta-Llama-3.1-8B", "method": "full", "seq_len": 8192, "packing": True},
            **{"epochs": 1, "micro_batch": 1, "batch_size": 8, "optimizer": "paged_adamw_8bit"},
            **{"gradient_checkpointing": True, "reentrant": False, "attention": "flash_attention_2"},
            **{"kernels": "none", "trainer": "axolotl"},
        },
        "fits",
        {"held_out": 0.05, "evaluations": 2.0},
    ),
    PublicFile(
        *_AXOLOTL,
        "examples/llama-2/gptq-lora.yml",
        """
adapter: lora
gptq: true
base_model: TheBloke/Llama-2-7B-GPTQ
lora_target_modules: [k_proj, o_proj, q_proj, v_proj]
lora_r: 8
lora_alpha: 32
lora_dropout: 0.05
sequence_len: 4096
val_set_size: 0.05
evals_per_epoch: 4
num_epochs: 4
micro_batch_size: 1
gradient_accumulation_steps: 1
optimizer: adamw_torch_fused
bf16: false
fp16: false
float16: true
gradient_checkpointing: true
""",
        {
            **{"model": "TheBloke/Llama-2-7B-GPTQ", "method": "qlora", "quant": "gptq", "rank": 8, "alpha": 32},
            **{"dropout": 0.05, "target_modules": ["k_proj", "o_proj", "q_proj", "v_proj"], "seq_len": 4096},
            **{"packing": False, "epochs": 4, "micro_batch": 1, "batch_size": 1, "optimizer": "adamw_torch_fused"},
            **{"base_dtype": "float16", "autocast": False, "gradient_checkpointing": True, "attention": "sdpa"},
            **{"kernels": ("fused_lora",), "trainer": "axolotl"},
        },
        "tight",
        {"held_out": 0.05, "evaluations": 4.0},
    ),
    PublicFile(
        *_LLAMAFACTORY,
        "examples/train_lora/qwen3_lora_sft.yaml",
        f"{_QWEN_LORA}gradient_accumulation_steps: 8\n",
        {**_QWEN_KNOBS, "batch_size": 8},
        "fits",
        {"rows": 2000},
    ),
    PublicFile(
        *_LLAMAFACTORY,
        "examples/train_lora/qwen3_lora_sft_ds3.yaml",
        f"{_QWEN_LORA}gradient_accumulation_steps: 2\ndeepspeed: examples/deepspeed/ds_z3_config.json\n",
        {**_QWEN_KNOBS, "batch_size": 2, "sharding": "zero3"},
        "",
        {"rows": 2000},
    ),
    PublicFile(
        *_TORCHTUNE,
        "recipes/configs/llama3/8B_qdora_single_device.yaml",
        """
checkpointer: {checkpoint_dir: /tmp/Meta-Llama-3-8B-Instruct/}
tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer}
model:
  _component_: torchtune.models.llama3.lora_llama3_8b
  use_dora: true
  quantize_base: true
  lora_rank: 8
  lora_alpha: 16
  lora_attn_modules: [q_proj, v_proj, output_proj]
  apply_lora_to_mlp: true
  apply_lora_to_output: false
dataset: {packed: false}
batch_size: 2
gradient_accumulation_steps: 8
epochs: 1
optimizer: {_component_: torch.optim.AdamW, fused: true}
loss: {_component_: torchtune.modules.loss.LinearCrossEntropyLoss}
compile: false
dtype: bf16
enable_activation_checkpointing: true
enable_activation_offloading: false
""",
        {
            **{"model": "Meta-Llama-3-8B-Instruct", "method": "qdora", "rank": 8, "alpha": 16, "dropout": 0.0},
            "target_modules": ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            **{"packing": False, "micro_batch": 2, "batch_size": 16, "epochs": 1, "optimizer": "adamw"},
            **{"base_dtype": "bf16", "gradient_checkpointing": True, "attention": "sdpa"},
            **{"expandable_segments": False, "trainer": "torchtune"},
        },
        "fits",
    ),
    PublicFile(
        *_TORCHTUNE,
        "recipes/configs/llama3_1/8B_full_single_device.yaml",
        """
checkpointer: {checkpoint_dir: /tmp/Meta-Llama-3.1-8B-Instruct/}
tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer, max_seq_len: null}
model: {_component_: torchtune.models.llama3_1.llama3_1_8b}
dataset: {packed: false}
batch_size: 2
gradient_accumulation_steps: 1
epochs: 1
optimizer: {_component_: bitsandbytes.optim.PagedAdamW8bit}
optimizer_in_bwd: true
loss: {_component_: torchtune.modules.loss.LinearCrossEntropyLoss}
compile: false
dtype: bf16
enable_activation_checkpointing: true
enable_activation_offloading: false
""",
        {
            **{"model": "Meta-Llama-3.1-8B-Instruct", "method": "full", "packing": False, "micro_batch": 2},
            **{"batch_size": 2, "epochs": 1, "optimizer": "paged_adamw_8bit", "optimizer_in_backward": True},
            **{"base_dtype": "bf16", "gradient_checkpointing": True, "attention": "sdpa"},
            **{"expandable_segments": False, "trainer": "torchtune"},
        },
        "fits",
    ),
    PublicFile(
        "Lightning-AI/litgpt",
        "26857050fe3ff627cd714fe92f5838f51a3d5efa",
        "config_hub/finetune/phi-2/lora.yaml",
        """
checkpoint_dir: checkpoints/microsoft/phi-2
precision: bf16-true
quantize:
devices: 1
num_nodes: 1
lora_r: 8
lora_alpha: 16
lora_dropout: 0.05
lora_query: true
lora_key: true
lora_value: true
lora_projection: true
lora_mlp: true
lora_head: true
train: {global_batch_size: 8, micro_batch_size: 4, epochs: 1, max_seq_length: 512}
optimizer: {class_path: torch.optim.AdamW}
""",
        {
            **{"model": "microsoft/phi-2", "method": "lora", "rank": 8, "alpha": 16, "dropout": 0.05},
            **{"target_modules": [*_SEVEN, "lm_head"], "seq_len": 512, "micro_batch": 4, "batch_size": 8},
            **{"epochs": 1, "packing": False, "base_dtype": "bfloat16", "autocast": False},
            **{"adapter_dtype": "bfloat16", "optimizer": "adamw_foreach", "attention": "sdpa"},
            **{"expandable_segments": False, "trainer": "litgpt"},
        },
        "fits",
    ),
    PublicFile(
        "huggingface/alignment-handbook",
        "925acdfe4b2b4e38c3dabd1851bc418f0b656351",
        "recipes/zephyr-7b-beta/sft/config_qlora.yaml",
        """
model_name_or_path: mistralai/Mistral-7B-v0.1
torch_dtype: bfloat16
attn_implementation: flash_attention_2
use_peft: true
load_in_4bit: true
lora_r: 16
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
dataset_mixture: {test_split_size: 1000}
eval_strategy: epoch
do_eval: true
max_seq_length: 2048
max_steps: -1
num_train_epochs: 1
per_device_train_batch_size: 4
per_device_eval_batch_size: 8
gradient_accumulation_steps: 2
bf16: true
gradient_checkpointing: true
gradient_checkpointing_kwargs: {use_reentrant: false}
""",
        {
            **{"model": "mistralai/Mistral-7B-v0.1", "method": "qlora", "quant": "nf4", "rank": 16, "alpha": 16},
            **{"dropout": 0.05, "target_modules": _SEVEN, "seq_len": 2048, "packing": False, "micro_batch": 4},
            **{"batch_size": 8, "epochs": 1, "optimizer": "adamw_torch_fused", "eval_batch": 8},
            **{"base_dtype": "bfloat16", "gradient_checkpointing": True, "reentrant": False},
            **{"expandable_segments": False, "attention": "flash_attention_2", "kernels": "none", "trainer": "trl"},
        },
        "fits",
        {"held_out": 1000.0, "evaluations": 1.0},
    ),
    PublicFile(
        "modelscope/ms-swift",
        "3602360a562313afbf2ef6065fdf61f271a2c5b9",
        "examples/train/packing/llm.sh",
        r"""
# 22GB
swift sft --model Qwen/Qwen2.5-7B-Instruct --tuner_type lora --lora_rank 8 --lora_alpha 32 \
    --target_modules all-linear --torch_dtype bfloat16 --packing true --attn_impl flash_attn --max_length 2048 \
    --dataset 'AI-ModelScope/alpaca-gpt4-data-zh#500' 'AI-ModelScope/alpaca-gpt4-data-en#500' \
              'swift/self-cognition#500' \
    --split_dataset_ratio 0.01 --eval_steps 50 --num_train_epochs 3 \
    --per_device_train_batch_size 1 --per_device_eval_batch_size 1 --gradient_accumulation_steps 4
""",
        {
            **{"model": "Qwen/Qwen2.5-7B-Instruct", "method": "lora", "rank": 8, "alpha": 32},
            **{"target_modules": "all-linear", "seq_len": 2048, "packing": True, "micro_batch": 1, "batch_size": 4},
            **{"epochs": 3, "optimizer": "adamw_torch_fused", "base_dtype": "bfloat16", "attention": "flash"},
            **{"kernels": "none", "expandable_segments": False, "eval_steps": 50, "trainer": "ms-swift"},
        },
        "fits",
        {"rows": 1500, "held_out": 0.01},
    ),
    PublicFile(
        "unslothai/notebooks",
        "bdda2efc7ad5ae129ea63cd2065d23c391406283",
        "nb/Mistral_v0.3_(7B)-CPT.ipynb",
        """
longest = 2048
model, tokenizer = FastLanguageModel.from_pretrained(
    "unsloth/mistral-7b-v0.3", load_in_4bit=True, dtype=None, max_seq_length=longest
)
model = FastLanguageModel.get_peft_model(
    model, r=128, lora_alpha=32, lora_dropout=0, use_rslora=True, use_gradient_checkpointing="unsloth",
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens",
                    "lm_head"],
)
settings = UnslothTrainingArguments(
    per_device_train_batch_size=2, gradient_accumulation_steps=8, max_steps=120, optim="adamw_8bit",
    embedding_learning_rate=1e-5,
)
UnslothTrainer(model=model, args=settings, max_seq_length=longest).train()
""",
        {
            **{"model": "unsloth/mistral-7b-v0.3", "method": "qlora", "quant": "nf4", "rank": 128, "alpha": 32},
            **{"dropout": 0, "target_modules": _SEVEN, "modules_to_save": ["embed_tokens", "lm_head"]},
            **{"variant": "rslora", "seq_len": 2048, "packing": False, "micro_batch": 2, "batch_size": 16},
            **{"epochs": 3, "optimizer": "adamw_8bit", "offload": "activations", "expandable_segments": True},
            "trainer": "unsloth",
        },
        "tight",
        {"most_steps": 120, "card": "T4"},
    ),
)
