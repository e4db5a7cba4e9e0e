"""Tables: aligned, never wider than they may be, and without a character less."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from advisor.render.grid import Table
from advisor.render.wrapping import cells_of

CELLS = st.text("ab 漢", max_size=30)


def grid(rows: list[list[str]], gap: int = 2, no_wrap: int | None = None) -> Table:
    table = Table(gap=gap)
    for index in range(len(rows[0])):
        table.add_column(f"c{index}", "right" if index == 1 else "left", no_wrap=index == no_wrap)
    for row in rows:
        table.add_row(*row)
    return table


def test_columns_are_aligned_and_titles_stand_at_the_bottom() -> None:
    table = Table(gap=1)
    table.add_column("name")
    table.add_column("two\nlines", "right")
    table.add_row("long name", "1")
    table.add_section()
    table.add_row("b", "22")
    header, body = table.lines(80)
    assert header == ["            two", "name      lines"]
    assert body == ["─" * 15, "long name     1", " " * 15, "b            22"]


def test_the_widest_column_gives_way_and_its_cells_wrap() -> None:
    table = grid([["a b", "1", "some words that are longer"]])
    assert table.lines(20) == (
        ["c0   c1  c2         "],
        ["─" * 20, "a b   1  some words ", "         that are   ", "         longer     "],
    )
    kept = grid([["some other words", "1", "some words that are longer"]], no_wrap=2).lines(40)[1]
    assert kept[1].endswith("some words that are longer")
    assert len(kept) == 4


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=4), st.integers(20, 60))
def test_a_table_fits_and_loses_nothing(rows: list[list[str]], width: int) -> None:
    header, body = grid(rows).lines(width)
    assert {cells_of(line) for line in (*header, *body)} == {cells_of(body[0])}
    assert cells_of(body[0]) <= width
    given = sorted("".join("".join(row) for row in rows).replace(" ", ""))
    assert sorted("".join(body[1:]).replace(" ", "")) == given
