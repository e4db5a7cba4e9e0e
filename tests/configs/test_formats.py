"""Each format's keys become the knobs that a person who knows the tool would set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.configs.found import Found
from advisor.configs.reading import read_config

AXOLOTL_QLORA = """
base_model: NousResearch/Meta-Llama-3-8B
load_in_8bit: false
load_in_4bit: true
adapter: qlora
datasets:
  - path: aaditya/alpaca_subset_1
    type: alpaca
val_set_size: 0
sequence_len: 4096
sample_packing: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: paged_adamw_32bit
learning_rate: 0.0002
bf16: auto
gradient_checkpointing: true
attn_implementation: flash_attention_2
"""
AXOLOTL_INT8 = """
base_model: NousResearch/Meta-Llama-3-8B
load_in_8bit: true
adapter: lora
sequence_len: 4096
lora_r: 32
lora_target_modules: [q_proj, v_proj]
lora_modules_to_save: [embed_tokens, lm_head]
micro_batch_size: 2
val_set_size: 0.05
evals_per_epoch: 4
bf16: true
gradient_checkpointing: true
"""
AXOLOTL_FULL = """
base_model: NousResearch/Meta-Llama-3.1-8B
sequence_len: 8192
sample_packing: true
gradient_accumulation_steps: 8
micro_batch_size: 1
optimizer: paged_adamw_8bit
bf16: auto
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: false
plugins:
  - axolotl.integrations.liger.LigerPlugin
liger_rms_norm: true
liger_fused_linear_cross_entropy: true
"""
LLAMAFACTORY = """
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
stage: sft
finetuning_type: lora
lora_target: all
dataset: identity,alpaca_en_demo
cutoff_len: 2048
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
num_train_epochs: 3.0
bf16: true
"""
TRL = """
model_name_or_path: mistralai/Mistral-7B-v0.1
torch_dtype: bfloat16
attn_implementation: flash_attention_2
use_peft: true
load_in_4bit: true
lora_r: 16
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
dataset_mixer:
  HuggingFaceH4/ultrachat_200k: 1.0
bf16: true
do_eval: true
eval_strategy: epoch
gradient_accumulation_steps: 2
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: false
max_seq_length: 2048
max_steps: -1
num_train_epochs: 1
per_device_train_batch_size: 4
per_device_eval_batch_size: 8
"""
TORCHTUNE = """
model:
  _component_: torchtune.models.llama3.lora_llama3_8b
  lora_attn_modules: ['q_proj', 'v_proj', 'output_proj']
  apply_lora_to_mlp: True
  lora_rank: 8
  lora_alpha: 16
  use_dora: True
  quantize_base: True
tokenizer:
  _component_: torchtune.models.llama3.llama3_tokenizer
  path: /data/Meta-Llama-3-8B-Instruct/original/tokenizer.model
checkpointer:
  _component_: torchtune.training.FullModelHFCheckpointer
  checkpoint_dir: /data/Meta-Llama-3-8B-Instruct/
dataset:
  _component_: torchtune.datasets.alpaca_cleaned_dataset
  packed: False
batch_size: 2
optimizer:
  _component_: torch.optim.AdamW
  fused: True
  lr: 3e-4
loss:
  _component_: torchtune.modules.loss.LinearCrossEntropyLoss
gradient_accumulation_steps: 8
compile: False
dtype: bf16
enable_activation_checkpointing: True
enable_activation_offloading: False
"""
LITGPT = """
checkpoint_dir: checkpoints/microsoft/phi-2
precision: bf16-true
quantize:
devices: 1
lora_r: 8
lora_query: true
lora_key: false
lora_value: true
lora_projection: true
train:
  global_batch_size: 8
  micro_batch_size: 4
  epochs: 1
  max_seq_length: 512
optimizer: AdamW
"""
SWIFT = r"""
# 22GB
NPROC=1
CUDA_VISIBLE_DEVICES=0 \
swift sft \
    --model Qwen/Qwen2.5-7B-Instruct \
    --tuner_type lora \
    --packing true \
    --dataset 'AI-ModelScope/alpaca-gpt4-data-zh#500' \
              'AI-ModelScope/alpaca-gpt4-data-en#500' \
    --torch_dtype bfloat16 \
    --attn_impl flash_attn \
    --per_device_train_batch_size ${NPROC} \
    --lora_rank 8 \
    --target_modules all-linear \
    --gradient_accumulation_steps 4 \
    --max_length 2048
"""
UNSLOTH = """
max_seq_length = 2048
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name = "unsloth/mistral-7b-v0.3", max_seq_length = max_seq_length, dtype = None, load_in_4bit = True
)
model = FastLanguageModel.get_peft_model(
    model, r = 128, target_modules = ["q_proj", "v_proj", "embed_tokens", "lm_head"],
    use_gradient_checkpointing = "unsloth", use_rslora = True,
)
trainer = UnslothTrainer(
    model = model,
    args = UnslothTrainingArguments(
        per_device_train_batch_size = 2, gradient_accumulation_steps = 8, max_steps = 120, optim = "adamw_8bit",
        fp16 = not is_bfloat16_supported(), learning_rate = pick_a_rate(),
    ),
)
if False:
    model, tokenizer = FastLanguageModel.from_pretrained("saved", load_in_4bit = False)
"""
UNSLOTH_YAML = """
model: unsloth/Llama-3.2-3B-Instruct
data:
  dataset: yahma/alpaca-cleaned
training:
  max_seq_length: 4096
  batch_size: 4
  gradient_accumulation_steps: 2
  gradient_checkpointing: true
  max_steps: 60
lora:
  lora_r: 16
  use_rslora: true
"""
PEFT = """
python train.py --model_name_or_path mistralai/Mistral-7B-v0.1 --use_peft_lora True --lora_r 8 --use_reentrant True \\
  --use_4bit_quantization True --use_nested_quant True --use_flash_attn True --max_length 2048 --packing True
"""
SCRIPT = """
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained("mistralai/Mistral-7B-v0.1", quantization_config=bnb)
config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
args = SFTConfig(max_length=1024, per_device_train_batch_size=args.batch, gradient_checkpointing=True)
SFTTrainer(model=model, args=args, peft_config=config).train()
"""


def found(folder: Path, text: str, name: str = "train.yaml") -> Found:
    """What a file of this text says."""
    (folder / name).write_text(text)
    return read_config(str(folder / name)).found


@pytest.mark.parametrize(
    ("text", "name", "trainer", "knobs"),
    [
        (
            AXOLOTL_QLORA,
            "qlora.yml",
            "axolotl",
            {
                **{"model": "NousResearch/Meta-Llama-3-8B", "method": "qlora", "quant": "nf4", "rank": 32},
                **{"target_modules": "all-linear", "seq_len": 4096, "packing": True, "micro_batch": 2, "batch_size": 8},
                **{"optimizer": "paged_adamw_32bit", "gradient_checkpointing": True, "epochs": 4},
                "kernels": ("fused_lora",),
            },
        ),
        (
            AXOLOTL_INT8,
            "lora.yml",
            "axolotl",
            {"method": "qlora", "quant": "int8", "modules_to_save": ["embed_tokens", "lm_head"], "kernels": "none"},
        ),
        (
            AXOLOTL_FULL,
            "fft.yaml",
            "axolotl",
            {"method": "full", "reentrant": False, "batch_size": 8, "kernels": ("liger_norm", "liger_loss")},
        ),
        (
            LLAMAFACTORY,
            "sft.yaml",
            "llamafactory",
            {"method": "lora", "rank": 8, "gradient_checkpointing": True, "seq_len": 2048, "batch_size": 8},
        ),
        (
            TRL,
            "config.yaml",
            "trl",
            {"method": "qlora", "base_dtype": "bfloat16", "seq_len": 2048, "batch_size": 8, "reentrant": False},
        ),
        (
            TORCHTUNE,
            "qdora.yaml",
            "torchtune",
            {
                **{"model": "Meta-Llama-3-8B-Instruct", "method": "qdora", "optimizer": "adamw", "batch_size": 16},
                "target_modules": ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            },
        ),
        (
            LITGPT,
            "lora.yaml",
            "litgpt",
            {
                **{"model": "microsoft/phi-2", "method": "lora", "base_dtype": "bfloat16", "autocast": False},
                **{"target_modules": ["q_proj", "v_proj", "o_proj"], "batch_size": 8, "micro_batch": 4},
            },
        ),
        (
            SWIFT,
            "llm.sh",
            "ms-swift",
            {"method": "lora", "packing": True, "attention": "flash", "batch_size": 4, "micro_batch": 1},
        ),
        (
            UNSLOTH,
            "cpt.py",
            "unsloth",
            {
                **{"method": "qlora", "rank": 128, "target_modules": ["q_proj", "v_proj"], "variant": "rslora"},
                **{"modules_to_save": ["embed_tokens", "lm_head"], "offload": "activations", "batch_size": 16},
            },
        ),
        (
            UNSLOTH_YAML,
            "unsloth.yaml",
            "unsloth",
            {
                **{"method": "qlora", "quant": "nf4", "rank": 16, "alpha": 16, "variant": "rslora", "seq_len": 4096},
                **{"micro_batch": 4, "batch_size": 8, "optimizer": "adamw_8bit", "epochs": 3, "packing": False},
                **{"offload": "none", "gradient_checkpointing": True},
            },
        ),
        (
            f"{UNSLOTH_YAML.partition('lora:')[0]}  training_type: full\n",
            "full.yaml",
            "unsloth",
            {"method": "full", "rank": None, "quant": None},
        ),
        (
            PEFT,
            "peft.sh",
            "trl",
            {
                **{"method": "qlora", "quant": "nf4", "double_quant": True, "attention": "flash", "reentrant": True},
                **{"seq_len": 2048, "packing": True, "rank": 8},
            },
        ),
        (
            LLAMAFACTORY.replace("lora\n", "full\n").replace("lora_target: all\n", "use_galore: true\n")
            + "galore_layerwise: true\ngalore_rank: 64\n",
            "galore.yaml",
            "llamafactory",
            {"method": "full", "optimizer": "galore", "optimizer_rank": 64, "optimizer_in_backward": True},
        ),
        (
            SWIFT.replace("7B-Instruct", "7B-Instruct-AWQ").replace("--tuner", "--optimizer muon --tuner"),
            "awq.sh",
            "ms-swift",
            {"base_dtype": "float16", "optimizer": "muon"},
        ),
        (
            SWIFT.replace("swift sft", "python swift/cli/sft.py --experts_impl grouped_mm"),
            "path.sh",
            "ms-swift",
            {"method": "lora"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_keys_become_knobs(tmp_path: Path, text: str, name: str, trainer: str, knobs: dict[str, Any]) -> None:
    read = found(tmp_path, text, name)
    assert read.trainer == trainer
    assert {key: read.knobs.get(key) for key in knobs} == knobs
    assert (read.unread, read.other) == ((), ())


def test_rows_held_out_and_the_last_step_are_read(tmp_path: Path) -> None:
    read = found(tmp_path, AXOLOTL_INT8)
    assert (read.held_out, read.evaluations, read.knobs["trainer"]) == (0.05, 4, "axolotl")
    assert found(tmp_path, UNSLOTH, "a.py").most_steps == 120
    assert found(tmp_path, TRL).most_steps == 0


def test_the_most_rows_of_a_file_are_read(tmp_path: Path) -> None:
    assert found(tmp_path, SWIFT, "a.sh").rows == 1000
    assert found(tmp_path, f"{LLAMAFACTORY}max_samples: 700\n").rows == 1400
    assert found(tmp_path, LLAMAFACTORY).rows == 0


def test_a_value_that_only_the_run_knows_is_unread(tmp_path: Path) -> None:
    read = found(tmp_path, SCRIPT, "train.py")
    assert [one.key for one in read.unread] == ["arguments.per_device_train_batch_size"]
    assert (read.knobs["method"], read.knobs["double_quant"]) == ("qlora", False)


def test_a_notebook_names_its_card(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": ["!pip install unsloth\n", *UNSLOTH.splitlines(keepends=True)]}]
    book = json.dumps({"cells": cells, "metadata": {"colab": {"gpuType": "T4"}}})
    read = found(tmp_path, book, "nb.ipynb")
    assert (read.card, read.trainer, read.knobs["rank"]) == ("T4", "unsloth", 128)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("new_kernel: true", "new_kernel"),
        ("torch_compile: true", "torch_compile"),
        ("lora_target_parameters: [mlp.experts.gate_up_proj]", "lora_target_parameters"),
        ("plugins: [acme.Fast]", "plugins"),
        ("peft_layers_to_transform: [0, 1, 5]", "peft_layers_to_transform"),
    ],
)
def test_a_key_that_may_matter_is_unread(tmp_path: Path, line: str, key: str) -> None:
    read = found(tmp_path, f"{AXOLOTL_QLORA}{line}\n")
    (one,) = read.unread
    assert (one.key, one.line) == (key, len(AXOLOTL_QLORA.splitlines()) + 1)


@pytest.mark.parametrize(
    ("text", "name", "key"),
    [
        (SWIFT.replace("swift sft", "swift sft --experts_impl eager"), "a.sh", "experts_impl"),
        (SWIFT.replace("swift sft", "deepspeed swift/cli/sft.py"), "a.sh", "launcher"),
        (SWIFT.replace("swift sft", "swift sft --optimizer muonclip"), "a.sh", "optimizer"),
        (SWIFT.replace("swift sft", "swift sft --target_regex '.*q_proj'"), "a.sh", "target_regex"),
        (UNSLOTH.replace("load_in_4bit = True", "load_in_fp8 = True"), "a.py", "model.load_in_fp8"),
        (UNSLOTH.replace("r = 128", "r = 128, qat_scheme = 'int4'"), "a.py", "adapters.qat_scheme"),
        (f"{UNSLOTH_YAML}  finetune_mlp_modules: false\n", "a.yaml", "lora.finetune_mlp_modules"),
        (f"{AXOLOTL_QLORA}unfrozen_parameters: [lm_head]\n", "a.yml", "unfrozen_parameters"),
        (f"{AXOLOTL_QLORA}max_packed_sequence_len: 2048\n", "a.yml", "max_packed_sequence_len"),
    ],
)
def test_what_no_knob_says_is_unread(tmp_path: Path, text: str, name: str, key: str) -> None:
    read = found(tmp_path, text, name)
    assert [one.key for one in (*read.unread, *read.other)] == [key]


def test_a_script_with_flags_of_its_own_is_told(tmp_path: Path) -> None:
    (one,) = found(tmp_path, PEFT.replace("train.py", "qlora.py"), "a.sh").other
    assert (one.key, one.value) == ("command", "qlora.py")


def test_rows_kept_for_evaluation_are_read(tmp_path: Path) -> None:
    read = found(tmp_path, f"{TRL}dataset_mixture:\n  test_split_size: 1000\n")
    assert (read.held_out, read.evaluations) == (1000, 1)


@pytest.mark.parametrize("line", ["rl: dpo", "relora: true", "reward_model: true"])
def test_another_kind_of_run_is_told(tmp_path: Path, line: str) -> None:
    assert [one.key for one in found(tmp_path, f"{AXOLOTL_QLORA}{line}\n").other] == [line.split(":")[0]]


@pytest.mark.parametrize(
    ("extra", "sharding"),
    [
        ("deepspeed: examples/deepspeed/ds_z3_config.json", "zero3"),
        ("deepspeed: deepspeed_configs/zero2.json", "zero2"),
        ("fsdp_config:\n  fsdp_version: 2", "fsdp2"),
        ("fsdp: full_shard auto_wrap", "fsdp1"),
    ],
)
def test_engines_are_read(tmp_path: Path, extra: str, sharding: str) -> None:
    assert found(tmp_path, f"{AXOLOTL_QLORA}{extra}\n").knobs["sharding"] == sharding


def test_deepspeed_beside_the_file_is_read(tmp_path: Path) -> None:
    zero = {"stage": 3, "offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": zero}))
    knobs = found(tmp_path, f"{AXOLOTL_FULL}deepspeed: ds.json\n").knobs
    assert knobs["sharding"] == "zero3"
    assert "parameters" in knobs.values()


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        ("custom_sharded_layers: ['output', 'tok_embeddings']\n", []),
        ("custom_sharded_layers: ['tok_embeddings']\n", ["custom_sharded_layers"]),
        ("tensor_parallel_dim: 1\ntensor_parallel_plan:\n  _component_: torchtune.models.llama3.plan\n", []),
        ("tensor_parallel_dim: 2\ntensor_parallel_plan:\n  _component_: x.y\n", ["tensor_parallel_dim"]),
    ],
)
def test_how_torchtune_spreads_layers(tmp_path: Path, lines: str, lost: list[str]) -> None:
    assert [one.key for one in found(tmp_path, TORCHTUNE + lines).unread] == lost
