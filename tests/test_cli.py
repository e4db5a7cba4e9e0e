"""The command: exit codes, one-line errors, no traceback for anything that can be typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.answer import Advice
from advisor.cli import cli
from advisor.knobs import BY_NAME, KNOBS, Knob, range_of
from advisor.rules import RULES
from tests.every import times

ROOT = Path(__file__).resolve().parent.parent
JOB = ("--model", "llama-8b", "--gpu", "24GB", "--examples", "3000")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def recommended(*arguments: str) -> tuple[str, int, str]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["recommendation"]
    return found["method"], found["rank"], found["rule"]


def one_line_error(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("advise: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_the_first_example_recommends_dora_and_says_its_cost() -> None:
    assert recommended(*JOB) == ("dora", 16, "ADV003")
    text = " ".join(run(*JOB).stdout.split())
    assert text.startswith("Use DoRA r=16: llama-3.1-8b (8.03B parameters) on a 24GB card fits")
    cost = text.partition(" DoRA adds ")[2].partition("at the same micro-batch")[0]
    assert " min to LoRA's " in cost
    assert " GiB " in cost


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        (("--gpu", "12GB"), ("qlora", 16, "ADV001")),
        (("--priority", "speed"), ("lora", 16, "ADV002")),
        (("--examples", "200000"), ("lora", 64, "ADV002")),
        (("--examples", "60000"), ("lora", 16, "ADV004")),
        (("--priority", "memory"), ("qlora", 16, "ADV006")),
        (("--method", "qdora"), ("qdora", 16, "ADV007")),
    ],
)
def test_other_jobs_get_other_methods(more: tuple[str, ...], answer: tuple[str, int, str]) -> None:
    assert recommended(*JOB, *more) == answer


def test_nothing_fits_exits_three_and_says_what_would() -> None:
    result = run("--model", "llama-70b", "--gpu", "24GB")
    assert result.exit_code == 3
    assert result.stdout.startswith("Nothing fits: ")
    assert "A bigger card" in result.stdout
    assert "A smaller model, llama-3.1-8b" in result.stdout
    answer = json.loads(run("--model", "llama-70b", "--gpu", "24GB", "--json").stdout)
    assert answer["recommendation"] is None
    assert len(answer["alternatives"]) >= 3


def test_json_is_the_librarys_model() -> None:
    result = run(*JOB, "--json")
    assert result.stderr == ""
    answer = Advice.model_validate_json(result.stdout)
    assert Advice.model_validate_json(answer.model_dump_json()) == answer
    assert json.loads(answer.model_dump_json()) == json.loads(result.stdout)


def test_warnings_stand_beside_json() -> None:
    result = run(*JOB, "--json", "--method", "full", "--rank", "8", "--gpu", "80GB", "--model", "qwen2.5-0.5b")
    assert "advise: warning: --rank has no effect" in result.stderr
    json.loads(result.stdout)


def test_explain_lists_every_term() -> None:
    answer = json.loads(run(*JOB, "--json").stdout)
    terms = next(row for row in answer["candidates"] if row["method"] == "dora")["memory"]["terms"]
    text = run(*JOB, "--explain").stdout
    assert len(terms) > 4
    assert all(f"{term['bytes']:,}" in text for term in terms)


def test_it_ends_with_the_next_step_and_prints_the_script_on_request() -> None:
    assert run(*JOB).stdout.endswith(
        "Next: add --write auto to write the file for transformers, --script to print it.\n"
    )
    answer, _, script = run(*JOB, "--script").stdout.partition("\nRun this (train.py)\n")
    assert "Next:" not in answer
    compile(script, "train.py", "exec")


@pytest.mark.parametrize(
    ("target", "trainer", "name", "line"),
    [
        ("auto", "transformers", "train.py", "python train.py"),
        ("auto", "trl", "train.yaml", "trl sft --config train.yaml"),
        ("python", "trl", "train.py", "python train.py"),
        ("axolotl", "transformers", "train.yaml", "axolotl train train.yaml"),
        ("auto", "unsloth", "train.py", "PYTORCH_ALLOC_CONF=expandable_segments:True python train.py"),
        ("auto", "torchtune", "train.yaml", "tune run lora_finetune_single_device --config train.yaml"),
    ],
)
def test_write_leaves_the_file_and_says_how_to_start_it(
    target: str, trainer: str, name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = (*JOB, "--model", "llama-3.2-1b", "--trainer", trainer, "--method", "lora", "--write", target)
    result = run(*asked)
    assert result.exit_code == 0
    assert result.stdout.endswith(f"\nWrote {name}. Start it with:\n{line}\n")
    assert "Next:" not in result.stdout
    text = (tmp_path / name).read_text()
    assert f"# run: {line}\n" in text
    assert f"--write is '{name}': exists already; add --force to replace it" in one_line_error(run(*asked))
    (tmp_path / name).write_text("mine")
    assert run(*asked).exit_code == 2
    assert (tmp_path / name).read_text() == "mine"
    assert run(*asked, "--force").exit_code == 0
    assert (tmp_path / name).read_text() == text
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_file_in_another_folder_finds_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"text": "word word"}\n')
    asked = ("--model", "llama-8b", "--gpu", "24GB", "--data", "train.jsonl", "--method", "lora")
    result = run(*asked, "--write", "llamafactory", "--to", "my runs")
    assert result.exit_code == 0, result.output
    assert "the estimate is of transformers's step; --trainer llamafactory has its own.\nWrote" in result.stdout
    assert "Wrote my runs/train.yaml and my runs/dataset_info.json." in result.stdout
    assert result.stdout.endswith("\ncd 'my runs' && llamafactory-cli train train.yaml\n")
    rows = json.loads((tmp_path / "my runs" / "dataset_info.json").read_text())["train"]
    assert rows["file_name"] == str(tmp_path / "train.jsonl")
    (tmp_path / "my runs" / "train.yaml").unlink()
    assert "dataset_info.json" in one_line_error(run(*asked, "--write", "llamafactory", "--to", "my runs"))
    assert not (tmp_path / "my runs" / "train.yaml").exists()


def test_json_is_all_that_stdout_gets(tmp_path: Path) -> None:
    result = run(*JOB, "--json", "--script", "--write", "auto", "--to", str(tmp_path / "new"))
    assert "script" not in json.loads(result.stdout)
    assert "advise: warning: --script has no effect with --json\n" in result.stderr
    assert f"Wrote {tmp_path / 'new' / 'train.py'}. Start it with:" in result.stderr
    assert (tmp_path / "new" / "train.py").is_file()


def test_where_nothing_fits_nothing_is_written(tmp_path: Path) -> None:
    result = run("--model", "llama-70b", "--gpu", "24GB", "--write", "auto", "--to", str(tmp_path / "new"))
    assert (result.exit_code, result.stderr) == (3, "advise: warning: nothing fits, so there is no file to run\n")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(*JOB, "--write", "auto", "--to", str(tmp_path / "file" / "below"))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (4, "", 1)
    assert "cannot be made" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*JOB, "--write", "pyhton"), "did you mean python?"),
        ((*JOB, "--to", "runs"), "--to has no effect without --write, for example --write auto"),
        ((*JOB, "--force"), "--force has no effect without --write"),
        (("--write", "auto", "models"), "options before a subcommand have no effect"),
        (("--force", "models"), "options before a subcommand have no effect"),
        (
            (*JOB, "--model", "llama-3.2-1b", "--trainer", "trl", "--method", "lora", "--alpha", "0.4", "--script"),
            "--alpha is 0.4, but must be a whole number in a file for TRL; --write python takes any",
        ),
        ((), "try: advise --model llama-8b --gpu 24GB --examples 3000"),
        (("--model", "llama-8b"), "no --gpu given"),
        (("--gpu", "24GB"), "no --model given"),
        ((*JOB, "--model", "lama-8b"), "did you mean"),
        ((*JOB, "--gpu", "rtx4091"), "rtx-4090"),
        ((*JOB, "--method", "dorra"), "dora"),
        ((*JOB, "--target-modules", "q_prj"), "q_proj"),
        ((*JOB, "--rank", "0"), "1 to 16,384"),
        ((*JOB, "--epochs", "nan"), "must be a number greater than 0 and at most 10,000"),
        ((*JOB, "--dropout", "1"), "less than 1"),
        ((*JOB, "--seq-len", "9" * 5000), "1 to 10,000,000"),
        ((*JOB, "--trainer", "axolotle"), "did you mean"),
        ((*JOB, "--sharding", "pipeline", "--gpus", "8"), "known: none, ddp, fsdp1, fsdp2"),
        ((*JOB, "--micro-batch", "3", "--batch-size", "16"), "must be a multiple of --micro-batch"),
        ((*JOB, "--mean-seq-len", "4096", "--seq-len", "2048"), "at most --seq-len"),
        ((*JOB, "--no-such-flag"), "--no-such-flag"),
        ((*JOB, "--rank"), "--rank"),
        (("frobnicate",), "frobnicate"),
        (("explain", "ADV999"), "see: advise rules"),
        (("explain",), "CODE"),
        (("--rank", "8", "models"), "options before a subcommand have no effect"),
        ((*JOB, "--data", "rows.xlsx"), "must end in one of .jsonl"),
        (("data", "rows.xlsx"), "must end in one of .jsonl"),
        ((*JOB, "--tokenizer", "nowhere", "--data", "rows.txt"), "give a tokenizer.json"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_bad_input_is_one_line_and_exit_two(arguments: tuple[str, ...], words: str) -> None:
    assert words in one_line_error(run(*arguments))


def test_an_unreadable_file_exits_four() -> None:
    result = run(*JOB, "--data", "/nonexistent/rows.jsonl")
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1


def test_help_names_every_knob_and_range() -> None:
    result = run("--help")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert len(KNOBS) >= 46
    for knob in KNOBS:
        assert knob.flag in text
        if knob.kind == "int":
            assert f"{range_of(knob).low:,}" in text
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_version_and_listings() -> None:
    assert run("--version").stdout.startswith("advise ")
    assert "llama-3.1-8b" in run("models").stdout
    assert "RTX 4090" in run("gpus").stdout
    listed = run("rules").stdout
    for rule in RULES:
        assert rule.code in listed
        assert run("explain", rule.code).stdout.startswith(f"{rule.code}: ")
    for command in ("models", "gpus", "rules"):
        assert max(map(len, run(command).stdout.splitlines())) <= 80, command


RUBBISH = ("", "nan", "-1", "1e9999", "[/]", "x" * 300, "\u0663", "0x10", "--")
TEXTS = {
    "model": ("llama-8b", "gpt2", "qwen2.5-0.5b", "gemma-2-2b", "phi-2", "pythia-1.4b", "qwen2.5-vl-3b"),
    "gpu": ("24GB", "8GB", "rtx4090", "h100", "7GB", "t4"),
    "data": ("/", "a.txt"),
    "tokenizer": ("/", "a/b"),
    "image_size": ("1024x768", "99999x1", "640"),
}


def good_values(knob: Knob) -> st.SearchStrategy[str]:
    """Allowed values of one knob, those at the ends of its range as well."""
    if knob.kind in ("int", "float"):
        allowed = range_of(knob)
        low = allowed.low + 1e-3 if allowed.open_low else allowed.low
        high = allowed.high - 1e-3 if allowed.open_high else allowed.high
        steps = {low, high, *(low + n for n in (1, 15, 2047, 99_999) if low + n <= high)}
        return st.sampled_from(sorted(steps)).map(lambda n: str(int(n)) if knob.kind == "int" else repr(n))
    if knob.kind == "names":
        return st.sampled_from(["all-linear", "attention"])
    return st.sampled_from(knob.choices or TEXTS[knob.name])


def arguments_of(knob: Knob, others: tuple[str, ...] = ()) -> st.SearchStrategy[list[str]]:
    """The flag with an allowed value or one of `others`."""
    if knob.kind == "bool":
        return st.sampled_from([[knob.flag], ["--no-" + knob.flag[2:]]])
    values = st.one_of(good_values(knob), st.sampled_from(others)) if others else good_values(knob)
    return values.map(lambda value: [knob.flag, value])


def check_end(arguments: list[str]) -> int:
    """Run, hold the end to what is documented, and return the exit code."""
    result = run(*arguments)
    assert result.exit_code in (0, 2, 3, 4), (arguments, result.exception)
    assert "Traceback" not in result.output
    if result.exit_code in (2, 4):
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
    elif "--json" in arguments:
        answer = Advice.model_validate_json(result.stdout)
        assert (answer.recommendation is None) == (result.exit_code == 3)
        json.loads(result.stdout, parse_constant=lambda word: pytest.fail(f"{word} is not JSON: {arguments}"))
    else:
        assert max(map(len, result.stdout.splitlines())) <= 80, arguments
    return result.exit_code


ENDS = st.sampled_from([[], ["--json"], ["--explain"]])


@pytest.mark.slow
@settings(max_examples=times(20))
@given(st.data())
def test_allowed_values_end_in_advice_or_a_contradiction(data: st.DataObject) -> None:
    arguments = [*JOB]
    for name in data.draw(st.lists(st.sampled_from(sorted(set(BY_NAME) - {"data"})), max_size=6, unique=True)):
        arguments += data.draw(arguments_of(BY_NAME[name]))
    assert check_end([*arguments, *data.draw(ENDS)]) != 4


@pytest.mark.slow
@settings(max_examples=times(15))
@given(st.data())
def test_anything_typed_ends_in_a_documented_exit(data: st.DataObject) -> None:
    arguments = [*JOB]
    for name in data.draw(st.lists(st.sampled_from(sorted(BY_NAME)), min_size=1, max_size=4, unique=True)):
        arguments += data.draw(arguments_of(BY_NAME[name], RUBBISH))
    check_end([*arguments, *data.draw(ENDS)])


@pytest.mark.process
def test_a_reader_that_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.run(
        [sys.executable, "-c", "from advisor.cli import main; main()", "models"],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (child.returncode, child.stderr) == (141, "")


@pytest.mark.process
def test_ctrl_c_exits_130_without_a_traceback() -> None:
    code = (
        "import advisor.advice.advise, time\n"
        "def wait(**knobs):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
        "advisor.advice.advise.advise = wait\nfrom advisor.cli import main\nmain()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *JOB], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Traceback" not in errors


@pytest.mark.process
def test_a_terminal_that_knows_ascii_only(tmp_path: Path) -> None:
    rows = tmp_path / "zeilen-ü.txt"
    rows.write_text("x\n" * 10)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    child = subprocess.run(
        [sys.executable, "-c", "from advisor.cli import main; main()", *JOB, "--data", str(rows)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr


@pytest.mark.process
def test_a_full_disk_is_one_line() -> None:
    command = [sys.executable, "-c", "from advisor.cli import main; main()", *JOB]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("advise: error: the answer could not be written")
    assert ended.stderr.count("\n") == 1


@pytest.mark.process
def test_a_closed_output_is_no_error() -> None:
    script = f"{sys.executable} -c 'from advisor.cli import main; main()' {' '.join(JOB)} >&-"
    ended = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "llama-8b", "--gpu", "24", "GB"), "unknown command 'GB'; commands: check, compare, data, explain"),
        ((*JOB, "--packing", "yes"), "switches take no value"),
        ((*JOB, "--compile"), "torch.compile changes memory and time"),
    ],
)
def test_stray_words_say_what_to_do(arguments: tuple[str, ...], words: str) -> None:
    assert words in one_line_error(run(*arguments))


def test_the_head_gets_an_adapter_where_it_is_named() -> None:
    asked = (*JOB, "--target-modules", "q_proj,lm_head", "--method", "lora", "--json")
    with_head, without = (
        json.loads(run(*some).stdout)["candidates"][0]
        for some in (asked, [word.removesuffix(",lm_head") for word in asked])
    )
    assert with_head["trainable_parameters"] - without["trainable_parameters"] == 16 * (4096 + 128_256)
    assert with_head["memory"]["needed_bytes"]["likely"] > without["memory"]["needed_bytes"]["likely"]
    answer = json.loads(run(*asked, "--trainer", "trl").stdout)
    assert answer["candidates"][0]["recipe"]["loss"] == "full"
    assert any("past its adapter: estimated with --loss full" in note["text"] for note in answer["notes"])
    words = one_line_error(run(*asked, "--trainer", "trl", "--loss", "chunked"))
    assert "--loss is 'chunked': it bypasses the adapter of lm_head; add --loss full" in words
    words = one_line_error(run(*asked, "--kernels", "liger"))
    assert "--kernels is 'liger_loss': it bypasses the adapter of lm_head; leave it out" in words


def test_savings_are_tried_together_where_one_is_not_enough() -> None:
    result = run("--model", "gemma-3-27b", "--gpu", "24GB", "--examples", "3000", "--seq-len", "3000")
    assert result.exit_code == 3
    text = " ".join(result.stdout.split())
    assert "--kernels liger --no-kbit-upcast together: QLoRA then needs" in text


def test_a_data_file_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a few words"}\n' * 40)
    result = run("data", str(path), "--seq-len", "4", "--model", "llama-8b")
    assert result.exit_code == 0
    assert result.stdout.startswith("40 rows of text (jsonl, columns text)")
    assert max(map(len, result.stdout.splitlines())) <= 80
    summary = json.loads(run("data", str(path), "--json").stdout)
    assert (summary["rows"], summary["micro_batch"], summary["steps"]) == (40, 16, 3)
    assert "how long the rows" in " ".join(run("data", "--help").stdout.split())


def test_a_bad_line_ends_in_two_and_is_left_out_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a few words"}\n{"text": \n')
    for command in (("data", str(path)), (*JOB, "--data", str(path))):
        assert "1 of 2 rows cannot be read, at line 2" in one_line_error(run(*command))
        assert run(*command, "--skip-bad-lines").exit_code == 0


@pytest.mark.process
def test_ctrl_c_while_a_data_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        file.writelines(['{"text": "a few words"}\n'] * 500_000)
    code = (
        "import advisor.dataset.summary as s\nread = s.rows_of\n"
        "def rows(*a):\n    print('reading', flush=True)\n    yield from read(*a)\n"
        "s.rows_of = rows\nfrom advisor.cli import main\nmain()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "data", str(path)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "reading\n"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert (child.returncode, errors.strip()) == (130, "interrupted")
