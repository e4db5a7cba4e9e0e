"""The images of a question's rows, and what an answer says of them."""

from __future__ import annotations

from typing import Any

import pytest

from advisor import advise
from advisor.advice.pictures import images_of
from advisor.advice.sentence import verdict_line
from advisor.answer import Advice
from advisor.catalog import find_model
from advisor.errors import BadValue, InputError
from advisor.export.training_file import training_file
from advisor.knobs import read_question

QWEN = find_model("qwen2.5-vl-3b")


def ask(**knobs: Any) -> Advice:
    return advise("qwen2.5-vl-3b", "80GB", 3000, method="lora", **knobs)


def test_rows_hold_the_tokens_of_their_images() -> None:
    text, seen = ask(), ask(images=2, image_size="1024x1024")
    assert text.tower is not None
    assert seen.tower is not None
    assert (text.tower.image_tokens, seen.tower.image_tokens) == (0, 2 * 1369)
    assert seen.workload.seq_len == text.workload.seq_len + 2738
    assert seen.workload.mean_seq_len == text.workload.mean_seq_len + 2738
    assert text.tower.parameters == seen.tower.parameters == 668_684_288
    assert text.tower.weight_bytes == 2 * text.tower.parameters


def test_the_verdict_says_what_rows_are_and_what_the_tower_takes() -> None:
    assert "on rows of text: 1.25 GiB of weights are its idle vision tower" in verdict_line(ask())
    line = verdict_line(ask(images=1, image_size="640x480"))
    assert "with 1 image of 391 tokens a row: 1.25 GiB of weights are its vision tower" in line


def test_images_take_memory_and_time() -> None:
    fixed: dict[str, Any] = {"seq_len": 2048, "mean_seq_len": 2048, "micro_batch": 1, "gradient_checkpointing": True}
    text, seen = (ask(images=count, **fixed).candidate("lora") for count in (0, 1))
    assert seen.memory.needed_bytes.likely > text.memory.needed_bytes.likely
    assert seen.time is not None
    assert text.time is not None
    assert seen.time.total_s.likely > text.time.total_s.likely
    frozen = ask(images=1, train_tower=False, **fixed).candidate("lora")
    assert frozen.trainable_parameters < seen.trainable_parameters


def test_a_tower_whose_step_is_not_mirrored_never_fits() -> None:
    fixed: dict[str, Any] = {"method": "qlora", "attention": "eager", "images": 1}
    row = advise("qwen3-vl-4b", "80GB", 3000, **fixed).candidate("qlora")
    assert row.verdict == "tight"
    assert row.evidence.unknown == ("eager attention in a vision tower: counted as PyTorch's fused attention",)
    assert advise("gemma-4-31b", "80GB", 3000, method="qlora", images=1).candidate("qlora").verdict == "fits"


@pytest.mark.parametrize(
    "knobs",
    [
        {"attention": "eager"},
        {"kernels": "liger"},
        {"trainer": "llamafactory"},
        {"trainer": "unsloth"},
        {"trained_layers": 2},
    ],
)
def test_other_code_of_a_tower_is_not_known(knobs: dict[str, Any]) -> None:
    row = ask(images=1, **knobs).candidate("lora")
    assert any("tower" in text for text in row.evidence.unknown)
    assert row.verdict != "fits"


def test_a_trainer_that_shrinks_images_first() -> None:
    fields = images_of(read_question({"images": 1, "image_size": "1920x1080", "trainer": "llamafactory"}), QWEN, {})
    assert fields.fields["image_size"] == "1920x1080"
    limited = ask(images=1, image_size="1920x1080", trainer="llamafactory")
    assert (limited.workload.image_size, limited.workload.max_pixels) == ("1024x576", 0)
    assert limited.tower is not None
    assert limited.tower.image_tokens == 777
    assert not limited.candidate("lora").recipe.train_tower


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"images": 1, "packing": True}, "--packing is True, but must be off: TRL refuses to pack rows with images"),
        ({"images": 1, "padding": "none", "attention": "flash"}, "TRL refuses rows with images without padding"),
        ({"image_size": "10x10"}, "--image-size is set, but rows have no images; add --images N"),
        ({"max_pixels": 1000}, "--max-pixels is set, but rows have no images; add --images N"),
        (
            {"images": 1, "seq_len": 1369},
            "--seq-len is 1369, but must be more than 1,369, the tokens of a row's images",
        ),
        ({"images": 1, "mean_seq_len": 900}, "--mean-seq-len is 900, but must be more than 1,369"),
        ({"images": 1, "image_size": "10x2001"}, "must have sides within 200 to 1"),
        ({"images": 500}, "the tokens of a row's images"),
        ({"images": 1, "image_size": "big"}, "must be width x height in pixels, as 1024x768"),
    ],
)
def test_what_cannot_be(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ask(**knobs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_model_reads_no_images() -> None:
    with pytest.raises(BadValue, match=r"--images is 1, but must be 0: llama-3.1-8b reads text alone"):
        advise("llama-3.1-8b", "24GB", images=1)


def test_no_file_is_written_for_images() -> None:
    advice = ask(images=1)
    with pytest.raises(InputError, match="no file yet for rows with images"):
        training_file(advice, advice.candidate("lora"))
    script = training_file(ask(), ask().candidate("lora"), "python").text
    assert "AutoModelForCausalLM if options.smoke else AutoModelForImageTextToText" in script
