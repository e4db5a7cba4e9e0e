"""Functions, classes and names by which scripts configure a run."""

from __future__ import annotations

GROUPS = {
    "from_pretrained": "model",
    "get_peft_model": "adapters",
    "LoraConfig": "adapters",
    "prepare_model_for_kbit_training": "prepared",
    "BitsAndBytesConfig": "storage",
    "SFTConfig": "arguments",
    "TrainingArguments": "arguments",
    "Seq2SeqTrainingArguments": "arguments",
    "UnslothTrainingArguments": "arguments",
    "SFTTrainer": "trainer",
    "UnslothTrainer": "trainer",
    "Trainer": "trainer",
    "DataCollatorForSeq2Seq": "collator",
    "DataCollatorForLanguageModeling": "collator",
    "DataCollatorWithPadding": "collator",
    "DataCollatorWithFlattening": "collator",
}
"""Calls, and under which name of a tree their arguments stand."""
UNSLOTH = ("FastLanguageModel", "FastModel", "FastVisionModel", "FastTextModel")
_LOADERS = (*UNSLOTH, "AutoModel")
_OF_A_MODEL = ("ForCausalLM", "ForConditionalGeneration", "ForImageTextToText", "ForVision2Seq")
"""Endings of classes that load a model to train: AutoModelForCausalLM, Qwen3VLForConditionalGeneration."""
PACKERS = ("pack", "group_texts")
"""What scripts call the function that fills rows, which `map` calls. Source: transformers, run_clm.py."""
LENGTHS = ("seq_len", "max_seq_len", "max_seq_length", "max_length", "cutoff_len")
"""What they call the length of the longest row."""
_CLASSIFIER = "ForSequenceClassification"


def loads(owner: str) -> bool:
    """Whether a class loads a model that is trained."""
    return owner in _LOADERS or owner.endswith((*_OF_A_MODEL, _CLASSIFIER))
