"""The GPU catalog as it is loaded, and every way that `--gpu` can be given."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.data import data_folder
from advisor.catalog.gpu_file import catalog_cards
from advisor.catalog.gpus import (
    all_gpus,
    cards_with_at_least,
    find_gpus,
    gpu_aliases,
    gpu_names,
    other_sizes,
    reads_machine,
    several,
)
from advisor.catalog.index import gpu_index_text
from advisor.errors import AdvisorError, BadValue, UnknownName
from advisor.specs import GpuSpec
from advisor.units import GIB, MIB
from tests.catalog.cards import FIGURES, one

MATRIX_GENERATIONS = {"Ampere", "Ada", "Hopper", "Blackwell"}
CAPABILITIES = {
    "Pascal": {"6.0", "6.1"},
    "Volta": {"7.0"},
    "Turing": {"7.5"},
    "Ampere": {"8.0", "8.6", "8.7"},
    "Ada": {"8.9"},
    "Hopper": {"9.0"},
    "Blackwell": {"10.0", "10.3", "11.0", "12.0", "12.1"},
    "CDNA2": {""},
    "CDNA3": {""},
    "CDNA4": {""},
    "RDNA3": {""},
    "RDNA4": {""},
}


# ---- the loaded catalog ------------------------------------------------------------------------------------


def test_catalog_is_large_and_names_are_unique() -> None:
    assert len(all_gpus()) >= 130
    assert len(set(gpu_names())) == len(all_gpus())
    assert {card.generation for card in all_gpus()} == set(CAPABILITIES)


def test_no_two_cards_share_a_name_or_alias() -> None:
    owner: dict[str, str] = {}
    for label, name in [*((n, n) for n in gpu_names()), *gpu_aliases().items()]:
        key = re.sub(r"[\s_-]", "", label.lower()).removeprefix("nvidia")
        assert owner.setdefault(key, name) == name, label
    assert len(owner) > 2 * len(all_gpus())


def test_every_name_and_alias_finds_its_card_however_it_is_written() -> None:
    for label, name in [*((n, n) for n in gpu_names()), *gpu_aliases().items()]:
        plain = label.removeprefix("NVIDIA ")
        for text in (
            label,
            plain,
            label.upper(),
            f" {plain.lower()} ",
            plain.replace(" ", "-").replace("-", "_"),
        ):
            assert one(text).name == name, text


@pytest.mark.parametrize("card", all_gpus(), ids=lambda card: card.name)
def test_loaded_card_is_sourced_and_plausible(card: GpuSpec) -> None:
    cited = [re.fullmatch(r"(\w+): https://[\w.-]+\.\w+/\S+( \(.+\))?", text) for text in card.sources]
    assert [m[1] if m else None for m in cited] == [text.split(":")[0] for text in card.sources]
    unknown = ({"flops"} if not card.fp32_flop_per_s else set()) | ({"capability"} if card.rocm else set())
    assert {text.split(":")[0] for text in card.sources} == FIGURES - unknown
    assert len(card.sources) == len(FIGURES - unknown)

    assert card.compute_capability in CAPABILITIES[card.generation]
    assert (0.7 if card.unified_memory else 0.93) <= card.memory_bytes / GIB / card.marketed_gb <= 1.001
    assert 100e9 <= card.memory_bytes_per_s <= 8e12
    assert 25 <= card.power_w <= 1400
    if not card.speed_known:
        assert card.unified_memory
        return
    assert 0.4 <= card.power_w / (max(card.bf16_flop_per_s, card.fp16_flop_per_s) * 1e-12) <= 30
    assert 4e12 <= card.fp32_flop_per_s <= 170e12
    if card.rocm:
        assert card.bf16_flop_per_s == card.fp16_flop_per_s
        assert 1.99 <= card.bf16_flop_per_s / card.fp32_flop_per_s <= 16.1
        assert card.tf32_flop_per_s in (0, pytest.approx(card.bf16_flop_per_s / 2, rel=0.01))
    elif card.generation in MATRIX_GENERATIONS:
        assert card.bf16_flop_per_s == card.fp16_flop_per_s
        assert 1.99 <= card.bf16_flop_per_s / card.fp32_flop_per_s <= 32
        assert card.bf16_flop_per_s / card.tf32_flop_per_s == pytest.approx(2, rel=0.03)
    else:
        assert card.bf16_flop_per_s == card.tf32_flop_per_s == 0
        assert 1 <= card.fp16_flop_per_s / card.fp32_flop_per_s <= 8.1


def test_geforce_cards_sum_in_fp32_at_half_rate() -> None:
    """Matrix rate over fp32 rate: 2 on GeForce since Ampere (4 on Turing), twice that on professional cards."""
    geforce = [c for c in all_gpus() if "GeForce" in c.name]
    workstation = [c for c in all_gpus() if re.match(r"NVIDIA RTX |Quadro", c.name)]
    assert len(geforce) >= 40
    assert len(workstation) >= 15
    for card in geforce + workstation:
        ratio = card.fp16_flop_per_s / card.fp32_flop_per_s
        expected = (2 if card in geforce else 4) * (2 if card.generation == "Turing" else 1)
        assert ratio == pytest.approx(expected, rel=0.02), card.name


@pytest.mark.parametrize(
    ("text", "mib", "gb_per_s", "bf16", "fp16", "tf32", "fp32"),
    [
        ("rtx4090", 24564, 1008, 165.2, 165.2, 82.6, 82.6),
        ("NVIDIA GeForce RTX 3090", 24576, 936, 71.2, 71.2, 35.6, 35.6),
        ("5090", 32607, 1792, 209.5, 209.5, 104.8, 104.8),
        ("rtx 2080 ti", 11264, 616, 0, 53.8, 0, 13.4),
        ("RTX A6000", 49140, 768, 154.8, 154.8, 77.4, 38.7),
        ("rtx-6000-ada", 49140, 960, 364.2, 364.2, 182.1, 91.1),
        ("Tesla T4", 15360, 320, 0, 65, 0, 8.1),
        ("v100", 16384, 900, 0, 125, 0, 15.7),
        ("a10g", 23028, 600, 70, 70, 35, 31.5),
        ("NVIDIA A100-SXM4-40GB", 40960, 1555, 312, 312, 156, 19.5),
        ("a100-80gb", 81920, 2039, 312, 312, 156, 19.5),
        ("l4", 23034, 300, 121, 121, 60, 30.3),
        ("L40", 46068, 864, 181, 181, 90.5, 90.5),
        ("l40s", 46068, 864, 362, 362, 183, 91.6),
        ("h100", 81559, 3350, 989.4, 989.4, 494.7, 66.9),
        ("h200", 143771, 4800, 989.5, 989.5, 494.5, 67),
        ("b200", 183359, 8000, 2250, 2250, 1100, 75),
        ("h20", 97871, 4000, 148, 148, 74, 44),
        ("L20", 46068, 864, 119.5, 119.5, 59.8, 59.8),
        ("AMD Instinct MI300X", 196592, 5300, 1307.4, 1307.4, 653.7, 163.4),
        ("mi250x", 65520, 1638, 191.5, 191.5, 0, 23.9),
        ("7900 XTX", 24560, 960, 122.8, 122.8, 0, 61.4),
        ("dgx spark", 124549, 273, 0, 0, 0, 0),
    ],
)
def test_well_known_cards(
    text: str, mib: int, gb_per_s: float, bf16: float, fp16: float, tf32: float, fp32: float
) -> None:
    card = one(text)
    assert card.memory_bytes == mib * MIB
    assert card.memory_bytes_per_s == pytest.approx(gb_per_s * 1e9)
    assert card.bf16_flop_per_s == pytest.approx(bf16 * 1e12)
    assert card.fp16_flop_per_s == pytest.approx(fp16 * 1e12)
    assert card.tf32_flop_per_s == pytest.approx(tf32 * 1e12)
    assert card.fp32_flop_per_s == pytest.approx(fp32 * 1e12)


@pytest.mark.parametrize(
    ("faster", "slower"),
    [
        ("b200", "h200"),
        ("h200", "a100-80gb"),
        ("h100", "h100-pcie"),
        ("h100-pcie", "a100-80gb-pcie"),
        ("a100", "v100"),
        ("5090", "4090"),
        ("4090", "3090"),
        ("3090", "2080ti"),
        ("4090", "4090-laptop"),
        ("a6000", "a4000"),
    ],
)
def test_order_of_cards(faster: str, slower: str) -> None:
    assert one(faster).fp16_flop_per_s > one(slower).fp16_flop_per_s
    assert one(faster).memory_bytes_per_s > one(slower).memory_bytes_per_s


def test_l40_is_not_l4() -> None:
    """A look-up by substring once gave the L40 the peak of the L4."""
    assert len({one(text).name for text in ("l4", "l40", "l40s")}) == 3


@pytest.mark.parametrize(
    ("bare", "chosen", "larger"),
    [
        ("a100", "NVIDIA A100-SXM4-40GB", "a100-80gb"),
        ("v100", "Tesla V100-SXM2-16GB", "v100-32gb"),
        ("3080", "NVIDIA GeForce RTX 3080", "3080-12gb"),
        ("4060ti", "NVIDIA GeForce RTX 4060 Ti", "4060ti-16gb"),
        ("5060ti", "NVIDIA GeForce RTX 5060 Ti", "5060ti-16gb"),
    ],
)
def test_bare_name_is_the_smallest_card_sold(bare: str, chosen: str, larger: str) -> None:
    assert one(bare).name == chosen
    assert one(bare).memory_bytes < one(larger).memory_bytes


def test_the_index_says_what_the_files_say() -> None:
    folder = data_folder("gpus")
    assert (folder / "index.json").read_text(encoding="utf-8") == gpu_index_text(folder)
    assert [spec for _, spec in catalog_cards(folder)] == list(all_gpus())


def test_catalog_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        gpu_aliases()["mine"] = "NVIDIA L4"  # type: ignore[index]


# ---- names that nobody knows -------------------------------------------------------------------------------


def test_unknown_name_lists_near_matches_and_the_next_step() -> None:
    with pytest.raises(UnknownName) as caught:
        find_gpus("rtx4095")
    assert "rtx-4090" in caught.value.near
    assert "`advise gpus` lists them, or give a size such as 24GB" in str(caught.value)


def test_ambiguous_name_lists_the_cards_it_fits_and_picks_none() -> None:
    with pytest.raises(UnknownName, match="it matches rtx-5000-ada, rtx-5000-turing; "):
        find_gpus("RTX 5000")


def test_model_number_is_not_read_as_tebibytes() -> None:
    with pytest.raises(UnknownName, match="4070-ti"):
        find_gpus("4080 Ti")


@pytest.mark.parametrize("text", ["", "   ", "rtx", "nvidia", "rtx6000", "409", "h1000", "geforce", "rtx4090x", "-"])
def test_part_of_a_name_is_refused(text: str) -> None:
    with pytest.raises(UnknownName):
        find_gpus(text)


@pytest.mark.parametrize("text", ["m3", "M2 Ultra", "apple m4 max", "Apple", "mps"])
def test_apples_gpus_are_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(BadValue, match="Apple's GPUs are not estimated"):
        find_gpus(text)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2x3090", (2, "3090")),
        ("8 x H100", (8, "H100")),
        (" 4×24GB ", (4, "24GB")),
        ("3090", (None, "3090")),
        ("2x", (None, "2x")),
        ("x3090", (None, "x3090")),
        ("2x3090.toml", (None, "2x3090.toml")),
        ("7900 XTX", (None, "7900 XTX")),
        ("2x 7900 XTX", (2, "7900 XTX")),
    ],
)
def test_how_many_cards_a_text_names(text: str, read: tuple[int | None, str]) -> None:
    assert several(text) == read


@pytest.mark.parametrize(
    ("text", "aliases"),
    [
        ("a100", ["a100-80gb"]),
        ("A100 PCIe", ["a100-pcie-80gb"]),
        ("4060 Ti", ["4060-ti-16gb"]),
        ("a10", []),
        ("l4", []),
    ],
)
def test_other_sizes_of_the_same_name(text: str, aliases: list[str]) -> None:
    assert [alias for alias, _ in other_sizes(text)] == aliases


# ---- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["24GB", "24 GiB", "24g", "24576MB"])
def test_size_gives_all_cards_sold_with_it(text: str) -> None:
    found = find_gpus(text)
    assert {"NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3090", "NVIDIA L4", "NVIDIA A10G"} <= {c.name for c in found}
    ordinary = [card for card in all_gpus() if not card.rocm and not card.unified_memory]
    assert [c.name for c in found] == [c.name for c in ordinary if c.marketed_gb == 24]
    assert len(ordinary) < len(all_gpus()) - 15


@pytest.mark.parametrize("size_gb", [1, 7, 44.5, 10_000])
def test_size_that_no_card_has_gives_one_card_of_unknown_speed(size_gb: float) -> None:
    card = one(f"{size_gb}GB")
    assert not card.speed_known
    assert card.generation == ""
    assert card.marketed_gb == size_gb
    assert card.memory_bytes == pytest.approx(0.98 * size_gb * 2**30, rel=1e-6)
    assert f"{size_gb:g}" in card.name


@pytest.mark.parametrize("text", ["0GB", "0.5GB", "10001GB", "999999TB", "12MB"])
def test_size_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="1GB to 10000GB"):
        find_gpus(text)


def test_bigger_cards_come_smallest_first() -> None:
    need = 40 * GIB
    found = cards_with_at_least(need)
    assert found[0].name == "NVIDIA A100-PCIE-40GB"
    assert found[-1].name == "NVIDIA B300 SXM6 AC"
    ordinary = [card for card in all_gpus() if not card.rocm and not card.unified_memory]
    assert [c.memory_bytes for c in found] == sorted(c.memory_bytes for c in ordinary if c.memory_bytes >= need)
    assert cards_with_at_least(2**49) == ()


# ---- anything ----------------------------------------------------------------------------------------------


SIZE_LIKE = st.from_regex(r"[0-9.]{1,14} ?[kmgtKMGT]?i?[bB]?", fullmatch=True)


def outcome(text: str) -> GpuSpec | AdvisorError:
    """The first card that `text` means, or the error it raises. Any other exception fails the test."""
    try:
        return find_gpus(text)[0]
    except AdvisorError as error:
        return error


@given(st.one_of(st.text(), SIZE_LIKE))
def test_any_text_gives_cards_or_a_one_line_error(text: str) -> None:
    found = outcome(text)
    if isinstance(found, AdvisorError):
        assert len(str(found).splitlines()) == 1
    else:
        assert found.memory_bytes >= 0.93 * GIB


def test_bigger_cards_are_for_training() -> None:
    suggested = [card.name for card in cards_with_at_least(0)]
    assert "NVIDIA GeForce RTX 4090" in suggested
    assert not {"NVIDIA A16", "NVIDIA A2"} & set(suggested)
    assert not [name for name in suggested if "Laptop" in name]
    assert {"NVIDIA A16", "NVIDIA A2"} <= {card.name for card in find_gpus("16GB")}


@pytest.mark.parametrize(
    ("text", "asks"),
    [("auto", True), (" Auto", True), ("2xauto", True), ("card.toml", True), ("2x card.JSON", True), ("rtx4090", False),
     ("24GB", False), ("2x24GB", False), ("", False)],
)  # fmt: skip
def test_which_texts_ask_this_machine(text: str, asks: bool) -> None:
    assert reads_machine(text) == asks
