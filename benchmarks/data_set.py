"""How long a data set of a million rows takes to read, in how much memory, and how exact its percentiles are.

    python -m benchmarks.data_set [--rows 1000000]

The rows are JSON Lines of 1 to 120 words, drawn with a fixed seed; the tokenizer is trained on a part of them. The
reference is `wc -l` on the file plus the tokenizer alone on the texts, which lie in a file of their own, one a line.
Every part runs in its own process. Exits with 1 when the reading takes more than 3 times the reference, more than
200 MiB, or when a percentile is off by more than 0.5 %.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIMES, MIB, OFF = 3.0, 200, 0.005
SEED = 5
BATCH = 256
STARTS = ("ba", "co", "di", "fe", "gru", "ha", "jo", "ku", "la", "mi", "no", "pe", "quo", "ri", "sa", "to", "ul", "ve")
ENDS = ("n", "rd", "st", "", "mer", "tion", "ing", "s", "ly", "ble", "de", "ck", "ph", "x", "que", "z")


def make_files(folder: Path, rows: int) -> None:
    """`rows.jsonl`, its texts in `texts.txt`, and `tokenizer.json`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    draw = random.Random(SEED)
    words = [draw.choice(STARTS) + draw.choice(STARTS) * draw.randint(0, 1) + draw.choice(ENDS) for _ in range(5_000)]
    with open(folder / "rows.jsonl", "w") as data, open(folder / "texts.txt", "w") as texts:
        for number in range(rows):
            text = " ".join(draw.choices(words, k=int(120 ** draw.random())))
            data.write(
                json.dumps({"id": f"{number:032x}", "text": text, "url": f"https://example.org/{number}"}) + "\n"
            )
            texts.write(text + "\n")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with open(folder / "texts.txt") as texts:
        sample = [next(texts) for _ in range(min(rows, 5_000))]
    tokenizer.train_from_iterator(sample, trainers.BpeTrainer(vocab_size=4_000, show_progress=False))
    tokenizer.save(str(folder / "tokenizer.json"))


def tokenizer_alone(folder: Path) -> dict[str, Any]:
    """Seconds of the tokenizer on the texts, with the percentiles of all lengths sorted."""
    from tokenizers import Tokenizer

    from advisor.dataset.lengths import PERCENTILES

    tokenizer, lengths, taken_s = Tokenizer.from_file(str(folder / "tokenizer.json")), array("I"), 0.0
    with open(folder / "texts.txt") as texts:
        while batch := [line[:-1] for _, line in zip(range(BATCH), texts, strict=False)]:
            begun = time.perf_counter()
            found = tokenizer.encode_batch_fast(batch)
            taken_s += time.perf_counter() - begun
            lengths.extend(len(one) + 1 for one in found)  # and the end of the sequence
    ordered = sorted(lengths)
    ranks = [max(1, -int(-len(ordered) * percent // 100)) for percent in PERCENTILES]
    return {"seconds": taken_s, "percentiles": [ordered[rank - 1] for rank in ranks]}


def read(folder: Path, counted: bool) -> dict[str, Any]:
    """Seconds, peak memory and percentiles of reading the file."""
    from advisor.dataset.counting import Counter, Estimated, Tokenized
    from advisor.dataset.summary import measure

    counter: Counter = Tokenized(folder / "tokenizer.json") if counted else Estimated(128_000, "benchmark")
    begun = time.perf_counter()
    found = measure(str(folder / "rows.jsonl"), counter)
    taken_s = time.perf_counter() - begun
    from advisor.dataset.lengths import PERCENTILES

    return {
        "seconds": taken_s,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": found.lengths.rows,
        "percentiles": [found.lengths.percentile(percent) for percent in PERCENTILES],
    }


def in_a_process(what: str, folder: Path) -> dict[str, Any]:
    """What one of the parts prints."""
    command = [sys.executable, "-m", "benchmarks.data_set", "--part", what, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def compare(folder: Path) -> bool:
    """Print all figures; whether they keep the limits."""
    path = folder / "rows.jsonl"
    subprocess.run(["wc", "-l", path], check=True, stdout=subprocess.DEVNULL)  # from now on the file is in memory
    begun = time.perf_counter()
    subprocess.run(["wc", "-l", path], check=True, stdout=subprocess.DEVNULL)
    wc_s = time.perf_counter() - begun
    alone, counted, estimated = (in_a_process(what, folder) for what in ("alone", "counted", "estimated"))
    reference_s = wc_s + alone["seconds"]
    off = max(abs(a - b) / b for a, b in zip(counted["percentiles"], alone["percentiles"], strict=True))
    print(f"{counted['rows']:,} rows, {path.stat().st_size / 1e6:,.0f} MB")
    print(f"wc -l {wc_s:.2f} s, the tokenizer alone {alone['seconds']:.1f} s")
    for name, found in (("counted", counted), ("estimated", estimated)):
        times = found["seconds"] / reference_s
        print(f"{name:9} {found['seconds']:6.1f} s, {times:.2f} times the reference, {found['mib']:.0f} MiB at most")
    print(f"percentiles off by {off:.2%} at most (limits: {TIMES:g} times, {MIB} MiB, {OFF:.1%})")
    return counted["seconds"] <= TIMES * reference_s and max(counted["mib"], estimated["mib"]) <= MIB and off <= OFF


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the files and compare, or run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--part", choices=("alone", "counted", "estimated"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part is not None:
        alone = options.part == "alone"
        print(json.dumps(tokenizer_alone(options.folder) if alone else read(options.folder, options.part == "counted")))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), options.rows)
        return 0 if compare(Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
