"""Syslog (RFC 5424): one message an entry, each of its members a parameter of the structured data `orgate@…`.

How messages are kept apart on a wire (octet counting, RFC 6587; TLS, RFC 5425) is the transport's; in a file
each is a line.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from gateway.audit.formats.context import Context, Entry, Severity, cut, moment, severity, spelt, text, visible

HEADER = b""
CONTENT_TYPE = "text/plain; charset=utf-8"

_LEVEL: Final = {Severity.INFORMATIONAL: 6, Severity.LOW: 5, Severity.MEDIUM: 4}
"""informational, notice, warning"""
_ESCAPED: Final = re.compile(r'["\\\]]')
_SAFE: Final = re.compile(r"[ !#-\[^-~]*")
_UNPRINTABLE: Final = re.compile(r"[^\x21-\x7e]")
_NAME: Final = re.compile(r"[\x21\x23-\x3c\x3e-\x5c\x5e-\x7e]{1,32}")
"""SD-NAME: no space, no `=`, `"` or `]`."""
MORE: Final = "more"


def convert(entry: Entry, *, ctx: Context) -> bytes:
    """MSGID is the action; the message itself is a few words for people."""
    head = (
        f"<{ctx.facility * 8 + _LEVEL[severity(entry)]}>1",
        moment(entry.get("@timestamp")) or "-",
        _token(ctx.host, 255),
        "orgate",
        "-",
        _token(text(entry, "action"), 32),
    )
    named = {name: value for name, value in entry.items() if _nameable(name)}
    data = [f'{name}="{_value(value)}"' for name, value in sorted(named.items())]
    if len(named) < len(entry):
        rest = {name: value for name, value in entry.items() if name not in named}
        data.append(f'{MORE}="{_value(rest)}"')
    words = [text(entry, name) for name in ("org", "actor", "action", "target", "model", "outcome")]
    said = " ".join(_UNPRINTABLE.sub("?", word) for word in words if word)
    return f"{' '.join(head)} [orgate@{ctx.enterprise} {' '.join(data)}] {said}".encode("utf-8", "replace")


@lru_cache(maxsize=256)
def _nameable(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name != MORE


def _token(value: str, most: int) -> str:
    """A header field: printable ASCII without spaces, or the nil value."""
    return _UNPRINTABLE.sub("?", cut(value, most)) or "-"


def _value(value: object) -> str:
    """A PARAM-VALUE (section 6.3.3): `"`, backslash and `]` behind a backslash."""
    plain = spelt(value)
    if plain.isascii() and _SAFE.fullmatch(plain):
        return plain  # most of them
    return _ESCAPED.sub(lambda found: "\\" + found[0], visible(plain))
