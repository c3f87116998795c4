"""ArcSight Common Event Format, CEF:0. What has no key of its own is in `msg`, as JSON; long values are cut to
what the format lets a key hold: the whole entry is found again by `externalId`.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.audit.formats.context import (
    PRODUCT,
    Context,
    Entry,
    Severity,
    compact,
    cut,
    severity,
    spelt,
    text,
    visible,
)

HEADER = b""
CONTENT_TYPE = "text/plain; charset=utf-8"

_LEVEL: Final = {Severity.INFORMATIONAL: 1, Severity.LOW: 3, Severity.MEDIUM: 6}
"""low, low, medium"""

_KEYS: Final = (
    ("rt", "@timestamp", 0),
    ("externalId", "_document_id", 40),
    ("act", "action", 63),
    ("outcome", "outcome", 63),
    ("cat", "operation_type", 1023),
    ("suid", "actor", 1023),
    ("reason", "error", 1023),
    ("requestClientApplication", "client_version", 1023),
    ("in", "bytes_in", 0),
    ("out", "bytes_out", 0),
    ("destinationServiceName", "upstream", 1023),
)
"""Key, the entry's member, the most characters it may have."""
_CUSTOM: Final = (
    ("cs1", "model", 4000),
    ("cs2", "client", 4000),
    ("cs3", "rule", 4000),
    ("cs4", "target", 4000),
    ("cs5", "request_id", 4000),
    ("cs6", "org", 4000),
    ("cn1", "status", 0),
    ("cn2", "prompt_tokens", 0),
    ("cn3", "completion_tokens", 0),
    ("flexString1", "limit", 1023),
    ("flexString2", "actor_org", 1023),
    ("flexNumber1", "index", 0),
)
"""Those that need a label: the member's name."""
_PLACED: Final = frozenset(member for _, member, _ in _KEYS + _CUSTOM)
MSG_MAX: Final = 1023
_SPECIAL: Final = re.compile("[\\\\=\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ESCAPES: Final = {"\\": "\\\\", "=": "\\=", "\n": "\\n", "\r": "\\r"}

_PATHS: Final = {
    "completion.create": "/v1/completions",
    "chat.create": "/v1/chat/completions",
    "embedding.create": "/v1/embeddings",
    "model.list": "/v1/models",
}


def convert(entry: Entry, *, ctx: Context) -> bytes:
    action = text(entry, "action")
    head = "|".join(
        _head(field, most)
        for field, most in (
            (PRODUCT, 63),
            (PRODUCT, 63),
            (ctx.version, 31),
            (action, 1023),
            (action.replace(".", " ").replace("_", " "), 512),
        )
    )
    found: list[str] = []
    for key, member, most in _KEYS:
        if (value := _member(entry, member, most)) is not None:
            found.append(f"{key}={_escaped(value)}")
    if actor := text(entry, "actor"):
        found.append(f"suser={_escaped(cut(actor, 1023))}")
    if "outcome" in entry and (path := _PATHS.get(action)):
        found.append(f"request={path}")
    if ctx.host:
        found.append(f"dvchost={_escaped(cut(ctx.host, 100))}")
    for key, member, most in _CUSTOM:
        if (value := _member(entry, member, most)) is not None:
            found.append(f"{key}Label={member} {key}={_escaped(value)}")
    if rest := {name: value for name, value in entry.items() if name not in _PLACED}:
        found.append(f"msg={_escaped(cut(compact(rest), MSG_MAX))}")
    return f"CEF:0|{head}|{_LEVEL[severity(entry)]}|{' '.join(found)}".encode("utf-8", "replace")


def _member(entry: Entry, member: str, most: int) -> str | None:
    value = entry.get(member)
    if value is None or value == "":
        return None
    return cut(spelt(value), most) if most else spelt(value)


def _head(value: str, most: int) -> str:
    """A field of the head: `|` and backslash behind a backslash, one line."""
    return re.sub(r"[|\\]", lambda found: "\\" + found[0], cut(visible(value), most))


def _escaped(value: str) -> str:
    """A value of the extension: backslash and `=` behind a backslash, line ends as `\\n` and `\\r`; of every other
    control character its number, as JSON writes it."""
    return _SPECIAL.sub(_escape, value)


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    return _ESCAPES.get(char) or f"\\\\u{ord(char):04x}"
