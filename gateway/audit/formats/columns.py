"""The columns that tables have (CSV, Parquet): always these, in this order. New ones are added before `detail`."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from gateway.audit.formats.context import Entry, compact


class Kind(Enum):
    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TIME = "time"
    """`@timestamp`: Unix milliseconds."""
    JSON = "json"


COLUMNS: Final[tuple[tuple[str, Kind], ...]] = (
    ("index", Kind.INTEGER),
    ("time", Kind.TIME),
    ("_document_id", Kind.TEXT),
    ("org", Kind.TEXT),
    ("actor", Kind.TEXT),
    ("actor_org", Kind.TEXT),
    ("action", Kind.TEXT),
    ("operation_type", Kind.TEXT),
    ("target", Kind.TEXT),
    ("outcome", Kind.TEXT),
    ("status", Kind.INTEGER),
    ("error", Kind.TEXT),
    ("rule", Kind.TEXT),
    ("policy", Kind.TEXT),
    ("limit", Kind.TEXT),
    ("limits", Kind.JSON),
    ("model", Kind.TEXT),
    ("upstream", Kind.TEXT),
    ("upstream_model", Kind.TEXT),
    ("key_version", Kind.INTEGER),
    ("client", Kind.TEXT),
    ("client_version", Kind.TEXT),
    ("request_id", Kind.TEXT),
    ("trace_id", Kind.TEXT),
    ("stream", Kind.BOOLEAN),
    ("sent", Kind.BOOLEAN),
    ("events", Kind.INTEGER),
    ("bytes_in", Kind.INTEGER),
    ("bytes_out", Kind.INTEGER),
    ("prompt_tokens", Kind.INTEGER),
    ("completion_tokens", Kind.INTEGER),
    ("tokens_counted", Kind.BOOLEAN),
    ("cost_nanodollars", Kind.INTEGER),
    ("held_us", Kind.INTEGER),
    ("queue_us", Kind.INTEGER),
    ("overhead_us", Kind.INTEGER),
    ("first_byte_us", Kind.INTEGER),
    ("stream_us", Kind.INTEGER),
    ("relay_us", Kind.INTEGER),
    ("total_us", Kind.INTEGER),
    ("outbox", Kind.INTEGER),
    ("spool", Kind.JSON),
    ("schema", Kind.INTEGER),
    ("prev", Kind.TEXT),
    ("token_id", Kind.TEXT),
    ("prompt_hmac", Kind.TEXT),
    ("detail", Kind.JSON),
    ("more", Kind.JSON),
)
"""`more` has as JSON what has no column, or is of another kind than its column: nothing of an entry is lost."""

_FITS: Final[dict[Kind, Callable[[object], bool]]] = {
    Kind.TEXT: lambda value: isinstance(value, str),
    Kind.INTEGER: lambda value: type(value) is int and -(2**63) <= value < 2**63,
    Kind.BOOLEAN: lambda value: isinstance(value, bool),
    Kind.TIME: lambda value: type(value) is int and -(2**63) <= value < 2**63,
    Kind.JSON: lambda _: True,
}
_OWN: Final = tuple(
    (("@timestamp" if name == "time" else name), kind, _FITS[kind]) for name, kind in COLUMNS if name != "more"
)


def row(entry: Entry) -> list[object]:
    """The cells of one entry, in the order of COLUMNS: None where the entry does not say; JSON as text."""
    cells: list[object] = []
    placed = 0
    misfits: list[str] = []
    for name, kind, fits in _OWN:
        value = entry.get(name)
        if value is None:
            cells.append(None)
        elif fits(value):
            cells.append(compact(value) if kind is Kind.JSON else value)
            placed += 1
        else:
            cells.append(None)
            misfits.append(name)
    more = None
    if placed != len(entry):
        known = {name for name, *_ in _OWN} - set(misfits)
        more = compact({name: value for name, value in entry.items() if name not in known})
    cells.append(more)
    return cells
