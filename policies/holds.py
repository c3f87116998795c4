"""Holds: how long a request of a client that is known to abandon at once is kept before it goes upstream.

Written as text, `PATTERN=MS`: a shell pattern on the client's name and version as the client gives it
(`copilot.vim/1.4.*=3`), and the milliseconds to hold it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from msgspec import Struct

MAX_HOLD_MS = 50
"""Longer than this a person would feel it in every completion."""

_HOLD = re.compile(r"([A-Za-z0-9._*?/+\[\]!-]{1,64})=([0-9]{1,3})")


class Hold(Struct, frozen=True):
    """`pattern`: `fnmatch.fnmatchcase` on `name/version`."""

    pattern: str
    ms: int


class HoldError(ValueError):
    """The text is no hold; the message says what one looks like."""


def parse(text: str) -> Hold:
    """Raises `HoldError`."""
    found = _HOLD.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= MAX_HOLD_MS:
        raise HoldError(f"is PATTERN=MS with 1 to {MAX_HOLD_MS} milliseconds, such as 'copilot.vim/1.4.*=3'")
    return Hold(found[1], int(found[2]))


@lru_cache(maxsize=1_024)
def hold_ms(holds: Sequence[str], client: str) -> int:
    """Milliseconds to hold a request of `client` (`name/version`): the first pattern that matches, else 0."""
    for text in holds:
        hold = parse(text)
        if fnmatchcase(client, hold.pattern):
            return hold.ms
    return 0
