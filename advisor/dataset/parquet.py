"""Rows of a Parquet file, through pyarrow, which is loaded only here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advisor.dataset.rows import Numbered, Progress, shown
from advisor.errors import BadValue, SourceUnavailable

_ROWS_AT_ONCE = 256


def parquet_rows(path: str, columns: Sequence[str], progress: Progress | None) -> Iterator[Numbered]:
    """Rows with those of `columns` that the file has, or with all if it has none of them.

    Raises SourceUnavailable without pyarrow, BadValue for a file that is not Parquet or is damaged.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise SourceUnavailable(
            f"reading --data {path!r} needs a package: `pip install pyarrow`, or give a .jsonl file"
        ) from None
    number = 0
    try:
        with ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            wanted = [name for name in file.schema_arrow.names if name in columns] or None
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=wanted, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
                if progress is not None:
                    progress(number, file.metadata.num_rows)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not pyarrow's, which wraps damage in OSError too
        raise BadValue("--data", path, f"it cannot be read as Parquet after row {number:,}: {shown(error)}") from None
