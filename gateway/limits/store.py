"""The limit store's Protocol: stage 5 asks it, whoever owns the buckets answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.exchange import Claim, Hold


class LimitStore(Protocol):
    """Buckets, keyed by (org, limit, subject): an organization's id is part of every key.

    `reserve` is atomic over its claims, all or nothing; on a refusal nothing is spent and the error names
    the strictest limit, with a `retry_after_s` after which a client alone on its bucket succeeds.
    Concurrency: safe for many tasks of one loop; exact across workers because one owner hands out slices.
    Durability: none; a restart begins with full buckets. Usually returns without suspending.

    Errors: `gateway.errors.LimitExceededError`; `UnavailableError` when the owner cannot be asked.
    Trusted: whoever can change a bucket decides how much its organization may spend.
    """

    async def reserve(self, claims: Sequence[Claim]) -> Hold: ...
