"""A worker that is killed with requests in flight: what they had used is charged to the unit, the rest returns."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from granian.constants import Interfaces
from granian.server.embed import Server
from litestar import Litestar

from gateway.api.bus import bus_routes
from gateway.bus.hub import Hub
from gateway.clock import SystemClock
from gateway.limits.accounts import LimitOwner
from gateway.limits.protocol import Standings
from gateway.limits.undertaker import Undertaker
from tenants.snapshot import Delta
from tests.integration.limits.worker import AMOUNT, NAME, ORG, SLOTS
from tests.kit.gateway import REPOSITORY

IN_FLIGHT = 200


class Control:
    """The control process' part of it: bus, owner and undertaker."""

    def __init__(self, folder: Path) -> None:
        clock = SystemClock()
        self.socket = folder / "bus.sock"
        self.books = folder / "limits"
        self.owner = LimitOwner(lambda: int(clock.now() * 1_000_000))
        self.undertaker = Undertaker(self.books, self.owner)
        self.left: asyncio.Queue[str] = asyncio.Queue()
        self.hub = Hub(clock)
        self.hub.on_leave(self.undertaker.left)
        self.hub.on_leave(self.left.put_nowait)
        self.hub.publish(Delta(version=1, full=True))

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None]:
        async def spool(_: object) -> int:
            raise NotImplementedError

        routes = bus_routes(self.hub, self.owner, spool, lambda _: None)
        server = Server(
            Litestar(routes, openapi_config=None),
            uds=self.socket,
            interface=Interfaces.ASGINL,
            websockets=False,
            log_enabled=False,
        )
        serving = asyncio.ensure_future(server.serve())
        burying = asyncio.ensure_future(self.undertaker.run())
        try:
            yield
        finally:
            burying.cancel()
            self.hub.close()
            server.stop()  # type: ignore[no-untyped-call]
            await asyncio.gather(serving, burying, return_exceptions=True)

    async def standing(self, limit: str) -> Standings:
        return next(found for found in await self.owner.usage(ORG) if found.limit == limit)


@asynccontextmanager
async def worker(control: Control) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.limits.worker",
        str(control.socket),
        str(control.books),
        str(IN_FLIGHT),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(tmp_path)


async def test_what_it_had_used_is_charged_and_the_rest_returns(control: Control) -> None:
    async with control.served(), worker(control) as process:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            used: dict[str, int] = json.loads(await process.stdout.readline())
        assert used["requests"] == IN_FLIGHT * 9 // 10
        assert (await control.standing("tokens")).lent > 0
        process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(60):
            assert await control.left.get() == NAME
            while any([(await control.standing(limit)).lent for limit in used]):
                await asyncio.sleep(0.01)
        # Not by the end of its lease: what it had been lent would be charged then, too.
        charged = {limit: await control.standing(limit) for limit in used}
        assert {limit: found.amount - found.level for limit, found in charged.items()} == used
        assert [charged[limit].amount for limit in used] == [AMOUNT, AMOUNT, SLOTS]
        assert not list(control.books.iterdir())
