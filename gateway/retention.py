"""How long each organization's audit log is kept, and what follows from it: moving lines to where they stay,
locks, holds, and letting go of what is past its time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from gateway.audit.log_store import Rule
from gateway.audit.sequencer import Sequencer
from gateway.audit_settings import AuditStoreSettings
from tenants.ids import PLATFORM, MemberId, OrgId
from tenants.models import Org
from tenants.store import Actor, NotFoundError, StoreError

log = logging.getLogger("orgate")

ROUND_S: Final = 15.0
DAY_MS: Final = 86_400_000
SYSTEM: Final = Actor(PLATFORM, MemberId("system"))


class Orgs(Protocol):
    async def get(self, key: str) -> Org: ...


class Noting(Protocol):
    async def note(self, action: str, target: str, by: Actor, detail: dict[str, str | int | bool]) -> None: ...


def rule_of(settings: AuditStoreSettings, org: Org | None) -> Rule:
    """What holds for `org`; None for one that was deleted: then the server's own time, and nothing is held, for an
    organization under a hold cannot be deleted."""
    days = org.audit_retention_days if org is not None and org.audit_retention_days else settings.retention_days
    return Rule(max(days, settings.retention_floor_days) * DAY_MS, held=org is not None and bool(org.audit_hold))


class Retention:
    """`note` gives the notes of one organization; `now` Unix seconds. Faults are told once, and again when they
    change.

    Order of one expiry, and what a crash leaves: the entry `audit.expire` is written down, then the lines go.
    Crash between: the next round writes it down once more, and they go then.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        orgs: Orgs,
        note: Callable[[OrgId], Noting],
        settings: AuditStoreSettings,
        now: Callable[[], float],
    ) -> None:
        self._sequencer = sequencer
        self._orgs = orgs
        self._note = note
        self._settings = settings
        self._now = now
        self.faults: dict[OrgId, str] = {}

    async def run(self) -> None:
        while True:
            await self.round()
            await asyncio.sleep(ROUND_S)

    async def round(self) -> None:
        """Look after each log once."""
        for org in self._sequencer.known():
            try:
                await self._tend(org)
            except (OSError, StoreError) as error:
                said = error.strerror if isinstance(error, OSError) else str(error)
                if self.faults.get(org) != said:
                    log.error("audit log of %s: %s; it is left as it is", org, said)  # noqa: TRY400  # said in full
                self.faults[org] = said or "input/output error"
            else:
                self.faults.pop(org, None)

    async def _tend(self, org: OrgId) -> None:
        rule = await self.rule(org)
        await self._sequencer.tend(org, rule, int(self._now() * 1000))
        if rule.held:
            return
        before = int(self._now() * 1000) - rule.keep_ms
        begin = await self._sequencer.due(org, before)
        if begin:
            await self._note(org).note("audit.expire", org, SYSTEM, {"end": begin})
            await self._sequencer.expire(org, before)

    async def rule(self, org: OrgId) -> Rule:
        try:
            return rule_of(self._settings, await self._orgs.get(org))
        except NotFoundError:
            return rule_of(self._settings, None)
