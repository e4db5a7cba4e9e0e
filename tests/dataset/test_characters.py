"""Estimates by script against tokens that real tokenizers made of the same text.

The counts: article 1 of the UDHR by the tokenizers of three models with large vocabularies, and of Mistral 7B (32,000).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.dataset.characters import CharacterRates

LARGE, SMALL = CharacterRates(128_000), CharacterRates(32_000)

CASES = [
    (
        "eng",
        (
            "All human beings are born free and equal in dignity and rights. They are endowed "
            "with reason and conscience and should act towards one another in a spirit of brotherhood."
        ),
        {"llama-3": 33, "qwen": 33, "mistral-nemo": 33},
        34,
    ),
    (
        "deu",
        (
            "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft "
            "und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen."
        ),
        {"llama-3": 44, "qwen": 44, "mistral-nemo": 36},
        49,
    ),
    (
        "fra",
        (
            "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont "
            "doués de raison et de conscience et doivent agir les uns envers les autres dans "
            "un esprit de fraternité."
        ),
        {"llama-3": 50, "qwen": 50, "mistral-nemo": 42},
        54,
    ),
    (
        "rus",
        (
            "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены "
            "разумом и совестью и должны поступать в отношении друг друга в духе братства."
        ),
        {"llama-3": 48, "qwen": 49, "mistral-nemo": 46},
        61,
    ),
    (
        "ell",
        (
            "'Ολοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. "
            "Είναι προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ "
            "τους με πνεύμα αδελφοσύνης."
        ),
        {"llama-3": 75, "qwen": 164, "mistral-nemo": 74},
        195,
    ),
    (
        "arb",
        (
            "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم "
            "أن يعامل بعضهم بعضا بروح الإخاء."
        ),
        {"llama-3": 45, "qwen": 46, "mistral-nemo": 40},
        105,
    ),
    (
        "heb",
        (
            "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, "
            "לפיכך חובה עליהם לנהוג איש ברעהו ברוח של אחווה."
        ),
        {"llama-3": 129, "qwen": 51, "mistral-nemo": 56},
        129,
    ),
    (
        "hin",
        (
            "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त "
            "है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव "
            "से बर्ताव करना चाहिए।"
        ),
        {"llama-3": 93, "qwen": 171, "mistral-nemo": 60},
        198,
    ),
    (
        "tha",
        ("มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ"),
        {"llama-3": 61, "qwen": 79, "mistral-nemo": 68},
        134,
    ),
    (
        "vie",
        (
            "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. Mọi "
            "con người đều được tạo hoá ban cho lý trí và lương tâm và cần phải đối xử với nhau "
            "trong tình bằng hữu."
        ),
        {"llama-3": 47, "qwen": 47, "mistral-nemo": 50},
        122,
    ),
    (
        "cmn",
        "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神互相对待。",
        {"llama-3": 39, "qwen": 30, "mistral-nemo": 40},
        45,
    ),
    (
        "jpn",
        (
            "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良"
            "心とを授けられており、互いに同胞の精神をもって行動しなければならない。"
        ),
        {"llama-3": 58, "qwen": 52, "mistral-nemo": 62},
        92,
    ),
    (
        "kor",
        (
            "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 "
            "이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다."
        ),
        {"llama-3": 52, "qwen": 55, "mistral-nemo": 46},
        90,
    ),
    (
        "code",
        (
            "def total(rows: list[int]) -> int:\n    result = 0\n    for row in rows:\n        if "
            "row > 0:\n            result += row * 2\n    return result\n"
        ),
        {"llama-3": 41, "qwen": 41, "mistral-nemo": 41},
        46,
    ),
]


@pytest.mark.parametrize(("language", "text", "large", "small"), CASES, ids=[case[0] for case in CASES])
def test_real_tokenizers_lie_in_the_range(language: str, text: str, large: dict[str, int], small: int) -> None:
    low, likely, high = LARGE.tokens(text)
    assert all(low <= tokens <= high for tokens in large.values()), (low, likely, high)
    assert low <= likely <= high
    low, likely, high = SMALL.tokens(text)
    assert low <= small <= high, (low, likely, high)


def test_a_longer_text_has_more_tokens_of_every_script() -> None:
    for _, text, _, _ in CASES:
        once, twice = LARGE.tokens(text), LARGE.tokens(text * 2)
        assert twice == pytest.approx([2 * tokens for tokens in once])


@given(st.text())
def test_any_text_has_a_range_that_is_not_negative(text: str) -> None:
    low, likely, high = LARGE.tokens(text)
    assert 0 <= low <= likely <= high <= 4 * len(text)


def test_halves_of_surrogate_pairs_are_counted() -> None:
    assert LARGE.tokens("\ud800" * 10).likely > 0
