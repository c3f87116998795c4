"""What keeps a server process's memory to itself: it holds upstream keys, signing keys and people's code.

A crash must not leave them in a file, and nobody else of the same user may read them out of a living process.
"""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """No core file, and no way in for a debugger of the same user (core(5), prctl(2)). Raises `OSError`.

    Called in every process before it reads a secret: an `execve` makes a process dumpable again, so a parent
    cannot do it for its children. The limit alone is not enough, for a core pattern that is a pipe (as systemd's)
    does not heed it. The price: what is private in `/proc/<pid>` is root's from here on, so profilers and
    debuggers must be, too.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"PR_SET_DUMPABLE: {os.strerror(number)}")
