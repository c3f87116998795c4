"""Puts together who else sees the audit log's checkpoints: part of the composition root."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.alarms import Alarms
from gateway.audit.publish import Place, Publication, PublishError, Publishing
from gateway.audit.publish_file import FilePlace
from gateway.audit.publish_git import GitPlace
from gateway.audit.sequencer import Sequencer
from gateway.audit.witness_post import WitnessPost
from gateway.audit.witnessed import WitnessedNotes
from gateway.audit.witnesses import Witnesses
from gateway.clock import Clock
from gateway.control_metrics import ControlMetrics
from gateway.settings import Settings
from gateway.webhooks import Webhooks
from gateway.witness_files import read_ca, read_policies
from tenants.ids import OrgId
from tenants.store import StoreError

SHOW_S: Final = 5.0


class WebhookPlace:
    """Tells each organization's webhook its checkpoint, one organization after the other."""

    name = "webhook"

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms

    async def put(self, items: Sequence[Publication]) -> Sequence[OrgId]:
        done = []
        for item in items:
            said = {"origin": item.origin, "size": item.size, "checkpoint": item.checkpoint}
            try:
                if await self._alarms.tell(item.org, "audit.checkpoint", str(item.size), said):
                    done.append(item.org)
            except StoreError as error:
                raise PublishError(str(error)) from None
        return done


@dataclass(frozen=True, slots=True)
class WitnessParts:
    """`witnesses` and `publishing`: None when the settings name none. `work` runs beside the servers."""

    witnesses: Witnesses | None
    publishing: Publishing | None
    metrics: ControlMetrics
    late_s: int

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        publishing = () if self.publishing is None else (self.publishing.run(),)
        if self.witnesses is None:
            return publishing
        return *publishing, self.witnesses.run(), self._show(self.witnesses)

    def degraded(self) -> Sequence[str]:
        """What `/readyz` adds while it says yes: nothing waits for a quorum."""
        late = [] if self.witnesses is None else [s for s in self.witnesses.late().values() if s >= self.late_s]
        if not late:
            return []
        logs = "1 audit log has" if len(late) == 1 else f"{len(late)} audit logs have"
        return [f"the newest checkpoints of {logs} no quorum of witnesses, for {max(late):.0f} s at most"]

    async def _show(self, witnesses: Witnesses) -> None:
        while True:
            for org, late_s in witnesses.late().items():
                self.metrics.show("orgate_audit_witness_late_seconds", late_s, org)
            await asyncio.sleep(SHOW_S)


def witness_parts(
    settings: Settings, sequencer: Sequencer, *, metrics: ControlMetrics, webhooks: Webhooks, clock: Clock
) -> WitnessParts:
    """Raises `gateway.witness_files.WitnessSettingsError`."""
    audit, folder = settings.audit, settings.path(settings.audit.path)
    policies = read_policies(settings)
    witnesses = None
    if policies:
        witnesses = Witnesses(
            policies,
            sequencer,
            WitnessPost(read_ca(settings)),
            WitnessedNotes(folder / "witnessed"),
            clock=clock.now,
            monotonic=lambda: clock.monotonic_us() / 1e6,
            random=random.random,
            count=metrics.count_witness,
        )
        sequencer.published = witnesses.published
    places = _places(settings, Alarms(webhooks, clock))
    publishing = Publishing(
        places,
        lambda: sequencer.orgs,
        lambda org: _newest(sequencer, witnesses, org),
        folder / "published.json",
        every_s=audit.publish_every_s,
        clock=clock.now,
        count=metrics.count_publication,
    )
    return WitnessParts(witnesses, publishing if places else None, metrics, audit.witness_late_s)


def _places(settings: Settings, alarms: Alarms) -> list[Place]:
    audit, home = settings.audit, settings.home
    places: list[Place] = []
    if audit.publish_file:
        places.append(FilePlace(Path(home / audit.publish_file)))
    if audit.publish_git:
        places.append(GitPlace(Path(home / audit.publish_git), audit.publish_git_remote))
    if audit.publish_webhook:
        places.append(WebhookPlace(alarms))
    return places


async def _newest(sequencer: Sequencer, witnesses: Witnesses | None, org: OrgId) -> str:
    """With its quorum, where one is asked for; else as it is."""
    if witnesses is not None and (note := witnesses.witnessed(org)):
        return note
    return (await sequencer.opened(org)).log.checkpoint()
