from __future__ import annotations

import pytest

from advisor.errors import BadValue
from advisor.units import format_learning_rate, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        (" 90 sec ", 90.0),
        ("5min", 300.0),
        ("5 m", 300.0),
        ("1.5h", 5400.0),
        ("2H", 7200.0),
    ],
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_seconds("--budget", text, 1.0, 86_400.0) == seconds


@pytest.mark.parametrize("text", ["", "abc", "0", "0.5s", "-5min", "5 parsecs", "25h", "nan", "inf", "1e3", "5min 3s"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(BadValue, match=r"--budget is .* from 1 s to 24 h"):
        parse_seconds("--budget", text, 1.0, 86_400.0)


@pytest.mark.parametrize(("rate", "text"), [(2e-4, "2e-4"), (1.5e-5, "1.5e-5"), (0.01, "1e-2"), (1.0, "1e0")])
def test_learning_rates_as_configurations_have_them(rate: float, text: str) -> None:
    assert format_learning_rate(rate) == text
