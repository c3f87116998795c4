"""What `tests.audit.kills` kills: a worker with its spool under load, and the sequencer that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import random
import struct
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from gateway.audit.disk import Disk
from gateway.audit.note import parse_checkpoint
from gateway.audit.reader import LogReader
from gateway.audit.recover import recover
from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from gateway.errors import UnavailableError
from gateway.exchange import SpoolUp
from tenants.ids import OrgId
from tests.fakes.audit import ACME, GLOBEX, SIGNER, FaultyDisk, intent, receipt

ORGS = (ACME, GLOBEX)
REQUESTS_MAX = 200_000
"""Of one worker: a byte each in the memory that it shares."""
OPEN_MAX = 24
"""Requests that a worker has at a time; some of them never end."""
SEGMENT = 64 * 1024
LOG_SEGMENT = 256 * 1024

T = TypeVar("T")

ADMITTED, IN_MEMORY, ACKNOWLEDGED = 1, 2, 3
"""What a worker was told of a request. IN_MEMORY: `append` returned while the disk refused to be written."""


class Worker:
    """Requests as a worker has them: some settle at once, some late, some never; of some the intent is secured."""

    def __init__(self, folder: Path, boot: str, told: mmap.mmap, seed: float, *, faulty: bool) -> None:
        self._folder = folder
        self._boot = boot
        self._told = told
        self._rng = random.Random(seed)
        self._faulty = faulty

    async def run(self) -> None:
        rng = self._rng
        disk = FaultyDisk() if self._faulty else Disk()
        spool = Spool(
            self._folder / "spool", self._boot, SEGMENT, rng.choice((1, 5, 20)), disk=disk, segments_max=8
        )
        others = [asyncio.create_task(spool.run(self._send))]
        if isinstance(disk, FaultyDisk):
            others.append(asyncio.create_task(spoil(disk, rng)))
        free = asyncio.Semaphore(OPEN_MAX)
        for n in range(REQUESTS_MAX):
            await free.acquire()
            others.append(asyncio.create_task(self._one(spool, n, free)))
            if n % 32 == 0:
                await asyncio.sleep(rng.uniform(0, 0.004))

    async def _one(self, spool: Spool, n: int, free: asyncio.Semaphore) -> None:
        rng, org = self._rng, ORGS[n % 2]
        try:
            number = spool.admit(intent(n, org))
        except UnavailableError:
            await asyncio.sleep(0.002)
            free.release()
            return
        self._told[n] = ADMITTED
        if rng.random() < 0.1:
            with contextlib.suppress(UnavailableError):
                await spool.secure(number, intent(n, org, upstream="rig", key_version=2))
        if rng.random() < 0.02:
            return  # a stream that goes on for ever
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        spool.append(receipt(n, org, model="x" * rng.choice((4, 4, 4, 500))), number)
        self._told[n] = ACKNOWLEDGED if spool.healthy else IN_MEMORY
        free.release()

    async def _send(self, up: SpoolUp) -> int:
        reader, writer = await asyncio.open_unix_connection(str(self._folder / "sock"))
        try:
            data = msgspec.msgpack.encode(up)
            writer.write(b"take".ljust(16) + struct.pack(">I", len(data)) + data)
            return int(struct.unpack(">q", await reader.readexactly(8))[0])
        finally:
            writer.close()


async def serve(folder: Path, say: int, seed: float, *, faulty: bool) -> None:
    """The sequencer, and beside it what recovers the spools of dead workers."""
    rng = random.Random(seed)
    ticks = count(step=10)  # as many checkpoints as are asked for
    disk = FaultyDisk() if faulty else Disk()
    sequencer = Sequencer(
        folder / "log", SIGNER, disk=disk, segment_bytes=LOG_SEGMENT, clock=lambda: float(next(ticks))
    )
    began = time.perf_counter()
    await sequencer.open()
    await recover(folder / "spool", sequencer.append_receipts)
    os.write(say, struct.pack("d", time.perf_counter() - began))
    os.close(say)
    reader = LogReader(sequencer)
    recovering = asyncio.Lock()

    async def answer(asked: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, UnavailableError):
            what, _, rest = (await asked.readexactly(16)).decode().strip().partition(" ")
            if what == "take":
                size = struct.unpack(">I", await asked.readexactly(4))[0]
                up = msgspec.msgpack.decode(await asked.readexactly(size), type=SpoolUp)
                writer.write(struct.pack(">q", await sequencer.append_receipts(up)))
                if rng.random() < 0.2:
                    await sequencer.save_checkpoints()
            elif what == "recover":
                async with recovering:
                    writer.write(struct.pack("d", await until_it_does(recovered)))
            else:
                org = ACME if rest == ACME else GLOBEX
                note = (await until_it_does(lambda: signed(org))).encode()
                writer.write(struct.pack(">I", len(note)) + note)
            await writer.drain()
        writer.close()

    async def recovered() -> float:
        began = time.perf_counter()
        await recover(folder / "spool", sequencer.append_receipts)
        return time.perf_counter() - began

    async def signed(org: OrgId) -> str:
        """A checkpoint over all there is; an older one comes when none can be saved."""
        size = await reader.size(org)
        note = await reader.checkpoint(org)
        if parse_checkpoint(note.partition("\n\n")[0] + "\n").size < size:
            raise UnavailableError("not yet")
        return note

    (folder / "sock").unlink(missing_ok=True)
    await asyncio.start_unix_server(answer, str(folder / "sock"))
    if isinstance(disk, FaultyDisk):
        await spoil(disk, rng)
    await asyncio.Event().wait()


async def until_it_does(work: Callable[[], Awaitable[T]]) -> T:
    """Over and over while the disk refuses, as the control process does."""
    while True:
        try:
            return await work()
        except (OSError, UnavailableError):
            await asyncio.sleep(0.005)


async def spoil(disk: FaultyDisk, rng: random.Random) -> NoReturn:
    """The disk is full or broken for a while, over and over."""
    while True:
        await asyncio.sleep(rng.uniform(0.005, 0.05))
        disk.torn = rng.choice((0, 11, 300, 512))
        rng.choice((disk.full, disk.broken))(
            *rng.choice((("allocate",), ("write",), ("sync",), ("write", "sync")))
        )
        await asyncio.sleep(rng.uniform(0.001, 0.02))
        disk.mend()
