"""What the Python scripts have in common: their options, checks of the tokenizer, and arguments of the Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.export.accelerate import is_started
from advisor.export.launch import by_accelerate, by_torchrun
from advisor.export.run import Run, quoted, quoted_list
from advisor.parameters.layer_inputs import left_whole
from advisor.parameters.modules import head_linear
from advisor.parameters.rotations import BLOCK
from advisor.specs import ModelSpec, Recipe

NAME = "train.py"
EOS_CHECK = """\
if tokenizer.eos_token is None:
    raise SystemExit("the tokenizer has no EOS token: set one, or the model does not learn to stop")"""


def joined(*parts: str) -> str:
    """The text of a script, of sections with an empty line between them."""
    return "\n\n".join(part for part in parts if part.strip()) + "\n"


def start_command(run: Run) -> str:
    """What starts the script, on one card or on all."""
    if is_started(run):
        return by_accelerate(run, NAME)
    return f"python {NAME}" if run.gpus == 1 else by_torchrun(run, NAME)


def options(run: Run, smoke: str) -> str:
    """The section that reads the command line; `smoke` is what --smoke runs, in words."""
    return f'''parser = argparse.ArgumentParser()
parser.add_argument("--data", default={quoted(run.data.path)}, help="rows to train on")
evaluation = parser.add_mutually_exclusive_group()
evaluation.add_argument("--eval-file", help="rows to evaluate on after each epoch, in the same form")
evaluation.add_argument("--eval-fraction", type=float, help="evaluate on this part of the rows, such as 0.05")
parser.add_argument("--output-dir", help="default: out, or out-smoke")
parser.add_argument("--resume", action="store_true", help="go on from the last complete checkpoint")
parser.add_argument("--smoke", action="store_true", help="{smoke}")
options = parser.parse_args()
if options.eval_fraction is not None and not 0 < options.eval_fraction < 1:
    parser.error("--eval-fraction must be between 0 and 1")
output_dir = options.output_dir or ("out-smoke" if options.smoke else "out")'''


def bitsandbytes(m: ModelSpec, recipe: Recipe, storage: str = "") -> list[str]:
    """The class that says how bitsandbytes quantizes a base, and lines with its arguments; `storage`: a dtype."""
    names = left_whole(m)
    skipped = [f"    llm_int8_skip_modules={quoted_list([head_linear(m).name, *names])},"] if names else []
    if recipe.quant == "int8":
        return ["BitsAndBytesConfig", "    load_in_8bit=True,", *skipped]
    return [
        "BitsAndBytesConfig",
        "    load_in_4bit=True,",
        f'    bnb_4bit_quant_type="{recipe.quant}",',
        f"    bnb_4bit_use_double_quant={recipe.double_quant},",
        f"    bnb_4bit_compute_dtype=torch.{recipe.base_dtype},",
        *([f"    bnb_4bit_quant_storage=torch.{storage},  # or nothing of it is spread"] if storage else []),
        *skipped,
    ]


def lora(run: Run, trainer: str, others: Mapping[str, tuple[str, Any]]) -> list[str]:
    """The keyword lines of adapters, as peft's LoraConfig names them; `others`: variants that need none of its.

    Raises BadValue for a variant of LoRA that is neither.
    """
    recipe = run.recipe
    started = {name: ("init_lora_weights", name) for name in ("pissa", "olora")}
    variant = run.variant_keys(trainer, {"rslora": ("use_rslora", True), **started, **others})
    return [
        f"    r={recipe.rank},",
        f"    lora_alpha={recipe.alpha!r},",
        f"    lora_dropout={recipe.dropout!r},",
        f"    target_modules={_targets(run)},",
        *(["    use_dora=True,"] if recipe.is_dora else []),
        *(f"    {key}={quoted(value) if isinstance(value, str) else value}," for key, value in variant.items() if key),
        *_where(run),
    ]


def in_place_of_lora(run: Run) -> list[str]:
    """The class of peft's config for adapters in LoRA's place, and its keyword lines."""
    recipe = run.recipe
    own = {
        "oft": ["OFTConfig", f"    oft_block_size={BLOCK},"],
        "ia3": ["IA3Config"],
        "vera": ["VeraConfig", f"    r={recipe.rank},", f"    vera_dropout={recipe.dropout!r},"],
    }[recipe.variant]
    return [*own, f"    target_modules={_targets(run)},", *_where(run)]


def _targets(run: Run) -> str:
    return '"all-linear"' if run.adapts_all_linear else quoted_list(run.target_modules)


def _where(run: Run) -> list[str]:
    """The keyword lines of modules that are left out or trained whole, and of the layers that are adapted."""
    recipe, vision = run.recipe, run.model.vision
    wrapped = vision is not None and vision.code.wraps_linears and not run.adapts_all_linear
    return [
        *(['    exclude_modules=r".*vision_tower.*",'] if wrapped else []),
        *([f"    modules_to_save={quoted_list(recipe.modules_to_save)},"] if recipe.modules_to_save else []),
        *([f"    layers_to_transform=list({last_layers(recipe)}),"] if recipe.trained_layers else []),
    ]


def last_layers(recipe: Recipe) -> str:
    """An expression for the numbers of the last layers."""
    return f"range(model.config.num_hidden_layers)[-{recipe.trained_layers}:]"


def optimization(run: Run, trainer: str) -> list[str]:
    """The keyword lines of learning rate, optimizer, noise and sampling. Raises BadValue for another optimizer."""
    values = run.optimizer_arguments(trainer)
    spelled = {name: quoted_list(one) if isinstance(one, list) else quoted(one) for name, one in values.items()}
    return [
        f"    learning_rate={run.learning_rate!r},",
        *(f"    {name}={value}," for name, value in spelled.items()),
        *([f"    neftune_noise_alpha={run.recipe.neftune!r},"] if run.recipe.neftune else []),
        *(['    train_sampling_strategy="group_by_length",'] if run.workload.group_by_length else []),
    ]


def evaluation(run: Run) -> list[str]:
    """The keyword lines of when to evaluate, if there are rows for it."""
    steps = run.workload.eval_steps
    return [
        f'    eval_strategy="no" if eval_rows is None else {quoted("steps" if steps else "epoch")},',
        *([f"    eval_steps={steps},"] if steps else []),
        "    prediction_loss_only=True,",
    ]


def saving(recipe: Recipe) -> list[str]:
    """The lines that train, save, and say where: files appear in the folder whole, whenever the run is stopped."""
    return [
        'states = glob.glob(os.path.join(output_dir, "checkpoint-*", "trainer_state.json"))  # written last',
        "last = os.path.dirname(max(states, key=os.path.getmtime)) if options.resume and states else None",
        "if options.resume:",
        "    print(f\"going on from {last or 'the beginning: there is no complete checkpoint'}\")",
        "trainer.train(resume_from_checkpoint=last)",
        'unfinished = os.path.join(output_dir, "unfinished")',
        f"trainer.save_model(unfinished)  # {'the adapter' if recipe.has_adapters else 'the model'} and the tokenizer",
        "if trainer.is_world_process_zero():",
        "    for name in os.listdir(unfinished):  # only now: a run that is stopped leaves nothing that looks complete",
        "        os.replace(os.path.join(unfinished, name), os.path.join(output_dir, name))",
        "    os.rmdir(unfinished)",
        'print(f"saved to {output_dir}")',
    ]
