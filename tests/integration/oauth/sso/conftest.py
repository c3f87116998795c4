"""The authorization server with a provider of an organization's own, which is reached over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from argon2 import PasswordHasher
from litestar import Litestar
from litestar.testing import AsyncTestClient
from msgspec import structs

from gateway.api.oauth import oauth_routes
from gateway.identity import IdentityProviders
from gateway.oauth.caller import Caller
from gateway.oauth.provider import Providers
from gateway.oauth.service import OAuthService
from gateway.oauth.signing import SigningKeys
from gateway.oauth.sso import Federation
from gateway.outside import Outside
from gateway.secret import Secret
from gateway.secrets.store import NoSuchSecretError
from gateway.settings import Server, Settings
from policies.facts import Role
from tenants.idp import IdentityProvider
from tenants.ids import MemberId, OrgId
from tenants.models import Member
from tenants.store import Change
from tests.fakes.oidc import CLIENT, SECRET, Provider, providing
from tests.integration.oauth.test_pages import Form
from tests.unit.oauth.conftest import ACME, ADA, BY, ISSUER, Bench, Shelf, bench, furnished
from tests.unit.oauth.test_authorization_code import REDIRECT, REQUEST, VERIFIER

__all__ = ["bench", "furnished"]

Http = AsyncTestClient[Litestar]
LOOPBACK = (ip_network("127.0.0.0/8"),)
HERE = Caller(address="192.0.2.1", request_id="req-1")


class Drawer:
    """`IdpSecrets` in memory."""

    def __init__(self) -> None:
        self.held: dict[OrgId, Secret] = {}

    async def get(self, org: OrgId) -> Secret:
        if org not in self.held:
            raise NoSuchSecretError(org)
        return self.held[org]

    async def put(self, org: OrgId, secret: Secret) -> None:
        self.held[org] = secret

    async def delete(self, org: OrgId) -> None:
        await self.get(org)
        del self.held[org]


class BenchClock:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def now(self) -> float:
        return self.bench.now

    def monotonic_us(self) -> int:
        return int(self.bench.now * 1e6)


class House:
    """An authorization server, an organization with a provider, and a browser."""

    def __init__(self, bench: Bench, provider: Provider) -> None:
        self.bench = bench
        self.provider = provider
        self.cut: list[tuple[OrgId, MemberId]] = []
        self.drawer = Drawer()
        self.service: OAuthService
        self.client: Http
        provider.now = lambda: bench.now
        self.providers = Providers(Outside(allowed=LOOPBACK), BenchClock(bench))
        self.identity = IdentityProviders(bench.control, self.drawer, self.providers, ISSUER)

    async def open(self) -> None:
        async def shut_out(org: OrgId, member: MemberId) -> None:
            self.cut.append((org, member))

        shelf = Shelf()
        self.service = await OAuthService.open(
            settings=Settings(server=Server(url=ISSUER)),
            control=self.bench.control,
            store=self.bench.store,
            secrets=shelf,
            signing=await SigningKeys.load_or_create(shelf, lambda: self.bench.now),
            clock=lambda: self.bench.now,
            hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1),
            federation=Federation(self.providers, self.identity.secret, asyncio.Lock(), shut_out),
        )

    async def bind(self, org: OrgId = ACME, **changes: Any) -> IdentityProvider:
        """Set the provider, or change it."""
        current = await self.identity.get(org)
        usual = IdentityProvider(org=org, issuer=self.provider.url, client_id=CLIENT)
        item = structs.replace(current or usual, **changes)
        made = await self.identity.put(item, current.version if current else 0, BY)
        if current is None:
            await self.identity.put_secret(org, Secret(SECRET), BY)
        return made

    async def leave(self, org: str = "acme", path: str = "/oauth/authorize", **query: str) -> str:
        """Choose single sign-on on the page; where the browser is sent."""
        params = REQUEST if path == "/oauth/authorize" else {}
        page = await self.client.get(path, params={**params, **query})
        form = {**Form(page.text).fields, "org": org, "action": "sso", **query}
        answer = await self.client.post(path, data=form)
        assert answer.status_code == 200, answer.text
        url: str = answer.headers["refresh"].removeprefix("0; url=")
        return url

    async def back(self, query: Mapping[str, str], org: str = "acme") -> Any:
        """The browser comes back from the provider."""
        return await self.client.get(f"/oauth/sso/callback/{org}", params=dict(query), follow_redirects=False)

    async def come_back(self, **answer: str) -> Any:
        return await self.back({**self.provider.authorize(await self.leave()), **answer})

    async def consent(self, page: Any, action: str = "approve") -> Any:
        form = {**Form(page.text).fields, "action": action}
        path = "/oauth/device" if "user_code" in form else "/oauth/authorize"
        return await self.client.post(path, data=form, follow_redirects=False)

    async def tokens(self, page: Any) -> dict[str, Any]:
        """Say yes, and redeem the code."""
        answer = await self.consent(page)
        assert answer.status_code == 303, answer.text
        location: str = answer.headers["location"]
        assert location.startswith(REDIRECT)
        (code,) = parse_qs(urlsplit(location).query)["code"]
        form = {
            "grant_type": "authorization_code",
            "client_id": "orgate-cli",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
        }
        got = await self.client.post("/oauth/token", data=form)
        assert got.status_code == 200, got.text
        found: dict[str, Any] = got.json()
        return found

    def claims(self, tokens: Mapping[str, Any]) -> dict[str, Any]:
        found = self.service.signing.own_claims(tokens["access_token"])
        assert found is not None
        return found

    async def sign_in(self) -> dict[str, Any]:
        """All of it; the access token's claims."""
        return self.claims(await self.tokens(await self.come_back()))

    async def member(self, member: MemberId = ADA, org: OrgId = ACME) -> Member:
        return await self.bench.control.for_org(org).members.get(member)

    async def join(self, member: MemberId, email: str, *roles: Role, org: OrgId = ACME) -> Member:
        item = Member(org=org, id=member, email=email, name="", roles=roles or (Role.MEMBER,))
        return await self.bench.control.for_org(org).members.create(item, BY)

    async def noted(self, action: str) -> list[Change]:
        return [change for change in await self.bench.control.outbox() if change.action == action]

    async def refusals(self) -> list[str]:
        return [str(change.detail["reason"]) for change in await self.noted("session.refuse")]


def alert(page: Any) -> str:
    """What the page says is wrong."""
    text: str = page.text
    assert 'role="alert"' in text, text
    said = text.split('role="alert">')[1].partition("</p>")[0].replace("&#x27;", "'")
    return said[0].lower() + said[1:]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing() as made:
        yield made


@pytest.fixture
async def house(bench: Bench, provider: Provider) -> AsyncIterator[House]:
    made = House(bench, provider)
    await made.open()
    await made.bind()
    app = Litestar(route_handlers=oauth_routes(made.service), openapi_config=None, logging_config=None)
    async with AsyncTestClient(app, base_url="https://gateway.example") as client:
        client.headers["x-orgate-client"] = "192.0.2.1"
        made.client = client
        yield made
