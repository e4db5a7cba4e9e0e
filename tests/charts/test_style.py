"""Colors that can be told apart and read, on a light and on a dark page; rules that stay within a picture."""

from __future__ import annotations

import itertools
import re

import pytest

from advisor.charts.parts import GROUPS
from advisor.charts.style import INK, METHOD_COLORS, PAGE, PARTS, RULE, STYLE, Shades
from advisor.specs import METHODS

SIDES = ("light", "dark")


def luminance(color: str) -> float:
    """Of '#rrggbb', by WCAG 2.2's definition."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_wcag_s() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("side", SIDES)
def test_letters_can_be_read(side: str) -> None:
    assert contrast(getattr(INK, side), getattr(PAGE, side)) >= 4.5


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", [*PARTS, *METHOD_COLORS, "rule"])
def test_shapes_stand_out_from_the_page(name: str, side: str) -> None:
    color: Shades = {**PARTS, **METHOD_COLORS, "rule": RULE}[name]
    assert contrast(getattr(color, side), getattr(PAGE, side)) >= 3


@pytest.mark.parametrize("side", SIDES)
def test_parts_stand_out_from_their_neighbors(side: str) -> None:
    pairs = list(itertools.pairwise(PARTS))
    assert len(pairs) == 7
    for one, other in pairs:
        assert contrast(getattr(PARTS[one], side), getattr(PARTS[other], side)) >= 3, (one, other)


def test_every_group_and_method_has_a_color() -> None:
    assert list(PARTS) == list(GROUPS)
    assert set(METHOD_COLORS) == set(METHODS)


def rules(style: str) -> list[str]:
    """The selectors of a style sheet, those inside of @media among them."""
    bare = re.sub(r"@media[^{]*\{", "", style)
    return [one.strip() for one in re.findall(r"([^{}]+)\{", bare) if one.strip()]


def test_no_rule_reaches_beyond_a_picture_or_an_answer() -> None:
    found = rules(STYLE)
    assert len(found) > 40
    for selector in found:
        whole = selector.replace(":is(.advisor-chart,.advisor-answer)", ".advisor-answer")
        for one in re.split(r",(?![^(]*\))", whole):
            assert re.match(r"\s*\.advisor-(chart|answer)\b", one), selector


def test_a_leaking_rule_is_noticed() -> None:
    assert "table" in rules(STYLE + "table{color:red}")


def test_every_property_is_defined_and_named_for_this_program() -> None:
    used, defined = set(re.findall(r"var\((--[\w-]+)\)", STYLE)), set(re.findall(r"(--[\w-]+):", STYLE))
    assert used <= defined
    assert all(name.startswith("--advisor-") for name in defined)
