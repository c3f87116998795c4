"""Apache Parquet: the columns of `columns` with their types, zstd, one row group for ROWS entries.

Written by arro3 (Rust's parquet crate behind Arrow's C stream interface), which a plain installation does not
have: importing this module may fail. Batches are pulled from the entries one at a time, so that memory stays flat
however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO, Final

from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.io import write_parquet

from gateway.audit.formats.columns import COLUMNS, Kind, row
from gateway.audit.formats.context import PRODUCT, Context, Entry

ROWS: Final = 65_536
"""Entries of a row group: about 20 MB while it is being made."""
BATCH: Final = 8_192
_TYPES: Final = {
    Kind.TEXT: DataType.utf8(),
    Kind.JSON: DataType.utf8(),
    Kind.INTEGER: DataType.int64(),
    Kind.BOOLEAN: DataType.bool(),
    Kind.TIME: DataType.timestamp("ms", tz="UTC"),
}
SCHEMA: Final = Schema([Field(name, _TYPES[kind], nullable=name != "index") for name, kind in COLUMNS])


def write(entries: Iterable[Entry], file: BinaryIO, *, ctx: Context) -> None:
    """Write a whole Parquet file; without entries, one of no rows. Raises OSError of `file`, and whatever
    `entries` raises."""
    sink = _Sink(file)
    failed: list[BaseException] = []
    reader = RecordBatchReader.from_batches(SCHEMA, _batches(entries, sink, failed))
    try:
        # A sink is what the writer asks of a file: `write`, `flush`, `seek`, `tell`.
        write_parquet(
            reader,
            sink,  # type: ignore[arg-type]
            compression="zstd(3)",
            max_row_group_size=ROWS,
            created_by=f"{PRODUCT} {ctx.version}",
        )
    except Exception:
        # Through Arrow's C interface an exception arrives as a text: the one that was raised says more.
        if failed:
            raise failed[0] from None
        raise
    if sink.error is not None:
        raise sink.error


class _Sink:
    """The file as the writer sees it: it never fails. The writer panics, past every handler, when a file does; so
    the failure is kept, what comes after it is thrown away, and the next batch ends the matter."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except BaseException as error:  # noqa: BLE001  # raised again by `write`, an interrupt too
                self.error = error
        return len(data)

    def flush(self) -> None:
        if self.error is None:
            try:
                self._file.flush()
            except BaseException as error:  # noqa: BLE001  # the same
                self.error = error

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _batches(entries: Iterable[Entry], sink: _Sink, failed: list[BaseException]) -> Iterator[RecordBatch]:
    try:
        rest = iter(entries)
        while rows := [row(entry) for entry in islice(rest, BATCH)]:
            columns = zip(*rows, strict=True)
            arrays = [_array(cells, kind) for cells, (_, kind) in zip(columns, COLUMNS, strict=True)]
            if sink.error is not None:
                raise sink.error
            yield RecordBatch.from_arrays(arrays, schema=SCHEMA)
    except BaseException as error:
        failed.append(error)
        raise


def _array(cells: Sequence[object], kind: Kind) -> Array:
    if kind is Kind.TIME:
        return Array(cells, DataType.int64()).cast(_TYPES[kind])
    if kind in (Kind.TEXT, Kind.JSON):
        cells = [_whole(cell) for cell in cells]
    return Array(cells, _TYPES[kind])


def _whole(cell: object) -> object:
    """A text that Arrow can hold: half a surrogate pair has no UTF-8."""
    return cell.encode("utf-8", "replace").decode() if isinstance(cell, str) and not cell.isascii() else cell
