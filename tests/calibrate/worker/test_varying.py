from __future__ import annotations

import pytest

pytest.importorskip("torch")

from calibrate.batches import Drawn
from calibrate.worker.varying import drawn_inputs


def test_padding_is_masked_and_not_learned() -> None:
    inputs = drawn_inputs(Drawn((3, 5), 6), 100, "cpu")
    assert inputs["attention_mask"].sum(-1).tolist() == [3, 5]
    assert inputs["attention_mask"][0].tolist() == [1, 1, 1, 0, 0, 0]
    assert (inputs["labels"] == -100).tolist() == (inputs["attention_mask"] == 0).tolist()
    assert int(inputs["input_ids"].max()) < 100


def test_full_rows_have_no_mask() -> None:
    assert drawn_inputs(Drawn((4, 4), 4), 100, "cpu").keys() == {"input_ids", "labels"}
