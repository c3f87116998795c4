"""A worker and a sequencer to be killed: run as a program by test_crash.

`spool FOLDER BOOT`     appends receipts for ever; prints the seq of each once `append` has returned
`sequence FOLDER BOOT`  sequences receipts for ever; prints the last seq once it was acknowledged
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import count
from pathlib import Path

from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from gateway.exchange import SpooledReceipt, SpoolUp
from tests.fakes.audit import ACME, GLOBEX, SIGNER, at_once, intent, receipt


def say(number: int) -> None:
    """One write a line: what the parent has read was acknowledged before the kill."""
    os.write(1, b"%d\n" % number)


async def spool(folder: Path, boot: str) -> None:
    mine = Spool(folder / "spool", boot, 64 * 1024, 5)

    async def away(up: SpoolUp) -> int:
        await asyncio.Event().wait()
        return 0

    running = asyncio.create_task(mine.run(away))
    for n in count(1):
        mine.append(receipt(n), mine.admit(intent(n)))
        say(n)
        await asyncio.sleep(0)
    await running


async def sequence(folder: Path, boot: str) -> None:
    sequencer = Sequencer(folder, SIGNER, segment_bytes=20_000, pause=at_once)
    await sequencer.open()
    for n in count(1, 3):
        batch = [SpooledReceipt(k, receipt(k, ACME if k % 2 else GLOBEX)) for k in range(n, n + 3)]
        say(await sequencer.append_receipts(SpoolUp(boot, tuple(batch))))
        if n % 30 == 1:
            await sequencer.save_checkpoints()


if __name__ == "__main__":
    kind, where, name = sys.argv[1:]
    asyncio.run({"spool": spool, "sequence": sequence}[kind](Path(where), name))
