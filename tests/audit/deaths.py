"""Deaths of a worker at any call to its disk, in an order that a seed decides, and what recovery makes of them.

    python -m tests.audit.deaths [how many] [first seed]

Threads run only when told to, up to their next call to the disk: whatever the event loop and a sync may do to each
other happens in some seed. A call is refused, torn at any byte, or a sync fails and drops what it should have
written; in the midst of one the worker is killed, or the power goes. What its disk has then is recovered, in
several attempts, while messages of the dead worker still arrive.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from gateway.audit import intents, spool
from gateway.audit.disk import Disk
from gateway.audit.recover import recover
from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from gateway.errors import UnavailableError
from gateway.exchange import SpoolUp
from tests.fakes.audit import ACME, GLOBEX, SIGNER, intent, receipt

PAGE = 4096
SECTOR = 512
SIZE = 8 * 1024
PATIENCE_S = 30.0
ORGS = (ACME, GLOBEX)


class Stepped:
    """A thread that goes on only when told, to its next call of `pause`."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.done = False
        self.result: object = None
        self.error: BaseException | None = None
        self._go, self._at = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        _here.thread = self
        self._wait(self._go)
        try:
            self.result = work()
        except BaseException as error:  # noqa: BLE001  # whoever waits gets it
            self.error = error
        self.done = True
        self._at.release()

    def step(self) -> None:
        self._go.release()
        self._wait(self._at)

    def pause(self) -> None:
        self._at.release()
        self._wait(self._go)

    def _wait(self, one: threading.Semaphore) -> None:
        if not one.acquire(timeout=PATIENCE_S):
            raise RuntimeError("a thread was forgotten")


_here = threading.local()


class Stage:
    """The threads there are. In the loop a call to `pause` lets others go on."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.haste = rng.choice((0.1, 0.5, 0.8))
        self.threads: list[Stepped] = []

    def pause(self) -> None:
        if (own := getattr(_here, "thread", None)) is not None:
            own.pause()
            return
        while self.threads and self.rng.random() < self.haste:
            self.advance(self.rng.choice(self.threads))

    def advance(self, thread: Stepped) -> None:
        thread.step()
        if thread.done:
            self.threads.remove(thread)

    def run_in_executor(self, _: object, work: Callable[..., object], *args: object) -> asyncio.Future[object]:
        thread = Stepped(lambda: work(*args))
        self.threads.append(thread)
        return asyncio.shield(asyncio.ensure_future(self._through(thread)))

    async def _through(self, thread: Stepped) -> object:
        while not thread.done:
            await turns(self.rng.randrange(4))
            if not thread.done:
                self.advance(thread)
        if thread.error is not None:
            raise thread.error
        return thread.result

    def finish(self) -> None:
        while self.threads:
            for thread in [*self.threads]:
                self.advance(thread)


class Lock:
    """In place of a `threading.Lock`: whoever waits lets others go on."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            self._stage.pause()
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Frail(Disk):
    """A page cache over a disk. `dies_at`: in which call the worker dies, and `dies` is called."""

    def __init__(self, stage: Stage, folder: Path, dies_at: int) -> None:
        self.stage = stage
        self.calls = 0
        self.dead = False
        self.failing: frozenset[str] = frozenset()
        self.dies: Callable[[], None] = lambda: None
        self.flaw = 0.0
        self.kept = stage.rng.choice((0, 0, 0.5))  # of what was not synced
        self._folder = folder
        self._dies_at = dies_at
        self._stable: defaultdict[str, bytearray] = defaultdict(bytearray)
        self._dirty: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)

    def allocate(self, fd: int, size: int) -> None:
        self._begin("allocate", fd)
        super().allocate(fd, size)
        stable = self._stable[_name(fd)]
        stable.extend(bytes(size - len(stable)))
        self.stage.pause()

    def write(self, fd: int, data: bytes, offset: int) -> None:
        rng = self.stage.rng
        try:
            dying = self._begin("write", fd)
        except OSError:
            self._put(fd, data[: rng.choice((0, len(data), rng.randrange(len(data) + 1)))], offset)
            raise
        if dying and rng.random() < 0.5:  # a kernel looks for signals between two pages
            at = rng.randrange(len(data) + 1)
            self._put(fd, data[: max(0, at - (offset + at) % PAGE)], offset)
            self.die()
        self._put(fd, data, offset)
        if dying:
            self.die()
        self.stage.pause()

    def sync(self, fd: int) -> None:
        self.stage.pause()
        name = _name(fd)
        begun = len(self._dirty[name])
        try:
            dying = self._begin("sync", fd)
        except OSError:
            self._writeback(name, self._stable[name])
            self._dirty[name].clear()  # marked clean: a later sync writes only what is written again
            self.stage.pause()
            raise
        if dying:
            self.die()
        for at, page in self._dirty[name][:begun]:
            self._stable[name][at : at + len(page)] = page
        del self._dirty[name][:begun]
        self.stage.pause()

    def die(self) -> None:
        if not self.dead:
            self.dead = True
            self.dies()

    def _begin(self, call: str, fd: int) -> bool:
        """Whether the worker dies in this one. Raises OSError."""
        if self.dead:
            return False
        self.stage.pause()
        self.calls += 1
        part = "intents" if _name(fd) == intents.NAME else "segments"
        if self.stage.rng.random() < (0.6 if {call, part} <= self.failing else self.flaw):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.calls == self._dies_at

    def _put(self, fd: int, data: bytes, offset: int) -> None:
        super().write(fd, data, offset)
        begin = offset - offset % PAGE
        for at in range(begin, offset + len(data), PAGE) if data else ():
            self._dirty[_name(fd)].append((at, os.pread(fd, PAGE, at)))

    def _writeback(self, name: str, left: bytearray) -> None:
        """Some of the sectors, of any moment since the last sync."""
        rng = self.stage.rng
        for at, page in self._dirty[name]:
            for begin in range(0, len(page), SECTOR):
                if rng.random() < self.kept:
                    left[at + begin : at + begin + SECTOR] = page[begin : begin + SECTOR]

    def killed(self, folder: Path) -> None:
        """Put into `folder` what other processes see."""
        shutil.copytree(self._folder, folder)

    def cut(self, folder: Path) -> None:
        """Put into `folder` what the disk may have. What was deleted may be there again."""
        rng = self.stage.rng
        (boot,) = [path for path in self._folder.iterdir() if path.is_dir()]
        (folder / "boot").mkdir(parents=True)
        for name, stable in self._stable.items():
            if not (boot / name).exists() and rng.random() < 0.7:
                continue
            left = bytearray(stable)
            self._writeback(name, left)
            (folder / "boot" / name).write_bytes(left)
        (folder / "boot" / "lock").touch()


class Steady(Disk):
    """The sequencer's: it never dies here."""

    def sync(self, fd: int) -> None:
        """Nothing is lost that needed it."""


def _name(fd: int) -> str:
    return Path(os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")).name


class Scene:
    """A worker, from its start to what its requests have become."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = rng = random.Random(seed)
        self.saves = random.Random(-1 - seed)
        self.folder = folder
        self.stage = Stage(rng)
        self.power = rng.random() < 0.7
        self.faulty = rng.random() < 0.4
        self.disk = Frail(self.stage, folder / "spool", rng.randrange(4, rng.choice((60, 300, 900))))
        self.disk.dies = self._died
        self.flaw = rng.choice((0, 0, 0.03, 0.1, 0.2))
        self.size = rng.choice((SIZE, 4 * SIZE))
        self.told: dict[int, str] = {}
        self.at_death: dict[int, str] = {}
        self.away = False
        self.late: list[SpoolUp] = []
        self.sequencer = Sequencer(folder / "log", SIGNER, disk=Steady())
        self.spool: Spool

    async def play(self) -> list[str]:
        loop = asyncio.get_running_loop()
        await self.sequencer.open()
        with (
            patch.object(intents, "SLOTS", 4),
            patch.object(spool, "RETRY_S", (0, 0, 0, 0, 0)),
            patch.object(spool, "RECENT_BYTES", self.rng.choice((1_000, 256 * 1024))),
            patch.object(loop, "run_in_executor", self.stage.run_in_executor),
        ):
            await self._live()
        await self._recover()
        return await self._judge()

    # -- life -------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        rng, disk = self.rng, self.disk
        self.spool = Spool(self.folder / "spool", "boot", self.size, 0, disk=disk, segments_max=8)
        disk.flaw = self.flaw
        self.spool._intents._synced = Lock(self.stage)  # type: ignore[assignment]
        running = asyncio.ensure_future(self.spool.run(self._send))
        asked = []
        for n in range(rng.randrange(4, 60)):
            if disk.dead:
                break
            asked.append(asyncio.ensure_future(self._request(n)))
            await turns(rng.choice((0, 0, 1, 3, 20, 60)))
            if rng.random() < 0.1:
                self.away = not self.away
            if self.faulty and rng.random() < 0.2:
                parts = ("write", "sync", "allocate", "segments", "intents")
                disk.failing = frozenset(rng.sample(parts, rng.choice((0, 0, 2, 3, 4, 5))))
        await turns(rng.choice((0, 10, 100)))
        disk.die()
        for task in (running, *asked):
            task.cancel()
        self.stage.finish()
        await asyncio.gather(running, *asked, return_exceptions=True)
        while self.spool._intents._group is not None or self.stage.threads:
            self.stage.finish()
            await turns(1)
        for fd in (self.spool._lock, self.spool._intents._fd, *(one.fd for one in self.spool._segments)):
            os.close(fd)

    async def _request(self, n: int) -> None:
        rng, org = self.rng, ORGS[n % 2]
        secured = False
        try:
            number = self.spool.admit(intent(n, org))
        except UnavailableError:
            return
        self.told[n] = "admitted"
        await turns(rng.randrange(3))
        if rng.random() < 0.4:
            try:
                await self.spool.secure(number, intent(n, org, upstream="gpu"))
            except UnavailableError:
                self.told[n] = "refused"  # its intent may be torn: nothing was sent
            else:
                self.told[n], secured = "secured", True
        if rng.random() < 0.1:
            return
        await turns(rng.choice((0, 0, 2, 8, 40)))
        self.spool.append(receipt(n, org, model="x" * rng.choice((4, 300, 900))), number)
        if not self.spool._stuck:
            self.told[n] = "secured, served" if secured else "served"

    async def _send(self, up: SpoolUp) -> int:
        rng = self.rng
        await turns(rng.randrange(3))
        if self.away or self.disk.dead or rng.random() < 0.1:
            raise UnavailableError("away")
        if rng.random() < 0.05:
            self.late.append(up)
            raise UnavailableError("too late")
        upto = await self.sequencer.append_receipts(up)
        await turns(rng.randrange(3))
        if rng.random() < 0.1:
            raise UnavailableError("the answer is lost")
        return upto

    def _died(self) -> None:
        self.at_death = dict(self.told)
        (self.disk.cut if self.power else self.disk.killed)(self.folder / "left")
        if self.power:
            self.late.clear()

    # -- afterwards -------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        rng = self.rng
        left, place = self.folder / "left", self.folder / "again"
        for again in (False, True):  # a power cut brings back what was removed
            shutil.copytree(left, place, dirs_exist_ok=True)
            while True:
                if rng.random() < 0.3:
                    await self._deliver()
                if rng.random() < 0.2:
                    await self._restart()
                try:
                    await recover(place, self._append)
                except (OSError, UnavailableError):
                    continue
                break
            await self._deliver()
            if again or rng.random() < 0.5:
                break

    async def _append(self, up: SpoolUp) -> int:
        chance = self.rng.random()
        if chance < 0.15:
            raise UnavailableError("away")
        if chance < 0.3:
            org = self.rng.choice(ORGS)
            up = SpoolUp(up.boot, tuple([item for item in up.receipts if item.receipt.org == org]))
        upto = await self.sequencer.append_receipts(up)
        if self.saves.random() < 0.3:
            await self.sequencer.save_checkpoints(closing=True)
        if chance < 0.45:
            raise UnavailableError("the answer is lost")
        if self.rng.random() < 0.2:
            await self._deliver()
        return upto

    async def _deliver(self) -> None:
        """What was on its way when the worker died is read now."""
        while self.late:
            await self.sequencer.append_receipts(self.late.pop())

    async def _restart(self) -> None:
        """Killed: what was on its way to it is gone."""
        self.late.clear()
        if self.saves.random() < 0.3:  # else the state is as old as it was
            await self.sequencer.save_checkpoints(closing=True)
        for state in self.sequencer._logs.values():
            state.log.close()
        self.sequencer = Sequencer(self.folder / "log", SIGNER, disk=Steady())
        await self.sequencer.open()

    async def _judge(self) -> list[str]:
        found: defaultdict[int, list[str]] = defaultdict(list)
        faults = []
        for org in ORGS:
            log = (await self.sequencer.opened(org)).log
            numbers = []
            for line in log.lines(0, log.size):
                entry = json.loads(line)
                found[int(entry["request_id"].removeprefix("req_"))].append(entry["outcome"])
                numbers.append(entry["spool"][1])
            if numbers != sorted(set(numbers)):
                faults.append(f"numbers of {org}: {numbers}")
        await self.sequencer.close()
        for n, outcomes in sorted(found.items()):
            if len(outcomes) > 1:
                faults.append(f"{n}: {outcomes}")
        for n, state in sorted(self.at_death.items()):
            if n not in found and state != "refused" and (not self.power or "secured" in state):
                faults.append(f"{n}: {state}, lost")
            elif not self.power and "served" in state and found[n][:1] != ["served"]:
                faults.append(f"{n}: {state}, {found[n]}")
        return [f"{'power cut' if self.power else 'kill'}: {fault}" for fault in faults]


def play(seed: int) -> list[str]:
    """What was wrong in the end: nothing."""
    with tempfile.TemporaryDirectory(prefix="orgate-deaths-") as folder:
        return asyncio.run(Scene(seed, Path(folder)).play())


def main() -> int:
    logging.disable()
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    bad = 0
    for seed in range(first, first + count):
        if faults := play(seed):
            bad += 1
            sys.stdout.write(f"seed {seed}: {'; '.join(faults[:5])}\n")
            sys.stdout.flush()
    sys.stdout.write(json.dumps({"deaths": count, "bad": bad}) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
