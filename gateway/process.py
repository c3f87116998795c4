"""What a process of the gateway asks of its interpreter and of the kernel."""

from __future__ import annotations

import gc
import logging
import os
import resource
import sys
from pathlib import Path

log = logging.getLogger("orgate")


def python(*arguments: str) -> list[str]:
    """The command of a child that takes no code from the folder it happens to be in (-P): a file
    `gateway/app.py` there would be the gateway."""
    return [sys.executable, "-P", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Of such a child: this process's and `more`, and it runs the same code."""
    here = str(Path(__file__).parents[1])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{path}" if path else here, **more}


def settle_heap() -> None:
    """Keep the garbage collector away from what lives as long as the process.

    Modules, routes and the snapshot are hundreds of thousands of objects; walking them in the middle of a
    stream stops every stream. What requests leave behind is freed by reference counts; cycles are few, and what is
    left to walk for them is some thousands of objects: its rarest round may come often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def batch_scheduling() -> None:
    """Let no thread of this process interrupt another because it was woken (sched(7), SCHED_BATCH).

    Granian's threads and the loop wake each other several times a request, and each time the kernel would switch:
    four times a request, now once in two. Threads made later inherit it.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # a sandbox that allows nothing of the kind: slower, and as good
        log.warning("server.scheduling: the kernel refuses (%s)", error.strerror)


def raise_open_files() -> None:
    """As many descriptors as may be: a connection is one, and 1,024 is the usual."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
