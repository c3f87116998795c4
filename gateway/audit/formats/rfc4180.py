"""CSV (RFC 4180) in UTF-8: the columns of `columns`, one record a line, no cell that a spreadsheet would run."""

from __future__ import annotations

import re

from gateway.audit.formats.columns import COLUMNS, Kind, row
from gateway.audit.formats.context import Context, Entry, moment, visible

EOL = b"\r\n"
HEADER = ",".join(name for name, _ in COLUMNS).encode() + EOL
CONTENT_TYPE = "text/csv; charset=utf-8"

# OWASP, CSV injection: what spreadsheets take for a formula, full-width forms included, or skip before one.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# Where a decimal comma is the custom, spreadsheets take `;` for the separator: what follows would begin a cell.
_SPLIT = re.compile(";(?=['\"\\s]*[=+\\-@\uff1d\uff0b\uff0d\uff20])")
_QUOTED = re.compile('[",]')
_PLAIN = re.compile("[A-Za-z0-9_/.:][A-Za-z0-9_/.: =-]*")
_TIME = [kind is Kind.TIME for _, kind in COLUMNS]


def convert(entry: Entry, *, ctx: Context) -> bytes:
    cells = [moment(value) if is_time else _cell(value) for value, is_time in zip(row(entry), _TIME, strict=True)]
    return ",".join(cells).encode("utf-8", "replace")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text  # most of them
    if _FORMULA.match(text):
        # One apostrophe more than it had: whoever takes one away has the text again.
        text = "'" + text
    text = visible(_SPLIT.sub(r"\\u003b", text))
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
