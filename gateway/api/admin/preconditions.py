"""ETags are versions: `"3"`. Changes name the version they saw (RFC 9110 section 13.1.1, RFC 6585 section 3)."""

from __future__ import annotations

import re
from typing import Annotated, Final

from litestar.params import HeaderParameter

from gateway.api.admin.problems import ProblemError
from tenants.store import VersionMismatchError

IfMatch = Annotated[
    str,
    HeaderParameter(
        name="If-Match",
        description='The ETag that was read, e.g. `"3"`, or `*`. 428 without it, 412 when it is not current.',
    ),
]

_LIST: Final = re.compile(r'\s*(?:W/)?"[^"\x00-\x20\x7f]*"\s*(?:,\s*(?:W/)?"[^"\x00-\x20\x7f]*"\s*)*')
_STRONG: Final = re.compile(r'(?<!W/)"([^"]*)"(?=\s*(?:,|$))')


def etag(version: int) -> str:
    return f'"{version}"'


def expected_version(if_match: str, current: int) -> int:
    """The version a change may replace. A weak tag matches nothing (strong comparison).

    Raises 428 without a tag, 400 for what is none, `VersionMismatchError` (412) for one that is not current.
    """
    if not if_match.strip():
        raise ProblemError(
            428, "precondition-required", "Send If-Match with the ETag you read, so that no change is lost."
        )
    if if_match.strip() == "*":
        return current
    if not _LIST.fullmatch(if_match):
        raise ProblemError(400, "malformed-request", 'If-Match is an entity tag in quotes, e.g. "3", or *.')
    if str(current) not in _STRONG.findall(if_match):
        raise VersionMismatchError(current)
    return current
