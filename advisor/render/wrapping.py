"""Texts in the cells of a terminal: how wide they are, and lines of at most so many cells."""

from __future__ import annotations

CONTROLS = dict.fromkeys((7, 8, 11, 12, 13))
"""Bell, backspace, vertical tab, form feed and carriage return: they would move what is printed around them."""
TAB = 8


def cells_of(text: str) -> int:
    """The cells that a terminal draws `text` in: none for a combining mark, two for a wide character (Chinese).

    Ignores: sequences that a terminal may draw as one character.
    """
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in ("W", "F") else 1 for c in text)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, without spaces at their ends; a line break begins a new one, words stay whole.

    A word that is too long for a line begins on a line of its own and is cut.
    """
    found: list[str] = []
    for line in text.translate(CONTROLS).expandtabs(TAB).split("\n"):
        found += [line.rstrip(" ")] if cells_of(line) <= width else _wrapped(line, width)
    return found


def _wrapped(line: str, width: int) -> list[str]:
    found: list[str] = []
    held = ""
    for word in _words(line):
        if cells_of(held) + cells_of(word.rstrip(" ")) <= width:
            held += word
            continue
        if held:
            found.append(held.rstrip(" "))
        *cut, held = _cut(word, width)
        found += cut
    return [*found, held.rstrip(" ")]


def _words(line: str) -> list[str]:
    """The words of a line with the spaces behind them; the first one also has those before it."""
    body = line.lstrip(" ")
    words: list[str] = []
    for part in body.split(" "):
        if part or not words:
            words.append(part + " ")
        else:
            words[-1] += " "
    words[0] = line[: len(line) - len(body)] + words[0]
    return words


def _cut(word: str, width: int) -> list[str]:
    """The pieces of a word, each of at most `width` cells; a word that fits is one piece with its spaces."""
    if cells_of(word.rstrip(" ")) <= width:
        return [word]
    pieces, start, used = [], 0, 0
    for index, character in enumerate(word):
        cells = cells_of(character)
        if used + cells > width and index > start:
            pieces.append(word[start:index])
            start, used = index, 0
        used += cells
    return [*pieces, word[start:]]
