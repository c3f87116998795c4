"""The Protocols of limits: what stage 5 asks, and what a worker's limits ask in their turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.exchange import Claim, Hold
from gateway.limits.protocol import SliceAnswer, SliceAsk, Standings
from tenants.ids import OrgId


class LimitStore(Protocol):
    """Buckets, keyed by (org, limit, subject, window): an organization's id is part of every key.

    `reserve` is atomic over its claims, all or nothing; on a refusal nothing is spent and the error names
    the strictest limit, with a `retry_after_s` after which a client alone on its bucket succeeds.
    Claims of the platform's own buckets, which organizations share, are reserved apart from the organization's,
    and given back when those are refused.
    Concurrency: safe for many tasks of one loop; exact across workers because one store hands out slices.
    Usually returns without suspending.

    Errors: `gateway.errors.LimitExceededError`; `UnavailableError` when the store cannot be asked and the limit
    says `OnOutage.DENY`.
    Trusted: whoever can change a bucket decides how much its organization may spend.
    """

    async def reserve(self, claims: Sequence[Claim]) -> Hold: ...

    def take(self, claims: tuple[Claim, ...]) -> Hold | None:
        """`reserve`, where nobody has to be asked; None: that is to be awaited. Nothing is spent then."""


class SliceStore(Protocol):
    """Where the buckets are: `accounts.LimitOwner` behind the bus, or `redis.RedisSlices`.

    `ask` is atomic, and idempotent by (session, seq) (see `protocol`). Its clock alone counts.
    Durability: none is needed. A store that has lost everything begins a new epoch, which the workers' knowledge
    rebuilds; budgets are seeded from what the control process has written down.
    Concurrency: any number of workers, one message under way for each worker and organization.

    Errors: `gateway.errors.UnavailableError`, within its time limit: it cannot be told whether the message counts,
    and it is sent again.
    Trusted: whoever can write there decides how much anybody may spend, and reads no secret and no code.
    """

    async def ask(self, message: SliceAsk) -> SliceAnswer: ...


class SliceAdmin(Protocol):
    """The same store as the control process sees it: for admins' questions, and for what outlives an epoch.

    Errors: `gateway.errors.UnavailableError`.
    """

    async def usage(self, org: OrgId) -> Sequence[Standings]:
        """Every bucket of `org` that is in use, in no order."""

    async def reset(self, org: OrgId, limit: str, subject: str | None = None) -> int:
        """As good as new: full, nobody's debt. Of one subject, or of all; what is lent stays lent. Returns how
        many buckets."""

    async def seed(self, org: OrgId, used: Sequence[Standings]) -> None:
        """Budgets as they were, `level` at `at_us`: what is known of them from before, like `Part.left` in the
        first message of a session that knew another epoch, whatever epoch the store has. A budget that nobody has
        spoken of begins with its `level`; of one that has been used since, what was used before is taken too;
        where something newer is known, nothing changes. The same again changes nothing."""


class SlicePlace(SliceStore, SliceAdmin, Protocol):
    """Both: the control process charges buckets too."""


class BudgetAdmin(SliceAdmin, Protocol):
    """What the admin API asks."""

    async def carry(self, owner: OrgId, was: str, timezone: str) -> None:
        """The budgets of limits that `owner` set begin and end by `timezone` from now on: the window of each
        that runs there has no less used than the one of `was`. What is in flight settles where it was admitted.
        Called before it is so, and harmless when repeated."""
