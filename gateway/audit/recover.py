"""Drain the spools of workers that died: at the control process's start, and whenever a worker ends.

A spool whose lock can be taken has no worker. Its records go to the sequencer in order; those that were sent
before are known by (boot, seq) and change nothing. Crash at any point: the folder is still there, and the
next call begins it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gateway.audit.log import Send
from gateway.audit.record import decode
from gateway.audit.segments import folders, names, remove_folder, take_over
from gateway.exchange import SpooledReceipt, SpoolUp

log = logging.getLogger(__name__)

BATCH = 500


async def recover(folder: Path, append: Send) -> int:
    """Send what dead workers left in `folder` and remove it. Returns how many receipts that were.

    Raises what `append` raises (the sequencer's disk is full): nothing is removed that is not durable.
    """
    count = 0
    for spool in await asyncio.to_thread(folders, folder):
        held = take_over(spool)
        if held is None:
            continue
        try:
            count += await _drain(spool, append)
        finally:
            os.close(held)
    return count


async def _drain(spool: Path, append: Send) -> int:
    count = 0
    records = _records(spool)
    while batch := await asyncio.to_thread(lambda: tuple(islice(records, BATCH))):
        upto = await append(SpoolUp(spool.name, batch))
        if upto < batch[-1].seq:
            raise OSError(f"the sequencer stopped at {upto} of {batch[-1].seq}")
        count += len(batch)
    remove_folder(spool)
    if count:
        log.warning("audit spool %s of a worker that died: %d receipts recovered", spool.name, count)
    return count


def _records(spool: Path) -> Iterator[SpooledReceipt]:
    for path in names(spool):
        for spooled, _ in decode(path.read_bytes()):
            yield spooled
