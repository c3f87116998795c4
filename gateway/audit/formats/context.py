"""What every format shares: where an entry comes from, how serious it is, how its time and its texts are spelt.

A format is a module with `convert(entry, *, ctx) -> bytes`: one record, without what ends it. It takes whatever
members an entry has: those that the format has no place for go where the format keeps the rest. Pure: standard
library and msgspec.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from time import gmtime

from msgspec import Struct

from gateway.version import VERSION

Entry = Mapping[str, object]
"""An entry as its stored line says, decoded."""
Convert = Callable[..., bytes]

DOCUMENTATION = 32473
"""The private enterprise number that RFC 5612 keeps for documentation: whoever has one of their own sets that."""
ENTERPRISE_MAX = 2**32 - 1
PRODUCT = "Orgate"
FACILITY = 13
"""RFC 5424 section 6.2.1: log audit."""
NEVER_MS = 253_402_300_800_000
"""The year 10000: beyond what RFC 3339 can spell."""


class Context(Struct, frozen=True):
    """Where entries come from: the gateway's host name, its version, and how syslog names both.

    `enterprise` is the private enterprise number in the SD-ID `orgate@…` (RFC 5424 section 7.2.2).
    """

    host: str = ""
    version: str = VERSION
    enterprise: int = DOCUMENTATION
    facility: int = FACILITY

    @staticmethod
    def host_of(origin: str) -> str:
        """The host of a checkpoint's origin, `gateway.example:8443/audit/acme`, without its port."""
        authority = origin.partition("/")[0]
        if authority.startswith("["):
            return authority[1:].partition("]")[0]
        return authority.rpartition(":")[0] if authority.count(":") == 1 else authority


class Severity(IntEnum):
    """OCSF's `severity_id`. An entry says what happened: whether that is an alarm is the reader's rule to say."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3


_SEVERITY = {
    "served": Severity.INFORMATIONAL,
    "cancelled_by_client": Severity.INFORMATIONAL,
    "superseded": Severity.INFORMATIONAL,
    "refused": Severity.LOW,
    "cut": Severity.LOW,
}
"""By outcome; every other one (the upstream failed, the gateway did, nobody knows) is MEDIUM."""
_REFUSALS = ("refuse", "sign_in_failed")


def refused(entry: Entry) -> bool:
    """Whether an action of the control plane was denied."""
    return text(entry, "action").rpartition(".")[2] in _REFUSALS


def severity(entry: Entry) -> Severity:
    outcome = text(entry, "outcome")
    if outcome:
        return _SEVERITY.get(outcome, Severity.MEDIUM)
    return Severity.MEDIUM if refused(entry) else Severity.INFORMATIONAL


def text(entry: Entry, name: str) -> str:
    """A member that is a text; '' for any other and for none."""
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def number(entry: Entry, name: str) -> int | None:
    """A member that is an integer; None for any other and for none."""
    value = entry.get(name)
    return value if type(value) is int else None


def moment(milliseconds: object) -> str:
    """Unix milliseconds as RFC 3339 in UTC with milliseconds; '' for what has no such spelling."""
    if type(milliseconds) is not int or not 0 <= milliseconds < NEVER_MS:
        return ""
    seconds, rest = divmod(milliseconds, 1_000)
    year, month, day, hour, minute, second, *_ = gmtime(seconds)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z"


_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def visible(value: str) -> str:
    """`value` on one line: what ends lines or steers a terminal is written as JSON writes it, `\\u000a`."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value) if _UNSEEN.search(value) else value


def spelt(value: object) -> str:
    """Any member as text: a text as it is, a number in decimal, the rest as JSON on one line in ASCII."""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    return compact(value)


def compact(value: object) -> str:
    """JSON without spaces, all of it ASCII: no reader can see a line end, or half a character, in it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def cut(value: str, most: int) -> str:
    """At most `most` characters; one that was longer ends in an ellipsis."""
    return value if len(value) <= most else value[: most - 1] + "…"
