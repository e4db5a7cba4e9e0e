"""The same rows in every format and form."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.dataset.counting import Counter, Estimated
from advisor.dataset.summary import Measured, measure

ASKED, SAID = 'What is "4, 5"?\nTell me.', "Nine."
ROWS: dict[str, dict[str, Any]] = {
    "text": {"text": ASKED + SAID},
    "messages": {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]},
    "prompt_completion": {"prompt": ASKED, "completion": SAID},
    "alpaca": {"instruction": ASKED, "input": "", "output": SAID},
    "sharegpt": {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}]},
}
COLUMNS = {
    "text": ("text",),
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "input", "output"),
    "sharegpt": ("conversations",),
}
NOISE = {"id": "x" * 5000, "url": "https://example.org/" + "y" * 5000, "source": "z" * 5000}
FORMATS = ("jsonl", "ndjson", "json", "pretty.json", "csv", "parquet")
NESTED = ("messages", "sharegpt")


def written(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A file of `rows`, in the format that its name ends in ('.gz' behind it packs it, 'pretty.json' indents)."""
    path = folder / name
    plain = name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        return path
    if plain.endswith(".csv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue()
    elif plain.endswith(".json"):
        content = json.dumps(rows, indent=2 if "pretty" in name else None, ensure_ascii=False)
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows)
    data = content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def estimating() -> Counter:
    """A counter that needs no tokenizer."""
    return Estimated(128_000, "tests")


def measured(path: Path | str, **options: Any) -> Measured:
    """What the file says, its tokens estimated."""
    return measure(str(path), estimating(), **options)
