"""One training step as the trainers themselves run it, on a tiny CPU model, every byte recorded.

transformers' Trainer and trl's SFTTrainer run `train()` for two optimizer steps with random weights; the tracker
watches the second one, from the moment the batch exists. So autocast, the loss, checkpointing, gradient clipping and
the casts of adapters are the trainer's own. They are compared with the formula for the same preset.

Real tensors only: the training loop reads values (the loss, the number of tokens), which fake tensors do not have.
TRL's loss works on tiles in Triton kernels, which need a GPU. Here those two kernels do nothing and its fp32 sums are
left out: cuBLAS and the kernels write into existing tensors. So the traced memory is that of CUDA, not the CPU's.

    python -m calibrate.worker.trainer_step --trainer trl --method all
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import click
import torch
from transformers import PrinterCallback, TrainerCallback

from advisor.catalog.config_json import model_from_config
from advisor.catalog.trainers import find_trainer
from advisor.costs.memory import predict_step_memory
from advisor.errors import AdvisorError, BadValue
from advisor.optimizers import optimizer_row
from advisor.recipes import build_recipe
from advisor.specs import Method, Recipe
from advisor.terms import TermName
from calibrate.options import methods_of, recipe_options
from calibrate.timeline import STATIC
from calibrate.worker.build import build_model
from calibrate.worker.dryrun import add_static, short_name
from calibrate.worker.patches import quiet, silent_tiles
from calibrate.worker.quantized import quantize
from calibrate.worker.tracker import AllocationTracker

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
}
BATCH, SEQ_LEN = 4, 128
TRACED = ("transformers", "trl")
STATIC_TERMS = {category: term for category, term in STATIC.items() if term is not TermName.BATCH}
STEPS = 2


class Terms(NamedTuple):
    """Bytes of one step, every storage rounded up to 512: static terms, and the most bytes alive in each phase."""

    static: dict[TermName, int]
    phase_peaks: dict[str, int]
    after_forward: int
    trained_dtypes: frozenset[tuple[str, str]]
    """(lora_A, lora_B, magnitude or parameter; dtype) of the trained tensors."""

    @property
    def peak(self) -> int:
        """Most bytes alive at any moment."""
        return max(self.phase_peaks.values())


def preset_recipe(trainer: str, method: Method, knobs: Mapping[str, Any] | None = None) -> Recipe:
    """What `trainer` sets for `method`, overridden by `knobs`. Raises UnknownName."""
    return build_recipe(method, knobs or {}, find_trainer(trainer).values(method), {"micro_batch": BATCH, "rank": 8})


def predicted_step(recipe: Recipe, config: Mapping[str, Any] = CONFIG, seq_len: int = SEQ_LEN) -> Terms:
    """The same terms from the formula, with the CPU's kernels."""
    m = model_from_config(config, "tiny", "tiny")
    step = predict_step_memory(m, recipe, recipe.micro_batch, seq_len, "cpu")
    blocks = dict(step.static_blocks)
    states = blocks.get(TermName.OPTIMIZER_STATES, 0) + blocks.pop(TermName.STEP_COUNTERS, 0)
    blocks[TermName.OPTIMIZER_STATES] = states
    adapters = {("lora_A", recipe.adapter_dtype), ("lora_B", recipe.adapter_dtype)}
    adapters |= {("magnitude", recipe.magnitude_dtype)} if recipe.is_dora else set()
    return Terms(
        {term: blocks.get(term, 0) for term in STATIC_TERMS.values()},
        dict(step.phase_peaks),
        step.after_forward_bytes,
        frozenset(adapters if recipe.has_adapters else {("parameter", recipe.base_dtype)}),
    )


def traced_step(trainer: str, recipe: Recipe, config: Mapping[str, Any] = CONFIG, seq_len: int = SEQ_LEN) -> Terms:
    """Train for two steps with the trainer's own loop and return what the second one held.

    Raises BadValue for a trainer whose step cannot be run here, and for a loss that it does not have.
    """
    if trainer not in TRACED:
        raise BadValue("--trainer", trainer, f"must be {' or '.join(TRACED)}, whose steps can be run here")
    loss = {"transformers": "full", "trl": "chunked"}[trainer]
    if recipe.loss != loss:
        raise BadValue("--loss", recipe.loss, f"must be {loss} for {trainer}")
    with quiet(), tempfile.TemporaryDirectory() as folder, silent_tiles(trainer == "trl"):
        torch.manual_seed(0)
        make = _plain_trainer if trainer == "transformers" else _sft_trainer
        it = make(config, recipe, seq_len, folder)
        it.remove_callback(PrinterCallback)
        watch = _Watch(it)
        it.add_callback(watch)
        it.train()
    return watch.terms()


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Puts a tracker around the last optimizer step."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.tracker: AllocationTracker | None = None
        self.dtypes: frozenset[tuple[str, str]] = frozenset()
        backward = trainer.accelerator.backward

        def marked(*args: Any, **kwargs: Any) -> None:
            if self.tracker is not None:
                self.tracker.mark("backward")
            backward(*args, **kwargs)

        step = trainer.training_step

        def watched(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if trainer.state.global_step == STEPS - 1:
                self.begin(inputs)
            return step(model, inputs, *args, **kwargs)

        trainer.accelerator.backward = marked
        trainer.training_step = watched

    def begin(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Count what is alive before the forward pass, and start watching."""
        model = self.trainer.model
        self.tracker = AllocationTracker({id(m): short_name(name) for name, m in model.named_modules()})
        add_static(self.tracker, model, self.trainer.optimizer, inputs)
        trained = ((name, p.dtype) for name, p in model.named_parameters() if p.requires_grad)
        self.dtypes = frozenset((_kind(name), str(dtype).removeprefix("torch.")) for name, dtype in trained)
        self.tracker.__enter__()
        self.tracker.mark("forward")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The gradients are complete."""
        if self.tracker is not None:
            self.tracker.mark("optimizer")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop watching after the optimizer."""
        if self.tracker is not None:
            self.tracker.__exit__(None, None, None)

    def terms(self) -> Terms:
        """What was seen."""
        assert self.tracker is not None, "the trainer made fewer steps than requested"
        timeline = self.tracker.timeline
        static, phases = timeline.static_bytes(), {p.phase: p for p in timeline.phase_peaks()}
        return Terms(
            {term: static[category] for category, term in STATIC_TERMS.items()},
            {name: phase.peak_bytes for name, phase in phases.items()},
            phases["backward"].begin_bytes,
            self.dtypes,
        )


def _kind(name: str) -> str:
    return next((k for k in ("lora_A", "lora_B") if k in name), "magnitude" if "magnitude" in name else "parameter")


def _base_model(config: Mapping[str, Any], recipe: Recipe) -> Any:
    """The model as loaded: quantized if the recipe says so, without adapters."""
    plain = Recipe(
        method="full", base_dtype=recipe.base_dtype, attention=recipe.attention, gradient_checkpointing=False
    )
    model = build_model(config, plain, fake=False)
    if recipe.is_quantized:
        quantize(model, recipe, fake=False)
    return model


def _lora(recipe: Recipe) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_dora=recipe.is_dora,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _arguments(recipe: Recipe, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": STEPS,
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "optim": optimizer_row(recipe.optimizer).transformers_name,
        "gradient_checkpointing_kwargs": {"use_reentrant": recipe.reentrant} if recipe.gradient_checkpointing else None,
        "bf16": recipe.autocast,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "no",
    }


def _rows(config: Mapping[str, Any], recipe: Recipe, seq_len: int) -> list[dict[str, list[int]]]:
    tokens = torch.randint(3, config["vocab_size"], (STEPS * recipe.micro_batch, seq_len)).tolist()
    return [{"input_ids": row, "attention_mask": [1] * seq_len, "labels": row} for row in tokens]


def _plain_trainer(config: Mapping[str, Any], recipe: Recipe, seq_len: int, folder: str) -> Any:
    from transformers import default_data_collator

    return transformers_trainer(config, recipe, folder, _rows(config, recipe, seq_len), default_data_collator)


def transformers_trainer(
    config: Mapping[str, Any], recipe: Recipe, folder: str, rows: list[Any], collator: Any, **arguments: Any
) -> Any:
    """What the script of `advise` builds, with other `arguments` for TrainingArguments where they are given."""
    from peft import get_peft_model, prepare_model_for_kbit_training
    from transformers import Trainer, TrainingArguments

    model = _base_model(config, recipe)
    if recipe.is_quantized and recipe.kbit_upcast:
        model = prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=recipe.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": recipe.reentrant},
        )
    if recipe.has_adapters:
        model = get_peft_model(model, _lora(recipe))
        if recipe.adapter_dtype != "float32":
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.to(getattr(torch, recipe.adapter_dtype))
    return Trainer(
        model=model,
        args=TrainingArguments(**_arguments(recipe, folder) | arguments),
        data_collator=collator,
        train_dataset=rows,
    )


def _sft_trainer(config: Mapping[str, Any], recipe: Recipe, seq_len: int, folder: str) -> Any:
    """What `trl sft` builds, with tokens in place of texts."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    options = {"max_length": seq_len, "dataset_kwargs": {"skip_prepare_dataset": True}}
    return SFTTrainer(
        model=_base_model(config, recipe),
        args=SFTConfig(**_arguments(recipe, folder), **options),
        train_dataset=Dataset.from_list(_rows(config, recipe, seq_len)),
        processing_class=tokenizer(),
        peft_config=_lora(recipe) if recipe.has_adapters else None,
    )


def tokenizer() -> Any:
    """A tokenizer that knows only the special tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _print(trainer: str, recipe: Recipe, traced: Terms, predicted: Terms) -> None:
    error = predicted.peak / traced.peak - 1
    static = [name for name in STATIC_TERMS.values() if traced.static[name] != predicted.static[name]]
    click.echo(
        f"{trainer:12} {recipe.method:5} base {recipe.base_dtype:8} peak {traced.peak:>12,} traced "
        f"{predicted.peak:>12,} predicted {error:+.3%}; after forward "
        f"{predicted.after_forward / traced.after_forward - 1:+.3%}; static terms "
        f"{'equal' if not static else 'differ: ' + ', '.join(static)}; dtypes "
        f"{'equal' if traced.trained_dtypes == predicted.trained_dtypes else 'differ'}"
    )


@click.command()
@click.option("--trainer", default="transformers", show_default=True, help="transformers or trl")
@click.option("--method", default="all", show_default=True, help="methods with commas, or all")
@recipe_options
def main(trainer: str, method: str, **knobs: Any) -> None:
    """Run the trainer's own step on a tiny model and compare it with the formula."""
    torch.set_num_threads(1)
    fixed = {name: value for name, value in knobs.items() if value is not None and name != "seq_len"}
    try:
        for one in methods_of(method):
            recipe = preset_recipe(trainer, one, fixed)
            _print(trainer, recipe, traced_step(trainer, recipe), predicted_step(recipe))
    except AdvisorError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
