"""The audit log's disk is full: nothing is served that could not be written down, and nothing written is lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.gateway.refusals import refused
from tests.integration.gateway.world import Log, connect, family, new_request_id
from tests.kit.gateway import RunningGateway
from tests.kit.h2client import H2Stream

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[RunningGateway]:
    """A gateway whose audit folder is a disk of 3 MiB."""
    audit = tmp_path / "home/audit"
    settings = {"ORGATE_AUDIT__SPOOL_BYTES": str(256 * 1024)}
    gateway = RunningGateway(tmp_path / "home", settings=settings)
    audit.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", str(audit)], check=True)
    try:
        with gateway:
            yield gateway
    finally:
        subprocess.run(["umount", str(audit)], check=True)


async def test_service_stops_with_the_disk_and_comes_back_with_it(cramped: RunningGateway) -> None:
    owner = await asyncio.to_thread(cramped.owner)
    log = Log(owner)
    before = family(cramped)
    ballast = cramped.home / "audit/ballast"
    fill(ballast)
    async with await connect(cramped) as client:
        answered: list[str] = []
        refusal: H2Stream | None = None
        while refusal is None:
            assert len(answered) < 20_000, "the disk is full, and requests are served on and on"
            batch = []
            for _ in range(50):
                request_id = new_request_id()
                headers = [*owner.bearer.items(), ("x-request-id", request_id)]
                batch.append((request_id, client.request("GET", "/v1/models", headers)))
            for request_id, stream in batch:
                await stream.complete()
                if stream.status == 200:
                    answered.append(request_id)
                else:
                    refusal = stream
        error = refused(refusal.status, refusal.headers, refusal.body, expect=503, code="unavailable")
        assert "audit log" in error["message"]
        assert int(refusal.headers["retry-after"]) > 0
        ready = await asyncio.to_thread(cramped.http.get, cramped.admin_url + "/readyz")
        assert (ready.status_code, "audit log" in ready.text) == (503, True)
        ballast.unlink()
        await asyncio.to_thread(cramped.wait_ready)
        while True:
            last = await client.request("GET", "/v1/models", list(owner.bearer.items())).complete()
            if last.status == 200:
                break
            refused(last.status, last.headers, last.body, expect=503, code="unavailable")
            await asyncio.sleep(0.05)  # the spool tries again by itself; there is nothing to wait on from outside
    await log.of(answered)
    assert family(cramped) == before


def fill(path: Path) -> None:
    """Take what is left of the disk, to the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (65_536, 4_096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
