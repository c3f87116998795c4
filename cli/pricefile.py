"""Price tables as files: CSV, TOML or JSON, dollars per million tokens as decimals."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec import Struct

from cli.errors import NOT_READABLE, UsageError, unreadable
from cli.output import printable
from tenants.prices import MAX_PRICES, PriceError, nanodollars

LARGEST = 1024 * 1024
FIELDS = ("model", "input", "output")
EXAMPLE = "model,input,output\n  gpt-code,0.15,0.60"


class PriceRow(Struct, frozen=True):
    """As a body of the admin API has it: nanodollars per million tokens."""

    model: str
    input: int
    output: int


class _FileError(Exception):
    """What is wrong with the file as a whole."""


Found = Iterable[tuple[str, dict[str, Any]]]
"""(where, what stands there)."""


def read_prices(file: Path) -> list[PriceRow]:
    """The table in `file`. Raises `UsageError` that names each line or place that has a fault."""
    try:
        if file.stat().st_size > LARGEST:
            raise UsageError(f"{file} is larger than {LARGEST // 1024} KiB")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no text in UTF-8") from None
    readers = {".csv": _csv, ".toml": _toml, ".json": _json}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise UsageError(f"{file}: prices are read from {', '.join(readers)} files")
    rows: dict[str, PriceRow] = {}
    faults: list[str] = []
    try:
        for where, given in reader(text):
            wrong = list(_faults(given))
            if not wrong and given["model"] in rows:
                wrong = [f"'{printable(given['model'])}' stands twice"]
            faults += [f"{where}: {fault}" for fault in wrong]
            if not wrong:
                numbers = nanodollars(str(given["input"])), nanodollars(str(given["output"]))
                rows[given["model"]] = PriceRow(given["model"], *numbers)
    except _FileError as error:
        faults.append(str(error))
    if len(rows) > MAX_PRICES:
        faults.append(f"a table has at most {MAX_PRICES} models")
    if faults:
        shown = faults[:20] + ([f"and {len(faults) - 20} more"] if len(faults) > 20 else [])
        raise UsageError("\n  ".join([f"{file} has faults; nothing was changed:", *shown]))
    return list(rows.values())


def _faults(given: dict[str, Any]) -> Iterator[str]:
    for name in given:
        if name not in FIELDS:
            yield f"'{printable(str(name))}' is none of {', '.join(FIELDS)}"
    for name in FIELDS:
        if given.get(name) in (None, ""):
            yield f"{name} is missing"
    model = given.get("model")
    if model and (
        not isinstance(model, str) or model != model.strip() or not model.isprintable() or len(model) > 200
    ):
        yield "model is 1 to 200 printable characters without spaces around them"
    for name in ("input", "output"):
        value = given.get(name)
        if value in (None, ""):
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            yield f"{name} is no decimal number of dollars, as 0.15 is"
            continue
        try:
            nanodollars(str(value))
        except PriceError as error:
            yield f"{name} {printable(str(value)[:40])} {error}"


def _csv(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: list[str] = []
    try:
        for line in lines:
            if not line:
                continue
            cells = [cell.strip() for cell in line]
            if not head:
                head = cells
                _heads(head)
                continue
            where = f"line {lines.line_num}"
            if len(cells) != len(head):
                raise _FileError(f"{where}: has {len(cells)} columns, and the head has {len(head)}")
            yield where, dict(zip(head, cells, strict=True))
    except csv.Error as error:
        raise _FileError(f"line {lines.line_num}: {error}") from None
    if not head:
        raise _FileError(f"it is empty; begin with\n  {EXAMPLE}")


def _heads(head: list[str]) -> None:
    unknown = [name for name in head if name not in FIELDS]
    missing = [name for name in FIELDS if name not in head]
    if unknown or missing or len(set(head)) != len(head):
        said = f"'{printable(unknown[0])}' is no column" if unknown else "a column stands twice"
        if missing and not unknown:
            said = f"the column {missing[0]} is missing"
        raise _FileError(f"line 1: {said}; the columns are {', '.join(FIELDS)}")


def _toml(text: str) -> Found:
    try:
        return _listed(tomllib.loads(text, parse_float=_exactly))
    except NOT_READABLE as error:
        raise _FileError(f"it is no TOML: {unreadable(error)}") from None


def _json(text: str) -> Found:
    try:
        return _listed(json.loads(text, parse_float=_exactly, object_pairs_hook=_once, parse_constant=str))
    except NOT_READABLE as error:
        raise _FileError(f"it is no JSON: {unreadable(error)}") from None


def _listed(found: Any) -> Found:
    """A list of prices, or an object whose one member `prices` is that list."""
    if isinstance(found, dict) and list(found) == ["prices"]:
        found = found["prices"]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _FileError("it holds no list of prices; each has model, input and output")
    return [(_place(number, item), item) for number, item in enumerate(found, 1)]


def _place(number: int, item: dict[str, Any]) -> str:
    model = item.get("model")
    return f"price {number} ('{printable(model[:64])}')" if isinstance(model, str) else f"price {number}"


def _exactly(text: str) -> str:
    """A number stays as it was written: no float ever holds it."""
    return text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _FileError(f"'{printable(name)}' stands twice in one object")
        found[name] = value
    return found
