"""Fixtures that every kind of test may use. What they are made of is in `tests/kit`."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from socketserver import StreamRequestHandler

import pytest
from hypothesis import HealthCheck, settings

from tests.kit.certs import Pki, make_pki
from tests.kit.marker import MARKER
from tests.kit.upstream import RecordingUpstream

# A suite that runs in the background of a script, or under nohup, is started with these ignored, and every program
# that it starts inherits it: those that are to end at Ctrl-C would not.
for number, meaning in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, meaning)

# What a slow machine takes longer for is no fault: no example has a deadline, and making them may take a while.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from tests.kit.schedule import InOrder

    return InOrder(config, log)


def pytest_collection_finish() -> None:
    """Nine thousand tests and all modules stay until the end: the collector need not look at them every time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def fakes_answer_at_once() -> Iterator[None]:
    """`http.server` writes an answer's head and its body one by one. Without this, the kernel holds the body back
    until the head is acknowledged: 40 ms of nothing for each request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamRequestHandler, "disable_nagle_algorithm", True)
        yield


@pytest.fixture(scope="session", autouse=True)
def nobodys_code_comes_to_rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After the last test, when every server is down: no file of any test holds what callers and models said."""
    yield
    held = [
        path
        for path in tmp_path_factory.getbasetemp().rglob("*")
        if path.is_file() and not path.is_symlink() and MARKER.encode() in _written(path)
    ]
    assert not held, held


def _written(path: Path) -> bytes:
    """What is in a file, but for its holes: a test may leave one of gigabytes, nothing of it written."""
    pieces, at = [], 0
    with path.open("rb") as file:
        while at < os.fstat(file.fileno()).st_size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: from here on it is one hole
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            pieces.append(os.pread(file.fileno(), end - at, at))
            at += len(pieces[-1])
    return b"".join(pieces)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """A development CA and a server certificate for localhost, 127.0.0.1 and ::1."""
    return make_pki(tmp_path_factory.mktemp("pki") / "tls")


@pytest.fixture
async def recording_upstream(pki: Pki) -> AsyncIterator[RecordingUpstream]:
    """An upstream over TLS (h2 and http/1.1) in which every request waits at its gate."""
    async with RecordingUpstream(tls=pki.server_context()) as upstream:
        yield upstream
        assert not upstream.faults, upstream.faults
