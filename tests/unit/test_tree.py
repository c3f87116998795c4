"""How the tree sees that a worker has ended."""

# mypy: disable-error-code="no-untyped-call"
# Granian leaves its own supervisor untyped.

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
from granian.server.mp import WorkerProcess

from gateway.tree import ends


class Worker(WorkerProcess):
    """A real child of this process that has ended, and of which another thread has been told but not noted it."""

    def __init__(self) -> None:
        self.inner = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
        self.inner.start()
        os.waitpid(self.inner._popen.pid, 0)
        self.asked = 0

    def is_alive(self) -> bool:
        alive: bool = super().is_alive()
        self.asked += 1
        if self.asked == 2:
            self.noted()
        return alive

    def noted(self) -> None:
        self.inner._popen.returncode = 0


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_worker_that_another_thread_saw_end_has_ended_however_late_that_is_noted(worker: Worker) -> None:
    assert ends(worker, time.monotonic() + 30)
    assert worker.asked == 3  # it seemed to live twice


def test_a_worker_that_lives_is_waited_for_until_the_end_alone(worker: Worker) -> None:
    assert not ends(worker, time.monotonic())
    worker.noted()
