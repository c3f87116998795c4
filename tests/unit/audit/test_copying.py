"""Logs copied from one store to another: whole, checked, gone on with, and refused when they are another's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.audit.copying import CopyError, copy_log, opened
from gateway.audit.log_store import LogStore
from gateway.audit.orglog import OrgLog
from tests.contract.log_store import Backend, Files, PostgresAndObjects, on_files, on_postgres
from tests.fakes.audit import ACME, GLOBEX, SIGNER
from tests.unit.audit.test_files import drafts

KEY = SIGNER.key(ACME)


@pytest.fixture(params=["files to postgres+s3", "postgres+s3 to files"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Backend, Backend]]:
    with ExitStack() as stack:
        pair = stack.enter_context(on_files(tmp_path / "files")), stack.enter_context(on_postgres(tmp_path / "pg"))
        yield pair if request.param.startswith("files") else pair[::-1]


def fill(place: Backend, count: int = 300, *, drop: bool = False) -> str:
    """A log of `count` entries; its checkpoint."""
    stores = place.open()
    log = OrgLog(stores.open(ACME), ACME, SIGNER)
    for at in range(1, count + 1, 20):
        log.append(drafts(*range(at, at + 20)))
    note = log.save_checkpoint()
    if drop:
        place.age(log.store)
        assert 0 < log.expire(1_763_690_200_000) < count
    log.close()
    stores.close()
    return note


def copy(source: Backend, target: Backend) -> int:
    one, other = source.open(), target.open()
    try:
        return copy_log(opened(one.open(ACME)), opened(other.open(ACME)), ACME, KEY)
    finally:
        one.close()
        other.close()


def read(log: LogStore) -> bytes:
    return b"".join(log.lines(0, 10**9))


@pytest.mark.parametrize("drop", [False, True])
def test_a_copy_is_the_same_log(way: tuple[Backend, Backend], drop: bool) -> None:
    source, target = way
    note = fill(source, drop=drop)
    assert copy(source, target) > 0
    assert copy(source, target) == 0
    before, after = source.open(), target.open()
    old = OrgLog(before.open(ACME), ACME, SIGNER)
    log = OrgLog(after.open(ACME), ACME, SIGNER)
    assert (log.size, log.store.begin, log.checkpoint()) == (300, old.store.begin, note)
    assert read(log.store) == read(old.store)
    log.follow()
    assert len(b"".join(log.tiles.leaves(0, 300))) == 32 * 300
    assert log.append(drafts(295, 301)) == 1
    before.close()
    after.close()


def test_a_copy_that_broke_off_is_gone_on_with(
    way: tuple[Backend, Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = way
    fill(source, 300)
    seen: list[int] = []

    def advance(done: int) -> None:
        seen.append(done)
        if len(seen) == 1:
            raise KeyboardInterrupt

    one, other = source.open(), target.open()
    with pytest.raises(KeyboardInterrupt):
        copy_log(opened(one.open(ACME)), opened(other.open(ACME)), ACME, KEY, advance)
    one.close()
    other.close()
    assert 0 < copy(source, target) < 300
    after = target.open()
    assert OrgLog(after.open(ACME), ACME, SIGNER).size == 300
    after.close()


def test_another_log_in_the_target_is_left_alone(way: tuple[Backend, Backend]) -> None:
    source, target = way
    fill(source)
    stores = target.open()
    log = OrgLog(stores.open(ACME), ACME, SIGNER)
    log.append(drafts(7, 8, 9))
    stores.close()
    with pytest.raises(CopyError, match="another entry 0 already"):
        copy(source, target)
    stores = target.open()
    assert OrgLog(stores.open(ACME), ACME, SIGNER).size == 3
    stores.close()


def test_a_longer_log_in_the_target_is_another(way: tuple[Backend, Backend]) -> None:
    source, target = way
    fill(source, 100)
    fill(target, 200)
    with pytest.raises(CopyError, match="200 entries already, the source 100"):
        copy(source, target)


def test_entries_that_nobody_signed_are_not_copied(way: tuple[Backend, Backend]) -> None:
    source, target = way
    fill(source, 100)
    stores = source.open()
    OrgLog(stores.open(ACME), ACME, SIGNER).append(drafts(101))
    stores.close()
    with pytest.raises(CopyError, match="101 entries, and 100 are signed"):
        copy(source, target)


def test_another_key_is_not_believed(tmp_path: Path) -> None:
    source, target = Files(tmp_path / "a"), Files(tmp_path / "b")
    fill(source, 20)
    one, other = source.open(), target.open()
    with pytest.raises(CopyError, match="checkpoint does not hold"):
        copy_log(opened(one.open(ACME)), opened(other.open(ACME)), ACME, SIGNER.key(GLOBEX))


def test_a_line_that_was_changed_at_the_source_is_not_copied(tmp_path: Path) -> None:
    source, target = Files(tmp_path / "a"), Files(tmp_path / "b")
    fill(source, 20)
    path = max((tmp_path / "a/orgs/acme").glob("log-*"))
    whole = path.read_bytes()
    at = whole.rindex(b'"status":200')
    path.write_bytes(whole[:at] + b'"status":201' + whole[at + 12 :])
    with pytest.raises(CopyError, match="not those that were signed"):
        copy(source, target)


def test_what_does_not_come_back_as_it_was_written_is_no_copy(
    way: tuple[Backend, Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = way
    fill(source, 40)
    one, other = source.open(), target.open()
    log = opened(other.open(ACME))
    real = log.lines

    def lines(start: int, end: int) -> Iterator[bytes]:
        return (line.replace(b'"prompt_tokens":40', b'"prompt_tokens":41') for line in real(start, end))

    monkeypatch.setattr(log, "lines", lines)
    with pytest.raises(CopyError, match="another root"):
        copy_log(opened(one.open(ACME)), log, ACME, KEY)
    assert log.checkpoint() == b""
    one.close()
    other.close()


def test_a_copy_into_objects_may_be_moved_on(tmp_path: Path) -> None:
    with on_postgres(tmp_path / "pg") as target:
        assert isinstance(target, PostgresAndObjects)
        source = Files(tmp_path / "a")
        fill(source, 200)
        copy(source, target)
        stores = target.open()
        log = OrgLog(stores.open(ACME), ACME, SIGNER)
        target.age(log.store)
        assert any("/log/" in name for name in target.objects().after("acme/log/", "acme/log/"))
        assert len(read(log.store).splitlines()) == 200
        stores.close()
