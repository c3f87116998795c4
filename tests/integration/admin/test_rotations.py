"""Overlaps, roll-backs and schedules, on the admin API's world: a real control store, a sealed file, a clock that
the test turns. What a crash at each step leaves is made by stopping there, and judged by a gateway made anew."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.api.admin.dependencies import AdminDependencies
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.mint import Commands, MintError
from gateway.secrets.rotation import KeyRotations
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError
from gateway.upstream.probe import ProbeResult
from policies.facts import Role
from tenants.models import KeyState, UpstreamKey
from tenants.store import StoreUnavailableError as KeyStoreError
from tests.integration.admin.world import ACME, SETUP, UPSTREAM, World

OLD, NEW = "sk-PLANTED-old", "sk-PLANTED-new"
WHERE = "/orgs/acme/upstreams/gpt/key"


@pytest.fixture(autouse=True)
async def upstream(world: World) -> None:
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    await world.ask("PUT", WHERE, json={"key": OLD})
    world.probe.asked.clear()


async def newest(world: World) -> str:
    return (await world.keys.get(ACME, "gpt")).secret.reveal().decode()


async def kept(world: World) -> str:
    """The key beside it, '' when there is none."""
    try:
        return (await world.keys.get_before(ACME, "gpt", 1 << 30)).secret.reveal().decode()
    except NoSuchSecretError:
        return ""


async def facts(world: World) -> dict[str, Any]:
    (item,) = (await world.ask("GET", "/orgs/acme/keys", Role.AUDITOR)).json()["items"]
    found: dict[str, Any] = item
    return found


def restarted(world: World, **changes: Any) -> KeyRotations:
    """As a gateway started anew has them: nothing but what is stored."""
    found = {name: getattr(world.deps, name) for name in world.deps.__dataclass_fields__}
    return AdminDependencies(**{**found, **changes}).rotations


async def test_the_key_before_is_kept_for_the_overlap_and_then_destroyed(world: World) -> None:
    answer = await world.ask("POST", WHERE, json={"key": NEW, "overlap_s": 900})
    ends_at = int(world.clock.seconds) + 900
    assert answer.json() == {"version": 2, "overlap_ends_at": ends_at}
    assert (await newest(world), await kept(world)) == (NEW, OLD)
    seen = await facts(world)
    assert (seen["state"], seen["overlap_ends_at"], seen["version"], seen["stored"]) == ("overlap", ends_at, 2, 2)
    world.clock.seconds += 899
    await world.deps.rotations.look()
    assert await kept(world) == OLD
    world.clock.seconds += 1
    await restarted(world).look()
    assert (await newest(world), await kept(world)) == (NEW, "")
    seen = await facts(world)
    assert (seen["state"], seen["overlap_ends_at"]) == ("set", 0)
    assert (await world.actions())[-1] == "key.destroy"
    assert "before" not in (await world.actions())


async def test_no_overlap_keeps_nothing(world: World) -> None:
    assert (await world.ask("POST", WHERE, json={"key": NEW, "overlap_s": 0})).json()["overlap_ends_at"] == 0
    assert (await newest(world), await kept(world)) == (NEW, "")


@pytest.mark.parametrize("overlap", [-1, 30 * 86_400 + 1, "10m", 1.5])
async def test_an_overlap_that_is_none(world: World, overlap: object) -> None:
    assert (await world.ask("POST", WHERE, json={"key": NEW, "overlap_s": overlap})).status_code == 422
    assert await newest(world) == OLD


@pytest.mark.parametrize("then", ["put", "rotate", "delete"])
async def test_what_is_done_within_an_overlap_leaves_nothing_older(world: World, then: str) -> None:
    await world.ask("POST", WHERE, json={"key": NEW})
    match then:
        case "put":
            await world.ask("PUT", WHERE, json={"key": "sk-3"})
            assert (await newest(world), await kept(world)) == ("sk-3", "")
        case "rotate":
            await world.ask("POST", WHERE, json={"key": "sk-3"})
            assert (await newest(world), await kept(world)) == ("sk-3", NEW)
        case "delete":
            assert (await world.ask("DELETE", WHERE)).status_code == 204
            assert await kept(world) == ""
            assert (await facts(world))["state"] == "none"


async def test_a_worker_that_is_refused_within_the_overlap_brings_the_key_before_back(world: World) -> None:
    await world.ask("POST", WHERE, json={"key": NEW})
    world.deps.rotations.refused(ACME, "gpt", 2)
    await world.deps.rotations.look()
    assert (await newest(world), await kept(world)) == (OLD, "")
    assert world.hub.snapshot.tenants[ACME].upstreams["gpt"].key_version == 3
    seen = await facts(world)
    assert (seen["state"], seen["stored"]) == ("set", 3)
    assert "version 2 was refused" in seen["failure"]
    entries = (await world.actions())[-3:]
    assert entries == ["key.write", "key.rollback", "upstream.update"]


@pytest.mark.parametrize("version", [1, 3])
async def test_another_versions_refusal_changes_nothing(world: World, version: int) -> None:
    await world.ask("POST", WHERE, json={"key": NEW})
    world.deps.rotations.refused(ACME, "gpt", version)
    await world.deps.rotations.look()
    assert (await newest(world), await kept(world)) == (NEW, OLD)


async def test_a_refusal_after_the_overlap_changes_nothing(world: World) -> None:
    await world.ask("POST", WHERE, json={"key": NEW})
    world.clock.seconds += 600
    await world.deps.rotations.look()
    world.deps.rotations.refused(ACME, "gpt", 2)
    await world.deps.rotations.look()
    assert await newest(world) == NEW


async def test_nobody_goes_back_to_a_key_that_is_dead_itself(world: World) -> None:
    await world.ask("POST", WHERE, json={"key": NEW})
    world.probe.statuses = [401]
    world.deps.rotations.refused(ACME, "gpt", 2)
    await world.deps.rotations.look()
    assert (await newest(world), (await facts(world))["state"]) == (NEW, "overlap")
    asked = len(world.probe.asked)
    world.deps.rotations.refused(ACME, "gpt", 2)
    await world.deps.rotations.look()
    assert len(world.probe.asked) == asked  # and it is not tried each second


class Killed(BaseException):
    """The process ends here."""


def dying(method: Callable[..., Any], *, after: bool, call: int = 1) -> Callable[..., Any]:
    """`method` that ends the process at its `call`th call, before or after its work."""
    calls = 0

    async def die(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Killed
        answer = await method(*args, **more)
        if calls == call:
            raise Killed
        return answer

    return die


@pytest.mark.parametrize(
    ("what", "after", "call", "expected"),
    [
        ("book", False, 1, OLD),  # before PENDING
        ("book", True, 1, OLD),  # PENDING, and nothing put
        ("keys", True, 1, NEW),  # put, and nothing said
        ("book", True, 2, NEW),  # OVERLAP written, and not announced
        ("live", False, 1, NEW),  # announced
    ],
)
async def test_a_crash_at_each_step_of_a_rotation(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str, after: bool, call: int, expected: str
) -> None:
    rotations = world.deps.rotations
    with monkeypatch.context() as patch:
        target, name = {
            "book": (world.store.keys, "put"),
            "keys": (world.keys, "put"),
            "live": (rotations, "_live"),
        }[what]
        patch.setattr(target, name, dying(getattr(target, name), after=after, call=call))
        with pytest.raises(Killed):
            await rotations.rotate(ACME, "gpt", Secret(NEW.encode()), SETUP, 600)
    again = restarted(world)
    await again.look()
    await again.look()
    assert await newest(world) == expected
    state = (await world.store.keys.get(ACME, "gpt")).state
    assert (state, await kept(world)) == ((KeyState.SET, "") if expected == OLD else (KeyState.OVERLAP, OLD))
    world.clock.seconds += 600
    await again.look()
    assert (await newest(world), await kept(world)) == (expected, "")
    assert (await world.store.keys.get(ACME, "gpt")).state is KeyState.SET
    announced = (await world.store.for_org(ACME).upstreams.get("gpt")).key_version
    assert (announced >= 2) is (expected == NEW)


@pytest.mark.parametrize(("what", "call"), [("keys", 1), ("book", 1), ("live", 1)])
async def test_a_crash_at_each_step_of_a_roll_back(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str, call: int
) -> None:
    await world.ask("POST", WHERE, json={"key": NEW})
    rotations = world.deps.rotations
    with monkeypatch.context() as patch:
        target, name = {
            "book": (world.store.keys, "put"),
            "keys": (world.keys, "put"),
            "live": (rotations, "_live"),
        }[what]
        patch.setattr(target, name, dying(getattr(target, name), after=True, call=call))
        rotations.refused(ACME, "gpt", 2)
        with pytest.raises(Killed):
            await rotations.look()
    again = restarted(world)
    await again.look()
    assert (await newest(world), await kept(world)) == (OLD, "")
    assert (await world.store.keys.get(ACME, "gpt")).state is KeyState.SET


# -- schedules ------------------------------------------------------------------------------------------------

DAY = 86_400


def command(folder: Path, text: str, name: str = "mint") -> Path:
    made = folder / name
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o700)
    return made


class Scheduled:
    """A gateway whose operator allows the commands."""

    def __init__(self, world: World, *commands: Path, timeout_s: float = 20) -> None:
        self.world = world
        self.rotations = restarted(world, commands=Commands(commands, timeout_s))

    async def set(self, mint: Path, revoke: str = "", every_s: int = DAY) -> None:
        item = UpstreamKey(ACME, "gpt", every_s=every_s, command=str(mint), revoke=revoke, rotate_overlap_s=600)
        await self.rotations.schedule(item, SETUP)

    async def at(self, seconds: int) -> UpstreamKey:
        self.world.clock.seconds += seconds
        await self.rotations.look()
        return await self.world.store.keys.get(ACME, "gpt")


async def test_a_schedule_mints_and_rotates_and_a_missed_one_is_made_up_for_once(
    world: World, tmp_path: Path
) -> None:
    mint = command(tmp_path, f'echo "$1 $2" >> {tmp_path}/runs; echo sk-PLANTED-$(wc -l < {tmp_path}/runs)')
    one = Scheduled(world, mint)
    await one.set(mint)
    assert (await one.at(DAY - 1)).stored == 1
    record = await one.at(1)
    assert (record.state, await newest(world)) == (KeyState.OVERLAP, "sk-PLANTED-1")
    assert record.next_at == int(world.clock.seconds) + DAY
    await one.at(600)
    assert (await one.at(10 * DAY)).failure == ""
    await one.at(600)
    await one.at(1)
    assert (await newest(world), (tmp_path / "runs").read_text()) == ("sk-PLANTED-2", "acme gpt\n" * 2)


async def test_the_key_before_is_given_to_the_revoking_command(world: World, tmp_path: Path) -> None:
    mint = command(tmp_path, "echo sk-PLANTED-next")
    revoke = command(tmp_path, f"cat > {tmp_path}/revoked", "revoke")
    one = Scheduled(world, mint, revoke)
    await one.set(mint, str(revoke))
    await one.at(DAY)
    assert not (tmp_path / "revoked").exists()
    await one.at(600)
    assert ((tmp_path / "revoked").read_text(), await kept(world)) == (OLD + "\n", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 3", "ended with status 3"),
        ("echo sk-PLANTED; exit 3", "ended with status 3"),
        ("head -c 9000 /dev/zero | tr '\\0' x", "more than 8192 bytes"),
        ("true", ""),
        ("printf 'sk-PLANTED\\nsk-PLANTED'", ""),
        ("sleep 60", "did not end in 0.3 s"),
    ],
)
async def test_a_command_that_does_not_do_what_it_should(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    mint = command(tmp_path, text)
    one = Scheduled(world, mint, timeout_s=0.3 if "sleep" in text else 20)
    await one.set(mint)
    record = await one.at(DAY)
    assert await newest(world) == OLD
    assert said in record.failure
    assert record.failure
    assert record.next_at == int(world.clock.seconds) + 3_600
    assert "PLANTED" not in record.failure + caplog.text
    assert (await world.actions())[-1] == "key.rotate_fail"
    mint.write_text("#!/bin/sh\necho sk-good\n")
    assert (await one.at(3_600)).failure == ""
    assert await newest(world) == "sk-good"


async def test_only_what_the_operator_allows_is_run(world: World, tmp_path: Path) -> None:
    mint = command(tmp_path, "echo sk")
    with pytest.raises(MintError):
        await Scheduled(world).set(mint)
    body = {"every_s": DAY, "command": str(mint)}
    answer = await world.ask("PUT", f"{WHERE}/schedule", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "command")
    mint.chmod(0o722)
    with pytest.raises(MintError, match="others"):
        await Commands([mint]).run(str(mint), ACME, "gpt")
    os.remove(mint)
    with pytest.raises(MintError):
        await Commands([mint]).run(str(mint), ACME, "gpt")


async def test_a_command_sees_little_of_the_gateways_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORGATE_MASTER", "PLANTED")
    show = command(tmp_path, "env | cut -d= -f1 | sort | tr '\\n' ' '")
    printed = (await Commands([show]).run(str(show), ACME, "gpt")).reveal().decode().split()
    assert set(printed) <= {"HOME", "LANG", "PATH", "PWD", "TZ", "_", "SHLVL", "OLDPWD"}


async def test_the_schedule_over_the_api(world: World, tmp_path: Path) -> None:
    mint = command(tmp_path, "echo sk")
    app = world.replaced(commands=Commands([mint]))
    where = f"{WHERE}/schedule"
    async with world.client_from("127.0.0.1", app) as client:

        async def ask(method: str, role: Role = Role.ADMIN, **more: Any) -> Any:
            return await client.request(method, f"/admin/v1{where}", headers=world.bearer(role), **more)

        assert (await ask("GET")).status_code == 404
        assert (await ask("PUT", json={"every_s": 60, "command": str(mint)})).status_code == 422
        assert (await ask("PUT", Role.AUDITOR, json={"every_s": DAY, "command": str(mint)})).status_code == 403
        made = await ask("PUT", json={"every_s": DAY, "command": str(mint)})
        assert (made.status_code, made.json()["next_at"]) == (200, int(world.clock.seconds) + DAY)
        assert (await ask("GET", Role.AUDITOR)).json() == made.json()
        assert (await facts(world))["next_at"] == made.json()["next_at"]
        assert (await ask("DELETE")).status_code == 204
        assert (await ask("DELETE")).status_code == 404


async def test_a_deleted_upstream_leaves_no_schedule_to_the_next_of_its_name(world: World, tmp_path: Path) -> None:
    mint = command(tmp_path, "echo sk")
    one = Scheduled(world, mint)
    await one.set(mint)
    current = await world.store.for_org(ACME).upstreams.get("gpt")
    answer = await world.ask("DELETE", "/orgs/acme/upstreams/gpt", headers={"if-match": f'"{current.version}"'})
    assert answer.status_code == 204
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    assert (await one.at(DAY)) == UpstreamKey(ACME, "gpt")


async def test_a_key_from_before_the_book_is_listed(world: World) -> None:
    await world.store.keys.forget(ACME, "gpt")
    seen = await facts(world)
    assert (seen["state"], seen["stored"], seen["set_at"]) == ("set", 1, 0)
    assert Credential(1, Secret(b"x")).version == seen["version"]


# -- what is seen of a key --------------------------------------------------------------------------------------


class LeakError(Exception):
    """A fault of a component that quotes what it was given: nothing may pass that on."""


async def everything_said(world: World, caplog: pytest.LogCaptureFixture, answers: list[Any]) -> str:
    """Answers, log records at DEBUG with their tracebacks, the audit log and the metrics."""
    form = logging.Formatter()
    await world.sequencer.drain_once(world.store)
    entries = await world.ask("GET", "/orgs/acme/audit/entries", params={"limit": "500"})
    listed = await world.ask("GET", "/orgs/acme/keys")
    texts = [answer.text + str(answer.headers) for answer in [*answers, entries, listed]]
    return "\n".join([*texts, *map(form.format, caplog.records), world.metrics.exposition()])


FAULTS: list[Exception] = [
    StoreUnavailableError("the server is sealed (503)"),
    KeyStoreError("the control store is locked"),
    TimeoutError(),
    LeakError(f"a fault that quotes {NEW} and {OLD}"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize(
    ("method", "where"),
    [("PUT", "keys.put"), ("PUT", "book.put")]
    + [("POST", where) for where in ("keys.get", "keys.put", "book.put", "probe", "probe again", "live")],
)
async def test_a_planted_key_is_said_nowhere_whatever_fails(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
    where: str,
    method: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    for library in ("aiosqlite", "httpx", "httpcore"):  # as `gateway.serve.configure_logging` has them
        caplog.set_level(logging.WARNING, library)
    calls = 0

    async def fail(*args: object, **more: object) -> Any:
        nonlocal calls
        calls += 1
        if where == "probe again" and calls == 1:
            return ProbeResult(ok=True, status=200, ms=1.0, detail="")
        raise fault

    target, name = {
        "keys.get": (world.keys, "get"),
        "keys.put": (world.keys, "put"),
        "book.put": (world.store.keys, "put"),
        "probe": (world.probe, "probe"),
        "probe again": (world.probe, "probe"),
        "live": (world.deps.rotations, "_live"),
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(target, name, fail)
        transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1:8444") as client:
            headers = world.bearer(Role.OWNER)
            answer = await client.request(method, f"/admin/v1{WHERE}", headers=headers, json={"key": NEW})
        with contextlib.suppress(StoreUnavailableError, KeyStoreError, TimeoutError, LeakError):
            await world.deps.rotations.look()
    assert answer.status_code in (200, 409, 500, 503)
    assert "PLANTED" not in await everything_said(world, caplog, [answer])


async def test_it_would_be_seen_if_it_were_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise LeakError(NEW)
    except LeakError:
        logging.getLogger("gateway").exception("a careless handler")
    assert "PLANTED" in await everything_said(world, caplog, [])
