"""The power goes: of what was not synced any sector may be there or not, and no request is in the log twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.audit.disk import Disk
from gateway.audit.recover import recover
from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from tests.fakes.audit import ACME, GLOBEX, SIGNER, intent, receipt
from tests.integration.audit.test_crash import entries

SECTOR = 512
SIZE = 8 * 1024
REQUESTS = 60


class Volatile(Disk):
    """A real disk that knows what a power cut would leave of each file."""

    def __init__(self) -> None:
        self._stable: defaultdict[str, bytearray] = defaultdict(bytearray)
        self._unsynced: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self._lock = threading.Lock()

    def allocate(self, fd: int, size: int) -> None:
        super().allocate(fd, size)
        with self._lock:
            stable = self._stable[_name(fd)]
            stable.extend(bytes(size - len(stable)))

    def write(self, fd: int, data: bytes, offset: int) -> None:
        super().write(fd, data, offset)
        with self._lock:
            self._unsynced[_name(fd)].append((offset, bytes(data)))

    def sync(self, fd: int) -> None:
        with self._lock:
            for offset, data in self._unsynced.pop(_name(fd), []):
                self._stable[_name(fd)][offset : offset + len(data)] = data

    def cut(self, folder: Path, rng: random.Random) -> None:
        """Put into `folder` what may be left now. What was deleted may be there again."""
        folder.mkdir(parents=True)
        with self._lock:
            for name, stable in self._stable.items():
                left = bytearray(stable)
                for offset, data in self._unsynced[name]:
                    for at in range(offset - offset % SECTOR, offset + len(data), SECTOR):
                        if rng.random() < 0.5:
                            begin, end = max(at, offset), min(at + SECTOR, offset + len(data))
                            left[begin:end] = data[begin - offset : end - offset]
                (folder / name).write_bytes(left)
        (folder / "lock").touch()

    def forget(self, name: str) -> None:
        """Its deletion is on the disk."""
        with self._lock:
            self._stable.pop(name, None)
            self._unsynced.pop(name, None)


def _name(fd: int) -> str:
    return Path(os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")).name


@pytest.mark.parametrize("seed", range(24))
async def test_nothing_secured_is_lost_and_nothing_is_there_twice(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    disk = Volatile()
    sequencer = Sequencer(tmp_path / "log", SIGNER)
    await sequencer.open()
    spool = Spool(tmp_path / "spool", "boot", SIZE, 1, disk=disk, segments_max=20)
    running = asyncio.create_task(spool.run(sequencer.append_receipts))
    secured: set[int] = set()
    last = rng.randrange(5, REQUESTS)

    async def one(n: int) -> None:
        org = ACME if n % 2 else GLOBEX
        number = spool.admit(intent(n, org))
        if rng.random() < 0.4:
            await spool.secure(number, intent(n, org))
            secured.add(n)
        if rng.random() < 0.15:
            return  # under way when the power goes
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        spool.append(receipt(n, org, model="x" * rng.choice((4, 300))), number)

    asked = []
    for n in range(last):
        asked.append(asyncio.create_task(one(n)))
        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice((0, 0.002, 0.01)))
        for name in [*disk._stable]:
            if not (tmp_path / "spool" / "boot" / name).exists() and rng.random() < 0.5:
                disk.forget(name)
    told = set(secured)
    disk.cut(tmp_path / "cut" / "boot", rng)
    running.cancel()
    await asyncio.gather(running, *asked, return_exceptions=True)

    await recover(tmp_path / "cut", sequencer.append_receipts)
    await sequencer.close()
    found: defaultdict[int, list[str]] = defaultdict(list)
    for org in (ACME, GLOBEX):
        numbers = []
        for line in await entries(tmp_path / "log", org):
            entry = json.loads(line)
            found[int(entry["request_id"].removeprefix("req_"))].append(entry["outcome"])
            numbers.append(entry["spool"][1])
        assert numbers == sorted(set(numbers))
    assert told <= found.keys()
    assert [outcomes for outcomes in found.values() if len(outcomes) != 1] == []
