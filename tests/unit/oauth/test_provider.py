"""Outside issuers: what is believed of them, and how often they are asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.oauth.provider import (
    AGAIN_S,
    DOCUMENT_S,
    KEYS_S,
    MAX_KEPT,
    ROLLED_S,
    STALE_S,
    Answer,
    Issuer,
    ProviderDownError,
    ProviderError,
    Providers,
    Question,
)
from gateway.oauth.provider_jwt import OutsideTokenError
from gateway.outside import Outside
from tenants.ids import OrgId
from tests.fakes.oidc import Provider, providing, rsa, signed

ORG = OrgId("acme")
URL = "https://id.example"
NOW = 1_800_000_000


class StillClock:
    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return NOW + self.at

    def monotonic_us(self) -> int:
        return int(self.at * 1e6)


class Asked:
    """An `Ask` without a network: what it answers is what `provider` would."""

    def __init__(self) -> None:
        self.provider = Provider(url=URL)
        self.questions: list[str] = []
        self.wrong: Exception | None = None
        self.status = 200
        self.gate: asyncio.Event | None = None

    async def __call__(self, question: Question) -> Answer:
        path = question.url.removeprefix(URL)
        self.questions.append(path)
        if self.gate is not None:
            await self.gate.wait()
        if self.wrong is not None:
            raise self.wrong
        found = self.provider.jwks() if path == "/jwks" else self.provider.document()
        return Answer(self.status, json.dumps(found).encode())


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def ask() -> Asked:
    return Asked()


@pytest.fixture
def providers(ask: Asked, clock: StillClock) -> Providers:
    return Providers(ask, clock)


ISSUER = Issuer(ORG, URL)
WELL_KNOWN = "/.well-known/openid-configuration"


async def test_a_document_is_asked_for_once_in_an_hour(
    providers: Providers, ask: Asked, clock: StillClock
) -> None:
    found = await providers.metadata(ISSUER)
    assert (found.token_endpoint, found.says_iss) == (URL + "/token", True)
    clock.at = DOCUMENT_S - 1
    assert await providers.metadata(ISSUER) is found
    clock.at = DOCUMENT_S
    await providers.metadata(ISSUER)
    assert ask.questions == [WELL_KNOWN, WELL_KNOWN]


async def test_many_at_once_ask_once(providers: Providers, ask: Asked) -> None:
    ask.gate = asyncio.Event()
    waiting = [asyncio.create_task(providers.keys(ISSUER)) for _ in range(20)]
    await asyncio.sleep(0)
    ask.gate.set()
    assert len({id(keys) for keys in await asyncio.gather(*waiting)}) == 1
    assert ask.questions == [WELL_KNOWN, "/jwks"]


async def test_one_who_gives_up_leaves_the_others_an_answer(providers: Providers, ask: Asked) -> None:
    ask.gate = asyncio.Event()
    first, second = (asyncio.create_task(providers.metadata(ISSUER)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    ask.gate.set()
    assert (await second).issuer == URL
    assert first.cancelled()


async def test_organizations_share_nothing(providers: Providers, ask: Asked) -> None:
    await providers.metadata(ISSUER)
    await providers.metadata(Issuer(OrgId("globex"), URL))
    await providers.metadata(Issuer(ORG, URL, "another authority"))
    assert ask.questions == [WELL_KNOWN] * 3


async def test_no_more_are_kept_than_there_is_room_for(providers: Providers, ask: Asked) -> None:
    await providers.metadata(ISSUER)
    for number in range(MAX_KEPT):
        await providers.metadata(Issuer(OrgId(f"org-{number}"), URL))
    await providers.metadata(ISSUER)
    assert len(ask.questions) == MAX_KEPT + 2


async def test_what_is_looked_at_again_is_fetched_again(providers: Providers, ask: Asked) -> None:
    await providers.keys(ISSUER)
    providers.forget(ISSUER)
    await providers.keys(ISSUER)
    assert ask.questions == [WELL_KNOWN, "/jwks"] * 2


async def test_a_provider_that_is_away_is_believed_for_a_while(
    providers: Providers, ask: Asked, clock: StillClock
) -> None:
    kept = await providers.keys(ISSUER)
    ask.wrong = ProviderDownError("away")
    clock.at = KEYS_S + STALE_S - 1
    assert await providers.keys(ISSUER) is kept
    clock.at = KEYS_S + STALE_S
    with pytest.raises(ProviderDownError, match="away"):
        await providers.keys(ISSUER)


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_an_answer_that_it_is_not_well_counts_as_away(
    providers: Providers, ask: Asked, clock: StillClock, status: int
) -> None:
    kept = await providers.metadata(ISSUER)
    ask.status, clock.at = status, DOCUMENT_S
    assert await providers.metadata(ISSUER) is kept


async def test_one_that_lies_is_not_believed_for_what_it_said_before(
    providers: Providers, ask: Asked, clock: StillClock
) -> None:
    await providers.metadata(ISSUER)
    ask.provider.url, clock.at = "https://other.example", DOCUMENT_S
    with pytest.raises(ProviderError, match="another issuer"):
        await providers.metadata(ISSUER)


async def test_one_that_failed_is_left_alone_for_a_moment(
    providers: Providers, ask: Asked, clock: StillClock
) -> None:
    ask.wrong = ProviderDownError("away")
    for _ in range(5):
        with pytest.raises(ProviderDownError, match="away"):
            await providers.metadata(ISSUER)
    assert ask.questions == [WELL_KNOWN]
    ask.wrong, clock.at = None, AGAIN_S
    assert (await providers.metadata(ISSUER)).issuer == URL


async def test_keys_that_were_rolled_are_found_and_not_asked_for_at_will(
    providers: Providers, ask: Asked, clock: StillClock
) -> None:
    claims = {"iss": URL, "aud": "us", "sub": "s", "iat": NOW, "exp": NOW + 300}
    assert (await providers.verify(signed(claims, rsa(0)), ISSUER, "us"))["sub"] == "s"
    ask.provider.published = [rsa(1)]
    with pytest.raises(OutsideTokenError, match="does not publish"):
        await providers.verify(signed(claims, rsa(1)), ISSUER, "us")
    clock.at = ROLLED_S
    assert (await providers.verify(signed(claims, rsa(1)), ISSUER, "us"))["sub"] == "s"
    for _ in range(5):
        with pytest.raises(OutsideTokenError, match="does not publish"):
            await providers.verify(signed(claims, rsa(2)), ISSUER, "us")
    assert ask.questions.count("/jwks") == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"issuer": URL + "/"}, "another issuer"),
        ({"issuer": "https://ID.example"}, "another issuer"),
        ({"issuer": 7}, "none of OpenID"),
        ({"jwks_uri": None}, "none of OpenID"),
        ({"jwks_uri": ""}, "jwks_uri"),
        ({"jwks_uri": "http://id.example/jwks"}, "jwks_uri"),
        ({"jwks_uri": "http://127.0.0.1/jwks"}, "jwks_uri"),
        ({"token_endpoint": "file:///etc/passwd"}, "token_endpoint"),
        ({"token_endpoint": "https://user:pw@id.example/token"}, "token_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"),
        ({"authorization_endpoint": "https://id.example/a\r\nset-cookie: x"}, "authorization_endpoint"),
        ({"authorization_endpoint": "https://id.example/#fragment"}, "authorization_endpoint"),
        ({"userinfo_endpoint": "https://[::1"}, "userinfo_endpoint"),
    ],
)
async def test_a_document_that_is_not_right_is_refused(
    providers: Providers, ask: Asked, changes: dict[str, Any], said: str
) -> None:
    ask.provider.metadata = changes
    with pytest.raises(ProviderError, match=said):
        await providers.metadata(ISSUER)


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example",
        "https://id.example/?tenant=1",
        "https://id.example#x",
        "https://a:b@id.example",
        "https://",
        "https://id example",
        "ftp://id.example",
        "https://id.example:0",
        "https://id.example:99999",
        "https://0x7f000001",
        "https://" + "a" * 3_000,
        "",
    ],
)
async def test_an_issuer_that_is_none_is_not_asked(providers: Providers, ask: Asked, url: str) -> None:
    with pytest.raises(ProviderError, match="the issuer"):
        await providers.metadata(Issuer(ORG, url))
    assert ask.questions == []


async def test_an_issuer_that_ends_with_a_slash_keeps_it() -> None:
    ask = Asked()
    ask.provider.url = URL + "/"
    providers = Providers(ask, StillClock())
    found = await providers.metadata(Issuer(ORG, URL + "/"))
    assert (found.issuer, ask.questions) == (URL + "/", [WELL_KNOWN])


# -- over real sockets --------------------------------------------------------------------------------------

LOOPBACK = (ip_network("127.0.0.0/8"),)


def _real(clock: StillClock) -> Providers:
    return Providers(Outside(allowed=LOOPBACK), clock)


async def test_a_real_one_is_read(clock: StillClock) -> None:
    with providing("/tenant-1") as provider:
        issuer = Issuer(ORG, provider.url)
        keys = await _real(clock).keys(issuer)
        assert [key.kid for key in keys] == ["key-0"]
        assert [path for path, _, _ in provider.asked] == ["/tenant-1" + WELL_KNOWN, "/tenant-1/jwks"]


async def test_loopback_is_refused_unless_the_operator_allows_it(clock: StillClock) -> None:
    with providing() as provider:
        with pytest.raises(ProviderError, match=r"a loopback address.*allow_networks"):
            await Providers(Outside(), clock).metadata(Issuer(ORG, provider.url))
        assert provider.asked == []


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "192.168.1.1", "::1", "fd00::1", "100.64.0.1"])
async def test_a_name_that_leads_inside_is_refused(clock: StillClock, address: str) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return [address]

    with pytest.raises(ProviderError, match="not allowed"):
        await Providers(Outside(resolver=resolver), clock).metadata(ISSUER)


Break = Callable[[Provider], None]


def _answer(path: str, status: int, body: bytes = b"{}", **headers: str) -> Break:
    def change(provider: Provider) -> None:
        said = {name: value.replace("SELF", provider.url) for name, value in headers.items()}
        provider.answers[path] = (status, body, said)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_answer(WELL_KNOWN, 302, location="SELF/elsewhere"), "status 302.*redirect"),
        (_answer("/jwks", 307, location="SELF/elsewhere"), "status 307.*key set"),
        (_answer(WELL_KNOWN, 404), "status 404"),
        (_answer(WELL_KNOWN, 200, b"<html>"), "none of OpenID"),
        (_answer(WELL_KNOWN, 200, b"[" * 60_000), "none of OpenID"),
        (_answer(WELL_KNOWN, 200, b'{"x": "' + b"a" * 70_000 + b'"}'), "larger than 64 KiB"),
        (_answer("/jwks", 200, b'{"keys": [' + b" " * 300_000 + b"]}"), "larger than 256 KiB"),
        (_answer("/jwks", 200, b'{"keys": []}'), "no key that verifies"),
        (_answer("/jwks", 200, b'{"keys": [' + b"{}," * 200 + b"{}]}"), "more than 100 keys"),
        (_answer("/jwks", 200, b"[" * 200_000), "no JWK Set"),
        (_answer("/jwks", 200, b'{"keys": {"a": 1}}'), "more than 100 keys, or none"),
    ],
)
async def test_what_a_hostile_one_answers_is_said_and_goes_no_further(
    clock: StillClock, change: Break, said: str
) -> None:
    with providing() as provider:
        change(provider)
        with pytest.raises(ProviderError, match=said):
            await _real(clock).keys(Issuer(ORG, provider.url))
        assert provider.paths("/elsewhere") == 0


async def test_one_that_is_not_there_is_away(clock: StillClock) -> None:
    with providing() as provider:
        issuer = Issuer(ORG, provider.url)
    with pytest.raises(ProviderDownError, match="the provider refused the connection"):
        await _real(clock).keys(issuer)


async def test_a_slow_one_is_given_up(clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.outside.ASK_S", 0.05)
    with providing() as provider:
        provider.hold = threading.Event()
        with pytest.raises(ProviderDownError, match=r"did not answer in 0\.05 s"):
            await _real(clock).metadata(Issuer(ORG, provider.url))
        provider.hold.set()
