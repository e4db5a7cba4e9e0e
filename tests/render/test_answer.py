"""What people read: a first screen of 45 lines of 80 columns, no color needed, every name literal."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from advisor.advice.advise import advise
from advisor.advice.sentence import verdict_line
from advisor.answer import Advice, Reason
from advisor.cli import cli
from advisor.export.run import TrainingFile
from advisor.render.answer import LINES, render, render_rule, worth_knowing
from advisor.rules import RULES
from advisor.specs import METHODS, GpuSpec, TracedModel
from advisor.units import format_gib
from tests.fakes import MODEL, FakeCatalog, card, fake_estimate


def ask(gib: float = 24, name: str = "small-1b", gpu: str = "card", **knobs: Any) -> Advice:
    model = MODEL.model_copy(update={"name": name})
    return advise(model, card(gib, gpu), catalog=FakeCatalog(), estimator=fake_estimate, **{"examples": 3000, **knobs})


def screen(answer: Advice, explain: bool = False) -> str:
    out = io.StringIO()
    render(answer, out, explain=explain)
    return out.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


KNOBS: tuple[dict[str, Any], ...] = (
    {},
    {"gib": 2.5},
    {"gib": 1},
    {"method": "full", "gib": 80},
    {"examples": 200_000},
    {"examples": 10**12, "epochs": 10_000.0, "price_per_hour": 1000},
    {"gpus": 1000, "batch_size": 100_000},
    {"name": "a-rather-long-name-" * 12, "gpu": "a card with a long name " * 5},
)


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("knobs", KNOBS)
def test_eighty_columns_and_no_color(knobs: dict[str, Any], explain: bool) -> None:
    text = screen(ask(**knobs), explain)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert explain or len(text.splitlines()) <= LINES


MODELS = ("llama-8b", "qwen2.5-0.5b", "gemma-2-2b", "olmoe-1b-7b", "gpt2")
CARDS = ("24GB", "8GB", "80GB", "rtx4090", "t4", "7GB", "v100")
OTHERS = (
    "--gpus 4 --trainer trl --dropout 0.1",
    "--method lora --rank 64 --packing",
    "--priority speed --price-per-hour 0.4 --epochs 3",
    "--priority memory --trainer unsloth --seq-len 8192",
    "--examples 200000 --seq-len 131072 --trainer litgpt",
    "--no-gradient-checkpointing --micro-batch 1 --batch-size 127 --base-dtype float32 --quant int8",
    "--target-modules attention --optimizer paged_adamw_8bit --attention eager --no-kbit-upcast --dropout 0.5",
)
QUESTIONS = [
    *(f"--model {model} --gpu {gpu}" for model, gpu in itertools.product(MODELS, CARDS)),
    *(f"--model {model} --gpu {gpu} {more}" for model, gpu in (("llama-8b", "24GB"), ("olmoe-1b-7b", "48GB"))
      for more in OTHERS),
    *(f"--model llama-3.2-1b --gpu 12GB {more}" for more in OTHERS),
    "--model llama-70b --gpu 24GB",
    "--model mixtral-8x7b --gpu 80GB",
    "--model gpt-oss-20b --gpu 24GB --examples 3000",
    "--model phi-4 --gpu 16GB",
]  # fmt: skip


def test_there_are_many_questions() -> None:
    assert len(QUESTIONS) >= 60


@pytest.mark.parametrize("question", QUESTIONS)
def test_any_question_fits_on_a_screen(question: str) -> None:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(cli, question.split())
    assert result.exit_code in (0, 3), result.output
    lines = result.stdout.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("Next: ") for line in lines[-3:])
    assert "--explain: " in result.stdout


def test_a_data_file_fits_on_a_screen(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "' + "word " * 200 + '"}\n')
    arguments = ["--model", "llama-8b", "--gpu", "24GB", "--data", str(rows)]
    result = CliRunner(env={"COLUMNS": "80"}).invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) <= LINES


@pytest.mark.parametrize("columns", ["0", "2", "40", "60", "80", "200", "nonsense"])
def test_no_width_cuts_a_number_off(columns: str) -> None:
    runner = CliRunner(env={"COLUMNS": columns})
    asked = ["--model", "llama-8b", "--gpu", "24GB", "--examples", "3000"]
    text = runner.invoke(cli, asked).stdout
    answer = advise("llama-8b", "24GB", 3000)
    assert words(text).startswith(verdict_line(answer))
    width = {"2": 40, "40": 40, "60": 60}.get(columns, 80)
    assert max(map(len, text.splitlines())) <= width
    for row in answer.candidates:
        line = next(line for line in text.splitlines() if line[2:].startswith(f"{row.method} "))
        needed = row.memory.needed_bytes
        assert f"{needed.likely / 2**30:.1f} ({needed.high / 2**30:.1f})" in line
    assert ("at dora's recipe" in text) is (width == 80)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_bars_in_any_encoding(encoding: str) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # raises for what it cannot show
    render(ask(8), out)
    out.flush()
    text = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert ("█" in text) is (encoding == "utf-8")
    assert ("#" in text) is (encoding != "utf-8")


def test_the_verdict_comes_first_with_numbers() -> None:
    answer = ask()
    first = " ".join(screen(answer).splitlines()[:2])
    assert first.startswith("Use DoRA r=16: small-1b (1.10B parameters) on card fits with ")
    assert "of 24.0 GiB and takes" in first
    assert "for 3,000 examples" in first
    assert verdict_line(ask(1)).startswith("Nothing fits: small-1b")
    assert verdict_line(ask(epochs=3.0)).endswith("3,000 examples x 3 epochs.")
    assert "on 4 x card" in verdict_line(ask(gpus=4))


def test_a_bare_size_names_three_cards_with_their_times() -> None:
    answer = advise("llama-8b", "24GB", 3000)
    assert answer.recommendation is not None
    row = answer.candidate(answer.recommendation.method)
    fastest, usual, slowest = row.card_times
    assert (fastest.card, slowest.card) == (row.fastest_card, row.slowest_card)
    line = verdict_line(answer)
    for one, place in ((fastest, "the fastest card"), (usual, "the middle one"), (slowest, "the slowest")):
        assert re.search(rf"[\d.]+ (min|h) on {place} \({one.card}\)", line)
    assert all(other.card_times == () for other in answer.candidates if other.method != row.method)


def test_cards_that_stand_in_are_named_as_such() -> None:
    unknown = GpuSpec(name="odd", generation="", memory_bytes=8 * 2**30, marketed_gb=8)
    answer = advise(MODEL, unknown, 3000, method="lora", catalog=Slower(), estimator=fake_estimate)
    expected = r"3,000 examples take [\d.]+ \w+ if it is as fast as eight and [\d.]+ \w+ if as fast as slow"
    assert re.search(expected, verdict_line(answer))


class Slower(FakeCatalog):
    """Cards of two speeds."""

    def cards_near(self, memory_bytes: int) -> tuple[GpuSpec, ...]:
        return card(8, "eight"), card(8, "slow", tflops=20)


def test_one_row_a_method_with_the_least_and_the_plan() -> None:
    answer = ask(8)
    table = screen(answer).partition("* recommended;")[0]
    rows = {
        line[2:].split()[0]: line
        for line in table.splitlines()
        if line[2:].split()[:1] and line[2:].split()[0] in METHODS
    }
    assert list(rows) == list(METHODS)
    for method, line in rows.items():
        row = answer.candidate(method)
        least, needed = row.least.memory.needed_bytes.likely, row.memory.needed_bytes
        likely, high = format_gib(needed.likely), format_gib(needed.high)
        assert re.search(rf"{format_gib(least)} +{likely} \({high}\)", line)
    assert " no " in rows["full"]
    assert rows["dora"].startswith("* ")
    assert " yes " in rows["dora"]
    compared = answer.candidate("qlora").compared
    assert compared is not None
    assert rows["qlora"].rstrip().endswith(f"{compared.time_ratio:.2f}x")


def test_what_does_not_fit_on_the_screen_is_counted_and_explained() -> None:
    answer = ask(dropout=0.1, gradient_checkpointing=False, micro_batch=1)
    assert answer.recommendation is not None
    many = tuple(Reason(code=f"W{i}", text=f"warning {i} " + "word " * 40, source="a source") for i in range(30))
    answer = answer.model_copy(update={"recommendation": answer.recommendation.model_copy(update={"warnings": many})})
    text = words(screen(answer))
    assert len(screen(answer).splitlines()) <= LINES
    shown = sum(f"[W{i}]" in text for i in range(30))
    assert 3 < shown < 30
    left_out = re.search(r"(\d+) more items are there", text)
    assert left_out is not None
    assert int(left_out[1]) >= 30 - shown
    assert all(f"[W{i}] a source" in words(screen(answer, explain=True)) for i in range(30))


def test_explain_keeps_every_fact() -> None:
    answer = ask(
        dropout=0.1, gradient_checkpointing=False, micro_batch=1, price_per_hour=2.0, target_modules="all-linear"
    )
    assert answer.recommendation is not None
    text = words(screen(answer, explain=True))
    for reason in (*answer.recommendation.reasons, *answer.recommendation.warnings, *answer.notes):
        assert f"{reason.text} [{reason.code}]" in text
    assert "https://github.com/huggingface/peft/tree/" in text
    assert "fixed: examples, target-modules, dropout, gradient-checkpointing, micro-batch" in text
    assert "rank 16" in text.partition("chosen: ")[2]
    assert " per micro-step, bound by " in text
    assert "; cost " in text
    row = answer.candidate(answer.recommendation.method)
    assert f"peak at {row.memory.peak_at}" in text
    for term in row.memory.terms:
        assert f"{term.name} {term.bytes:,} " in text
    assert answer.prices
    for change in answer.prices:
        mark = "; changes the training" if change.changes_training else ""
        assert f"{change.text}{mark}. [{change.code}]" in text


def test_explain_shows_the_frontier() -> None:
    answer = advise("llama-8b", "80GB", 3000)
    assert len(answer.frontier) > 1
    text = screen(answer, explain=True).partition("Plans of DoRA")[2].partition("* the plan above")[0]
    rows = text.splitlines()[3:]
    assert len(rows) == len(answer.frontier)
    for line, plan in zip(rows, answer.frontier, strict=True):
        assert f" {plan.recipe.micro_batch}x{plan.recipe.gradient_accumulation} " in line
        assert f"{plan.memory.needed_bytes.likely / 2**30:.1f} (" in line
        assert line.startswith("*") is (plan.recipe == answer.candidate("dora").recipe)


def test_explain_lists_the_cards_and_the_screen_counts_them() -> None:
    answer = advise("llama-8b", "24GB", 3000)
    assert f"{len(answer.gpu.cards)} cards have this size" in screen(answer)
    text = words(screen(answer, explain=True))
    assert all(name in text.partition("cards of 24GB")[2] for name in answer.gpu.cards)


def test_the_prices_on_the_screen() -> None:
    prices = advise("llama-8b", "80GB", 3000).prices
    shown = worth_knowing(prices)
    assert 0 < len(shown) <= 3
    fitting = [one for one in prices if one.plan is not None and one.plan.verdict != "does_not_fit"]
    assert min(fitting, key=lambda one: (one.changes_training, one.memory_bytes)) == shown[0]
    assert min(fitting, key=lambda one: one.time_s or 0) in shown
    assert set(shown) <= set(fitting)
    assert worth_knowing(()) == ()


def test_the_next_command() -> None:
    assert screen(ask()).splitlines()[-1].startswith("Next: add --write")
    assert "Next: set in litgpt's own file what --explain lists" in words(screen(ask(trainer="litgpt")))
    nothing = ask(1)
    assert "What would fit" in screen(nothing)
    flags = next(one.flags for one in nothing.alternatives if one.flags)
    assert words(screen(nothing)).endswith(f"Next: add {' '.join(flags)}.")
    model = TracedModel(
        name="odd",
        architecture="odd_net",
        kind="AutoModelForMaskedLM",
        parameters=1000,
        max_position_embeddings=512,
        source="odd",
        profile="odd.json",
        checksum="",
        traced_with="transformers 5.23",
    )
    traced = ask().model_copy(update={"model": model})
    assert "Next: load it with AutoModelForMaskedLM.from_pretrained" in words(screen(traced))


def test_a_cost_stands_beside_the_time() -> None:
    answer = ask(price_per_hour=2.0)
    cost = answer.candidate("dora").cost
    assert cost is not None
    assert f"; likely cost {cost.likely:,.2f} ({cost.low:,.2f} to {cost.high:,.2f})" in verdict_line(answer)
    assert "cost" not in verdict_line(ask())


def test_a_script_comes_as_it_is_at_the_end() -> None:
    out = io.StringIO()
    script = TrainingFile("train.py", "print('[red] :smile:')  # " + "wide " * 20 + "\n", "python train.py")
    render(ask(), out, script=script, next_step=False)
    assert out.getvalue().endswith(f"\nRun this (train.py)\n{script.text}")
    assert "Next:" not in out.getvalue()


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", ":smile:", "a[b]", "[link=http://x]y", "{0}%s\\n"])
def test_hostile_names_print_literally(name: str) -> None:
    text = screen(ask(name=name, gpu=name))
    assert text.splitlines()[0].count(name) + text.splitlines()[1].count(name) == 2


def test_rules_are_explained_without_their_indentation() -> None:
    for rule in RULES:
        out = io.StringIO()
        render_rule(rule, out)
        text = out.getvalue()
        assert text.startswith(f"{rule.code}: {rule.title}")
        assert " ".join(rule.explanation.split()[-5:]) in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 80
