"""kill -9 of a writer in PostgreSQL and objects, at random moments: nothing acknowledged is lost or forks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from gateway.audit.chain import Chain
from gateway.audit.merkle import Tree
from gateway.audit.note import open_note, parse_checkpoint
from gateway.audit.orglog import OrgLog
from tests.contract.log_store import PostgresAndObjects
from tests.fakes.audit import ACME, SIGNER
from tests.fakes.s3 import KEY_ID, SECRET, fake_s3
from tests.kit.postgres import empty_database
from tests.unit.audit.test_files import drafts

KILLS = 3
ROOT = Path(__file__).parents[3]


def run_and_kill(boot: str, place: tuple[str, ...], said: int) -> int:
    """Run the writer until it has said so many numbers, and kill it in what it does then; the last one."""
    command = [sys.executable, "-m", "tests.integration.audit.store_writer", boot, *place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
        assert writer.stdout is not None
        for _ in range(said):
            assert writer.stdout.readline(), "the writer ended by itself"
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split(b"\n")[:-1]
    return max([2 * said, *map(int, rest)])


def test_a_killed_writer_forgets_nothing_it_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(17)
    with fake_s3() as s3:
        place = PostgresAndObjects(empty_database().dsn, s3.url, "audit", f"{KEY_ID}:{SECRET}", str(tmp_path))
        total = 0
        for kill in range(KILLS):
            boot = f"boot{kill}"
            acknowledged = run_and_kill(boot, place.arguments[1:], rng.randint(1, 40))
            stores = place.open()
            log = OrgLog(stores.open(ACME), ACME, SIGNER)
            assert log.size >= total + acknowledged
            # The worker that was not told sends again, and more.
            log.append(drafts(*range(max(1, acknowledged - 3), acknowledged + 6), boot=boot))
            total += acknowledged + 5
            assert log.size == total
            chain = Chain()
            for line in log.lines(0, total):
                chain.accept(line[:-1], ACME)
            signed = parse_checkpoint(open_note(log.save_checkpoint(), SIGNER.key(ACME)))
            assert (signed.size, signed.root) == (total, chain.tree.root())
            assert b"".join(log.tiles.leaves(0, total)) != Tree().root()
            stores.close()
        assert any("/log/" in name for name in s3.names())
