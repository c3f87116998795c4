"""CSV and Parquet: the columns, and that spreadsheets run nothing and lose nothing."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings

from gateway.audit.formats import parquet, rfc4180
from gateway.audit.formats.columns import COLUMNS, Kind, row
from gateway.exchange import Outcome
from tests.unit.audit.formats.made import CTX, UNSEEN, Entry, change, entries, request

SCHEMA = Path(__file__).parents[4] / "docs" / "reference" / "audit-entry.schema.json"
FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")


def record(entry: Entry) -> dict[str, str]:
    """As the standard library's reader sees it."""
    text = (rfc4180.HEADER + rfc4180.convert(entry, ctx=CTX) + rfc4180.EOL).decode()
    (found,) = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    return found


def again(cells: dict[str, Any]) -> Entry:
    """The entry that typed cells are of."""
    found = {}
    for name, kind in COLUMNS:
        value = cells[name]
        if value is not None and name != "more":
            found[name] = json.loads(value) if kind is Kind.JSON else value
    found["@timestamp"] = found.pop("time")
    found.update(json.loads(cells["more"] or "{}"))
    return found


def test_every_member_that_an_entry_may_have_has_a_column() -> None:
    schema = json.loads(SCHEMA.read_text())["$defs"]
    members = {name for kind in ("request", "change") for name in schema[kind]["properties"]}
    assert members - {name for name, _ in COLUMNS} == {"@timestamp"}


@settings(max_examples=40, deadline=None)
@given(entries)
def test_no_cell_is_a_formula_and_no_record_more_than_a_line(entry: Entry) -> None:
    line = rfc4180.convert(entry, ctx=CTX).decode()
    assert not UNSEEN & set(line)
    for name, cell in record(entry).items():
        kind = dict(COLUMNS)[name]
        assert not FORMULA.match(cell) or kind is Kind.INTEGER, name
        # Read with the other separator, as spreadsheets do where a decimal comma is the custom.
        assert not any(FORMULA.match(part.lstrip(" \"'")) for part in cell.split(";")[1:]), name


@settings(max_examples=40, deadline=None)
@given(entries)
def test_every_entry_keeps_its_id_and_its_texts(entry: Entry) -> None:
    cells = record(entry)
    assert cells["_document_id"].removeprefix("'") == entry["_document_id"]
    for name, kind in COLUMNS:
        value = entry.get(name)
        if kind is Kind.TEXT and isinstance(value, str) and not UNSEEN & set(value) and ";" not in value:
            cell = cells[name]
            plain = cell[1:] if re.match(r"'+[=+\-@\t\r\n＝＋－＠]", cell) else cell
            assert plain == value


def test_numbers_stay_numbers_and_absence_is_an_empty_cell() -> None:
    cells = record(request(number=3, outcome=Outcome.SERVED, key_version=-5))
    assert (cells["key_version"], cells["prompt_tokens"], cells["stream"]) == ("-5", "3", "false")
    assert (cells["target"], cells["detail"], cells["more"]) == ("", "", "")
    assert cells["time"] == "2025-11-21T01:53:20.000Z"
    assert json.loads(record(change(why="x", n=1))["detail"]) == {"why": "x", "n": 1}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("'=1+1", "''=1+1"),
        ("'quoted'", "'quoted'"),
        ("\t=1", "'\\u0009=1"),
        ("a;=1", "a\\u003b=1"),
        ("a;b", "a;b"),
        ('say "x", then', 'say "x", then'),
        ("-5", "'-5"),
        ("＝1", "'＝1"),
    ],
)
def test_texts_that_look_like_formulas(text: str, cell: str) -> None:
    assert record(change(target=text))["target"] == cell


def test_what_has_no_column_is_not_lost() -> None:
    entry = {**request(), "new": ["x"], "model": ["a", "list"], "status": "ok", "@timestamp": "soon"}
    cells = dict(zip((name for name, _ in COLUMNS), row(entry), strict=True))
    more = {"new": ["x"], "model": ["a", "list"], "status": "ok", "@timestamp": "soon"}
    assert json.loads(cast(str, cells["more"])) == more
    assert cells["model"] is cells["status"] is cells["time"] is None


@settings(max_examples=40, deadline=None)
@given(entries)
def test_cells_are_the_entry_again(entry: Entry) -> None:
    assert again(dict(zip((name for name, _ in COLUMNS), row(entry), strict=True))) == entry


def write(path: Path, found: Any) -> None:
    with path.open("wb") as file:
        parquet.write(found, file, ctx=CTX)


def test_parquet_is_the_same_to_another_implementation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS", 4)
    monkeypatch.setattr(parquet, "BATCH", 3)
    found = [request(number=n, model=f"m\n{n}\x00") for n in range(1, 9)] + [
        change(why="=1"),
        change(target="é😀"),
    ]
    write(tmp_path / "x", iter(found))
    file = pq.ParquetFile(tmp_path / "x")
    assert file.num_row_groups == 3
    rows = file.read().to_pylist()
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for cells in rows:
        cells["time"] = round((cells["time"] - epoch).total_seconds() * 1000)
    assert [again(cells) for cells in rows] == found
    types = {field.name: str(field.type) for field in file.schema_arrow}
    assert types["time"] == "timestamp[ms, tz=UTC]"
    assert (types["index"], types["stream"], types["detail"]) == ("int64", "bool", "string")


def test_parquet_of_nothing_has_the_columns(tmp_path: Path) -> None:
    write(tmp_path / "x", [])
    table = pq.read_table(tmp_path / "x")
    assert (table.num_rows, table.column_names) == (0, [name for name, _ in COLUMNS])


@pytest.mark.parametrize("error", [ValueError("the source broke"), KeyboardInterrupt()])
def test_what_breaks_in_between_is_raised_as_it_was(tmp_path: Path, error: BaseException) -> None:
    def source() -> Iterator[Entry]:
        yield request()
        raise error

    with pytest.raises(type(error)) as raised:
        write(tmp_path / "x", source())
    assert raised.value is error


@pytest.mark.parametrize("room", [0, 4, 400])
def test_a_full_disk_is_an_oserror_and_ends_it(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parquet, "ROWS", 10)
    monkeypatch.setattr(parquet, "BATCH", 10)

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    read = 0

    def source() -> Iterator[Entry]:
        nonlocal read
        for read in range(1, 101):
            yield request(number=read)

    with pytest.raises(OSError, match="No space left") as raised:
        parquet.write(source(), cast(BinaryIO, Full()), ctx=CTX)
    assert raised.value.errno == errno.ENOSPC
    assert read < 100, "it was not read to the end in vain"
    assert "panicked" not in capfd.readouterr().err


def test_the_reference_names_the_columns_in_their_order() -> None:
    text = (SCHEMA.parent / "audit-formats.md").read_text()
    table = text.partition("## Columns")[2].partition("\n## ")[0]
    heads = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", " ".join(heads)) == [name for name, _ in COLUMNS]
