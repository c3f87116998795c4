"""What outlives the store of limits: how much of each budget is used, who has been told, and whom to tell.

Of the control process alone: no worker reads any of it.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from tenants.ids import OrgId
from tenants.models import LimitUnit


class BudgetUse(Struct, frozen=True):
    """How much of one budget was used when it was last written down: `at_us`, Unix microseconds, by the clock of
    whoever owns the buckets. `limit` is a limit's name, `platform/<name>` for one of the platform's. `lent`: so
    much more was in workers' hands to spend, what their requests in flight had reserved not among it."""

    org: OrgId
    limit: str
    subject: str
    starts_s: int
    ends_s: int
    unit: LimitUnit
    amount: int
    used: int
    at_us: int
    lent: int = 0

    @property
    def key(self) -> BudgetKey:
        return self.org, self.limit, self.subject, self.starts_s, self.unit


BudgetKey = tuple[OrgId, str, str, int, LimitUnit]


class NoticeState(StrEnum):
    """Of the webhook's delivery. `NONE`: there was no webhook. `FAILED`: it was tried often enough."""

    NONE = "none"
    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"


class Notice(Struct, frozen=True):
    """`percent` of a budget had been used in this window: said once. Times in Unix seconds.

    `attempts`: how often the webhook was asked in vain; `next_at`: when it is asked again.
    """

    org: OrgId
    limit: str
    subject: str
    starts_s: int
    percent: int
    ends_s: int
    unit: LimitUnit
    amount: int
    used: int
    at: int
    state: NoticeState = NoticeState.NONE
    attempts: int = 0
    next_at: int = 0


class Webhook(Struct, frozen=True):
    """Where an organization is told of its budgets. The secret that signs is in the sealed file.

    `ca_pem`: own CA, else the system's. `delivered_at`: when something last arrived, 0: never; `failure`: why the
    last attempt failed, '' when it did not.
    """

    org: OrgId
    url: str
    ca_pem: str = ""
    set_at: int = 0
    delivered_at: int = 0
    failure: str = ""
    version: int = 1
