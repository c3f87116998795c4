"""Sessions of browsers: who begins one, what ends it, and that no browser ever holds a token."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from msgspec.structs import replace

from gateway.oauth import web as module
from gateway.oauth.clients import WEB
from gateway.oauth.errors import AccessDeniedError, InvalidClientError, InvalidGrantError, InvalidRequestError
from gateway.oauth.web import NoSessionError, WebSessions
from policies.facts import Role
from tenants.models import Dpop
from tests.unit.oauth.conftest import ACME, ADA, BY, HERE, ISSUER, PASSWORD, Bench

IDLE_S, SESSION_S = 1_800, 28_800
WHO = {"org": "acme", "email": "ada@acme.example", "password": PASSWORD, "action": "approve"}


@pytest.fixture
def web(bench: Bench) -> WebSessions:
    return WebSessions(bench.service, clock=lambda: bench.now, idle_s=IDLE_S, session_s=SESSION_S)


async def came_back(bench: Bench, url: str, **changes: str) -> dict[str, str]:
    """What the browser is sent back with by the sign-in page that `url` leads to."""
    form = {**dict(parse_qsl(urlsplit(url).query)), **WHO, **changes}
    asked = bench.service.authorization_request(await bench.service.authorization(form), form)
    return dict(parse_qsl(urlsplit(await bench.service.authorize(asked, form, HERE)).query))


async def signed_in(bench: Bench, web: WebSessions) -> str:
    secret, url = web.begin()
    return await web.finish(secret, await came_back(bench, url), HERE)


async def token(web: WebSessions, name: str, *, good: bool = True) -> str:
    return await web.token(name, lambda _: good, HERE)


async def test_a_sign_in_asks_for_the_admin_plane_and_comes_back_to_the_admin_url(web: WebSessions) -> None:
    _, url = web.begin()
    asked = dict(parse_qsl(urlsplit(url).query))
    assert url.startswith(f"{ISSUER}/oauth/authorize?")
    assert asked["redirect_uri"] == "https://127.0.0.1:8444/sign-in/callback"
    assert (asked["resource"], asked["code_challenge_method"]) == (f"{ISSUER}/admin", "S256")


async def test_a_session_leads_to_a_token_of_the_admin_plane(bench: Bench, web: WebSessions) -> None:
    name = await signed_in(bench, web)
    claims = bench.signing.own_claims(await token(web, name)) or {}
    assert (claims["sub"], claims["aud"], claims["client_id"]) == (ADA, f"{ISSUER}/admin", "orgate-web")
    assert [note.action for note in await bench.noted()] == ["session.create"]


async def test_the_names_of_sessions_are_kept_as_digests(bench: Bench, web: WebSessions) -> None:
    secret, url = web.begin()
    name = await web.finish(secret, await came_back(bench, url), HERE)
    assert len(name) == 43
    assert name != secret
    assert name not in repr(web._sessions)
    held = next(iter(web._sessions.values()))
    assert held.refresh not in repr(held)


async def test_a_sign_in_that_another_browser_began_opens_nothing(bench: Bench, web: WebSessions) -> None:
    """Login CSRF: somebody's own answer, planted in another person's browser."""
    _, url = web.begin()
    planted = await came_back(bench, url)
    other, _ = web.begin()
    for secret in (other, "", "x" * 43):
        with pytest.raises(InvalidRequestError):
            await web.finish(secret, planted, HERE)
    assert web._sessions == {}


async def test_an_answer_that_names_no_issuer_or_another_one_is_refused(bench: Bench, web: WebSessions) -> None:
    secret, url = web.begin()
    answer = await came_back(bench, url)
    for issuer in ("", "https://evil.example"):
        with pytest.raises(InvalidRequestError):
            await web.finish(secret, {**answer, "iss": issuer}, HERE)


async def test_who_says_no_is_told_so(bench: Bench, web: WebSessions) -> None:
    secret, url = web.begin()
    answer = await came_back(bench, url, action="deny")
    assert "code" not in answer
    with pytest.raises(AccessDeniedError):
        await web.finish(secret, answer, HERE)


async def test_a_code_is_good_once_and_a_second_use_ends_the_session(bench: Bench, web: WebSessions) -> None:
    secret, url = web.begin()
    answer = await came_back(bench, url)
    name = await web.finish(secret, answer, HERE)
    with pytest.raises(InvalidGrantError):
        await web.finish(secret, answer, HERE)
    with pytest.raises(NoSessionError) as caught:
        await token(web, name)
    assert caught.value.ended


async def test_nobody_else_speaks_for_the_pages(bench: Bench, web: WebSessions) -> None:
    """A stolen code, or a phished device: the client's requests do not come over the network."""
    _, url = web.begin()
    answer = await came_back(bench, url)
    form = {"grant_type": "authorization_code", "code": answer["code"], "client_id": WEB.id}
    with pytest.raises(InvalidClientError):
        await bench.service.token(form, HERE)
    with pytest.raises(InvalidClientError):
        await bench.begin(WEB.id)
    with pytest.raises(InvalidClientError):
        await bench.service.revoke({"token": "t", "client_id": WEB.id}, HERE)


@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1:8444/sign-in/callback/",
        "https://127.0.0.1:8444/sign-in/callback?x=1",
        "https://127.0.0.1:8445/sign-in/callback",
        "http://127.0.0.1:8444/sign-in/callback",
        "https://evil.example/sign-in/callback",
        "/sign-in/callback",
        "",
    ],
)
async def test_only_the_one_redirect_uri_is_registered(bench: Bench, web: WebSessions, uri: str) -> None:
    _, url = web.begin()
    form = {**dict(parse_qsl(urlsplit(url).query)), "redirect_uri": uri}
    with pytest.raises(InvalidRequestError):
        await bench.service.authorization({name: value for name, value in form.items() if value})


async def test_a_session_that_is_not_used_ends(bench: Bench, web: WebSessions) -> None:
    name = await signed_in(bench, web)
    bench.now += IDLE_S - 1
    await token(web, name)
    bench.now += IDLE_S - 1
    await token(web, name)
    bench.now += IDLE_S
    with pytest.raises(NoSessionError) as caught:
        await token(web, name)
    assert caught.value.ended
    assert (await bench.noted())[-1].action == "session.revoke"
    with pytest.raises(NoSessionError) as again:
        await token(web, name)
    assert not again.value.ended


async def test_a_session_ends_however_much_it_is_used(bench: Bench, web: WebSessions) -> None:
    name = await signed_in(bench, web)
    for _ in range(SESSION_S // 1_000):
        bench.now += 1_000
        await token(web, name)
    bench.now += 1_000
    with pytest.raises(NoSessionError):
        await token(web, name)


async def test_a_token_is_renewed_before_it_ends_or_when_it_is_not_good_any_more(
    bench: Bench, web: WebSessions
) -> None:
    name = await signed_in(bench, web)
    first = await token(web, name)
    assert await token(web, name) == first
    bench.now += 871
    second = await token(web, name)
    assert second != first
    assert await token(web, name, good=False) != second


async def test_a_session_needs_no_proof_where_tokens_do(bench: Bench, web: WebSessions) -> None:
    org = await bench.control.orgs.get(ACME)
    await bench.control.orgs.replace(replace(org, dpop=Dpop.REQUIRED), org.version, BY)
    name = await signed_in(bench, web)
    assert await token(web, name) != await token(web, name, good=False)  # renewed


async def test_roles_are_those_of_now_after_a_renewal(bench: Bench, web: WebSessions) -> None:
    name = await signed_in(bench, web)
    found = await bench.control.for_org(ACME).members.get(ADA)
    promoted = replace(found, roles=(Role.AUDITOR,))
    await bench.control.for_org(ACME).members.replace(promoted, found.version, BY)
    claims = bench.signing.own_claims(await token(web, name, good=False)) or {}
    assert claims["roles"] == ["auditor"]


async def test_a_family_that_ends_ends_its_session_at_once(bench: Bench, web: WebSessions) -> None:
    name = await signed_in(bench, web)
    assert await bench.service.end_sessions(ACME, ADA) == 1
    with pytest.raises(NoSessionError):
        await token(web, name)


async def test_a_suspended_member_gets_no_other_token(bench: Bench, web: WebSessions) -> None:
    name = await signed_in(bench, web)
    await bench.suspend()
    with pytest.raises(NoSessionError):
        await token(web, name, good=False)
    assert web._sessions == {}


async def test_signing_out_ends_the_family_and_nothing_else(bench: Bench, web: WebSessions) -> None:
    name, other = await signed_in(bench, web), await signed_in(bench, web)
    await web.end(name, HERE)
    with pytest.raises(NoSessionError):
        await token(web, name)
    assert await token(web, other)
    assert (await bench.noted())[-1].detail == {"reason": "signed out"}
    await web.end(name, HERE)
    await web.end("", HERE)


async def test_sessions_of_one_member_are_bounded(
    bench: Bench, web: WebSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OF_A_MEMBER", 2)
    names = [await signed_in(bench, web) for _ in range(3)]
    with pytest.raises(NoSessionError):
        await token(web, names[0])
    assert [await token(web, name) for name in names[1:]]


async def test_sessions_of_everybody_are_bounded_and_those_that_are_over_go_first(
    bench: Bench, web: WebSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    await signed_in(bench, web)
    bench.now += IDLE_S
    names = [await signed_in(bench, web) for _ in range(2)]
    assert len(web._sessions) == 2
    assert [await token(web, name) for name in names]
    await signed_in(bench, web)
    assert len(web._sessions) == 2


async def test_those_of_an_organization_or_of_one_member_are_forgotten_together(
    bench: Bench, web: WebSessions
) -> None:
    names = [await signed_in(bench, web) for _ in range(2)]
    assert web.forget("globex") == 0
    assert web.forget("acme", "mem_gus") == 0
    assert web.forget("acme", ADA) == 2
    for name in names:
        with pytest.raises(NoSessionError):
            await token(web, name)
    await signed_in(bench, web)
    assert web.forget("acme") == 1
