"""Publishing checkpoints: how often, what happens when a place fails, what stands in files and repositories."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from gateway.audit.publish import PAUSES_S, Publication, PublishError, Publishing
from gateway.audit.publish_file import FilePlace
from gateway.audit.publish_git import GitPlace
from tenants.ids import OrgId
from tests.fakes.audit import ACME, GLOBEX, SIGNER
from tests.kit.wait import eventually

EVERY_S = 3_600


class Shelf:
    """A place that keeps what it is given; `failing` it takes nothing, `picky` only what is acme's."""

    name = "shelf"

    def __init__(self) -> None:
        self.got: list[tuple[int, OrgId, int]] = []
        self.failing = self.picky = False

    async def put(self, items: Sequence[Publication]) -> Sequence[OrgId]:
        if self.failing:
            raise PublishError("it is full")
        taken = [item for item in items if not self.picky or item.org == ACME]
        self.got += [(item.at, item.org, item.size) for item in taken]
        return [item.org for item in taken]


class Scene:
    def __init__(self, folder: Path, shelf: Shelf) -> None:
        self.now = 1_763_690_000.0
        self.sizes = {ACME: 5, GLOBEX: 7}
        self.counted: list[tuple[str, str]] = []
        self.publishing = Publishing(
            [shelf],
            lambda: list(self.sizes),
            self.newest,
            folder / "published.json",
            every_s=EVERY_S,
            clock=lambda: self.now,
            count=lambda *labels: self.counted.append(labels),
        )

    async def newest(self, org: OrgId) -> str:
        return SIGNER.checkpoint(org, self.sizes[org], bytes(32)) if self.sizes[org] else ""

    async def look(self, after_s: float = 0) -> None:
        self.now += after_s
        await self.publishing.look()


def publication(org: OrgId = ACME, size: int = 5) -> Publication:
    return Publication(1_763_690_000, org, SIGNER.origin(org), size, SIGNER.checkpoint(org, size, bytes(32)))


async def test_each_log_is_published_once_in_an_interval_and_only_when_it_has_grown(tmp_path: Path) -> None:
    shelf = Shelf()
    scene = Scene(tmp_path, shelf)
    begun = int(scene.now)
    await scene.look()
    assert shelf.got == [(begun, ACME, 5), (begun, GLOBEX, 7)]
    scene.sizes[ACME] = 6
    await scene.look(EVERY_S - 1)
    assert len(shelf.got) == 2
    await scene.look(1)
    assert shelf.got[2:] == [(begun + EVERY_S, ACME, 6)]
    await scene.look(10 * EVERY_S)
    assert len(shelf.got) == 3
    assert scene.counted == [("shelf", "done")] * 3


async def test_a_log_without_a_checkpoint_waits(tmp_path: Path) -> None:
    shelf = Shelf()
    scene = Scene(tmp_path, shelf)
    scene.sizes = {ACME: 0}
    await scene.look()
    assert (shelf.got, scene.counted) == ([], [])


async def test_a_restart_publishes_nothing_twice(tmp_path: Path) -> None:
    shelf = Shelf()
    await Scene(tmp_path, shelf).look()
    again = Scene(tmp_path, shelf)
    task = asyncio.create_task(again.publishing.run())
    again.sizes[GLOBEX] = 8
    await asyncio.sleep(0)
    assert len(shelf.got) == 2
    (tmp_path / "published.json").write_bytes(b"{")
    third = Scene(tmp_path, shelf)
    other = asyncio.create_task(third.publishing.run())
    await eventually(lambda: len(shelf.got) == 4, "a lost book publishes once more")
    for one in (task, other):
        one.cancel()
    await asyncio.gather(task, other, return_exceptions=True)


async def test_a_place_that_fails_is_tried_again_after_growing_pauses(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.failing = True
    scene = Scene(tmp_path, shelf)
    await scene.look()
    for n, pause in enumerate((*PAUSES_S, PAUSES_S[-1]), 1):
        await scene.look(pause - 1)
        assert len(scene.counted) == 2 * n
        await scene.look(1)
        assert len(scene.counted) == 2 * n + 2
    shelf.failing = False
    await scene.look(PAUSES_S[-1])
    assert len(shelf.got) == 2


async def test_what_a_place_did_not_take_comes_again_alone(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.picky = True
    scene = Scene(tmp_path, shelf)
    await scene.look()
    shelf.picky = False
    await scene.look(PAUSES_S[0])
    assert [org for _, org, _ in shelf.got] == [ACME, GLOBEX]


async def test_a_file_is_added_to_line_by_line(tmp_path: Path) -> None:
    place = FilePlace(tmp_path / "checkpoints.jsonl")
    assert await place.put([publication(), publication(GLOBEX)]) == [ACME, GLOBEX]
    with (tmp_path / "checkpoints.jsonl").open("ab") as file:
        file.write(b'{"at":17')  # the power went while a line was written
    await place.put([publication(size=6)])
    lines = (tmp_path / "checkpoints.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(lines[n], type=Publication) for n in (0, 1, 3)] == [
        publication(),
        publication(GLOBEX),
        publication(size=6),
    ]


async def test_a_file_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="No such file"):
        await FilePlace(tmp_path / "nowhere" / "file").put([publication()])


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--bare", "bare")
    return tmp_path / "bare"


async def test_a_bare_repository_gets_a_commit_for_what_is_new(bare: Path) -> None:
    place = GitPlace(bare)
    await place.put([publication(), publication(GLOBEX)])
    await place.put([publication(size=6)])
    await place.put([publication(size=6)])  # a repeat makes no commit
    assert git(bare, "log", "--format=%an %s", "checkpoints").splitlines() == [
        "Orgate acme: 6 entries",
        "Orgate Checkpoints of 2 logs",
    ]
    assert git(bare, "show", "checkpoints:acme/checkpoint") == publication(size=6).checkpoint.strip()
    assert git(bare, "show", "checkpoints~:acme/checkpoint") == publication().checkpoint.strip()
    assert git(bare, "ls-tree", "-r", "--name-only", "checkpoints").splitlines() == [
        "acme/checkpoint",
        "globex/checkpoint",
    ]


async def test_a_clone_keeps_its_own_branch_and_pushes_ours(tmp_path: Path, bare: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(bare), "clone")
    clone = tmp_path / "clone"
    (clone / "notes").write_text("mine\n")
    git(clone, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-qm", "mine")
    branch = git(clone, "symbolic-ref", "HEAD")
    place = GitPlace(clone, "origin")
    await place.put([publication()])
    assert git(bare, "show", "checkpoints:acme/checkpoint") == publication().checkpoint.strip()
    assert git(clone, "symbolic-ref", "HEAD") == branch
    assert git(clone, "status", "--porcelain") == "?? notes"


async def test_a_push_that_fails_is_said_and_made_up_for(tmp_path: Path, bare: Path) -> None:
    git(tmp_path, "init", "--quiet", "mine")
    mine = tmp_path / "mine"
    git(mine, "remote", "add", "origin", str(tmp_path / "nowhere"))
    place = GitPlace(mine, "origin")
    with pytest.raises(PublishError, match="git push"):
        await place.put([publication()])
    git(mine, "remote", "set-url", "origin", str(bare))
    await place.put([publication()])
    assert git(bare, "rev-list", "--count", "checkpoints") == "1"


async def test_a_folder_without_a_repository_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGATE_SECRETS__MASTER_KEY", "canary")
    with pytest.raises(PublishError, match="not a git repository") as caught:
        await GitPlace(tmp_path).put([publication()])
    assert "canary" not in str(caught.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PublishError, match="cannot be run"):
        await GitPlace(tmp_path).put([publication()])


async def test_git_is_given_nothing_of_the_gateway(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text(f"#!/bin/sh\n/usr/bin/env >> {said}\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("ORGATE_KEY_ACME__MODEL", "canary")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    with pytest.raises(PublishError):
        await GitPlace(bare).put([publication()])
    assert "canary" not in said.read_text()
    assert "GIT_DIR" not in said.read_text()
