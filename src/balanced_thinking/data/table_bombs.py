"""Tables whose few bytes stand for far more: rows without values, and one long text that a million rows share.

What a file claims is compared with its own size before it is read, and what it has given while it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balanced_thinking.data.bad_rows import DataError

# A row of real data takes bytes; columns that repeat compress to about a byte a row.
_ROWS_FREE, _ROWS_PER_BYTE = 500_000, 16
# Plain text compresses 100 times where it repeats.
_BYTES_FREE, _EXPANSION = 2**26, 1000
_ROWS_PER_READ = 64  # pictures make rows large
_READ_BYTES = 2**24  # of a batch whose values may be shared
_SHARED = 20  # times that a column is compressed, from which on its rows may share values


class TableBudget:
    """The most rows and bytes of values that a file of this size may give."""

    def __init__(self, file: Path) -> None:
        size = file.stat().st_size
        self._file, self._size = file, size
        self._most_rows = max(_ROWS_FREE, _ROWS_PER_BYTE * size)
        self._most_bytes = max(_BYTES_FREE, _EXPANSION * size)
        self._rows = self._bytes = 0

    def check_claim(self, rows: int, size_bytes: int) -> None:
        """Raises DataError for more than the file may give."""
        if rows > self._most_rows:
            raise self._make_error(f"{rows:,} rows", f"{self._most_rows:,}")
        if size_bytes > self._most_bytes:
            raise self._make_error(f"at least {size_bytes >> 20:,} MiB of values", f"{self._most_bytes >> 20:,} MiB")

    def count_batch(self, batch: Any) -> None:
        """As `check_claim`, for all that was read so far."""
        self._rows += batch.num_rows
        self._bytes += batch.nbytes + sum(_count_shared_bytes(column) for column in batch.columns)
        self.check_claim(self._rows, self._bytes)

    def _make_error(self, found: str, most: str) -> DataError:
        return DataError(
            f"{self._file} has {self._size:,} bytes, which stand for {found}; expected at most {most}: write the "
            "table again with fewer rows, or without compression"
        )


def _count_shared_bytes(column: Any) -> int:
    """The bytes of a column's texts if each row had its own; 0 for a column that has no dictionary."""
    import pyarrow
    from pyarrow import compute

    if not pyarrow.types.is_dictionary(column.type):
        return 0
    try:
        lengths = compute.binary_length(column.dictionary)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):  # numbers, which are small
        return 0
    return compute.sum(compute.take(lengths, column.indices).cast("int64")).as_py() or 0


def read_parquet_batches(file: Path) -> Iterator[Any]:
    """The batches of a parquet file. Raises DataError before or while it expands to too much."""
    import pyarrow.parquet

    budget = TableBudget(file)
    with pyarrow.parquet.ParquetFile(file) as opened:
        about = opened.metadata
        groups = [about.row_group(index) for index in range(about.num_row_groups)]
        rows = max(about.num_rows, sum(group.num_rows for group in groups))
        budget.check_claim(rows, sum(max(0, group.total_byte_size) for group in groups))
        for batch in opened.iter_batches(batch_size=_choose_batch_rows(groups)):
            budget.count_batch(batch)
            yield batch


def _choose_batch_rows(groups: list[Any]) -> int:
    """Few rows where each may be as large as a column, because all share one value."""
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    shared = [
        one.total_uncompressed_size
        for one in columns
        if one.total_uncompressed_size > _SHARED * max(1, one.total_compressed_size)
    ]
    return max(1, min(_ROWS_PER_READ, _READ_BYTES // max([1, *shared])))


def read_arrow_batches(file: Path) -> Iterator[Any]:
    """As `read_parquet_batches`, for both forms of an Arrow file."""
    budget = TableBudget(file)
    for batch in _open_arrow(file):
        budget.count_batch(batch)
        yield from (batch.slice(start, _ROWS_PER_READ) for start in range(0, batch.num_rows, _ROWS_PER_READ))


def _open_arrow(file: Path) -> Iterator[Any]:
    import pyarrow

    with pyarrow.memory_map(str(file)) as source:
        try:
            yield from pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            opened = pyarrow.ipc.open_file(source)
            yield from (opened.get_batch(k) for k in range(opened.num_record_batches))
