"""Witnesses over the admin API: who has cosigned what, the policy to verify with, which checkpoint is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.audit.note import parse_checkpoint, parse_key, split_note
from gateway.audit.policy import judge, parse_policy
from gateway.audit.witnessed import WitnessedNotes
from gateway.audit.witnesses import Witnesses
from policies.facts import Role
from tests.integration.admin.world import ACME, GLOBEX, UPSTREAM, World
from tests.kit.wait import eventually
from tests.unit.audit.test_witnesses import AT, Field, down

PATH = "/orgs/acme/audit"


class Scene:
    def __init__(self, world: World, folder: Path, quorum: str) -> None:
        self.world = world
        self.now = 0.0
        self.field = Field(folder, [world.sequencer.signer.key(org) for org in (ACME, GLOBEX)])
        self.witnesses = Witnesses(
            self.field.policies(quorum),
            world.sequencer,
            self.field,
            WitnessedNotes(folder / "witnessed"),
            clock=lambda: AT,
            monotonic=lambda: self.now,
            random=lambda: 0.0,
        )
        world.sequencer.published = self.witnesses.published
        self.app = world.replaced(witnesses=self.witnesses, degraded=lambda: ["it is late"])
        self.client = world.client_from("127.0.0.1", self.app)

    async def read(self, path: str, role: Role = Role.AUDITOR) -> httpx.Response:
        return await self.client.get(f"/admin/v1{PATH}/{path}", headers=self.world.bearer(role))

    async def grow(self, name: str) -> int:
        answer = await self.world.ask("POST", "/orgs/acme/upstreams", json={**UPSTREAM, "name": name})
        assert answer.status_code == 201, answer.text
        await self.world.sequencer.drain_once(self.world.store)
        await self.world.sequencer.save_checkpoints(closing=True)
        return (await self.world.sequencer.opened(ACME)).log.size


@asynccontextmanager
async def running(world: World, folder: Path, quorum: str = "all") -> AsyncIterator[Scene]:
    scene = Scene(world, folder, quorum)
    task = asyncio.create_task(scene.witnesses.run())
    await asyncio.sleep(0)
    try:
        yield scene
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await scene.client.aclose()


def head(answer: httpx.Response) -> int:
    return parse_checkpoint(split_note(answer.text)[0]).size


async def test_what_is_served_is_the_newest_checkpoint_with_its_quorum(world: World, tmp_path: Path) -> None:
    async with running(world, tmp_path / "w") as scene:
        size = await scene.grow("one")
        await eventually(lambda: scene.witnesses.standing(ACME).witnessed_size == size, "both cosign")
        answer = await scene.read("checkpoint")
        assert (head(answer), answer.headers.get("x-orgate-remark")) == (size, None)
        policy = parse_policy((await scene.read("policy")).text)
        assert judge(policy, answer.text).met
        assert [log.key for log in policy.logs] == [parse_key((await scene.read("key")).text)]
        assert "https" not in (await scene.read("policy")).text

        scene.field.instead["w2"] = down
        newer = await scene.grow("two")
        await eventually(lambda: bool(scene.witnesses.standing(ACME).seen["w2"].fault), "one fails")
        scene.now += 90
        answer = await scene.read("checkpoint")
        assert head(answer) == size
        said = f"ends before the newest {newer - size} entries: for 90 s no newer one has"
        assert said in answer.headers["x-orgate-remark"]
        assert head(await scene.read("checkpoint?newest=true")) == newer

        found = (await scene.read("witnesses")).json()
        assert (found["quorum"], found["size"], found["witnessed_size"], found["late_s"]) == (
            "both",
            newer,
            size,
            90.0,
        )
        assert "the quorum both is met: w1 at " in found["said"]
        one, two = found["items"]
        assert (one["name"], one["size"], one["at"], one["fault"]) == ("w1", newer, AT, "")
        assert (two["size"], two["fault"], two["fault_at"]) == (size, "it cannot be reached", AT)


async def test_a_checkpoint_nobody_vouches_for_is_served_with_a_remark(world: World, tmp_path: Path) -> None:
    async with running(world, tmp_path / "w") as scene:
        scene.field.instead = {"w1": down, "w2": down}
        size = await scene.grow("one")
        answer = await scene.read("checkpoint")
        assert head(answer) == size
        assert "nobody vouches" in answer.headers["x-orgate-remark"]


async def test_without_witnesses_all_of_it_says_so(world: World) -> None:
    answer = await world.ask("GET", f"{PATH}/witnesses", Role.AUDITOR)
    assert (answer.json()["quorum"], answer.json()["items"]) == ("none", [])
    policy = parse_policy((await world.ask("GET", f"{PATH}/policy", Role.AUDITOR)).text)
    assert (policy.quorum, len(policy.logs)) == ("none", 1)
    assert "x-orgate-remark" not in (await world.ask("GET", f"{PATH}/checkpoint", Role.AUDITOR)).headers


async def test_readiness_tells_of_it_and_stays_yes(world: World, tmp_path: Path) -> None:
    async with running(world, tmp_path / "w") as scene:
        answer = await scene.client.get("/readyz")
        assert (answer.status_code, answer.text) == (200, "ok\ndegraded: it is late\n")


@pytest.mark.parametrize("path", ["witnesses", "policy"])
async def test_members_may_not_look(world: World, path: str) -> None:
    assert (await world.ask("GET", f"{PATH}/{path}", Role.MEMBER)).status_code == 403
