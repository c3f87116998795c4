"""Refresh tokens: rotation, the grace, reuse, and fifty at once."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.oauth.errors import InvalidGrantError, InvalidScopeError, InvalidTargetError
from policies.facts import Role
from tenants.models import State
from tenants.snapshot import Snapshot
from tests.unit.oauth.conftest import ACME, ADA, BY, GLOBEX, GUS, ISSUER, Bench


async def _dead(bench: Bench, *tokens: str) -> None:
    for token in tokens:
        with pytest.raises(InvalidGrantError):
            await bench.refresh(token)


async def test_each_use_gives_a_successor(bench: Bench) -> None:
    token = (await bench.login())["refresh_token"]
    seen = {token}
    for _ in range(4):
        bench.now += 900
        answer = await bench.refresh(token, resource=f"{ISSUER}/admin")
        claims = bench.signing.own_claims(answer["access_token"])
        assert claims is not None
        assert (claims["aud"], claims["scope"], claims["iat"]) == (f"{ISSUER}/admin", "admin", int(bench.now))
        token = answer["refresh_token"]
        assert token not in seen
        seen.add(token)


async def test_fifty_at_once_get_the_same_one_successor(bench: Bench) -> None:
    token = (await bench.login())["refresh_token"]
    for _ in range(5):
        answers = await asyncio.gather(*(bench.refresh(token) for _ in range(50)))
        successors = {answer["refresh_token"] for answer in answers}
        assert len(successors) == 1
        assert len({answer["access_token"] for answer in answers}) == 50
        token = successors.pop()
        bench.now += 60
    assert await bench.service.end_sessions(ACME, ADA) == 1


async def test_a_retry_within_the_grace_gets_the_same_successor_even_once_that_was_used(bench: Bench) -> None:
    first = (await bench.login())["refresh_token"]
    second = (await bench.refresh(first))["refresh_token"]
    bench.now += 4
    third = (await bench.refresh(second))["refresh_token"]
    bench.now += 5
    assert (await bench.refresh(first))["refresh_token"] == second
    assert (await bench.refresh(second))["refresh_token"] == third
    assert (await bench.refresh(third))["refresh_token"]


async def test_reuse_after_the_grace_kills_the_family(bench: Bench) -> None:
    first = (await bench.login())["refresh_token"]
    other = (await bench.login())["refresh_token"]
    second = (await bench.refresh(first))["refresh_token"]
    bench.now += 10.001
    await _dead(bench, first, second)
    assert (await bench.refresh(other))["refresh_token"]  # another sign-in of the same member lives on
    revoked = [change for change in await bench.noted() if change.action == "session.revoke"]
    assert [dict(change.detail) for change in revoked] == [{"reason": "refresh token reused"}]


async def test_reuse_of_a_distant_ancestor_kills_the_family(bench: Bench) -> None:
    tokens = [(await bench.login())["refresh_token"]]
    for _ in range(5):
        bench.now += 900
        tokens.append((await bench.refresh(tokens[-1]))["refresh_token"])
    await _dead(bench, tokens[0], tokens[-1])


async def test_without_grace_every_second_use_is_reuse(bench: Bench) -> None:
    await bench.start(reuse_grace_s=0)
    first = (await bench.login())["refresh_token"]
    second = (await bench.refresh(first))["refresh_token"]
    bench.now += 0.001
    await _dead(bench, first, second)


async def test_a_family_ends_after_its_lifetime_however_often_it_was_rotated(bench: Bench) -> None:
    await bench.start(refresh_s=3600)
    token = (await bench.login())["refresh_token"]
    for _ in range(3):
        bench.now += 1199
        token = (await bench.refresh(token))["refresh_token"]
    bench.now += 3
    await _dead(bench, token)


@pytest.mark.parametrize(
    "change", ["", "x", "prefix", "flip-family", "flip-secret", "flip-tag", "pad", "long", "spelling"]
)
async def test_a_token_of_another_make_is_refused_and_kills_nothing(bench: Bench, change: str) -> None:
    token: str = (await bench.login())["refresh_token"]

    def flip(at: int) -> str:
        return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]

    made = {
        "": "x" * 90,
        "x": "x",
        "prefix": "ogx_" + token[4:],
        "flip-family": flip(6),
        "flip-secret": flip(40),
        "flip-tag": flip(80),
        "pad": token + "==",
        "long": token * 50,
        "spelling": token[:-1] + chr(ord(token[-1]) + 1),  # the unused bits of the last letter
    }[change]
    await _dead(bench, made)
    assert (await bench.refresh(token))["refresh_token"]


async def test_another_client_s_token_is_refused_and_lives(bench: Bench) -> None:
    token = (await bench.login())["refresh_token"]
    with pytest.raises(InvalidGrantError):
        await bench.refresh(token, "orgate-editor")
    assert (await bench.refresh(token))["refresh_token"]


async def test_a_mistake_in_the_request_does_not_use_the_token_up(bench: Bench) -> None:
    token = (await bench.login())["refresh_token"]
    with pytest.raises(InvalidTargetError):
        await bench.refresh(token, resource="https://elsewhere.example/v1")
    with pytest.raises(InvalidScopeError):
        await bench.refresh(token, scope="admin")  # of the other plane
    bench.now += 60
    assert (await bench.refresh(token))["refresh_token"]


async def test_roles_are_those_of_now_and_iat_is_not_refused_by_their_revocation(bench: Bench) -> None:
    token = (await bench.login())["refresh_token"]
    members = bench.control.for_org(ACME).members
    found = await members.get(ADA)
    changed = replace(found, roles=(Role.AUDITOR,))
    not_before = (await members.replace(changed, found.version, BY)).not_before
    assert not_before > bench.now
    claims = bench.signing.own_claims((await bench.refresh(token))["access_token"])
    assert claims is not None
    assert claims["roles"] == ["auditor"]
    assert claims["iat"] == not_before


async def test_a_suspended_member_cannot_refresh(bench: Bench) -> None:
    token = (await bench.login())["refresh_token"]
    await bench.suspend()
    await _dead(bench, token)


async def test_a_suspended_organization_cannot_refresh_until_it_is_resumed(bench: Bench) -> None:
    token = (await bench.login())["refresh_token"]
    await bench.suspend_org()
    await _dead(bench, token)
    await bench.suspend_org(State.ACTIVE)
    assert (await bench.refresh(token))["refresh_token"]


async def test_a_token_of_the_second_in_which_the_organization_was_resumed_counts(bench: Bench) -> None:
    """The revocation covers the whole second of the suspension; what is issued after it must not fall under it."""
    bench.now += 0.2
    login = await bench.login()
    await bench.suspend_org()
    await bench.suspend_org(State.ACTIVE)
    world = Snapshot(1, (), await bench.control.revocations(int(bench.now)))
    old, new = login["access_token"], (await bench.refresh(login["refresh_token"]))["access_token"]
    issued = [bench.signing.own_claims(token)["iat"] for token in (old, new)]  # type: ignore[index]  # our own
    assert [world.revoked(ACME, ADA, "", at) for at in issued] == [True, False]


async def test_ending_sessions_reaches_this_member_only(bench: Bench) -> None:
    tokens = [(await bench.login())["refresh_token"] for _ in range(2)]
    device = await bench.begin()
    await bench.decide(device["user_code"], org="globex", email="gus@globex.example")
    other = (await bench.redeem(device["device_code"]))["refresh_token"]
    assert await bench.service.end_sessions(GLOBEX, ADA) == 0
    assert await bench.service.end_sessions(ACME, GUS) == 0
    assert await bench.service.end_sessions(ACME, ADA) == 2
    assert await bench.service.end_sessions(ACME, ADA) == 0
    await _dead(bench, *tokens)
    assert (await bench.refresh(other))["refresh_token"]


async def test_a_deleted_member_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    token = (await bench.login())["refresh_token"]
    await bench.service.drop_member(ACME, ADA)
    await _dead(bench, token)
    with sqlite3.connect(tmp_path / "control.db") as database:
        for table in ("oauth_passwords", "oauth_invitations", "oauth_devices", "oauth_families"):
            assert database.execute(f"SELECT count(*) FROM {table} WHERE member = ?", (ADA,)).fetchone() == (0,)
    database.close()


async def test_only_digests_reach_the_disk(bench: Bench, tmp_path: Path) -> None:
    device = await bench.begin()
    await bench.decide(device["user_code"])
    first = await bench.redeem(device["device_code"])
    second = await bench.refresh(first["refresh_token"])
    invitation = await bench.service.invite(ACME, ADA)
    secrets = [
        device["device_code"], device["user_code"], device["user_code"].replace("-", ""), invitation.code,
        invitation.code.replace("-", ""), first["refresh_token"], second["refresh_token"], second["access_token"],
        "correct horse battery",
    ]  # fmt: skip
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert [secret for secret in secrets if secret.encode() in written] == []
