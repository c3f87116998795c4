"""Tiles, leaves, proofs and entries by id, over HTTP: what is served, to whom, for how long, and what is not."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from hashlib import sha256
from typing import Any

import httpx
import pytest

from gateway.audit import note
from gateway.audit.merkle import HashTree, leaf_hash
from gateway.audit.proofs import root, verify_consistency, verify_inclusion
from gateway.audit.tiles import Tiles, parse_path
from policies.facts import Role
from tests.fakes.audit import up
from tests.integration.admin.world import ACME, GLOBEX, World

AUDIT = "/orgs/acme/audit"
COUNT = 600


@pytest.fixture(autouse=True)
async def entries(world: World) -> None:
    await world.sequencer.append_receipts(up("boot", *range(1, COUNT + 1)))


async def get(world: World, path: str, role: Role = Role.AUDITOR, **more: Any) -> httpx.Response:
    return await world.ask("GET", f"{AUDIT}/{path}", role, **more)


async def signed(world: World) -> note.Checkpoint:
    key = note.parse_key((await get(world, "key")).text)
    return note.parse_checkpoint(note.open_note((await get(world, "checkpoint")).text, key))


async def lines(world: World) -> list[bytes]:
    return b"".join([piece async for piece in world.deps.audit.raw(ACME, 0, 10**9)]).splitlines()


async def test_a_client_of_the_open_format_finds_all_that_the_checkpoint_signs(world: World) -> None:
    """Nothing but the checkpoint and tiles: as a monitor reads any tiled log."""
    tree = await signed(world)
    levels: list[bytes] = []
    width = tree.size
    while width:
        full, part = divmod(width, 256)
        paths = [f"tile/{len(levels)}/{n:03}" for n in range(full)]
        paths += [f"tile/{len(levels)}/{full:03}.p/{part}"] if part else []
        levels.append(b"".join([(await get(world, path)).content for path in paths]))
        width = full
    found = [levels[0][at : at + 32] for at in range(0, len(levels[0]), 32)]
    assert root(HashTree(found), tree.size) == tree.root
    assert len(levels[1]) == 32 * (tree.size // 256)
    for number, last in ((0, 256), (tree.size // 256, tree.size % 256)):
        path = f"tile/entries/{number:03}" + (f".p/{last}" if last < 256 else "")
        rest, hashes = (await get(world, path)).content, []
        while rest:
            size = int.from_bytes(rest[:2])
            hashes.append(leaf_hash(rest[2 : 2 + size]))
            rest = rest[2 + size :]
        assert hashes == found[number * 256 :][:last]


async def test_tiles_may_be_kept_for_ever_and_nothing_else_at_all(world: World) -> None:
    await signed(world)
    for path in ("tile/0/000", "tile/0/001.p/7", "tile/entries/000"):
        answer = await get(world, path)
        assert answer.status_code == 200, path
        assert answer.headers.get_list("cache-control") == ["private, max-age=31536000, immutable"]
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("checkpoint", "tile/0/999", "leaves", "proof?index=0", "consistency?old=1"):
        assert (await get(world, path)).headers.get_list("cache-control") == ["no-store"], path


async def test_bundles_are_compressed_for_those_who_take_it(world: World) -> None:
    await signed(world)
    plain = await get(world, "tile/entries/000", headers={"accept-encoding": "identity"})
    packed = await get(world, "tile/entries/000", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content  # the client has undone it
    assert (
        int(packed.headers["content-length"]) == len(gzip.compress(plain.content, 6, mtime=0)) < len(plain.content)
    )
    for answer in (plain, packed):
        assert "accept-encoding" in answer.headers["vary"].lower()


NOT_THERE = """\
0/003 0/002 0/002.p/200 1/000 2/000.p/1 63/000 entries/002 entries/x001/000 0/0 0/000.p/256 0/x000/000 00/000 0
entries 0/%2e%2e/000 %2e%2e/checkpoint 0/000%00 0/000.p/0 0/000.p/1/1 0/.p/1"""


async def test_what_is_not_there_yet_and_what_is_no_tile_are_not_found(world: World) -> None:
    assert (await signed(world)).size < 2 * 256 + 200
    for path in NOT_THERE.split():
        answer = await get(world, f"tile/{path}")
        assert answer.status_code == 404, (path, answer.text)


async def test_a_tile_that_no_checkpoint_needs_yet_is_not_there(world: World) -> None:
    size = (await signed(world)).size
    await world.sequencer.append_receipts(up("boot", *range(COUNT + 1, COUNT + 11)))
    number, width = divmod(size, 256)
    assert (await get(world, f"tile/0/{number:03}.p/{width}")).status_code == 200
    assert (await get(world, f"tile/0/{number:03}.p/{width + 1}")).status_code == 404
    assert (await get(world, f"tile/entries/{number:03}.p/{width + 1}")).status_code == 404
    assert (await signed(world)).size >= size + 10
    assert (await get(world, f"tile/0/{number:03}.p/{width + 1}")).status_code == 200


async def test_leaves_are_what_the_checkpoint_is_over(world: World) -> None:
    tree = await signed(world)
    answer = await get(world, "leaves", params={"end": tree.size})
    assert answer.headers["content-type"] == "application/octet-stream"
    hashes = [answer.content[at : at + 32] for at in range(0, len(answer.content), 32)]
    assert root(HashTree(hashes), len(hashes)) == tree.root
    assert (await get(world, "leaves", params={"start": 250, "end": 260})).content == b"".join(hashes[250:260])
    assert (await get(world, "leaves", params={"start": 5, "end": 5})).content == b""


async def test_an_entry_is_proved_against_the_checkpoint_and_against_an_older_one(world: World) -> None:
    tree = await signed(world)
    stored = await lines(world)
    for index, size in ((0, tree.size), (tree.size - 1, tree.size), (300, 301), (0, 1)):
        found = (await get(world, "proof", params={"index": index, "size": size})).json()
        assert (found["index"], found["size"], found["entry"].encode()) == (index, size, stored[index])
        top = tree.root if size == tree.size else root(HashTree(map(leaf_hash, stored)), size)
        assert verify_inclusion(leaf_hash(stored[index]), index, size, decoded(found), top)


async def test_without_a_size_the_proof_is_against_what_is_durable_now(world: World) -> None:
    found = (await get(world, "proof", params={"index": COUNT - 1})).json()
    tree = await signed(world)
    assert found["size"] <= tree.size
    link = (await get(world, "consistency", params={"old": found["size"], "new": tree.size})).json()
    top = root(HashTree(map(leaf_hash, await lines(world))), found["size"])
    assert verify_consistency(found["size"], top, tree.size, tree.root, decoded(link))


async def test_an_older_checkpoint_is_the_beginning_of_a_newer_one(world: World) -> None:
    old = await signed(world)
    await world.sequencer.append_receipts(up("boot", *range(COUNT + 1, COUNT + 400)))
    new = await signed(world)
    found = (await get(world, "consistency", params={"old": old.size, "new": new.size})).json()
    assert verify_consistency(old.size, old.root, new.size, new.root, decoded(found))
    assert (await get(world, "consistency", params={"old": 0})).json()["hashes"] == []


def decoded(found: dict[str, Any]) -> list[bytes]:
    return [b64decode(text) for text in found["hashes"]]


async def test_a_question_that_means_nothing_is_refused_by_name(world: World) -> None:
    await signed(world)
    questions: list[tuple[str, dict[str, Any], str]] = [
        ("proof", {"index": 10**6}, "index"),
        ("proof", {"index": 5, "size": 5}, "index"),
        ("proof", {"index": 0, "size": 10**6}, "size"),
        ("proof", {"index": -1}, "index"),
        ("proof", {"index": 2**60}, "index"),
        ("proof", {"index": "x"}, "index"),
        ("consistency", {"old": 9, "new": 8}, "old"),
        ("consistency", {"old": 1, "new": 10**6}, "new"),
        ("leaves", {"start": 5, "end": 4}, "end"),
        ("leaves", {"end": 10**6}, "end"),
        ("find", {"id": "a b"}, "id"),
        ("find", {"id": ""}, "id"),
        ("find", {"id": '","'}, "id"),
    ]
    for path, params, field in questions:
        answer = await get(world, path, params=params)
        named = [fault["field"] for fault in answer.json()["errors"]]
        assert (answer.status_code, named) == (422, [field]), (path, params)
    missing = await get(world, "proof")
    assert (missing.status_code, "'index'" in missing.json()["detail"]) == (422, True), missing.text


async def test_tiles_that_are_not_made_yet_are_made_before_a_proof(
    world: World,
) -> None:
    """A log that was copied here, or lost its tiles: its checkpoint is older than they are."""
    old, new = 5, (await signed(world)).size
    log = (await world.sequencer.opened(ACME)).log
    log.tiles = Tiles(log.store.blobs, log.store.lines)
    assert log.tiles.size == 0
    answer = await get(world, f"consistency?old={old}&new={new}")
    assert answer.status_code == 200, answer.text
    assert log.tiles.size >= new


async def test_an_empty_log_has_no_tile_and_no_proof(world: World) -> None:
    at = {"org": GLOBEX}
    for path, status in (
        ("tile/0/000.p/1", 404),
        ("tile/0/000", 404),
        ("leaves", 200),
        ("consistency?old=0", 200),
    ):
        answer = await world.ask("GET", f"/orgs/globex/audit/{path}", Role.AUDITOR, **at)
        assert answer.status_code == status, (path, answer.text)


async def test_an_entry_is_found_by_its_ids(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = [json.loads(line) for line in await lines(world)]
    index = next(n for n, entry in enumerate(stored) if entry.get("request_id") == f"req_{100:020}")
    for wanted in (stored[index]["request_id"], stored[index]["_document_id"]):
        assert (await get(world, "find", params={"id": wanted})).json()["index"] == index
    monkeypatch.setattr("gateway.audit.tree_reader.LOOK_BACK", 200)
    asked, place = 0, {"index": -1, "before": len(stored)}
    while place["index"] < 0 and place["before"]:
        params = {"id": stored[index]["request_id"], "before": place["before"]}
        place = (await get(world, "find", params=params)).json()
        asked += 1
    assert (place["index"], asked) == (index, (len(stored) - index) // 200 + 1)
    assert (await get(world, "find", params={"id": "req_none", "before": 150})).json() == {
        "index": -1,
        "before": 0,
    }
    # The end of another value, or another field, is not the id.
    assert (await get(world, "find", params={"id": "boot", "before": 100})).json()["index"] == -1


async def test_members_may_not_and_others_learn_nothing(world: World) -> None:
    await signed(world)
    for path in ("tile/0/000", "leaves", "proof?index=0", "consistency?old=0", "find?id=x"):
        assert (await get(world, path, Role.MEMBER)).status_code == 403, path
        assert (await get(world, path, Role.AUDITOR, org=GLOBEX)).status_code == 404, path
        assert (await get(world, path, Role.AUDITOR)).status_code == 200, path


async def test_a_disk_that_cannot_be_read_is_said_and_mended_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await signed(world)

    def broken(tiles: Tiles, *where: object) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as context:
        context.setattr(Tiles, "_tile", broken)
        answer = await get(world, "proof", params={"index": 0})
        assert answer.status_code == 503
        assert "Input/output error" in answer.json()["detail"]
        assert answer.headers["retry-after"] == "5"
    assert (await get(world, "proof", params={"index": 0})).status_code == 200


async def test_of_an_entry_past_its_retention_there_is_no_proof_and_of_later_ones_there_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await signed(world)
    monkeypatch.setattr((await world.sequencer.opened(ACME)).log.store, "begin", 300)
    assert (await get(world, "proof", params={"index": 299})).status_code == 404
    assert (await get(world, "proof", params={"index": 300})).status_code == 200
    assert (await get(world, "consistency", params={"old": 5})).status_code == 200
    assert (await get(world, "find", params={"id": f"req_{1:020}"})).json() == {"index": -1, "before": 0}


async def test_the_files_are_the_open_format_too(world: World) -> None:
    """What lies in the folder can be served by any web server: the same paths, the same bytes."""
    await signed(world)
    folder = world.sequencer._stores.open(ACME).folder  # type: ignore[attr-defined]  # files, in this world
    tiles = sorted(path for path in folder.glob("tile/**/*") if path.is_file())
    assert [str(path.relative_to(folder)) for path in tiles] == ["tile/0/000", "tile/0/001"]
    for path in tiles:
        name = str(path.relative_to(folder / "tile"))
        assert parse_path(name)
        served = (await get(world, f"tile/{name}")).content
        assert sha256(path.read_bytes()).digest() == sha256(served).digest()
