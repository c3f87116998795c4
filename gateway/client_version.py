"""Which program asks, in which version: `name/version`, for holds and for counting fast cancels.

What a client says of itself and nothing that is trusted: it opens no door and picks nobody's bucket.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

UNKNOWN: Final = "unknown"
MAX_LENGTH: Final = 64

CLIENT_HEADERS: Final = (b"x-orgate-client", b"editor-plugin-version", b"editor-version", b"user-agent")
"""In order of trust in their precision; the first that is there decides. The second and third are what GitHub
Copilot's clients send (`copilot/1.155.0`, `vscode/1.85.1`)."""

_LOOKED_AT = 256
_PRODUCT = re.compile(rb"[A-Za-z0-9._+-]+/v?[0-9][A-Za-z0-9._+-]*")
"""A version begins with a digit. What has none is not kept: a word alone could be anything."""


def client_version(named: bytes | None, plugin: bytes | None, editor: bytes | None, agent: bytes | None) -> str:
    """`name/version` of at most 64 letters, digits and `._+-`; else `unknown`.

    The arguments are the values of `CLIENT_HEADERS`. Of a `user-agent` the first product counts (RFC 9110
    section 10.1.5).
    """
    said = named or plugin or editor
    if said is None:
        return _product(agent[:_LOOKED_AT], True) if agent else UNKNOWN
    return _product(said[:_LOOKED_AT], False)


@lru_cache(maxsize=1_024)
def _product(text: bytes, first: bool) -> str:
    """Kept by what was given, which is bounded: a client says the same with each of its requests."""
    if first:
        text, _, rest = text.partition(b" ")
        if _PRODUCT.fullmatch(text) is None:  # OpenAI's SDKs: "AsyncOpenAI/Python 1.2.3"
            text = text.partition(b"/")[0] + b"/" + rest.partition(b" ")[0]
    if len(text) > MAX_LENGTH or _PRODUCT.fullmatch(text) is None:
        return UNKNOWN
    return text.decode("ascii")
