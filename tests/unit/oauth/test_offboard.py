"""Shutting somebody out: the order of the steps, what each does, and what is left when one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from gateway.oauth.errors import AccessDeniedError, InvalidGrantError, SignInRefusedError
from gateway.oauth.offboard import ACCESS_REFUSED, ATTEMPTS, BusyError, Offboarding
from policies.facts import Role
from tenants.ids import MemberId, OrgId
from tenants.lastone import LastOneError
from tenants.models import Member, State
from tenants.store import NotFoundError
from tests.unit.oauth.conftest import ACME, ADA, BY, GLOBEX, GUS, HERE, PASSWORD, Bench


class Workers:
    """What is told to them, in order. `late`: who does not answer."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.told: list[tuple[str, object]] = []
        self.late: tuple[str, ...] = ()

    def reset(self, org: OrgId, member: str = "") -> None:
        self.told.append(("reset", (org, member)))

    async def live(self, version: int) -> Sequence[str]:
        assert version == await self.bench.control.version()
        self.told.append(("live", version))
        self.bench.now += 0.25
        return self.late

    def workers(self) -> Sequence[object]:
        return [1, 2, 3]


class Browsers:
    def __init__(self) -> None:
        self.forgot: list[tuple[str, str]] = []

    def forget(self, org: str, member: str = "") -> int:
        self.forgot.append((org, member))
        return 1


@pytest.fixture
def workers(bench: Bench) -> Workers:
    return Workers(bench)


@pytest.fixture
def browsers() -> Browsers:
    return Browsers()


@pytest.fixture
def offboarding(bench: Bench, workers: Workers, browsers: Browsers) -> Offboarding:
    return Offboarding(
        control=bench.control,
        logins=bench.service,
        web=browsers,
        workers=workers,
        clock=lambda: bench.now,
        turn=asyncio.Lock(),
    )


async def test_a_member_is_shut_out_step_by_step(
    bench: Bench, offboarding: Offboarding, workers: Workers, browsers: Browsers
) -> None:
    session, other = await bench.login(), await bench.login("orgate-editor")
    under_way = await bench.begin()
    await bench.decide(under_way["user_code"])
    invitation = await bench.service.invite(ACME, ADA)
    member, said = await offboarding.member(ACME, ADA, BY)
    assert member.state is State.SUSPENDED
    assert [step.what.split(":")[0] for step in said.steps] == [
        "suspended",
        "streams in flight told to end",
        "sessions ended, and sign-ins under way",
        "invitation void",
        "browsers signed out",
        ACCESS_REFUSED,
        "streams that began meanwhile told to end",
    ]
    assert [step.count for step in said.steps] == [None, None, 2, None, 1, 3, None]
    assert [step.ms for step in said.steps] == [0, 0, 0, 0, 0, 250, 250]
    assert said.fenced == ()
    assert [what for what, _ in workers.told] == ["reset", "live", "reset"]
    assert workers.told[0] == ("reset", (ACME, ADA))
    assert browsers.forgot == [(ACME, ADA)]
    for tokens, client in ((session, "orgate-cli"), (other, "orgate-editor")):
        with pytest.raises(InvalidGrantError):
            await bench.refresh(tokens["refresh_token"], client)
    with pytest.raises(AccessDeniedError):
        await bench.redeem(under_way["device_code"])
    with pytest.raises(SignInRefusedError):
        await bench.decide((await bench.begin())["user_code"])
    form = {"org": "acme", "email": "ada@acme.example", "code": invitation.code}
    with pytest.raises(InvalidGrantError):
        await bench.service.accept_invitation({**form, "password": PASSWORD, "password_again": PASSWORD}, HERE)
    assert (await bench.noted("member."))[-1].action == "member.offboard"


async def test_what_ended_stays_ended_when_they_are_resumed(bench: Bench, offboarding: Offboarding) -> None:
    tokens = await bench.login()
    await offboarding.member(ACME, ADA, BY)
    found = await bench.control.for_org(ACME).members.get(ADA)
    await bench.control.for_org(ACME).members.replace(replace(found, state=State.ACTIVE), found.version, BY)
    with pytest.raises(InvalidGrantError):
        await bench.refresh(tokens["refresh_token"])
    assert await bench.login()


async def test_it_is_harmless_when_repeated(bench: Bench, offboarding: Offboarding) -> None:
    await bench.login()
    await offboarding.member(ACME, ADA, BY)
    _, again = await offboarding.member(ACME, ADA, BY)
    assert [step.count for step in again.steps if step.what.startswith("sessions")] == [0]


async def test_a_worker_that_does_not_answer_is_named(offboarding: Offboarding, workers: Workers) -> None:
    workers.late = ("w2",)
    _, said = await offboarding.member(ACME, ADA, BY)
    assert said.fenced == ("w2",)


async def test_nobody_who_is_not_there(offboarding: Offboarding, workers: Workers) -> None:
    for org, member in ((ACME, GUS), (GLOBEX, ADA), (OrgId("nowhere"), ADA)):
        with pytest.raises(NotFoundError):
            await offboarding.member(org, member, BY)
    assert workers.told == []


async def test_the_last_owner_stays(bench: Bench, offboarding: Offboarding, workers: Workers) -> None:
    members = bench.control.for_org(ACME).members
    found = await members.get(ADA)
    await members.replace(replace(found, roles=(Role.OWNER,)), found.version, BY)
    with pytest.raises(LastOneError, match="last active owner"):
        await offboarding.member(ACME, ADA, BY)
    assert (await members.get(ADA)).state is State.ACTIVE
    assert workers.told == []
    second = Member(org=ACME, id=MemberId("mem_two"), email="two@acme.example", name="Two", roles=(Role.OWNER,))
    await members.create(second, BY)
    assert (await offboarding.member(ACME, ADA, BY))[0].state is State.SUSPENDED


async def test_two_owners_who_go_at_once_do_not_both_go(bench: Bench, offboarding: Offboarding) -> None:
    members = bench.control.for_org(ACME).members
    found = await members.get(ADA)
    await members.replace(replace(found, roles=(Role.OWNER,)), found.version, BY)
    second = Member(org=ACME, id=MemberId("mem_two"), email="two@acme.example", name="Two", roles=(Role.OWNER,))
    await members.create(second, BY)
    both = [offboarding.member(ACME, one, BY) for one in (ADA, second.id)]
    ended = await asyncio.gather(*both, return_exceptions=True)
    assert sum(isinstance(one, LastOneError) for one in ended) == 1


async def test_who_may_not_touch_them_changes_nothing(
    bench: Bench, offboarding: Offboarding, workers: Workers
) -> None:
    tokens = await bench.login()

    async def never(member: Member) -> None:
        raise PermissionError(member.id)

    with pytest.raises(PermissionError):
        await offboarding.member(ACME, ADA, BY, never)
    assert workers.told == []
    assert await bench.refresh(tokens["refresh_token"])


async def test_somebody_else_who_keeps_changing_them_is_not_waited_for_for_ever(
    bench: Bench, offboarding: Offboarding
) -> None:
    members, asked = bench.control.for_org(ACME).members, 0

    async def meddle(member: Member) -> None:
        nonlocal asked
        asked += 1
        await members.replace(replace(member, name=f"Ada {asked}"), member.version, BY)

    with pytest.raises(BusyError):
        await offboarding.member(ACME, ADA, BY, meddle)
    assert asked == ATTEMPTS


async def test_what_is_left_after_a_crash_is_refused_and_a_repeat_ends_it(
    bench: Bench, offboarding: Offboarding, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = await bench.login()

    async def crash(org: OrgId, member: MemberId) -> int:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(bench.service, "end_sessions", crash)
        with pytest.raises(ConnectionError):
            await offboarding.member(ACME, ADA, BY)
    assert workers.told == [("reset", (ACME, ADA))]
    with pytest.raises(InvalidGrantError):
        await bench.refresh(tokens["refresh_token"])
    _, said = await offboarding.member(ACME, ADA, BY)
    assert [step.count for step in said.steps if step.what.startswith("sessions")] == [1]


async def test_an_organization_and_no_other(
    bench: Bench, offboarding: Offboarding, workers: Workers, browsers: Browsers
) -> None:
    tokens = await bench.login()
    device = await bench.begin()
    await bench.decide(device["user_code"], org="globex", email="gus@globex.example")
    theirs = await bench.redeem(device["device_code"])
    org, said = await offboarding.organization(ACME, BY)
    assert (org.state, workers.told[0], browsers.forgot) == (State.SUSPENDED, ("reset", (ACME, "")), [(ACME, "")])
    assert [step.count for step in said.steps] == [None, None, 1, 1, 3, None]
    with pytest.raises(InvalidGrantError):
        await bench.refresh(tokens["refresh_token"])
    assert await bench.refresh(theirs["refresh_token"])
    await bench.suspend_org(State.ACTIVE)
    with pytest.raises(InvalidGrantError):
        await bench.refresh(tokens["refresh_token"])
