"""kill -9 at random moments: nothing acknowledged is lost, nothing is there twice, the chain never forks."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.audit.pack import PackWriter, Plan
from gateway.audit.reader import LogReader
from gateway.audit.recover import recover
from gateway.audit.sequencer import Sequencer
from gateway.audit.verify import verify_pack
from gateway.exchange import SpooledReceipt, SpoolUp
from tenants.ids import OrgId
from tests.fakes.audit import ACME, GLOBEX, SIGNER, intent, receipt

KILLS = 12
ROOT = Path(__file__).parents[3]


def run_and_kill(kind: str, folder: Path, boot: str, lines: int) -> int:
    """Run the writer until it has said `lines` lines, kill it in what it does then; the last it said."""
    command = [sys.executable, "-m", "tests.integration.audit.writer", kind, str(folder), boot]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
        assert writer.stdout is not None
        for _ in range(lines):
            assert writer.stdout.readline(), "the writer ended by itself"
        os.kill(writer.pid, signal.SIGKILL)
        said = writer.stdout.read().split(b"\n")
    whole = [int(line) for line in said[:-1]]
    return max(whole, default=-1)


async def export(sequencer: Sequencer, org: OrgId, folder: Path) -> list[list[object]]:
    """Export and verify as an auditor would; returns where each receipt came from."""
    reader = LogReader(sequencer)
    shutil.rmtree(folder, ignore_errors=True)
    size = await reader.size(org)
    plan = Plan(org, await reader.checkpoint(org), reader.verifier_key(org), 0, size, {}, "")
    with PackWriter(folder, plan) as pack:
        async for piece in reader.raw(org, 0, size):
            pack.write(piece)
        pack.finish(1)
    verdict = verify_pack(folder, reader.verifier_key(org))
    assert verdict.ok, verdict.faults
    return [json.loads(line)["spool"] for line in (folder / "entries.jsonl").read_bytes().splitlines()]


async def test_a_killed_worker_loses_nothing_it_was_told_is_kept(tmp_path: Path) -> None:
    rng = random.Random(11)
    sequencer = Sequencer(tmp_path / "log", SIGNER)
    await sequencer.open()
    expected: list[list[object]] = []
    for kill in range(KILLS):
        boot = f"boot{kill}"
        appended = rng.randint(1, 700)
        last = max(run_and_kill("spool", tmp_path, boot, appended), appended)
        first_try = await recover(tmp_path / "spool", sequencer.append_receipts)
        assert first_try >= last
        expected += [[boot, n] for n in range(1, first_try + 1)]
    assert await export(sequencer, ACME, tmp_path / "pack") == expected
    assert list((tmp_path / "spool").iterdir()) == []
    await sequencer.close()


async def test_a_killed_sequencer_forgets_nothing_it_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(12)
    total = 0
    for kill in range(KILLS):
        boot = f"boot{kill}"
        batches = rng.randint(1, 60)
        acknowledged = max(run_and_kill("sequence", tmp_path, boot, batches), 3 * batches)
        sequencer = Sequencer(tmp_path, SIGNER, segment_bytes=20_000)
        await sequencer.open()
        # The worker was not told of the batch in flight: it sends everything since the last it knows of again.
        again = range(max(1, acknowledged - 8), acknowledged + 10)
        items = tuple(SpooledReceipt(n, receipt(n, ACME if n % 2 else GLOBEX)) for n in again)
        await sequencer.append_receipts(SpoolUp(boot, items))
        total += again[-1]
        for org, odd in ((ACME, 1), (GLOBEX, 0)):
            found = await export(sequencer, org, tmp_path / "pack")
            mine = [seq for name, seq in found if name == boot]
            assert mine == [n for n in range(1, again[-1] + 1) if n % 2 == odd]
        await sequencer.close()
    assert sum([len(await entries(tmp_path, org)) for org in (ACME, GLOBEX)]) == total


async def entries(folder: Path, org: OrgId) -> list[bytes]:
    sequencer = Sequencer(folder, SIGNER)
    await sequencer.open()
    found = b"".join([piece async for piece in LogReader(sequencer).raw(org, 0, 10**9)]).splitlines()
    await sequencer.close()
    return found


@pytest.mark.parametrize("restart", [False, True])
async def test_a_worker_that_lives_on_while_the_sequencer_restarts(tmp_path: Path, restart: bool) -> None:
    from gateway.audit.spool import Spool

    spool = Spool(tmp_path / "spool", "boot", 16 * 1024, 1)
    current = Sequencer(tmp_path / "log", SIGNER)
    await current.open()
    sends = 0

    async def send(up: SpoolUp) -> int:
        nonlocal current, sends
        sends += 1
        upto = await current.append_receipts(up)
        if restart and sends % 3 == 1:  # killed after the sync, before the answer
            assert await recover(tmp_path / "spool", current.append_receipts) == 0
            current = Sequencer(tmp_path / "log", SIGNER)
            await current.open()
            raise ConnectionResetError
        return upto

    for n in range(200):
        spool.append(receipt(n), spool.admit(intent(n)))
    spool.stop()
    await spool.run(send)
    assert await export(current, ACME, tmp_path / "pack") == [["boot", n] for n in range(1, 201)]
    await current.close()
