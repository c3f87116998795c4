"""The public tree: Granian's process supervisor, with listening sockets that outlive the workers.

Granian gives each worker a listening socket of its own: when one leaves, the kernel resets what is queued on
it, and the successor may not listen yet. Here the tree makes one socket a worker and keeps it; a successor gets
the same socket, is waited for until it is ready, and only then is its predecessor told to retire
(`gateway.drain`). A successor that does not start costs nothing: the predecessor serves on.

The parts of Granian that are overridden are private: tests/integration/drain holds them to the pinned version.
"""

# mypy: disable-error-code="no-untyped-call"
# Granian leaves its own supervisor untyped.

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from granian._granian import ListenerSpec
from granian.server.mp import MPServer, WorkerProcess

from gateway.admission import Admission, install
from gateway.drain import RETIRE
from gateway.serve import HOPELESS, die_with_parent

log = logging.getLogger("orgate.tree")

SETTLE_S = 0.5
"""A worker says that it is ready a moment before Granian listens. Told to stop within that moment, it shuts the
socket that Granian is about to listen on: its thread panics, and the process hangs until it is killed."""

READY_S = 20.0
"""How long a worker may take to start before its predecessor is told to serve on."""


@dataclass
class _Place:
    """What a worker knows of its place in the tree. Set in the worker's own process, after the fork."""

    ready: int = -1


_place = _Place()


def tell_ready() -> None:
    """Called by a worker when it can serve. Without a tree (tests) there is nobody to tell."""
    if _place.ready >= 0:
        os.write(_place.ready, b"1")
        os.close(_place.ready)
        _place.ready = -1


class PublicTree(MPServer):
    """One per gateway; everything here runs in the tree's own process, on its main thread."""

    def _init_shared_socket(self) -> None:
        self._holders = [
            ListenerSpec(self.bind_addr, self.bind_port, self.backlog).build() for _ in range(self.workers)
        ]
        # Closed by these when the tree stops; Granian's holders forget theirs.
        self._listeners = [socket.socket(fileno=holder.get_fd()) for holder in self._holders]
        self._ssp = self._sso = None
        self._shd: Any = None
        self._ready: dict[int, int] = {}
        self._retiring: list[WorkerProcess] = []
        self._ready_at = 0.0

    def _drop_shared_socket(self) -> None:
        """At a stop. Workers shut their sockets themselves, in their own time: `/readyz` is still asked."""

    def _spawn_worker(  # type: ignore[override]  # as Granian's own subclass has it
        self, idx: int, target: Any, callback_loader: Callable[[], Any]
    ) -> WorkerProcess:
        self._shd = self._holders[idx]
        receiver, sender = os.pipe()
        parent = os.getpid()
        others = [listener.fileno() for number, listener in enumerate(self._listeners) if number != idx]
        inherited = [receiver, *others, *self._ready.values()]

        def load() -> Any:  # the first thing of ours that runs in the worker
            die_with_parent(parent)
            for fd in inherited:
                os.close(fd)
            _place.ready = sender
            install(Admission())
            return callback_loader()

        worker = super()._spawn_worker(idx, target, load)
        start = worker.start

        def start_and_close() -> None:
            start()
            os.close(sender)

        worker.start = start_and_close  # type: ignore[method-assign]  # of this one worker
        if (before := self._ready.get(idx)) is not None:
            os.close(before)
        self._ready[idx] = receiver
        return worker

    def _respawn_workers(
        self, workers: Iterable[int], spawn_target: Any, target_loader: Callable[[], Any], delay: float = 0
    ) -> None:
        """Successors for `workers`, whether those live (a reload) or have died."""
        for idx in workers:
            if self.interrupt_signal:
                return
            self.respawned_wrks[idx] = time.monotonic()
            before = self.wrks[idx]
            if before.inner.exitcode == HOPELESS:
                self._gone(idx)
                continue
            after = self._spawn_worker(idx, spawn_target, target_loader)
            after.interrupt_by_parent = True  # until it is ready its end is dealt with here
            after.start()
            if self._becomes_ready(idx):
                self._ready_at = time.monotonic()
                after.interrupt_by_parent = False
                self.wrks[idx] = after
                if before.is_alive():
                    self._retire(before)
                continue
            after.kill()
            after.join()
            if before.is_alive():
                log.error("worker %d's successor did not start; the old one serves on", idx + 1)
            elif not self.interrupt_signal:
                self.wrks[idx] = after
                self._gone(idx)
        self._metrics.incr_spawn(1)

    def _gone(self, idx: int) -> None:
        """As if worker `idx` had died just now, a second time: Granian counts, and gives up."""
        self.interrupt_children.append(idx)
        self.main_loop_interrupt.set()

    def shutdown(self, exit_code: int = 0) -> None:
        """Exits with `HOPELESS` when a worker did: it has said why."""
        hopeless = any(worker.inner.exitcode == HOPELESS for worker in self.wrks)
        super().shutdown(HOPELESS if hopeless else exit_code)

    def _becomes_ready(self, idx: int) -> bool:
        """False when it ended, took too long, or the tree is to stop."""
        end = time.monotonic() + READY_S
        while time.monotonic() < end and not self.interrupt_signal:
            if select.select([self._ready[idx]], [], [], 0.1)[0]:
                return os.read(self._ready[idx], 1) == b"1"
        return False

    def _retire(self, worker: WorkerProcess) -> None:
        """Tell `worker` to go, and wait for it beside the loop: another signal may come meanwhile."""
        worker.interrupt_by_parent = True
        os.kill(worker._id(), RETIRE)
        self._retiring = [*(w for w in self._retiring if w.is_alive()), worker]
        threading.Thread(target=self._await_retired, args=(worker,), daemon=True).start()

    def _await_retired(self, worker: WorkerProcess) -> None:
        if not ends(worker, time.monotonic() + (self.workers_kill_timeout or READY_S)):
            log.warning("a worker did not retire in time and is killed")
            worker.kill()

    def _stop_workers(self) -> None:
        """In place of Granian's own, which asks once and takes a worker that has ended for one that refuses to."""
        time.sleep(max(0.0, self._ready_at + SETTLE_S - time.monotonic()))
        end = time.monotonic() + (self.workers_kill_timeout or READY_S)
        # Those that retire are on their way; SIGTERM only tells their `/readyz`.
        for worker in (*self._retiring, *self.wrks):
            worker.terminate()
        for worker in (*self._retiring, *self.wrks):
            if not ends(worker, end):
                log.warning("worker %d did not drain in time and is killed", worker.idx + 1)
                worker.kill()
                worker.join()
        self.wrks.clear()
        for listener in self._listeners:
            listener.close()


def ends(worker: WorkerProcess, end: float) -> bool:
    """Wait for `worker` until `end` (monotonic seconds); whether it ended.

    Granian's own thread waits for it too. The kernel tells one of the two, and until that one has had its turn and
    noted it, the other is told that there is no such child: which `is_alive` takes for "it lives".
    """
    while worker.is_alive():
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True
