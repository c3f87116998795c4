"""The owner of the limits in the control process: every organization's account, in its memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence

from gateway.limits.account import Account
from gateway.limits.protocol import SliceAnswer, SliceAsk, Standings
from tenants.ids import OrgId

SWEPT = 2
"""Accounts looked at with each message; more than one, so that they stay few."""


class LimitOwner:
    """The `SliceStore` and `SliceAdmin` of a gateway on its own. One loop's own; never awaits, never unavailable.

    `clock_us`: Unix microseconds that never go back. Not durable: an owner that is started again begins new
    epochs.
    """

    def __init__(self, clock_us: Callable[[], int]) -> None:
        self._clock_us = clock_us
        self._epoch = secrets.token_hex(8)
        self._accounts: OrderedDict[OrgId, Account] = OrderedDict()

    def __len__(self) -> int:
        """How many buckets are remembered."""
        return sum(len(account) for account in self._accounts.values())

    async def ask(self, message: SliceAsk) -> SliceAnswer:
        return self.answer(message)

    def answer(self, message: SliceAsk) -> SliceAnswer:
        now = self._clock_us()
        account = self._account(message.org, now)
        answer = account.answer(message, now)
        account.sweep(now, len(message.parts) + 1)
        self._sweep(now)
        return answer

    def left(self, worker: str) -> None:
        """The worker's stream has ended. Its sessions are over after the lease, unless it is heard of before."""
        now = self._clock_us()
        for account in self._accounts.values():
            account.left(worker, now)

    async def usage(self, org: OrgId) -> Sequence[Standings]:
        account = self._accounts.get(org)
        return account.usage(self._clock_us()) if account is not None else ()

    async def reset(self, org: OrgId, limit: str, subject: str | None = None) -> int:
        account = self._accounts.get(org)
        return account.reset(limit, subject, self._clock_us()) if account is not None else 0

    async def seed(self, org: OrgId, used: Sequence[Standings]) -> None:
        now = self._clock_us()
        self._account(org, now).seed(used, now)

    def _account(self, org: OrgId, now_us: int) -> Account:
        account = self._accounts.get(org)
        if account is None:
            account = self._accounts[org] = Account(now_us, epoch=self._epoch)
        self._accounts.move_to_end(org)
        return account

    def _sweep(self, now_us: int) -> None:
        """In the accounts that were not asked for longest, end what is over and forget what is as good as new."""
        for _ in range(min(SWEPT, len(self._accounts))):
            org, account = next(iter(self._accounts.items()))
            if account.sweep(now_us, SWEPT):
                del self._accounts[org]
            else:
                self._accounts.move_to_end(org)
