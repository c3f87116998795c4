"""Drain the spools of workers that died: at the control process's start, and whenever a worker ends.

A spool whose lock can be taken has no worker. Its records go to the sequencer in order; those that were sent
before are known by (boot, seq) and change nothing. Then come the intents that no record settles, with the outcome
`unknown`: their place in the log is the log's to give, and those that have one already are known by their
documents. Crash at any point: the folder is still there, and the next call begins it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gateway.audit import intents
from gateway.audit.log import Send
from gateway.audit.record import decode
from gateway.audit.segments import folders, names, remove_folder, sweep, take_over
from gateway.exchange import SpooledReceipt, SpoolUp

log = logging.getLogger(__name__)

BATCH = 500


async def recover(folder: Path, append: Send) -> int:
    """Send what dead workers left in `folder` and remove it. Returns how many receipts and intents that were.

    Raises what `append` raises (the sequencer's disk is full): nothing is removed that is not durable. A spool
    that cannot be read, or that has entries for a log which refuses, holds no other up.
    """
    await asyncio.to_thread(sweep, folder)
    count = 0
    failed: Exception | None = None
    for spool in await asyncio.to_thread(folders, folder):
        held = take_over(spool)
        if held is None:
            continue
        try:
            count += await _drain(spool, append)
        except Exception as error:  # noqa: BLE001  # raised when the others are done
            failed = failed or error
        finally:
            os.close(held)
    if failed is not None:
        raise failed
    return count


async def _drain(spool: Path, append: Send) -> int:
    count = 0
    orphans: list[SpooledReceipt] = []
    records = _records(spool, orphans)
    while batch := await asyncio.to_thread(lambda: tuple(islice(records, BATCH))):
        await _append(spool, batch, append)
        count += len(batch)
    if orphans:  # in one piece: what comes after some of them is taken for a repeat, and looked for
        await _append(spool, tuple(orphans), append)
    remove_folder(spool)
    if count or orphans:
        what = "audit spool %s of a worker that died: %d receipts and %d intents recovered"
        log.warning(what, spool.name, count, len(orphans))
    return count + len(orphans)


async def _append(spool: Path, batch: tuple[SpooledReceipt, ...], append: Send) -> None:
    upto = await append(SpoolUp(spool.name, batch))
    if upto < batch[-1].seq:
        raise OSError(f"the sequencer stopped at {upto} of {batch[-1].seq}")


def _records(spool: Path, orphans: list[SpooledReceipt]) -> Iterator[SpooledReceipt]:
    """Receipts in their order. At the end `orphans` are the intents that none of them settles, in theirs.

    Their number is that of the last receipt before a gap. A disk that refused a write, or a power cut, leaves
    gaps: a receipt that is missing here may have been sent from memory and be an entry, so from there on the log
    has to be asked.
    """
    last, unsettled = intents.read(spool)
    for path in names(spool):
        for spooled, _ in decode(path.read_bytes()):
            if spooled.seq == last + 1:
                last = spooled.seq
            unsettled.pop(spooled.intent, None)
            yield spooled
    orphans += [SpooledReceipt(last, intent.unsettled(), number) for number, intent in unsettled.items()]
