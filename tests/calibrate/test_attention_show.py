"""Attention for people: estimate beside measured, sums in a terminal, every shape on a page."""

from __future__ import annotations

import io

import pytest

from advisor.catalog import find_gpus
from advisor.costs.device import profile_for
from calibrate.attention_rates import AttentionSample
from calibrate.attention_show import AttentionTable, attention_html, attention_table, print_attention
from calibrate.predict import Speed
from tests.calibrate.made_up import gpu
from tests.calibrate.made_up_attention import attention_samples

H200 = find_gpus("h200")[0]


@pytest.fixture(scope="module")
def table() -> AttentionTable:
    """Of a card whose kernels take 1.25 times the estimate."""
    samples = attention_samples(H200, profile_for(H200), lambda _: 1.25)
    return attention_table(samples, gpu(), Speed(H200, profile_for(H200), "default profile"))


def test_a_row_for_each_shape_and_sums_over_them(table: AttentionTable) -> None:
    assert len(table.rows) == 4 * 4 + 3 * 2 * 4 + 4 * 6 * 2 + 4 * 6 * 2  # flash, cudnn, efficient, math
    assert [row[:3] for row in table.sums][:3] == [
        ("flash", False, "bfloat16"),
        ("flash", False, "float16"),
        ("cudnn", False, "bfloat16"),
    ]
    for row in table.sums:
        ours = [one for one in table.rows if one[:3] == row[:3]]
        assert row.forward.measured_s == pytest.approx(sum(one.forward.measured_s for one in ours))
        for pair in (row.forward, row.backward):
            assert pair.estimate_s / pair.measured_s == pytest.approx(1 / 1.25, rel=0.05)


def test_a_terminal_shows_the_sums(table: AttentionTable) -> None:
    out = io.StringIO()
    print_attention(table, out)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("efficient ") for line in lines) == 6
    (flash,) = (line.split() for line in lines if line.startswith("flash ") and "bfloat16" in line)
    assert flash[:3] == ["flash", "no", "bfloat16"]
    assert flash[-1].startswith("-2") or flash[-1].startswith("-1")
    assert "- flash: 16 of 48 cases refused: not for this card or dtype" in lines


def test_a_page_shows_every_shape(table: AttentionTable) -> None:
    page = attention_html(table)
    assert page.count("<tr>") == 1 + len(table.rows)
    assert "<td>4x32x1024x64</td>" in page
    assert "<li>flash: 16 of 48 cases refused: not for this card or dtype</li>" in page


def test_a_time_of_the_host_is_none() -> None:
    waits = AttentionSample(
        kernel="flash",
        masked=False,
        dtype="float16",
        size=(1, 1, 128, 64),
        forward_s=(1e-5,),
        forward_host_s=1e-5,
        backward_s=(1e-3,),
    )
    (row,) = attention_table([waits], gpu(), Speed(H200, profile_for(H200), "")).rows
    assert row.cells[3:6] == ("-", "-", "-")
    assert row.cells[6] == "1.00 ms"


def test_what_a_refusal_says_is_escaped() -> None:
    bad = AttentionSample(kernel="cudnn", masked=True, dtype="float16", size=(1, 1, 8, 8), refused="<b>no</b>")
    page = attention_html(attention_table([bad], gpu(), Speed(H200, profile_for(H200), "")))
    assert "&lt;b&gt;no&lt;/b&gt;" in page
