"""Keys that look harmless and change the step: each makes the verdict unknown where it is on, not where it is off."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.configs.reading import read_config

AXOLOTL = "base_model: llama-8b\nadapter: lora\n"
LLAMAFACTORY = "model_name_or_path: llama-8b\nfinetuning_type: lora\n"
OFT = "model_name_or_path: llama-8b\nfinetuning_type: oft\n"
TRL = "model_name_or_path: llama-8b\nuse_peft: true\n"
SWIFT = "model: llama-8b\ntuner_type: lora\n"
CASES = [
    (AXOLOTL, "use_eaft", "true", "false"),
    (AXOLOTL, "liger_rms_norm_gated", "true", "false"),
    (AXOLOTL, "dp_shard_size", "4", "1"),
    (LLAMAFACTORY, "use_asft_loss", "true", "false"),
    (LLAMAFACTORY, "use_dft_loss", "true", "false"),
    (LLAMAFACTORY, "use_eaft_loss", "true", "false"),
    (LLAMAFACTORY, "moe_aux_loss_coef", "0.001", "0.0"),
    (LLAMAFACTORY, "label_smoothing_factor", "0.1", "0.0"),
    (OFT, "oft_block_size", "64", "32"),
    (OFT, "module_dropout", "0.1", "0.0"),
    (TRL, "router_aux_loss_coef", "0.0", "0.001"),
    (TRL, "label_smoothing_factor", "0.1", "0"),
    (SWIFT, "router_aux_loss_coef", "0.001", "0.0"),
]
SCRIPT = """
model = get_peft_model(AutoModelForCausalLM.from_pretrained("gpt2"), LoraConfig(r=8{adapter}))
Trainer(model, TrainingArguments(output_dir="out"{arguments}){handed})
"""
SCRIPTS = [
    ({"adapter": ", bias='all'"}, {"adapter": ", bias='none'"}, "adapters.bias"),
    ({"handed": ", optimizers=(mine, None)"}, {"handed": ", optimizers=(None, None)"}, "trainer.optimizers"),
    (
        {"handed": ", compute_metrics=f", "arguments": ", eval_strategy='steps'"},
        {"handed": ", compute_metrics=f"},
        "trainer.compute_metrics",
    ),
]


def unread(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [one.key for one in read_config(str(path)).found.unread]


@pytest.mark.parametrize(("text", "key", "on", "off"), CASES, ids=lambda value: value.split("\n")[-1] or None)
def test_a_key_of_yaml(text: str, key: str, on: str, off: str, tmp_path: Path) -> None:
    assert unread(tmp_path / "a.yml", f"{text}{key}: {on}\n") == [key]
    assert unread(tmp_path / "a.yml", f"{text}{key}: {off}\n") == []


@pytest.mark.parametrize(("on", "off", "key"), SCRIPTS, ids=[case[2] for case in SCRIPTS])
def test_an_argument_of_a_script(on: dict[str, str], off: dict[str, str], key: str, tmp_path: Path) -> None:
    empty = {"adapter": "", "arguments": "", "handed": ""}
    assert unread(tmp_path / "a.py", SCRIPT.format(**empty | on)) == [key]
    assert unread(tmp_path / "a.py", SCRIPT.format(**empty | off)) == []


def test_an_optimizer_of_loraplus_is_its_variant(tmp_path: Path) -> None:
    handed = ", optimizers=(create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-4, loraplus_lr_ratio=16), None)"
    (tmp_path / "a.py").write_text(SCRIPT.format(adapter="", arguments="", handed=handed))
    found = read_config(str(tmp_path / "a.py")).found
    assert (found.unread, found.knobs["variant"]) == ((), "loraplus")
