"""Tables of few bytes that stand for far more are refused by name; real ones of repeated values are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from balanced_thinking.data.bad_rows import DataError
from balanced_thinking.data.tables import stream_table_file
from tests.faults.attacks.attack import assert_refused, run_balanced, watch_attack

Write = Callable[[Path], None]


def write_nulls(file: Path) -> None:
    empty = pyarrow.nulls(3_000_000, pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"question": empty, "answer": empty}), file)


def share_text(length: int, rows: int) -> Write:
    """One text that all rows share."""

    def write(file: Path) -> None:
        text = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), ["x" * length])
        table = pyarrow.table({"question": text, "answer": ["a"] * rows})
        pyarrow.parquet.write_table(table, file, compression="zstd")

    return write


def repeat_zeros(file: Path) -> None:
    """One value that is itself compressed, as wide as what is free."""
    table = pyarrow.table({"question": ["x" * (2**26 + 2**20)], "answer": ["a"]})
    pyarrow.parquet.write_table(table, file, compression="zstd", use_dictionary=False, write_statistics=False)


def write_no_bytes(file: Path) -> None:
    """Rows of Arrow's type of nulls, which take no bytes at all."""
    table = pyarrow.table({"question": pyarrow.nulls(10**9)})
    with pyarrow.ipc.new_file(file, table.schema) as out:
        out.write_table(table)


BOMBS: list[tuple[str, str, Write]] = [
    ("nulls", "x.parquet", write_nulls),
    ("a short text that all share", "x.parquet", share_text(100_000, 20_000)),
    ("a long text that all share", "x.parquet", share_text(30_000_000, 200)),
    ("rows of no bytes", "x.arrow", write_no_bytes),
]


@pytest.mark.parametrize(("name", "write"), [row[1:] for row in BOMBS], ids=[row[0] for row in BOMBS])
def test_a_bomb_is_refused(name: str, write: Write, tmp_path: Path) -> None:
    write(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 50_000
    said = rf"{name} has [\d,]+ bytes, which stand for .*; expected at most"
    with watch_attack(tmp_path, memory_mib=200), pytest.raises(DataError, match=said):
        for _ in stream_table_file(tmp_path / name):
            pass


def test_a_command_names_the_bomb(tmp_path: Path) -> None:
    write_nulls(tmp_path / "x.parquet")
    assert_refused(run_balanced(["inspect", "x.parquet"], tmp_path, memory_mib=100), ", which stand for 3,000,000 rows")


def test_one_value_that_expands_is_refused_before_it_is_read(tmp_path: Path) -> None:
    repeat_zeros(tmp_path / "x.parquet")
    assert_refused(run_balanced(["inspect", "x.parquet"], tmp_path, memory_mib=100), "which stand for")


def test_nulls_in_a_folder_of_the_hub_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write_nulls(tmp_path / "d" / "train-00000-of-00001.parquet")
    result = run_balanced(["inspect", "d"], tmp_path, memory_mib=100)
    assert_refused(result, "train-00000-of-00001.parquet", "3,000,000 rows")


def test_real_repetition_is_read(tmp_path: Path) -> None:
    """30 MB of text in 100 times fewer bytes, of which each row shares most."""
    rows = 30_000
    texts = [f"{'You are a helpful assistant. ' * 35}{number % 100}" for number in range(rows)]
    table = pyarrow.table({"question": texts, "answer": [str(number % 7) for number in range(rows)]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", compression="zstd")
    assert 100 * (tmp_path / "x.parquet").stat().st_size < table.nbytes
    assert sum(1 for _ in stream_table_file(tmp_path / "x.parquet")) == rows
