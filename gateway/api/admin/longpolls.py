"""Requests that wait for entries of an audit log: only so many, for each holds a connection of a listener that all
organizations share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gateway.errors import LimitExceededError
from tenants.ids import OrgId

LONG_POLLS: Final = "audit-long-polls"
OF_A_MEMBER: Final = 8
OF_AN_ORG: Final = 32
"""Of its members, whichever log they wait for: an eighth of the listener's connections or so."""
RETRY_S: Final = 5


class LongPolls:
    """How many wait now; one loop's. Whoever went away meanwhile counts until their wait is over."""

    def __init__(self) -> None:
        self._waiting: Counter[tuple[OrgId, str]] = Counter()

    @contextmanager
    def one(self, org: OrgId, member: str) -> Iterator[None]:
        """Counts while it is entered. Raises `LimitExceededError` for one too many."""
        of_the_org = sum(count for (at, _), count in self._waiting.items() if at == org)
        if self._waiting[org, member] >= OF_A_MEMBER or of_the_org >= OF_AN_ORG:
            text = (
                f"too many requests wait for entries of an audit log at once (at most {OF_A_MEMBER} of a member,"
                f" {OF_AN_ORG} of an organization); end some, or leave 'wait_s' out"
            )
            raise LimitExceededError(text, limit=LONG_POLLS, scope="member", retry_after_s=RETRY_S)
        self._waiting[org, member] += 1
        try:
            yield
        finally:
            self._waiting[org, member] -= 1
            if not self._waiting[org, member]:
                del self._waiting[org, member]
