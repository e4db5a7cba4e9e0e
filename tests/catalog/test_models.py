"""Looking models up: names, aliases, Hub ids, files; and that index.json is what the files say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog import entries, find_model, hub_id_of, model_entries, model_names, models, remarks_on
from advisor.catalog.data import data_text
from advisor.catalog.entries import model_folder
from advisor.catalog.index import model_index_text
from advisor.catalog.models import names_path
from advisor.errors import AdvisorError, BadConfig, SourceUnavailable, UnknownName
from advisor.parameters.modules import parameter_count

FOLDER = Path(str(model_folder()))
FILES = sorted(p for p in FOLDER.glob("*.json") if p.name != "index.json")
KEYS = {"name", "hub_id", "aliases", "source", "parameters", "config"}
MAY = {"bare", "same_as", "variants", "derived", "kin", "confidence", "described_as"}
CONFIDENCE = {"exact", "transcribed", "class default"}
"""Of a config that was not read on the Hub: a copy of it, another program's table, or the defaults of its class."""

PUBLISHED = {  # parameter counts that the makers give, or that the Hub shows for the weights, tied matrices once
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-Nemo-Base-2407": 12_247_782_400,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-3-1b-pt": 999_885_952,
    "microsoft/phi-2": 2_779_683_840,
    "microsoft/phi-4": 14_659_507_200,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "EleutherAI/pythia-1.4b": 1_414_647_808,
    "allenai/OLMo-2-1124-7B": 7_298_617_344,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "bigcode/starcoder2-15b": 15_957_889_024,
    "ibm-granite/granite-3.1-8b-instruct": 8_170_848_256,
    "facebook/opt-350m": 331_196_416,
    "01-ai/Yi-34B": 34_388_917_248,
    "openai-community/gpt2": 124_439_808,
    "openai-community/gpt2-xl": 1_557_611_200,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "Qwen/Qwen1.5-MoE-A2.7B": 14_315_784_192,
    "allenai/OLMoE-1B-7B-0924": 6_919_161_856,
    "deepseek-ai/DeepSeek-V2-Lite": 15_706_484_224,
    "microsoft/Phi-3.5-MoE-instruct": 41_873_153_344,
    "swiss-ai/Apertus-8B-2509": 8_053_338_176,
    "nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16": 3_973_556_832,
    # described by the nearest family, and equal all the same
    "Qwen/Qwen-1_8B": 1_836_828_672,
    "Qwen/Qwen-7B": 7_721_324_544,
    "Qwen/Qwen-14B": 14_167_290_880,
    "Qwen/Qwen-72B": 72_287_920_128,
    "internlm/internlm2-7b": 7_737_708_544,
    "THUDM/chatglm3-6b": 6_243_584_000,
    "baichuan-inc/Baichuan2-7B-Base": 7_505_973_248,
    "baichuan-inc/Baichuan2-13B-Base": 13_896_668_160,
    "Qwen/Qwen2.5-Omni-3B": 3_397_103_616,
}

TYPED = {
    "llama-8b": "llama-3.1-8b",
    "llama-3.1-8b": "llama-3.1-8b",
    "llama3.1:8b": "llama-3.1-8b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "META-LLAMA/llama-3.1-8b": "llama-3.1-8b",
    "unsloth/Meta-Llama-3.1-8B-bnb-4bit": "llama-3.1-8b",
    "NousResearch/Meta-Llama-3-8B": "llama-3-8b",
    "llama-1b": "llama-3.2-1b",
    "llama-70b": "llama-3.1-70b",
    " TinyLlama ": "tinyllama-1.1b",
    "qwen-8b": "qwen3-8b",
    "Qwen/Qwen-7B-Chat": "qwen1-7b",
    "qwen2.5:0.5b": "qwen2.5-0.5b",
    "mistral-7b": "mistral-7b-v0.3",
    "gemma-2b": "gemma-1-2b",
    "google/gemma-2b": "gemma-1-2b",
    "gemma-7b": "gemma-1-7b",
    "phi-3": "phi-3-mini",
    "phi2": "phi-2",
    "gpt-2": "gpt2",
    "pythia-1.4b": "pythia-1.4b",
    "falcon-7b": "falcon-7b",
}

ASKED = {"llama-7b", "llama-13b", "qwen-1.8b", "qwen-7b", "qwen-14b", "qwen-72b", "deepseek-r1:8b"}

TIED = (
    "llama-3.2-1b",
    "llama-3.2-3b",
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "qwen2.5-3b",
    "qwen2-1.5b",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "smollm2-135m",
    "smollm2-1.7b",
    "smollm3-3b",
    "gemma-1-2b",
    "gemma-2-2b",
    "gemma-2-27b",
    "gemma-3-1b",
    "gemma-3-27b",
    "phi-4-mini",
    "falcon-7b",
    "falcon-40b",
    "gpt2",
    "granite-3.1-8b",
    "starcoder2-3b",
    "command-r7b",
    "olmo-1b",
)
UNTIED = (
    "llama-3.1-8b",
    "llama-2-7b",
    "qwen2.5-7b",
    "qwen3-8b",
    "pythia-1.4b",
    "phi-3-mini",
    "phi-2",
    "mistral-7b-v0.3",
    "deepseek-r1-distill-qwen-1.5b",
    "olmo-2-7b",
    "starcoder2-15b",
    "stablelm-3b",
    "yi-6b",
    "glm-4-9b",
    "falcon3-7b",
)


def test_the_files_are_complete() -> None:
    assert len(FILES) >= 150
    for path in FILES:
        data = json.loads(path.read_text(encoding="utf-8"))
        assert set(data) - MAY == KEYS, path.name
        assert data["name"] == path.stem
        page = f"https://huggingface.co/{data['hub_id']}/blob/main/config.json"
        assert data["source"] == page or (data["confidence"] in CONFIDENCE and ": " in data["source"])
        for names in ("same_as", "derived", "kin"):
            assert all("/" in hub_id and says for hub_id, says in data.get(names, {}).items()), path.name
        assert all(set(one) == {"source", "config"} and one["source"] for one in data.get("variants", {}).values())


def test_the_index_says_what_the_files_say() -> None:
    assert (FOLDER / "index.json").read_text(encoding="utf-8") == model_index_text(FOLDER)
    assert model_names() == tuple(p.stem for p in FILES)


def test_no_label_means_two_models_but_those_that_are_asked_back() -> None:
    labels = Counter(label.lower() for entry in model_entries() for label in (*entry.labels, *entry.kin))
    assert len(labels) > 800
    twice = {label for label, count in labels.items() if count > 1}
    assert twice == ASKED


@pytest.mark.parametrize("hub_id", PUBLISHED)
def test_published_counts(hub_id: str) -> None:
    assert parameter_count(find_model(hub_id)) == PUBLISHED[hub_id]


def test_every_entry_can_be_found_and_counts_what_it_says() -> None:
    for entry in model_entries():
        spec = find_model(entry.hub_id)
        assert spec == find_model(entry.name.upper())
        assert spec.name.split(" (text tower of ")[0] == entry.name
        assert parameter_count(spec) == entry.parameters


@pytest.mark.parametrize("typed", TYPED)
def test_what_people_type(typed: str) -> None:
    assert find_model(typed).name == TYPED[typed]


def test_tied_embeddings() -> None:
    assert [n for n in TIED if not find_model(n).tie_word_embeddings] == []
    assert [n for n in UNTIED if find_model(n).tie_word_embeddings] == []


def test_hub_ids_for_scripts() -> None:
    assert hub_id_of("llama-8b") == "meta-llama/Llama-3.1-8B"
    assert hub_id_of("meta-llama/llama-3.1-8b-instruct") == "meta-llama/Llama-3.1-8B-Instruct"
    assert hub_id_of("acme/own") == "acme/own"


def test_an_unknown_name_gets_near_matches() -> None:
    with pytest.raises(UnknownName, match=r"lama-3\.1-8.*advise models"):
        find_model("lama-3.1-8")
    with pytest.raises(UnknownName):
        find_model("")


@pytest.mark.parametrize(
    "text", ["./nothing", "/nothing/at/all", "~/nothing-here", "nothing.json", "../x/", "~nobody-here/x"]
)
def test_a_path_that_is_not_there(text: str) -> None:
    with pytest.raises(BadConfig, match="no such file"):
        find_model(text)


def test_a_file_a_folder_and_a_folder_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 3}')
    (tmp_path / "other.json").write_text('{"model_type": "qwen3"}')
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    for text in ("my-model", "./my-model", str(folder), "my-model/config.json"):
        assert (find_model(text).name, find_model(text).num_hidden_layers) == ("my-model", 3)
    assert find_model("other.json").name == "other"
    with pytest.raises(UnknownName):
        find_model("empty")
    with pytest.raises(BadConfig, match="no such file"):
        find_model("./empty")


def test_an_adapters_folder_means_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, base in (("lora_model", '"unsloth/Qwen3-8B-bnb-4bit"'), ("odd", "7"), ("circle", '"circle"')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "adapter_config.json").write_text(f'{{"base_model_name_or_path": {base}}}')
    assert find_model("lora_model").name == "qwen3-8b"
    assert hub_id_of("./lora_model") == "unsloth/Qwen3-8B-bnb-4bit"
    assert remarks_on("lora_model", "qwen3-8b") == (
        "lora_model holds an adapter: answered for its base unsloth/Qwen3-8B-bnb-4bit.",
    )
    for folder in ("odd", "circle"):
        with pytest.raises(UnknownName):
            find_model(folder, offline=True)
    (tmp_path / "odd" / "adapter_config.json").write_text('{"base_model_name_or_path": "lora_model"}')
    with pytest.raises(BadConfig, match="odd: its base lora_model is an adapter too"):
        find_model("odd")


def test_a_file_is_read_and_not_guessed_from_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "Llama-3.1-8B-Instruct"
    folder.mkdir()
    with pytest.raises(BadConfig, match=r"config\.json: no such file"):
        find_model(str(folder))
    (folder / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 3}')
    assert find_model(str(folder)).num_hidden_layers == 3
    assert remarks_on(str(folder), "Llama-3.1-8B-Instruct") == ()
    assert hub_id_of(str(folder)) == str(folder)
    with pytest.raises(BadConfig, match="no such file"):
        find_model(str(folder / "config_8b.json"))


def test_a_catalog_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama-8b").mkdir()
    (tmp_path / "llama-8b" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_model("llama-8b").name == "llama-3.1-8b"


def test_an_id_that_is_nowhere_says_what_to_do_when_offline() -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(SourceUnavailable, match=r"acme/unheard-of .*offline.*path to its config\.json"):
        find_model("acme/unheard-of", offline=True)


@given(st.text(max_size=60))
def test_no_text_ever_brings_a_traceback(text: str) -> None:
    try:
        message = find_model(text, offline=True).name
    except AdvisorError as error:
        message = str(error)
    assert message.isprintable()


def test_a_look_up_reads_two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index and the model, of the hundreds; `benchmarks.lookups` says how long that takes."""
    read: list[str] = []

    def noted(folder: str, name: str) -> str:
        read.append(name)
        return data_text(folder, name)

    for module in (entries, models):
        monkeypatch.setattr(module, "data_text", noted)
    for remembers in (entries.model_entries, entries.by_label, models._catalog_model, models._file):
        remembers.cache_clear()
    find_model("llama-8b")
    assert read == ["index.json", "llama-3.1-8b.json"]


@pytest.mark.parametrize(
    ("text", "path"),
    [("qwen3-8b", False), ("Qwen/Qwen3-8B", False), ("https://huggingface.co/Qwen/Qwen3-8B/tree/main", False),
     ("./qwen3-8b", True), ("/models/qwen3-8b", True), ("~/m", True), ("config.json", True),
     ("a/b/c", True), ("a\\b", True)],
)  # fmt: skip
def test_which_texts_can_only_be_paths(text: str, path: bool) -> None:
    assert names_path(text) == path


def test_without_files_no_text_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, file in (("mine", "config.json"), ("tuned", "adapter_config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"model_type": "llama", "base_model_name_or_path": "gpt2"}')
    assert find_model("tuned").name == "gpt2"
    for text in ("mine", "tuned", "./mine", "mine/config.json", str(tmp_path / "mine")):
        with pytest.raises(AdvisorError):
            find_model(text, offline=True, files=False)
        assert hub_id_of(text, files=False) == text
        assert remarks_on(text, "gpt2", files=False) == ()
    assert remarks_on("tuned", "gpt2") != ()
