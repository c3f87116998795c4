"""Free ports on loopback."""

from __future__ import annotations

import random
import socket

_RANDOM = random.SystemRandom()  # not the one that a test seeds, nor another process's
_OURS = range(15_000, 32_000)
"""Below those that the system gives to whoever binds port 0 or connects: until the program under test has started,
seconds later, none of the suite's other processes and connections is given the same."""
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now. Prefer to bind port 0 where the program under test can say what it got."""
    while True:
        port = _RANDOM.choice(_OURS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _given.add(port)
        return port
