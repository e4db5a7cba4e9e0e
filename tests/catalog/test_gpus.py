"""The GPU catalog as it is loaded, and every way that `--gpu` can be given."""

from __future__ import annotations

import json
import os
import re
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.data import data_folder
from advisor.catalog.gpu_file import catalog_cards
from advisor.catalog.gpus import all_gpus, cards_with_at_least, find_gpus, gpu_aliases, gpu_names
from advisor.catalog.index import gpu_index_text
from advisor.errors import AdvisorError, BadConfig, BadValue, SourceUnavailable, UnknownName
from advisor.specs import GpuSpec
from advisor.units import GIB, MIB

FIGURES = {"memory", "bandwidth", "flops", "capability", "power"}
MATRIX_GENERATIONS = {"Ampere", "Ada", "Hopper", "Blackwell"}
CAPABILITIES = {
    "Pascal": {"6.0", "6.1"},
    "Volta": {"7.0"},
    "Turing": {"7.5"},
    "Ampere": {"8.0", "8.6"},
    "Ada": {"8.9"},
    "Hopper": {"9.0"},
    "Blackwell": {"10.0", "12.0"},
}
ENTRY = {
    "name": "My Card 9000",
    "marketed_gb": 24,
    "memory_mib": 24000,
    "bandwidth_gb_per_s": 900,
    "fp16_tflops": 100,
    "fp32_tflops": 50.5,
}


def one(text: str) -> GpuSpec:
    """The only card that `text` means."""
    found = find_gpus(text)
    assert len(found) == 1, [card.name for card in found]
    return found[0]


def write(folder: Path, name: str, text: str) -> str:
    """A file in `folder`; its path as a person would type it."""
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


# ---- the loaded catalog ------------------------------------------------------------------------------------


def test_catalog_is_large_and_names_are_unique() -> None:
    assert len(all_gpus()) >= 45
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
    assert {text.split(":")[0] for text in card.sources} == FIGURES
    assert len(card.sources) == len(FIGURES)

    assert card.compute_capability in CAPABILITIES[card.generation]
    assert card.speed_known
    assert 0.93 <= card.memory_bytes / GIB / card.marketed_gb <= 1.001
    assert 190e9 <= card.memory_bytes_per_s <= 8e12
    assert 60 <= card.power_w <= 1200
    assert 0.4 <= card.power_w / (max(card.bf16_flop_per_s, card.fp16_flop_per_s) * 1e-12) <= 30
    assert 4e12 <= card.fp32_flop_per_s <= 130e12
    if card.generation in MATRIX_GENERATIONS:
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
    with pytest.raises(UnknownName, match="it fits rtx-5000-ada, rtx-5000-turing; "):
        find_gpus("RTX 5000")


def test_model_number_is_not_read_as_tebibytes() -> None:
    with pytest.raises(UnknownName, match="4070-ti"):
        find_gpus("4080 Ti")


@pytest.mark.parametrize("text", ["", "   ", "rtx", "nvidia", "rtx6000", "409", "h1000", "geforce", "rtx4090x", "-"])
def test_part_of_a_name_is_refused(text: str) -> None:
    with pytest.raises(UnknownName):
        find_gpus(text)


# ---- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["24GB", "24 GiB", "24g", "24576MB"])
def test_size_gives_all_cards_sold_with_it(text: str) -> None:
    found = find_gpus(text)
    assert {"NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3090", "NVIDIA L4", "NVIDIA A10G"} <= {c.name for c in found}
    assert [c.name for c in found] == [c.name for c in all_gpus() if c.marketed_gb == 24]


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
    assert found[-1].name == "NVIDIA GB200"
    assert [c.memory_bytes for c in found] == sorted(c.memory_bytes for c in all_gpus() if c.memory_bytes >= need)
    assert cards_with_at_least(2**49) == ()


# ---- the driver --------------------------------------------------------------------------------------------


class FakeNvmlError(Exception):
    """Stands for pynvml.NVMLError."""


def install_nvml(monkeypatch: pytest.MonkeyPatch, name: str | bytes, mib: int, fails_in: str = "") -> list[str]:
    """Put a pynvml into sys.modules that reports one card; returns the log of calls."""
    calls: list[str] = []
    module = types.ModuleType("pynvml")

    def answer(function: str, value: object) -> None:
        def call(*args: object) -> object:
            calls.append(function)
            if function == fails_in:
                raise FakeNvmlError("Driver Not Loaded")
            return value

        setattr(module, function, call)

    answer("nvmlInit", None)
    answer("nvmlShutdown", None)
    answer("nvmlDeviceGetHandleByIndex", "handle")
    answer("nvmlDeviceGetName", name)
    answer("nvmlDeviceGetMemoryInfo", types.SimpleNamespace(total=mib * MIB))
    answer("nvmlDeviceGetCudaComputeCapability", [12, 1])
    module.NVMLError = FakeNvmlError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return calls


def test_auto_takes_rates_from_the_catalog_and_memory_from_the_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = install_nvml(monkeypatch, b"NVIDIA GeForce RTX 4090", 24_210)
    card = one("AUTO")
    assert card.memory_bytes == 24_210 * MIB
    assert card.bf16_flop_per_s == one("rtx4090").bf16_flop_per_s
    assert card.marketed_gb == 24
    assert card.sources[0] == "memory: NVML, 24210 MiB on this machine"
    assert {text.split(":")[0] for text in card.sources} == FIGURES
    assert calls[-1] == "nvmlShutdown"
    assert one("rtx4090").memory_bytes == 24_564 * MIB


@pytest.mark.parametrize(
    ("mib", "name"), [(8188, "NVIDIA GeForce RTX 4060 Ti"), (16380, "NVIDIA GeForce RTX 4060 Ti 16GB")]
)
def test_auto_tells_cards_of_one_name_apart_by_memory(monkeypatch: pytest.MonkeyPatch, mib: int, name: str) -> None:
    install_nvml(monkeypatch, "NVIDIA GeForce RTX 4060 Ti", mib)
    assert one("auto").name == name


def test_auto_with_a_rebuilt_card_keeps_its_speed_and_changes_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_nvml(monkeypatch, "NVIDIA GeForce RTX 4090", 49_140)
    card = one("auto")
    assert (card.marketed_gb, card.memory_bytes) == (48, 49_140 * MIB)
    assert card.fp32_flop_per_s == one("rtx4090").fp32_flop_per_s


def test_auto_with_an_unknown_card(monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvml(monkeypatch, "NVIDIA Whatever 1", 32_000)
    card = one("auto")
    assert (card.name, card.memory_bytes, card.marketed_gb) == ("NVIDIA Whatever 1", 32_000 * MIB, 31)
    assert (card.compute_capability, card.generation, card.speed_known) == ("12.1", "", False)


@pytest.mark.parametrize(
    ("function", "shut_down"),
    [("nvmlInit", False), ("nvmlDeviceGetHandleByIndex", True), ("nvmlDeviceGetMemoryInfo", True)],
)
def test_auto_without_a_driver(monkeypatch: pytest.MonkeyPatch, function: str, shut_down: bool) -> None:
    calls = install_nvml(monkeypatch, "NVIDIA L4", 23_034, fails_in=function)
    with pytest.raises(SourceUnavailable, match=r"Driver Not Loaded.*--gpu rtx4090 or --gpu 24GB"):
        find_gpus("auto")
    assert (calls[-1] == "nvmlShutdown") is shut_down


def test_auto_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(SourceUnavailable, match="pip install nvidia-ml-py"):
        find_gpus("auto")


def test_auto_with_a_driver_that_reports_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvml(monkeypatch, "NVIDIA L4", 0)
    with pytest.raises(SourceUnavailable, match="0 bytes"):
        find_gpus("auto")


# ---- files -------------------------------------------------------------------------------------------------


def toml_of(entry: dict[str, object]) -> str:
    """`entry` as TOML; JSON's spelling of strings, numbers and lists is TOML's too."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())


def test_file_in_either_format_gives_the_card(tmp_path: Path) -> None:
    entry = ENTRY | {
        "bf16_tflops": 99.0,
        "compute_capability": "8.9",
        "generation": "Ada",
        "aliases": ["mine"],
    }
    from_toml = one(write(tmp_path, "card.toml", toml_of(entry) + '\nsources = { memory = "my notes" }'))
    from_json = one(write(tmp_path, "card.JSON", json.dumps(entry | {"sources": {"memory": "my notes"}})))
    assert from_toml == from_json
    assert from_toml == GpuSpec(
        name="My Card 9000",
        generation="Ada",
        compute_capability="8.9",
        memory_bytes=24_000 * MIB,
        marketed_gb=24,
        memory_bytes_per_s=900e9,
        bf16_flop_per_s=99e12,
        fp16_flop_per_s=100e12,
        fp32_flop_per_s=50.5e12,
        sources=("memory: my notes",),
    )


def test_file_needs_only_the_required_fields(tmp_path: Path) -> None:
    card = one(write(tmp_path, "card.toml", toml_of(ENTRY)))
    assert (card.bf16_flop_per_s, card.compute_capability, card.generation) == (0, "", "")


def test_file_may_leave_out_every_rate_and_give_the_power(tmp_path: Path) -> None:
    rates = {name for name in ENTRY if name.endswith(("_gb_per_s", "_tflops"))}
    card = one(write(tmp_path, "card.toml", toml_of({k: v for k, v in ENTRY.items() if k not in rates})))
    assert not card.speed_known
    assert one(write(tmp_path, "card.toml", toml_of(ENTRY | {"power_w": 250}))).power_w == 250.0


@pytest.mark.parametrize("field", sorted(ENTRY))
def test_file_with_a_missing_field_is_refused(tmp_path: Path, field: str) -> None:
    path = write(tmp_path, "card.toml", toml_of({k: v for k, v in ENTRY.items() if k != field}))
    with pytest.raises(BadConfig, match=rf"card\.toml.*{field} is missing"):
        find_gpus(path)


@pytest.mark.parametrize("field", [*sorted(set(ENTRY) - {"name"}), "bf16_tflops", "tf32_tflops"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 10**12, True, "24", None, [24], 10**400])
def test_file_with_a_bad_number_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = write(tmp_path, "card.json", json.dumps(ENTRY | {field: value}))
    with pytest.raises(BadConfig, match=rf"card\.json.*{field} is "):
        find_gpus(path)


def test_file_with_a_misspelled_field_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "card.toml", toml_of(ENTRY | {"bandwith_gb_per_s": 900}))
    with pytest.raises(BadConfig, match=r"'bandwith_gb_per_s'; did you mean bandwidth_gb_per_s"):
        find_gpus(path)


def test_file_whose_two_sizes_disagree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"memory_mib is 24000, which is 0\.49 of marketed_gb \(48\)"):
        find_gpus(write(tmp_path, "card.toml", toml_of(ENTRY | {"marketed_gb": 48})))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "name = ", "not valid TOML"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "", "not valid JSON"),
        ("a.json", "[1]", "no table of fields"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.toml", "a = " + "[" * 100_000, "not valid TOML"),
        ("a.toml", "", "name is missing"),
        ("a.toml", "#" * (1024**2 + 1), "larger than 1 MiB"),
    ],
)
def test_file_that_is_not_a_card_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message) as caught:
        find_gpus(write(tmp_path, name, text))
    assert len(str(caught.value)) < 600


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfig, match="not UTF-8"):
        find_gpus(str(tmp_path / "a.json"))


def test_what_is_no_regular_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("folder.toml", "pipe.toml"):
        with pytest.raises(BadConfig, match="not a regular file"):
            find_gpus(str(tmp_path / name))


@pytest.mark.parametrize("path", ["no/such/card.toml", "bad\0name.json", "x" * 5000 + ".toml", "\ud800.json"])
def test_file_that_cannot_be_reached(path: str) -> None:
    with pytest.raises(SourceUnavailable, match=r"does not exist|cannot be read") as caught:
        find_gpus(path)
    assert str(caught.value).isprintable()


# ---- anything ----------------------------------------------------------------------------------------------


SIZE_LIKE = st.from_regex(r"[0-9.]{1,14} ?[kmgtKMGT]?i?[bB]?", fullmatch=True)
ANYTHING = st.one_of(st.integers(), st.floats(), st.text())


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


@given(st.dictionaries(st.sampled_from([*ENTRY, "bf16_tflops", "odd"]), ANYTHING))
def test_any_file_gives_a_card_or_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object]
) -> None:
    found = outcome(write(tmp_path_factory.getbasetemp(), "any.json", json.dumps(ENTRY | changes)))
    if isinstance(found, AdvisorError):
        assert isinstance(found, BadConfig)
        assert "any.json" in str(found)
    else:
        assert found.speed_known
        assert found.name == (ENTRY | changes)["name"]
