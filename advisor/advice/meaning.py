"""What a question means: the model, the cards, the data file and the trainer that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from advisor.answer import Reason, TrainerChoice
from advisor.catalog.gpus import several
from advisor.catalog.trainers import Preset
from advisor.costs.device import DeviceProfile
from advisor.errors import BadValue, UnsupportedArchitecture, expect
from advisor.knobs import Question, read_value
from advisor.rules.wording import FORMULA
from advisor.specs import METHODS, GpuSpec, Method, Model, ModelSpec, TracedModel

if TYPE_CHECKING:
    from advisor.advice.catalogs import Catalog
    from advisor.dataset.rows import Progress
    from advisor.dataset.summary import Measured

MEASURED = "measured"


class Taken(NamedTuple):
    """A question as the model's checkpoint lets it be."""

    question: Question
    model: Model
    methods: tuple[Method, ...] = METHODS
    """Those that can be run on it."""
    notes: tuple[Reason, ...] = ()


def model_of(model: object, catalog: Catalog) -> Model:
    """The model as the formula knows it or, failing that, from the profile of an earlier trace."""
    if isinstance(model, ModelSpec | TracedModel):
        return model
    expect("model", model, str, ModelSpec)
    text = str(read_value("model", model))
    try:
        return catalog.find_model(text)
    except UnsupportedArchitecture as error:
        from advisor.catalog.traced_models import find_traced

        return find_traced(text, error)


def cards_of(gpu: object, catalog: Catalog, question: Question) -> tuple[str, tuple[GpuSpec, ...], Question]:
    """What was asked for, the cards that it means, and the question with their number if `gpu` says it ("2x3090")."""
    if isinstance(gpu, GpuSpec):
        return gpu.name, (gpu,), question
    if isinstance(gpu, int | float) and not isinstance(gpu, bool) and 0 < gpu <= 10_000:
        raise BadValue("gpu", gpu, f'for a card of that size give "{gpu:g}GB"')
    expect("gpu", gpu, str, GpuSpec)
    number, asked = several(str(read_value("gpu", gpu)))
    if number is not None:
        gpus = read_value("gpus", number)
        if question.gpus not in (None, gpus):
            raise BadValue("--gpus", question.gpus, f"--gpu {gpu} already says {number}; leave one out")
        question = question.fixing({"gpus": gpus})
    return asked, catalog.find_gpus(asked), question


def data_of(question: Question, spec: Model, model: str, model_id: str, progress: Progress | None) -> Measured | None:
    """What the data file says, if there is one; only then is its reader loaded."""
    if question.data is None:
        return None
    from advisor.advice.data import measured

    return measured(question, question.data, spec, model, model_id, progress)


def measured_card(card: GpuSpec) -> tuple[tuple[GpuSpec, ...], DeviceProfile | None, list[Reason]]:
    """The card, the profile that `calibrate` measured on it (if any), and the answer's note about that profile.

    The reader of such profiles is loaded only for a question about one card.
    """
    from advisor.costs.measured import evidence_of, measured_device

    device, remark = measured_device(card)
    if device is None:
        return (card,), None, [Reason(code=MEASURED, text=f"{remark}.", source=FORMULA)] if remark else []
    known = card if card.speed_known else device.card.model_copy(update={"memory_bytes": card.memory_bytes})
    text = f"Times are based on the {evidence_of(device)}."
    return (known,), device.profile, [Reason(code=MEASURED, text=text, source=FORMULA)]


def trainer_of(preset: Preset, question: Question) -> TrainerChoice:
    """The preset with the knobs that it sets for any method in question and that the question left open."""
    open_knobs = (k for k in preset.knobs if k.name not in question.fixed)
    names = dict.fromkeys(k.name for k in open_knobs if set(k.methods) & set(question.methods))
    return TrainerChoice(name=preset.name, version=preset.version, traced=preset.traced, knobs=tuple(names))
