"""A disk that is really full: a small tmpfs where one may be mounted, and a file size limit (RLIMIT_FSIZE)."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.audit.reader import LogReader
from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from gateway.errors import UnavailableError
from gateway.exchange import SpoolUp
from tests.fakes.audit import ACME, SIGNER, intent, receipt, up

MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(place)]
    root = os.geteuid() == 0 and shutil.which("mount")
    if not root or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no small disk: mounting a tmpfs needs root; the file size limit below runs instead")
    print("disk full: on a tmpfs of 1 MiB")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_worker_refuses_new_work_and_settles_all_it_admitted(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", "boot", 256 * 1024, 1)
    ballast = os.open(small_disk / "ballast", os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(ballast, 0, 300 * 1024)
    admitted: list[int] = []

    def admit_all() -> None:
        while True:
            admitted.append(spool.admit(intent()))

    def fill_up() -> None:
        while True:  # what else is on the disk takes the rest
            os.write(ballast, bytes(4096))

    with pytest.raises(UnavailableError, match="no reserve on disk"):
        admit_all()
    os.lseek(ballast, 0, os.SEEK_END)
    with pytest.raises(OSError, match="No space left"):
        fill_up()
    os.close(ballast)
    assert len(admitted) > 200
    for n in admitted:
        spool.append(receipt(n, model="x" * 3000), n)
    got: list[int] = []

    async def send(sent: SpoolUp) -> int:
        got.extend(item.seq for item in sent.receipts)
        return got[-1]

    spool.stop()
    await spool.run(send)
    assert got == admitted
    assert spool.healthy


async def test_the_sequencer_acknowledges_nothing_until_there_is_room(small_disk: Path) -> None:
    sequencer = Sequencer(small_disk, SIGNER)
    await sequencer.open()
    acknowledged = 0

    async def append_all() -> None:
        nonlocal acknowledged
        while True:
            acknowledged = await sequencer.append_receipts(up("boot", *range(acknowledged + 1, acknowledged + 51)))

    with pytest.raises(UnavailableError):
        await append_all()
    assert "No space left" in sequencer.reason
    size = await LogReader(sequencer).size(ACME)
    assert size == acknowledged > 500
    # Room again, in the middle of the worker's retries: the same batch, once.
    retry = up("boot", *range(acknowledged + 1, acknowledged + 51))
    with pytest.raises(UnavailableError):
        await sequencer.append_receipts(retry)
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert await sequencer.append_receipts(retry) == acknowledged + 50
    assert sequencer.healthy
    await sequencer.close()
    again = Sequencer(small_disk, SIGNER)
    await again.open()
    assert await LogReader(again).size(ACME) == acknowledged + 50
    await again.close()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond `size` of any file fail with EFBIG, as far as this process is concerned."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_a_file_that_may_not_grow_is_no_different(tmp_path: Path) -> None:
    print("disk full: by a file size limit")
    sequencer = Sequencer(tmp_path, SIGNER)
    await sequencer.open()
    await sequencer.append_receipts(up("boot", *range(1, 11)))
    written = (tmp_path / "orgs" / "acme" / "log-00000000.jsonl").stat().st_size
    spool = Spool(tmp_path / "spool", "boot", 8192, 1)
    with file_size_limit(written + 1000):
        with pytest.raises(UnavailableError):
            await sequencer.append_receipts(up("boot", *range(11, 21)))
        for _ in range(4):
            spool.admit(intent())
        with pytest.raises(UnavailableError, match="no reserve"):
            spool.admit(intent())
    assert await sequencer.append_receipts(up("boot", *range(11, 21))) == 20
    assert await LogReader(sequencer).size(ACME) == 20
    await asyncio.sleep(0)
    await sequencer.close()
