"""Rounds of the retention: what is past its time goes, after an entry that says so, and never while it is held."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec import structs

from gateway.audit.files import FileLog
from gateway.audit.reader import LogReader
from gateway.audit.sequencer import Sequencer
from gateway.audit_settings import AuditStoreSettings, audit_store_faults
from gateway.exchange import SpooledReceipt, SpoolUp
from gateway.retention import DAY_MS, Retention, rule_of
from tenants.ids import OrgId
from tenants.models import Org
from tenants.store import Actor, NotFoundError
from tests.fakes.audit import ACME, GLOBEX, SIGNER, FaultyDisk, receipt, up

WRITTEN = 1_763_690_000
SETTINGS = AuditStoreSettings(retention_days=30, retention_floor_days=10)


@dataclass
class World:
    folder: Path
    disk: FaultyDisk
    sequencer: Sequencer
    orgs: dict[str, Org] = field(default_factory=dict)
    noted: list[tuple[str, OrgId, dict[str, str | int | bool]]] = field(default_factory=list)
    now: float = WRITTEN

    def retention(self, settings: AuditStoreSettings = SETTINGS) -> Retention:
        return Retention(self.sequencer, self, self.store_of, settings, lambda: self.now)

    async def get(self, key: str) -> Org:
        if key not in self.orgs:
            raise NotFoundError(key)
        return self.orgs[key]

    def store_of(self, org: OrgId) -> Notes:
        return Notes(self, org)

    async def fill(self, org: OrgId = ACME, upto: int = 40) -> None:
        await self.sequencer.append_receipts(up("boot", *range(1, upto + 1), org=org))
        await self.sequencer.append_receipts(up("later", *range(1, upto + 1), org=org))
        await self.sequencer.save_checkpoints()
        for path in self.folder.glob(f"orgs/{org}/log-*"):
            os.utime(path, (WRITTEN, WRITTEN))

    def segments(self, org: OrgId = ACME) -> int:
        return len(list(self.folder.glob(f"orgs/{org}/log-*")))


@dataclass
class Notes:
    world: World
    org: OrgId

    async def note(self, action: str, target: str, by: Actor, detail: dict[str, str | int | bool]) -> None:
        begin = (await LogReader(self.world.sequencer).range(self.org))[0]
        assert begin < int(detail["end"]), "it is written down before anything goes"
        self.world.noted.append((action, self.org, detail))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    disk = FaultyDisk()
    sequencer = Sequencer(tmp_path, SIGNER, disk=disk, segment_bytes=6_000)
    await sequencer.open()
    yield World(tmp_path, disk, sequencer, {ACME: Org(ACME, "Acme")})
    disk.mend()
    await sequencer.close()


async def test_nothing_goes_before_its_time(world: World) -> None:
    await world.fill()
    before = world.segments()
    world.now = WRITTEN + 30 * 86_400 - 1
    await world.retention().round()
    assert (world.segments(), world.noted) == (before, [])


async def test_what_is_past_its_time_goes_and_the_log_says_so(world: World) -> None:
    await world.fill()
    reader = LogReader(world.sequencer)
    note, key = await reader.checkpoint(ACME), reader.verifier_key(ACME)
    world.now = WRITTEN + 31 * 86_400
    await world.retention().round()
    begin, size = await reader.range(ACME)
    assert 0 < begin < size == 80
    assert world.noted == [("audit.expire", ACME, {"end": begin})]
    assert world.segments() < 10
    lines = b"".join([piece async for piece in reader.raw(ACME, 0, 10**9)]).splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(begin, 80))
    items, _ = await reader.entries(ACME, limit=5)
    assert [item["index"] for item in items] == list(range(begin, begin + 5))
    assert (await reader.checkpoint(ACME), reader.verifier_key(ACME)) == (note, key)
    await world.retention().round()
    assert len(world.noted) == 1


async def test_a_clock_that_was_far_ahead_keeps_nothing_for_ever(world: World) -> None:
    wrong = SpooledReceipt(1, receipt(1, at_us=2**60))
    await world.sequencer.append_receipts(SpoolUp("wrong", (wrong,)))
    await world.fill()
    world.now = WRITTEN + 30 * 86_400 + 3_600
    await world.retention().round()
    assert world.noted == []
    world.now = WRITTEN + 32 * 86_400
    await world.retention().round()
    assert (await LogReader(world.sequencer).range(ACME))[0] > 1


async def test_a_log_whose_beginning_went_goes_on_after_a_restart(world: World) -> None:
    await world.fill()
    world.now = WRITTEN + 31 * 86_400
    await world.retention().round()
    begin, _ = await LogReader(world.sequencer).range(ACME)
    await world.sequencer.close()
    (world.folder / "orgs/acme/state.json").unlink()
    again = Sequencer(world.folder, SIGNER, segment_bytes=6_000)
    await again.open()
    assert await LogReader(again).range(ACME) == (begin, 80)
    await again.append_receipts(up("later", 40, 41))
    assert await LogReader(again).range(ACME) == (begin, 81)
    await again.close()


async def test_a_held_log_loses_nothing(world: World) -> None:
    await world.fill()
    before = world.segments()
    world.orgs[ACME] = structs.replace(world.orgs[ACME], audit_hold="a case")
    world.now = WRITTEN + 10_000 * 86_400
    await world.retention().round()
    assert (world.segments(), world.noted) == (before, [])
    world.orgs[ACME] = structs.replace(world.orgs[ACME], audit_hold="")
    await world.retention().round()
    assert world.segments() < before


async def test_an_organization_that_was_deleted_is_kept_for_as_long_as_the_platform_says(world: World) -> None:
    await world.fill(GLOBEX)
    world.now = WRITTEN + 29 * 86_400
    await world.retention().round()
    assert world.noted == []
    world.now = WRITTEN + 31 * 86_400
    await world.retention().round()
    assert [org for _, org, _ in world.noted] == [GLOBEX]


async def test_a_log_that_cannot_be_tended_keeps_no_other_from_it(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.fill()
    await world.fill(GLOBEX)
    world.now = WRITTEN + 31 * 86_400
    retention = world.retention()
    real = FileLog.drop

    def drop(log: FileLog, begin: int, base: bytes) -> None:
        if log.folder.name == "acme":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(log, begin, base)

    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(FileLog, "drop", drop)
        await retention.round()
        await retention.round()
    assert retention.faults == {ACME: "Input/output error"}
    assert caplog.text.count("audit log of acme: Input/output error") == 1
    assert (await LogReader(world.sequencer).range(GLOBEX))[0] > 0
    await retention.round()
    assert retention.faults == {}
    assert (await LogReader(world.sequencer).range(ACME))[0] > 0


@pytest.mark.parametrize(
    ("days", "hold", "expected"), [(0, "", 30), (365, "", 365), (3, "", 10), (10, "x", 10), (0, "x", 30)]
)
def test_what_holds_for_an_organization(days: int, hold: str, expected: int) -> None:
    rule = rule_of(SETTINGS, Org(ACME, "Acme", audit_retention_days=days, audit_hold=hold))
    assert rule == (expected * DAY_MS, bool(hold))
    assert rule_of(SETTINGS, None) == (30 * DAY_MS, False)


@pytest.mark.parametrize(
    ("found", "keys"),
    [
        ({}, []),
        ({"retention_days": 5, "retention_floor_days": 6}, ["audit.retention_days"]),
        ({"store": "postgres+s3"}, ["audit.dsn", "audit.bucket"]),
        ({"store": "postgres+s3", "dsn": "pg", "bucket": "logs"}, []),
    ],
)
def test_settings_that_do_not_fit_together(found: dict[str, object], keys: list[str]) -> None:
    assert [key for key, _, _ in audit_store_faults(AuditStoreSettings(**found))] == keys  # type: ignore[arg-type]  # as TOML has them


@pytest.mark.parametrize(
    "found",
    [
        {"endpoint": "http://s3.example"},
        {"endpoint": "ftp://s3.example"},
        {"bucket": "Has_Capitals"},
        {"prefix": "../other"},
        {"retention_days": 0},
        {"segment_bytes": 1},
    ],
)
def test_settings_that_cannot_be_meant(found: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(found))):
        AuditStoreSettings(**found)  # type: ignore[arg-type]  # as TOML has them
