"""What every `LogStore` keeps: order, durability, one writer, and readers who see whole lines only."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audit import proofs
from gateway.audit.log_store import LogStore
from gateway.audit.orglog import OrgLog
from tenants.ids import OrgId
from tests.contract.log_store import PLACES, Backend, started
from tests.fakes.audit import ACME, GLOBEX, SIGNER, lines
from tests.unit.audit.test_files import drafts

ROOT = Path(__file__).parents[2]
LINES, _ = lines(60)
OTHERS, _ = lines(60, GLOBEX)
ALL = 10**9


@pytest.fixture(params=sorted(PLACES))
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with PLACES[request.param](tmp_path) as found:
        yield found


def read(log: LogStore, start: int = 0, end: int = ALL) -> list[bytes]:
    found = b"".join(log.lines(start, end))
    assert found == b"" or found.endswith(b"\n")
    return found.splitlines()


def say_second(backend: Backend) -> str:
    command = [sys.executable, "-m", "tests.contract.log_store", *backend.arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_empty_log_is_nothing_yet(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    assert (log.begin, log.size, log.checkpoint(), log.state()) == (0, 0, b"", b"")
    assert read(log) == []
    log.close()
    assert list(stores.orgs()) == []
    stores.close()


def test_lines_are_kept_in_order_over_a_restart(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    sizes = (1, 3, 20, 1, 15)
    at = 0
    for size in sizes:
        log.append(LINES[at : at + size])
        at += size
        assert log.size == at
        assert read(log) == LINES[:at]
    log.close()
    stores.close()
    stores = backend.open()
    assert list(stores.orgs()) == [ACME]
    log = stores.open(ACME)
    assert list(log.replay(0, {})) == LINES[:at]
    log.ready()
    log.append(LINES[at : at + 2])
    assert read(log) == LINES[: at + 2]
    stores.close()


def test_any_range_can_be_read(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    for at in range(0, 60, 7):
        log.append(LINES[at : at + 7])
    for start, end in [(0, 60), (0, 0), (0, 1), (6, 8), (7, 14), (20, 41), (59, 60), (59, 99), (60, 70), (3, 2)]:
        assert read(log, start, end) == LINES[start:end]
    stores.close()


def test_a_reader_sees_what_was_durable_when_it_began(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    log.append(LINES[:5])
    reading = log.lines(0, ALL)
    found = [next(reading)]
    log.append(LINES[5:40])
    found += reading
    assert [line[:-1] for line in found] == LINES[:5]
    stores.close()


def test_readers_beside_a_writer_see_whole_lines_in_order(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    faults: list[str] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            size = log.size
            found = read(log)
            if found != LINES[: len(found)] or len(found) < size:
                faults.append(f"{len(found)} lines of {size}")

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for line in LINES:
        log.append([line])
    ended.set()
    for reader in readers:
        reader.join()
    assert faults == []
    stores.close()


def test_where_it_stood_is_where_a_restart_goes_on(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    log.append(LINES[:30])
    place = log.place()
    log.append(LINES[30:33])
    log.append(LINES[33:50])
    log.close()
    stores.close()
    stores = backend.open()
    log = stores.open(ACME)
    assert list(log.replay(30, place)) == LINES[30:50]
    log.ready()
    assert log.size == 50
    log.append(LINES[50:])
    assert read(log) == LINES
    stores.close()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("written", [False, True])
def test_a_failed_append_counts_for_nothing_and_its_place_is_free(
    backend: Backend, written: bool, restart: bool
) -> None:
    stores = backend.open()
    log = started(stores)
    log.append(LINES[:4])
    backend.fail(written=written)
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            log.append(LINES[4:9])
        assert caught.value.strerror
    backend.mend()
    assert log.size == 4
    assert read(log) == LINES[:4]
    if not restart:
        log.append(LINES[4:6])
        assert read(log) == LINES[:6]
    log.close()
    stores.close()
    stores = backend.open()
    log = stores.open(ACME)
    whole = list(log.replay(0, {}))
    # Nobody was told of them: a restart may count those that were written, from the first on.
    assert whole == LINES[: len(whole)]
    assert len(whole) in ([4, 5, 6, 7, 8, 9] if restart else [6])
    log.ready()
    log.append(LINES[len(whole) : 20])
    assert read(log) == LINES[:20]
    stores.close()


def test_what_a_power_cut_tore_is_gone(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    log.append(LINES[:4])
    log.close()
    stores.close()
    backend.tear()
    stores = backend.open()
    log = started(stores, 4)
    log.append(LINES[4:5])
    log.close()
    stores.close()
    stores = backend.open()
    assert read(started(stores, 5)) == LINES[:5]
    stores.close()


def test_checkpoints_and_states_are_replaced_as_a_whole(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    log.append(LINES[:1])
    log.save(b"first", b"{}")
    log.save(b"second\n", b'{"a":1}')
    backend.fail(written=False)
    with pytest.raises(OSError):
        log.save(b"third", b'{"a":2}')
    backend.mend()
    assert (log.checkpoint(), log.state()) == (b"second\n", b'{"a":1}')
    log.close()
    stores.close()
    stores = backend.open()
    log = started(stores, 1)
    assert (log.checkpoint(), log.state()) == (b"second\n", b'{"a":1}')
    stores.close()


def test_organizations_have_logs_of_their_own(backend: Backend) -> None:
    stores = backend.open()
    mine = started(stores)
    theirs = stores.open(GLOBEX)
    assert list(theirs.replay(0, {})) == []
    theirs.ready()
    mine.append(LINES[:3])
    theirs.append(OTHERS[:5])
    mine.append(LINES[3:4])
    theirs.save(b"theirs", b"{}")
    assert mine.checkpoint() == b""
    assert read(mine) == LINES[:4]
    assert read(theirs) == OTHERS[:5]
    assert list(stores.orgs()) == [ACME, GLOBEX]
    assert list(stores.open(OrgId("initech")).lines(0, ALL)) == []
    stores.close()


def test_a_second_process_is_refused_while_the_first_lives(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    log.append(LINES[:2])
    assert say_second(backend) == "InUseError"
    log.append(LINES[2:3])
    log.close()
    stores.close()
    assert say_second(backend) == "appended"
    stores = backend.open()
    assert read(started(stores, 4)) == LINES[:4]
    stores.close()


def test_a_log_goes_on_over_it_as_if_nothing_had_happened(backend: Backend) -> None:
    stores = backend.open()
    log = OrgLog(stores.open(ACME), ACME, SIGNER)
    log.append(drafts(1, 2, 3))
    log.save_checkpoint()
    log.append(drafts(4, 5))
    before = log.checkpoint()
    log.close()
    stores.close()
    stores = backend.open()
    log = OrgLog(stores.open(ACME), ACME, SIGNER)
    assert log.checkpoint() == before
    assert log.append(drafts(2, 3, 4, 5, 6)) == 1
    assert log.size == 6
    stores.close()


# -- what is past its retention -------------------------------------------------------------------------------

NEWEST_MS = 1_763_690_000_000 + 60
LATER_MS = 1_763_690_200_000


def test_nothing_goes_before_its_time(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    for at in range(0, 60, 5):
        log.append(LINES[at : at + 5])
    assert log.due(LATER_MS) == 0
    backend.age(log)
    assert log.due(1_763_690_000_000) == 0
    assert 0 < log.due(LATER_MS) < 60
    stores.close()


def test_what_was_dropped_stays_gone_and_the_rest_stays(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    for at in range(0, 50, 5):
        log.append(LINES[at : at + 5])
    backend.age(log)
    begin = log.due(LATER_MS)
    log.drop(begin, b'{"a":"base"}')
    assert (log.begin, log.size, log.base()) == (begin, 50, b'{"a":"base"}')
    assert read(log) == LINES[begin:50]
    assert read(log, begin - 3, begin + 3) == LINES[begin : begin + 3]
    assert read(log, 0, begin) == []
    log.append(LINES[50:55])
    log.close()
    stores.close()
    stores = backend.open()
    log = stores.open(ACME)
    assert list(log.replay(begin, {})) == LINES[begin:55]
    log.ready()
    assert (log.begin, log.size, log.base()) == (begin, 55, b'{"a":"base"}')
    log.append(LINES[55:])
    assert read(log) == LINES[begin:]
    assert log.due(LATER_MS) >= begin
    stores.close()


def test_an_empty_log_may_begin_later(backend: Backend) -> None:
    stores = backend.open()
    log = started(stores)
    for _ in range(2):
        log.adopt(20, b'{"a":"base"}')
    assert (log.begin, log.size) == (20, 20)
    log.append(LINES[20:30])
    assert read(log) == LINES[20:30]
    log.close()
    stores.close()
    stores = backend.open()
    log = stores.open(ACME)
    assert list(log.replay(20, {})) == LINES[20:30]
    log.ready()
    assert (log.begin, log.size, log.base()) == (20, 30, b'{"a":"base"}')
    stores.close()


@pytest.mark.parametrize("forget_state", [False, True])
def test_a_log_whose_beginning_is_gone_has_the_same_root_and_proofs(backend: Backend, forget_state: bool) -> None:
    stores = backend.open()
    log = OrgLog(stores.open(ACME), ACME, SIGNER)
    for at in range(1, 601, 20):
        log.append(drafts(*range(at, at + 20)))
    note = log.save_checkpoint()
    proof = proofs.inclusion(log.tiles, 599, 600)
    backend.age(log.store)
    begin = log.expire(LATER_MS)
    assert 256 < begin < 600
    assert log.expire(LATER_MS) == begin
    assert log.checkpoint() == note
    if forget_state:
        log.store.save(note.encode(), b"")
    log.close()
    stores.close()
    stores = backend.open()
    log = OrgLog(stores.open(ACME), ACME, SIGNER)
    assert (log.size, log.store.begin) == (600, begin)
    assert log.checkpoint() == note
    log.follow()
    assert proofs.inclusion(log.tiles, 599, 600) == proof
    assert len(b"".join(log.tiles.leaves(0, 600))) == 32 * 600
    assert log.append(drafts(600, 601)) == 1
    assert log.save_checkpoint() != note
    stores.close()
