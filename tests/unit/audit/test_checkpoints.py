"""When checkpoints are signed, what they promise of tiles, and how cosignatures come under them."""

from __future__ import annotations

import asyncio
import json
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.note import NoteError, open_note, parse_checkpoint
from gateway.audit.proofs import root
from gateway.audit.sequencer import APART_S, OrgState, Sequencer
from gateway.audit.signer import Signer
from gateway.audit.tiles import Address, TamperedError
from gateway.errors import UnavailableError
from tenants.ids import OrgId
from tests.fakes.audit import ACME, SIGNER, FaultyDisk, up

STRANGER = Signer("elsewhere.example", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))


class Time:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.seconds += seconds


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = FaultyDisk()
        self.time = Time()
        self.signed: list[tuple[float, int]] = []
        """When, and how many entries."""
        self.sent = 0
        self.sequencer = self.begin()

    def begin(self, signer: Signer = SIGNER) -> Sequencer:
        time = self.time
        made = Sequencer(self.folder, signer, disk=self.disk, segment_bytes=20_000, clock=time, pause=time.pause)
        made.published = lambda org, note: self.signed.append((time.seconds, int(note.split("\n")[1])))
        return made

    async def again(self, signer: Signer = SIGNER) -> None:
        await self.sequencer.close()
        self.sequencer = self.begin(signer)
        await self.sequencer.open()

    async def entries(self, count: int) -> None:
        await self.sequencer.append_receipts(up("boot", *range(self.sent + 1, self.sent + count + 1)))
        self.sent += count

    async def state(self) -> OrgState:
        return await self.sequencer.opened(ACME)

    @property
    def place(self) -> Path:
        return self.folder / "orgs" / "acme"


def size_of(note: str) -> int:
    return parse_checkpoint(open_note(note, SIGNER.key(ACME))).size


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.sequencer.open()
    yield made
    await made.sequencer.close()


async def test_an_empty_log_has_a_checkpoint_and_no_folder(world: World) -> None:
    assert size_of(await world.sequencer.checkpoint(ACME)) == 0
    assert not world.place.exists()


async def test_asking_gets_what_is_durable_and_never_two_sizes_within_a_second(world: World) -> None:
    await world.entries(2)
    for count in (2, 3, 4):
        notes = await asyncio.gather(*[world.sequencer.checkpoint(ACME) for _ in range(20)])
        assert {size_of(note) for note in notes} == {count}
        await world.entries(1)
    times = [at for at, _ in world.signed]
    assert [size for _, size in world.signed] == [2, 3, 4]
    assert all(later - earlier >= APART_S for earlier, later in pairwise(times))


async def test_what_came_while_one_was_made_is_in_the_one_that_is_given(world: World) -> None:
    await world.entries(1)
    first = asyncio.create_task(world.sequencer.checkpoint(ACME))
    await asyncio.sleep(0)
    await world.entries(1)
    assert size_of(await world.sequencer.checkpoint(ACME)) == 2
    assert size_of(await first) >= 1


async def test_a_note_that_was_saved_is_given_as_it_is(world: World) -> None:
    await world.entries(3)
    note = await world.sequencer.checkpoint(ACME)
    world.disk.calls.clear()
    assert await world.sequencer.checkpoint(ACME) == note == (world.place / "checkpoint").read_text()
    assert world.disk.calls == []
    await world.again()
    assert await world.sequencer.checkpoint(ACME) == note
    assert len(world.signed) == 1


async def test_when_none_can_be_saved_the_one_before_is_given(world: World) -> None:
    await world.entries(1)
    world.disk.full("write")
    with pytest.raises(UnavailableError, match="no checkpoint yet"):
        await world.sequencer.checkpoint(ACME)
    world.disk.mend()
    before = await world.sequencer.checkpoint(ACME)
    await world.entries(1)
    world.disk.full("write")
    assert await world.sequencer.checkpoint(ACME) == before
    assert "No space" in world.sequencer.reason
    world.disk.mend()
    assert size_of(await world.sequencer.checkpoint(ACME)) == 2


async def test_a_disk_that_hangs_keeps_nobody_waiting_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.entries(1)
    before = await world.sequencer.checkpoint(ACME)
    await world.entries(1)
    with monkeypatch.context() as context:
        context.setattr("gateway.audit.sequencer.ASKED_S", 0.01)
        async with (await world.state()).signing:
            assert await world.sequencer.checkpoint(ACME) == before
    assert size_of(await world.sequencer.checkpoint(ACME)) == 2


async def test_closing_signs_at_once(world: World) -> None:
    await world.entries(1)
    await world.sequencer.checkpoint(ACME)
    await world.entries(1)
    await world.sequencer.close()
    assert world.signed == [(100.0, 1), (100.0, 2)]
    assert size_of((world.place / "checkpoint").read_text()) == 2


async def test_a_checkpoint_of_another_signer_is_made_afresh(world: World) -> None:
    await world.entries(2)
    await world.again(STRANGER)
    note = await world.sequencer.checkpoint(ACME)
    assert parse_checkpoint(open_note(note, STRANGER.key(ACME))).size == 2


# -- cosignatures ---------------------------------------------------------------------------------------------


def cosigned(note: str) -> str:
    """With a line of somebody else's under it."""
    text, _, _ = note.rpartition("\n\n")
    return note + STRANGER.checkpoint(ACME, *parse_checkpoint(text + "\n")[1:]).rpartition("\n\n")[2]


async def test_a_cosigned_note_takes_the_place_of_the_bare_one_and_outlives_a_restart(world: World) -> None:
    await world.entries(2)
    note = await world.sequencer.checkpoint(ACME)
    assert await world.sequencer.cosigned(ACME, cosigned(note))
    assert await world.sequencer.checkpoint(ACME) == cosigned(note)
    await world.again()
    assert await world.sequencer.checkpoint(ACME) == cosigned(note)
    assert await world.sequencer.cosigned(ACME, cosigned(cosigned(note)))
    await world.entries(1)
    newer = await world.sequencer.checkpoint(ACME)
    assert newer.count("\u2014") == 1
    assert size_of(newer) == 3


async def test_a_cosignature_that_comes_too_late_changes_nothing(world: World) -> None:
    assert not await world.sequencer.cosigned(ACME, cosigned(SIGNER.checkpoint(ACME, 0, bytes(32))))
    await world.entries(1)
    old = await world.sequencer.checkpoint(ACME)
    await world.entries(1)
    new = await world.sequencer.checkpoint(ACME)
    assert not await world.sequencer.cosigned(ACME, cosigned(old))
    assert not await world.sequencer.cosigned(ACME, STRANGER.checkpoint(ACME, 2, bytes(32)))
    with pytest.raises(NoteError):
        await world.sequencer.cosigned(ACME, new + "not a signature line")
    assert await world.sequencer.checkpoint(ACME) == new


# -- tiles ----------------------------------------------------------------------------------------------------


async def test_a_checkpoint_is_saved_after_the_tiles_that_it_needs(world: World) -> None:
    await world.entries(600)
    seen: list[list[str]] = []

    def note_files(org: OrgId, note: str) -> None:
        seen.append(sorted(str(path.relative_to(world.place)) for path in world.place.glob("tile/**/???")))

    world.sequencer.published = note_files
    await world.sequencer.checkpoint(ACME)
    assert seen == [["tile/0/000", "tile/0/001"]]


async def test_a_start_reads_no_tile_and_no_line_twice(world: World) -> None:
    await world.entries(600)
    await world.again()
    tiles = (await world.state()).log.tiles
    assert tiles.size == 600
    checkpoint = parse_checkpoint(open_note(await world.sequencer.checkpoint(ACME), SIGNER.key(ACME)))
    assert root(tiles, 600) == checkpoint.root


@pytest.mark.parametrize("state", ["gone", "without tiles", "of another", "not base64"])
@pytest.mark.parametrize("tiles", ["kept", "gone"])
async def test_whatever_is_lost_at_a_start_is_made_anew(world: World, state: str, tiles: str) -> None:
    await world.entries(600)
    await world.sequencer.close()
    saved = {path: path.read_bytes() for path in world.place.glob("tile/**/???")}
    if tiles == "gone":
        shutil.rmtree(world.place / "tile")
    spoil_state(world.place / "state.json", state)
    world.sequencer = world.begin()
    await world.sequencer.open()
    log = (await world.state()).log
    assert log.tiles.size == 0
    assert log.behind
    await world.sequencer.save_checkpoints()
    assert log.tiles.size == 600
    assert {path: path.read_bytes() for path in world.place.glob("tile/**/???")} == saved
    assert log.tiles.read(Address(0, 1), 600) == saved[world.place / "tile" / "0" / "001"]


def spoil_state(path: Path, how: str) -> None:
    from gateway.audit.canonical import canonical
    from gateway.audit.chain import line_hash

    state = json.loads(path.read_bytes())
    del state["sha256"]
    match how:
        case "gone":
            path.unlink()
            return
        case "without tiles":  # as an earlier version saved it
            del state["tiles"]
        case "of another":
            state["tiles"][0] = b64encode(bytes(32 * (600 - 512))).decode()
        case "not base64":
            state["tiles"] = ["*"]
    state["sha256"] = line_hash(canonical(state))
    path.write_bytes(canonical(state))


async def test_tiles_of_a_long_log_are_made_step_by_step_and_not_while_closing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of before there were tiles: entries are taken meanwhile, and a stop does not wait for all of it."""
    await world.entries(700)
    await world.sequencer.close()
    shutil.rmtree(world.place / "tile")
    spoil_state(world.place / "state.json", "without tiles")
    before = (world.place / "state.json").read_bytes()
    monkeypatch.setattr("gateway.audit.orglog.FOLLOW_MAX", 100)
    world.sequencer = world.begin()
    await world.sequencer.open()
    log = (await world.state()).log
    assert log.trailing
    await world.sequencer.close()
    assert (log.tiles.size, (world.place / "state.json").read_bytes()) == (0, before)

    world.sequencer = world.begin()
    await world.sequencer.open()
    log = (await world.state()).log
    steps: list[int] = []
    follow = log.follow

    def follow_and_count() -> None:
        follow()
        steps.append(log.tiles.size)
        if len(steps) == 2:
            asyncio.run_coroutine_threadsafe(world.entries(50), loop).result()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(log, "follow", follow_and_count)
    await world.sequencer.save_checkpoints()
    assert steps == [100, 200, 300, 400, 500, 600, 700]
    assert size_of(log.checkpoint()) == log.tiles.size == 750


async def test_lines_that_change_under_a_running_log_are_not_signed(world: World) -> None:
    await world.entries(5)
    (segment,) = world.place.glob("log-*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"status":200', b'"status":500', 1))
    log = (await world.state()).log
    with pytest.raises(TamperedError, match="just written"):
        log.save_checkpoint()
    await world.sequencer.save_checkpoints()
    assert "not those that are read now" in world.sequencer.reason
    assert not (world.place / "checkpoint").exists()
