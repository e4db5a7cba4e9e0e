"""Questions drawn at random and answered, to compare two versions of the tool.

    python -m benchmarks.answers --out before.jsonl                    2,000 questions, one JSON object a line
    python -m benchmarks.answers --out after.jsonl --against before.jsonl
    python -m benchmarks.answers --out after.jsonl --against before.jsonl --figures     texts left out

The draw depends only on the seed, so two versions are asked the same questions as long as their catalogs list the
same models and cards. Exits with 1 when an answer differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from typing import Any

from advisor import advise, all_gpus, model_entries
from advisor.errors import AdvisorError

SIZES = ("8GB", "12GB", "16GB", "24GB", "40GB", "48GB", "80GB", "96GB")
KNOBS: dict[str, tuple[object, ...]] = {
    "method": ("full", "lora", "dora", "qlora", "qdora", "all"),
    "rank": (1, 4, 8, 32, 64, 256),
    "alpha": (8.0, 64.0),
    "target_modules": ("attention", "all-linear", "q_proj,v_proj", "nonsense"),
    "dropout": (0.0, 0.05, 0.1),
    "base_dtype": ("bfloat16", "float16", "float32"),
    "adapter_dtype": ("bfloat16", "float32"),
    "magnitude_dtype": ("bfloat16", "float32"),
    "quant": ("nf4", "fp4", "int8"),
    "double_quant": (True, False),
    "kbit_upcast": (True, False),
    "autocast": (True, False),
    "optimizer": ("adamw", "adamw_foreach", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "sgd"),
    "gradient_checkpointing": (True, False),
    "reentrant": (True, False),
    "attention": ("sdpa", "eager", "flash"),
    "loss": ("full", "chunked"),
    "micro_batch": (1, 2, 4, 8),
    "expandable_segments": (True, False),
    "batch_size": (1, 8, 24, 32, 64),
    "seq_len": (128, 512, 1000, 2048, 8192),
    "mean_seq_len": (64, 300, 512),
    "packing": (True, False),
    "epochs": (1.0, 2.5, 3.0),
    "priority": ("quality", "speed", "memory"),
    "trainer": ("transformers", "trl", "axolotl", "llamafactory", "unsloth", "torchtune", "litgpt"),
    "price_per_hour": (0.4, 2.5),
}
EXAMPLES = (100, 3_000, 20_000, 49_999, 50_000, 75_000, 100_000, 500_000)
TEXTS = frozenset({"text", "source", "why", "version", "peak_at", "rung", "memory_evidence"})


def drawn(count: int, seed: int, gpus: bool) -> Iterator[dict[str, Any]]:
    """`count` questions: any model on any card or size with up to eight knobs; with `gpus`, on several cards."""
    draw = random.Random(seed)
    models = [entry.name for entry in model_entries()]
    cards = [card.name for card in all_gpus()]
    for _ in range(count):
        question: dict[str, Any] = {
            "model": draw.choice(models),
            "gpu": draw.choice(SIZES) if draw.random() < 0.4 else draw.choice(cards),
            "examples": draw.choice(EXAMPLES),
        }
        for name in draw.sample(sorted(KNOBS), draw.choice((0, 1, 2, 3, 5, 8))):
            question[name] = draw.choice(KNOBS[name])
        if gpus:
            question |= {"gpus": draw.choice((2, 4, 8)), "sharding": draw.choice(("none", "ddp"))}
        yield question


def answered(question: dict[str, Any]) -> Any:
    """The answer as JSON holds it, or the error."""
    try:
        return json.loads(advise(**question).model_dump_json())
    except AdvisorError as error:
        return {"error": type(error).__name__, "text": str(error)}


def without_texts(found: Any) -> Any:
    """The same without sentences, and with terms by position instead of by name."""
    if isinstance(found, dict):
        if set(found) == {"name", "bytes"}:
            return found["bytes"]
        kept = {key: without_texts(value) for key, value in found.items() if key not in TEXTS and key != "evidence"}
        for key in ("notes", "alternatives"):
            kept.pop(key, None)
        return kept
    return [without_texts(one) for one in found] if isinstance(found, list) else found


def differences(mine: Any, theirs: Any, where: str = "") -> Iterator[str]:
    """The differences between two answers, as 'path: theirs -> mine'."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            yield from differences(mine.get(key), theirs.get(key), f"{where}.{key}")
    elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        for index, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            yield from differences(one, other, f"{where}[{index}]")
    elif mine != theirs:
        yield f"{where[1:]}: {json.dumps(theirs)[:110]} -> {json.dumps(mine)[:110]}"


def main() -> int:
    """Answer, write, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", required=True, help="file to write")
    parser.add_argument("--against", help="file with another version's answers to the same questions")
    parser.add_argument("--questions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gpus", action="store_true", help="several cards")
    parser.add_argument("--figures", action="store_true", help="leave texts out of the comparison")
    parser.add_argument("--part", default="0/1", help="which part of the questions: 0/2 and 1/2 are the two halves")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    questions = [q for n, q in enumerate(drawn(options.questions, options.seed, options.gpus)) if n % parts == part]
    before: dict[str, Any] = {}
    if options.against:
        with open(options.against, encoding="utf-8") as lines:
            before = {json.dumps(row["question"]): row["answer"] for row in map(json.loads, lines)}
    differ = missing = 0
    with open(options.out, "w", encoding="utf-8") as out:
        for question in questions:
            answer = answered(question)
            out.write(json.dumps({"question": question, "answer": answer}) + "\n")
            known = before.get(json.dumps(question))
            if known is None:
                missing += 1
                continue
            if options.figures:
                answer, known = without_texts(answer), without_texts(known)
            found = list(differences(answer, known))
            if found:
                differ += 1
                print(json.dumps(question), *found[:4], sep="\n    ")
    compared = len(questions) - missing if options.against else 0
    print(f"{len(questions)} questions answered; {compared} compared, {differ} differ")
    return int(differ > 0 or (bool(options.against) and missing > 0))


if __name__ == "__main__":
    sys.exit(main())
