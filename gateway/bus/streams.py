"""What the admin API sees of the workers: the hub, with the publisher that feeds it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.bus.hub import Hub, WorkerStatus
from gateway.bus.publisher import Publisher
from tenants.ids import OrgId
from tenants.snapshot import Snapshot


class LiveStreams:
    """`gateway.api.admin.dependencies.Streams` over one hub."""

    def __init__(self, hub: Hub, publisher: Publisher) -> None:
        self._hub = hub
        self._publisher = publisher

    @property
    def snapshot(self) -> Snapshot:
        return self._hub.snapshot

    def reset(self, org: OrgId, member: str = "") -> None:
        self._hub.reset(org, member)

    async def live(self, version: int) -> Sequence[str]:
        """Publish what is committed, then wait until every worker serves it; returns those that did not."""
        published = await self._publisher.sync()
        return await self._hub.live(max(version, published))

    def workers(self) -> Sequence[WorkerStatus]:
        return self._hub.workers()
