"""Tokens estimated from the characters of a text, by script: for when no tokenizer is at hand.

Evidence: UDHR (the Universal Declaration of Human Rights) in 38 languages, and Python, JavaScript, JSON and LaTeX
source, through the vocabularies of Mistral 7B (32k) and GPT-2 (50k) as small ones, and of Llama 3 (128k), Mistral Nemo
(131k), Qwen (152k), Llama 4 and o200k (200k) as large ones. A rate's ends are about the lowest and the highest of
these, its middle leans to what is common. Public figures on FLORES-200 (English 4.6, Hindi 1.9, Thai 2.1 characters a
token with Llama 3) agree.
Ignores: long runs of one letter or digit, encoded data such as base64, and vocabularies made for one language.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.interval import Interval

LARGE_VOCABULARY = 100_000


class Rate(NamedTuple):
    """Tokens per character of one kind, in vocabularies from 100,000 tokens on and in smaller ones."""

    large: Interval
    small: Interval


def _rate(large: tuple[float, float, float], small: tuple[float, float, float]) -> Rate:
    return Rate(Interval(*large), Interval(*small))


LETTER = _rate((0.18, 0.22, 0.28), (0.19, 0.23, 0.32))  # of English, code and the like; the space before it included
FOREIGN = _rate((0.20, 0.28, 0.38), (0.26, 0.34, 0.46))  # of other languages in Latin script
DIGIT = _rate((0.4, 0.9, 1.2), (0.4, 1.0, 1.25))  # one each or in groups of three
SPACE = _rate((0.0, 0.02, 0.1), (0.0, 0.06, 0.25))
SIGN = _rate((0.6, 0.87, 1.0), (0.7, 1.0, 1.1))  # punctuation and symbols of ASCII
RUN = _rate((0.1, 0.35, 1.0), (0.2, 0.6, 2.0))  # four equal signs in a row, as in the borders of tables
ACCENTED = _rate((0.4, 0.8, 1.1), (0.8, 1.2, 2.0))
VIETNAMESE = _rate((0.3, 0.6, 1.2), (1.0, 1.5, 2.6))
GREEK = _rate((0.4, 0.5, 1.0), (1.0, 1.2, 1.4))
CYRILLIC = _rate((0.23, 0.36, 0.58), (0.41, 0.55, 1.35))
HEBREW = _rate((0.45, 0.6, 1.2), (1.15, 1.25, 1.5))
ARABIC = _rate((0.35, 0.47, 0.8), (1.05, 1.2, 1.6))
DEVANAGARI = _rate((0.35, 0.65, 1.1), (1.2, 1.35, 1.9))
THAI = _rate((0.33, 0.5, 0.7), (0.95, 1.2, 2.0))
OTHER = _rate((0.35, 1.3, 2.8), (1.1, 1.8, 3.2))  # the other scripts of South Asia, Georgian, Khmer, Ethiopic ...
SYMBOL = _rate((0.5, 0.9, 2.0), (0.7, 1.5, 3.0))  # typographic quotes, dashes, arrows, box drawing
KANA = _rate((0.5, 0.72, 0.9), (1.0, 1.15, 1.7))  # and the punctuation of Chinese and Japanese
HAN = _rate((0.55, 0.78, 1.0), (0.95, 1.2, 2.2))
HANGUL = _rate((0.6, 0.74, 0.85), (1.2, 1.4, 2.8))
RARE = _rate((1.0, 2.0, 4.0), (1.5, 3.0, 4.0))  # emoji and everything else beyond U+FFFF

# In UTF-8 the first byte of a character names a block of scripts: what follows is `bytes.translate`, not a loop.
_BY_FIRST_BYTE: tuple[tuple[range, Rate], ...] = (
    (range(0xC2, 0xCE), ACCENTED),
    (range(0xCE, 0xD0), GREEK),
    (range(0xD0, 0xD4), CYRILLIC),
    (range(0xD4, 0xD6), OTHER),  # Armenian
    (range(0xD6, 0xD8), HEBREW),
    (range(0xD8, 0xDC), ARABIC),
    (range(0xDC, 0xE0), OTHER),
    (range(0xE0, 0xE2), OTHER),
    (range(0xE2, 0xE3), SYMBOL),
    (range(0xE3, 0xE4), KANA),
    (range(0xE4, 0xEA), HAN),
    (range(0xEA, 0xEE), HANGUL),
    (range(0xEE, 0xF0), SYMBOL),
    (range(0xF0, 0xF5), RARE),
)
_BY_TWO_BYTES: tuple[tuple[bytes, Rate], ...] = (
    (b"\xe0\xa4", DEVANAGARI),
    (b"\xe0\xa5", DEVANAGARI),
    (b"\xe0\xb8", THAI),
    (b"\xe0\xb9", THAI),
    (b"\xe1\xba", VIETNAMESE),
    (b"\xe1\xbb", VIETNAMESE),
)
"""Scripts of their own among those that share the first bytes E0 and E1."""

_LETTERS, _DIGITS, _SPACES, _SIGNS, _REST, _FIRST = b"a", b"0", b" ", b".", b"-", ord("A")
_RUNS = (b"----", b"====", b"****", b"####", b"____", b"....")
RUNS_FROM = 8
"""One sign in so many letters: the text may hold runs of signs."""
FOREIGN_FROM = 200
"""One accented letter in so many of ASCII: the text is taken for another language than English."""


def _kinds() -> bytes:
    """The table for `bytes.translate`: the kind of the character that each byte begins."""
    table = bytearray(_REST * 256)
    for byte in range(128):
        character = chr(byte)
        kind = _LETTERS if character.isalpha() else _DIGITS if character.isdigit() else _SIGNS
        table[byte] = (_SPACES if character.isspace() else kind)[0]
    for place, (first_bytes, _) in enumerate(_BY_FIRST_BYTE):
        for byte in first_bytes:
            table[byte] = _FIRST + place
    return bytes(table)


_KINDS = _kinds()


class CharacterRates:
    """Estimates a text's tokens for a vocabulary of `vocabulary_size` tokens."""

    def __init__(self, vocabulary_size: int) -> None:
        def chosen(rate: Rate) -> Interval:
            return rate.large if vocabulary_size >= LARGE_VOCABULARY else rate.small

        self._ascii = [chosen(rate) for rate in (LETTER, DIGIT, SPACE, SIGN, RUN)]
        self._foreign = chosen(FOREIGN)
        self._first = [(bytes([_FIRST + n]), chosen(rate)) for n, (_, rate) in enumerate(_BY_FIRST_BYTE)]
        self._accented = self._first[0][0]
        self._two = [(pair, chosen(rate)) for pair, rate in _BY_TWO_BYTES]
        self._other = chosen(OTHER)

    def tokens(self, text: str) -> Interval:
        """Tokens of `text`, as a range that most tokenizers of such a vocabulary keep to."""
        data = text.encode("utf-8", "surrogatepass")
        kinds = data.translate(_KINDS)
        digits, spaces, signs = kinds.count(_DIGITS), kinds.count(_SPACES), kinds.count(_SIGNS)
        letter, digit, space, sign, run = self._ascii
        if text.isascii():
            letters, accented = len(kinds) - digits - spaces - signs, 0
        else:
            letters, accented = kinds.count(_LETTERS), kinds.count(self._accented)
        if accented * FOREIGN_FROM > letters:
            letter = self._foreign
        runs = sum(map(data.count, _RUNS)) if signs * RUNS_FROM > letters else 0
        signs -= 4 * runs
        low, likely, high = (
            letters * letter[n] + digits * digit[n] + spaces * space[n] + signs * sign[n] + runs * run[n]
            for n in range(3)
        )
        if not text.isascii():
            for count, rate in self._others(data, kinds):
                low, likely, high = low + count * rate[0], likely + count * rate[1], high + count * rate[2]
        return Interval(low, likely, high)

    def _others(self, data: bytes, kinds: bytes) -> list[tuple[int, Interval]]:
        """How many characters beyond ASCII there are, with their rates."""
        found = [(count, rate) for kind, rate in self._first if (count := kinds.count(kind))]
        if b"\xe0" in data or b"\xe1" in data:
            apart = [(count, rate) for pair, rate in self._two if (count := data.count(pair))]
            found += apart
            found.append((-sum(count for count, _ in apart), self._other))  # they were counted among the others
        return found
