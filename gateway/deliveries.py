"""Notices of budgets on their way to webhooks: retried with growing pauses, a bounded number of times.

The queue is the control store's: a notice that is PENDING there is sent, whatever was restarted in between. A
crash after the receiver took it and before that is written sends it again, under the same `webhook-id`, by which
receivers know it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import structs

from gateway.clock import Clock
from gateway.webhooks import GONE, DeliveryError, Webhooks, instant, message
from tenants.amounts import number, quantity
from tenants.budgets import Notice, NoticeState, Webhook
from tenants.ids import OrgId
from tenants.store import BudgetBook, StoreError

log = logging.getLogger("orgate.webhooks")

PAUSES_S: Final = (5, 30, 120, 600, 1_800, 7_200, 21_600)
"""After the first attempt, the second, …; after the one behind the last pause no more is made."""

LOOK_S: Final = 5.0
AT_ONCE: Final = 16
JITTER: Final = 0.1


class Deliveries:
    """`await run()` beside the servers; `wake` when there is a new notice. One message at a time for each
    organization: a receiver that hangs delays its own messages only.

    `count` is told each attempt's outcome (`sent`, `retried`, `failed`); `random`: 0 to 1, spreads retries.
    """

    def __init__(
        self,
        book: BudgetBook,
        webhooks: Webhooks,
        clock: Clock,
        random: Callable[[], float],
        count: Callable[[OrgId, str], None] = lambda *_: None,
    ) -> None:
        self._book = book
        self._webhooks = webhooks
        self._clock = clock
        self._random = random
        self._count = count
        self._due = asyncio.Event()
        self._under_way: dict[OrgId, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Look for work soon. From the loop's own thread."""
        self._due.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            while True:
                self._due.clear()
                await self._begin()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._due.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._under_way.values():
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _begin(self) -> None:
        try:
            due = await self._book.due(int(self._clock.now()))
        except StoreError as error:
            log.warning("notices of budgets wait: %s", error)
            return
        for notice in due:
            if notice.org not in self._under_way and len(self._under_way) < AT_ONCE:
                task = self._under_way[notice.org] = asyncio.create_task(self.deliver(notice))
                task.add_done_callback(partial(self._ended, notice.org))

    def _ended(self, org: OrgId, done: asyncio.Task[None]) -> None:
        del self._under_way[org]
        if not done.cancelled() and (error := done.exception()) is not None:
            # It is PENDING still, and comes again with the next look.
            log.error("a notice of %s was not delivered: %s", org, type(error).__name__)
            return
        self._due.set()  # the organization's next one

    async def deliver(self, notice: Notice) -> None:
        """One attempt, and what follows from it. Errors: `StoreError`."""
        hook = await self._webhooks.get(notice.org)
        if hook is None:
            await self._book.settle(structs.replace(notice, state=NoticeState.NONE))
            return
        failure, status = await self._attempt(hook, notice)
        if not failure:
            await self._book.settle(structs.replace(notice, state=NoticeState.SENT, attempts=notice.attempts + 1))
            self._count(notice.org, "sent")
            return
        attempts = notice.attempts + 1
        if attempts > len(PAUSES_S) or status == GONE:
            await self._book.settle(structs.replace(notice, state=NoticeState.FAILED, attempts=attempts), failure)
            self._count(notice.org, "failed")
            log.warning(
                "%s: the webhook was not told of '%s', and is not any more: %s", notice.org, notice.limit, failure
            )
            return
        pause = PAUSES_S[attempts - 1] * (1 + JITTER * self._random())
        later = structs.replace(notice, attempts=attempts, next_at=int(self._clock.now() + pause))
        await self._book.settle(later, failure)
        self._count(notice.org, "retried")

    async def _attempt(self, hook: Webhook, notice: Notice) -> tuple[str, int]:
        """(why it did not arrive, the status); ('', …): it did."""
        try:
            return "", await self._webhooks.send(hook, message_id(notice), body(notice))
        except DeliveryError as error:
            return str(error), error.status


def message_id(notice: Notice) -> str:
    """The same for the same notice, however often it is sent."""
    key = "\0".join(
        (notice.org, notice.limit, notice.subject, str(notice.starts_s), str(notice.percent), notice.unit)
    )
    return f"msg_{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def body(notice: Notice) -> bytes:
    """Amounts in whole units of `unit`, spend in nanodollars; `text` says it to people."""
    used, amount = number(notice.used, notice.unit), quantity(notice.amount, notice.unit)
    whose = f" of {notice.subject}" if notice.subject else ""
    return message(
        "limit.threshold",
        notice.at,
        {
            "org": notice.org,
            "limit": notice.limit,
            "subject": notice.subject,
            "percent": notice.percent,
            "unit": notice.unit,
            "amount": notice.amount,
            "used": notice.used,
            "window_starts_at": instant(notice.starts_s),
            "window_ends_at": instant(notice.ends_s),
            "text": f"{notice.percent} % of the limit '{notice.limit}'{whose} are used: {used} of {amount}.",
        },
    )
