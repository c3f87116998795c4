"""JSON Lines: the stored line, byte for byte. Everything else is made from it, and only it can be verified."""

from __future__ import annotations

from gateway.audit.canonical import canonical
from gateway.audit.formats.context import Context, Entry

HEADER = b""
CONTENT_TYPE = "application/jsonl"


def convert(entry: Entry, *, ctx: Context) -> bytes:
    """RFC 8785 has one spelling of an entry, so that this is its line again. Raises `CanonicalError` for what
    never was one. Whoever has the line passes it on instead."""
    return canonical(entry)
