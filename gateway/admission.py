"""How many requests may wait for a worker's loop: a bound before Python has done anything for them.

An HTTP/2 client has 200 streams at once at most, unless it makes the server reset them (CVE-2025-8671): then the
streams are gone and their requests are not. They wait in the loop's queue before everybody else's, and without a
bound there are as many as an attacker can send. Here they are counted where Granian hands them over, per address;
those too many are answered 503 there and then, which costs a fraction of starting a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.connections import asked

WAITING = 500
"""Of all addresses together: a tenth of a second's work for strangers' requests, a little more for members'."""

SHARE = 4
"""One address may have this many times as many waiting as there is room left for others: alone four fifths.
(Choudhury and Hahne, "Dynamic queue length thresholds", 1998.) Behind a front all are one address."""

ADDRESSES = 4_096
"""So many are remembered; those with nobody waiting are forgotten first."""

_HEADERS = [(b"content-type", b"application/json"), (b"retry-after", b"1"), (b"cache-control", b"no-store")]
_BODY = (
    b'{"error":{"message":"the gateway has too many requests waiting","type":"server_error","param":null,'
    b'"code":"unavailable"}}'
)


class _Count:
    """`came` is written by Granian's thread alone and `began` by the loop's: no lock is needed."""

    __slots__ = ("began", "came")

    def __init__(self) -> None:
        self.came = 0
        self.began = 0


class Admission:
    """One per worker. `most`: how many may wait."""

    def __init__(self, most: int = WAITING) -> None:
        self._most = most
        self._all = _Count()
        self._addresses: dict[str, _Count] = {}

    def schedule(self, loop: asyncio.AbstractEventLoop, context: Any, serve: Any) -> Callable[[Any], None]:
        """In place of Granian's `_cbsched_aioschedule`: what it calls, in its own thread, for each request."""
        call_soon, create_task = loop.call_soon_threadsafe, loop.create_task
        everyone = self._all

        def begin(watcher: Any, coroutine: Coroutine[Any, Any, None], address: _Count) -> None:
            everyone.began += 1
            address.began += 1
            watcher.taskref(create_task(coroutine))

        def schedule(watcher: Any) -> None:
            client = watcher.scope.get("client")
            if client:
                asked.add(client)
            address = self._admitted(client[0] if client else "")
            if address is None:
                refuse(watcher.proto)
            else:
                call_soon(begin, watcher, serve(watcher), address, context=context)

        return schedule

    def _admitted(self, name: str) -> _Count | None:
        """Count one more of `name`; None when there are too many."""
        address = self._addresses.get(name)
        if address is None:
            if len(self._addresses) >= ADDRESSES:
                self._addresses = {n: a for n, a in self._addresses.items() if a.came != a.began}
            address = self._addresses[name] = _Count()
        free = self._most - (self._all.came - self._all.began)
        if address.came - address.began >= SHARE * free:
            return None
        self._all.came += 1
        address.came += 1
        return address


def refuse(proto: Any) -> None:
    """503 by Granian's own hand. What its `send` returns for an answer in one piece is done already."""
    proto.send({"type": "http.response.start", "status": 503, "headers": _HEADERS})
    proto.send({"type": "http.response.body", "body": _BODY, "more_body": False})


def install(admission: Admission) -> None:
    """Put it in Granian's place, in this process: before its worker starts (`gateway.tree`)."""
    import granian._futures as futures  # noqa: PLC0415  # the name is looked up there when the worker starts

    if not hasattr(futures, "_cbsched_aioschedule"):
        raise RuntimeError("this version of Granian hands requests over in another way")
    futures._cbsched_aioschedule = admission.schedule
