"""Micro-benchmarks on disk: by device and versions, of this schema and the one before, and with the records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.files.checked import file_text
from calibrate.attention_rates import AttentionSample
from calibrate.measurement import Comparison
from calibrate.rates import RATES_SCHEMA, Benchmarks, Sample
from calibrate.rates_store import FILE_SCHEMA, BadRates, rates_in, rates_path, store_rates, stored_rates
from calibrate.store import Store
from tests.calibrate.door import Door
from tests.calibrate.made_up import CPU, environment, record

SUM = Sample(op="sum", kernels=(("elementwise", "float32", 0, 2**25, (0, 0, 0)),), seconds=0.001)
PRODUCT = Sample(op="product", kernels=(("matmul", "float32", 2e9, 6e6, (1000, 1000, 1000)),), seconds=0.01)
RAN = AttentionSample(
    kernel="flash",
    masked=False,
    dtype="float32",
    size=(1, 2, 128, 64),
    forward_s=(1e-3, 2e-3, 1e-3),
    backward_s=(3e-3, 3e-3, 4e-3),
)
REFUSED = AttentionSample(kernel="cudnn", masked=True, dtype="float32", size=(1, 2, 128, 64), refused="not on a CPU")
FOUND = Benchmarks((SUM, PRODUCT), (RAN, REFUSED))


def few(count: int = 2) -> list[Comparison]:
    return [record(seq_len=64 + n) for n in range(count)]


def test_rates_are_kept_by_device_and_versions(tmp_path: Path) -> None:
    assert stored_rates(CPU, environment(), tmp_path) == Benchmarks()
    store_rates(CPU, environment(), FOUND, tmp_path)
    assert stored_rates(CPU, environment(), tmp_path) == FOUND
    assert stored_rates(CPU, environment().model_copy(update={"torch": "1"}), tmp_path) == Benchmarks()
    rates_path(CPU, tmp_path).write_text("{")
    with pytest.raises(BadRates, match="--again"):
        stored_rates(CPU, environment(), tmp_path)


def test_rates_of_the_schema_before_are_read(tmp_path: Path) -> None:
    store_rates(CPU, environment(), FOUND, tmp_path)
    rates = rates_in(CPU, environment().versions, tmp_path)
    assert rates is not None
    assert rates.schema_version == RATES_SCHEMA == 2
    old = rates.model_dump(mode="json", exclude={"attention"}) | {"schema_version": 1}
    rates_path(CPU, tmp_path).write_text(file_text(FILE_SCHEMA, old))
    assert stored_rates(CPU, environment(), tmp_path) == Benchmarks((SUM, PRODUCT), ())


def test_rates_travel_with_the_records(calibrate: Door, tmp_path: Path) -> None:
    """One's own rates are not replaced; a bad line and a newer one are refused by their number."""
    here, there, card = tmp_path / "here", tmp_path / "there", tmp_path / "card.jsonl"
    Store(here).append(*few())
    store_rates(CPU, environment(), FOUND, here / "devices")
    assert calibrate("export", card, "--out", here) == 0
    assert "2 records and the micro-benchmarks of cpu: Some CPU, 1 thread in" in calibrate.out
    assert calibrate("import", card, "--out", there) == 0
    assert "2 records and the micro-benchmarks of" in calibrate.out
    assert stored_rates(CPU, environment(), there / "devices") == FOUND
    store_rates(CPU, environment(), Benchmarks((SUM,)), there / "devices")
    assert calibrate("import", card, "--out", there) == 0
    assert "micro-benchmarks" not in calibrate.out
    assert stored_rates(CPU, environment(), there / "devices") == Benchmarks((SUM,))
    lines = card.read_text().splitlines()
    for change, words in (
        ({"samples": [7]}, "line 3: samples.0"),
        ({"attention": [{"kernel": "fast"}]}, "line 3: attention.0"),
        ({"schema_version": 3}, "line 3: the record has schema 3 but this program reads 2: update it"),
    ):
        card.write_text("\n".join([*lines[:2], json.dumps(json.loads(lines[2]) | change)]))
        assert calibrate("import", card, "--out", there) == 2
        assert words in calibrate.err
