"""Records as nobody should write them: refused on import in one line, passed over in a store, never a traceback."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

from advisor.errors import AdvisorError
from calibrate.attention_rates import AttentionSample, attention_times
from calibrate.measurement import Comparison
from calibrate.rates import Rates, Sample
from calibrate.rates_store import keep_rates, rates_in
from calibrate.records_show import print_records
from calibrate.report import report_html
from calibrate.residuals import latest
from calibrate.store import Store, parse_file
from calibrate.tuning import card_of, observed, suitable
from tests.calibrate import made_up
from tests.calibrate.made_up import CPU, gpu, record
from tests.hostile import check_line, damaged, mutated

BUSY = made_up.run(clocks_hz=(1e9,) * 9, throttled=("power limit",), device_step_s=(0.1,) * 9)
GOOD = (
    record("lora", id="1"),
    record("qdora", id="2", device=gpu()),
    record("full", id="3", outcome="crashed"),
    record("lora", id="4", device=gpu(), run=BUSY),
)
RATES = Rates(
    device=CPU,
    versions=made_up.environment().versions,
    measured_at="2026-01-02",
    samples=(
        Sample(op="product", kernels=(("matmul", "float32", 2e9, 6e6, (1000, 1000, 1000)),), seconds=0.01),
        Sample(op="sum", kernels=(("elementwise", "float32", 0, 2**25, (0, 0, 0)),), seconds=0.001),
    ),
    attention=(
        AttentionSample(
            kernel="math", masked=True, dtype="float16", size=(1, 2, 64, 32), forward_s=(1e-3,), backward_s=(2e-3,)
        ),
        AttentionSample(kernel="flash", masked=True, dtype="float16", size=(1, 2, 64, 32), refused="takes no mask"),
    ),
)


def test_a_hundred_record_files(tmp_path: Path) -> None:
    lines = [json.loads(one.model_dump_json()) for one in (*GOOD, RATES)]
    imported = 0
    for seed in range(100):
        draw = random.Random(seed)
        text = json.dumps(mutated(lines[seed % 5], draw, ("schema_version", "samples")))
        data = damaged(text, draw) if seed % 3 == 0 else text.encode()
        path = tmp_path / f"{seed}.jsonl"
        path.write_bytes(GOOD[0].model_dump_json().encode() + b"\n" + data)
        try:
            shared = parse_file(path)
        except AdvisorError as error:
            check_line(error, f"{path}, line ")
        else:
            imported += 1
            check_rates(tmp_path / "devices", shared.rates)
        check_store(tmp_path / str(seed), data)
    assert 3 < imported < 60


def check_rates(folder: Path, found: tuple[Rates, ...]) -> None:
    for one in found:
        keep_rates(one, folder)
        assert rates_in(one.device, one.versions, folder) == one
        assert all(time.seconds > 0 for time in attention_times(one.attention, one.device))


def check_store(folder: Path, data: bytes) -> None:
    """Between two good lines, a bad one harms nothing that reads the store."""
    store = Store(folder)
    store.append(GOOD[0])
    with store.path.open("ab") as file:
        file.write(data.replace(b"\n", b" ") + b"\n")
    store.append(GOOD[1])
    contents = store.read()
    assert {"1", "2"} <= {one.burst.id for one in contents.records if one.burst is not None}
    records = latest(contents.results)
    out = io.StringIO()
    print_records(records, out)
    assert "\x1b]" not in out.getvalue()
    assert "nan" not in report_html(records)
    for one in records:
        assert Comparison.model_validate_json(one.model_dump_json()) == one
        if one.environment.device is not None:
            card_of(one.environment.device, ())
            observed(suitable(records, one.environment.device, one.environment))
