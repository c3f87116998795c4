"""Lock-out: after a few failures each further attempt has to wait, longer every time."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final

from gateway.oauth.errors import TooManyAttemptsError
from gateway.oauth.store import Attempts, OAuthStore

FREE_FAILURES: Final = 4


class Lockout:
    """Counts attempts of one kind by account, in the store: for all nodes, and across restarts. An attempt is
    charged before it is judged: a thousand guesses at once count as a thousand. `clock` gives Unix seconds."""

    def __init__(self, store: OAuthStore, clock: Callable[[], float], longest_wait_s: float) -> None:
        self._store = store
        self._clock = clock
        self._longest_wait_s = longest_wait_s

    async def charge(self, account: str) -> None:
        """Count an attempt at `account` (64 characters at most). Raises `TooManyAttemptsError`."""
        while True:  # ends: each round either wins, or somebody else has raised the count
            seen = await self._store.attempts(account)
            now = self._clock()
            if seen.retry_at > now:
                raise TooManyAttemptsError(
                    "too many attempts for this account; wait before the next one",
                    retry_after_s=ceil(seen.retry_at - now),
                )
            failures = seen.failures + 1
            wait = (
                min(2.0 ** min(failures - FREE_FAILURES, 30), self._longest_wait_s)
                if failures > FREE_FAILURES
                else 0.0
            )
            if await self._store.charge(account, seen, Attempts(failures, now + wait if wait else 0.0), now):
                return

    async def forgive(self, account: str) -> None:
        """It was the right one: the count begins anew."""
        await self._store.forgive(account)
