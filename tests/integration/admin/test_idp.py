"""An organization's identity provider over the admin API: set by owners, tried, its secret never shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.secrets.sealed import SealedIdps
from gateway.secrets.store import NoSuchSecretError
from gateway.upstream.urls import url_fault
from policies.facts import Role
from tenants.models import State
from tests.fakes.oidc import CLIENT, SECRET, Provider, basic, providing, rsa
from tests.integration.admin.world import ACME, GLOBEX, SETUP, World
from tests.unit.authn import tokens

PATH = "/orgs/acme/idp"
OWNER = Role.OWNER


@pytest.fixture
async def world(world: World) -> AsyncIterator[World]:
    """Where the operator allows providers on loopback."""
    allowed = (ip_network("127.0.0.0/8"),)
    usual = world.client
    app = world.replaced(check_url=lambda url: url_fault(url, allowed))
    async with world.client_from("127.0.0.1", app) as world.client:
        yield world
    world.client = usual


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing() as made:
        yield made


async def put(world: World, role: Role = OWNER, **body: Any) -> Any:
    headers = {"if-match": "*"}
    return await world.ask("PUT", PATH, role, json={"client_id": CLIENT, **body}, headers=headers)


async def put_secret(world: World, secret: str = SECRET) -> Any:
    return await world.ask("PUT", PATH + "/secret", OWNER, json={"client_secret": secret})


async def test_an_owner_sets_it_and_readers_see_it(world: World, provider: Provider) -> None:
    none = await world.ask("GET", PATH, Role.AUDITOR)
    redirect = f"{tokens.ISSUER}/oauth/sso/callback/acme"
    assert (none.status_code, none.json()) == (
        200,
        {"redirect_uri": redirect, "secret": False, "provider": None},
    )
    owner = world.members[ACME, OWNER]
    full: dict[str, Any] = {
        "issuer": provider.url,
        "groups_claim": "groups",
        "group_roles": [{"group": "ops", "role": "admin"}],
        "demands": [{"role": "admin", "acr": [], "amr": ["mfa"]}],
        "claims": [{"name": "hd", "value": "acme.example"}],
        "domains": ["acme.example"],
        "jit": True,
        "only": True,
        "break_glass": [owner.id],
    }
    made = await put(world, **full)
    assert made.status_code == 200, made.text
    assert made.headers["etag"] == '"1"'
    assert (await put_secret(world)).json()["secret"] is True
    seen = await world.ask("GET", PATH, Role.AUDITOR)
    assert seen.json()["provider"] == made.json()["provider"]
    assert {name: seen.json()["provider"][name] for name in full} == full
    assert SECRET not in seen.text
    again = await world.ask(
        "PUT", PATH, OWNER, json=seen.json()["provider"], headers={"if-match": seen.headers["etag"]}
    )
    assert (again.status_code, again.json()["provider"]["version"]) == (200, 2)
    assert (await world.ask("GET", "/orgs/globex/idp", org=GLOBEX)).json()["provider"] is None


@pytest.mark.parametrize("role", [Role.ADMIN, Role.AUDITOR, Role.MEMBER])
async def test_who_is_no_owner_does_not_say_who_is_whom(world: World, provider: Provider, role: Role) -> None:
    assert (await put(world, role, issuer=provider.url)).status_code == 403
    await put(world, issuer=provider.url)
    assert (await world.ask("DELETE", PATH, role, headers={"if-match": "*"})).status_code == 403
    secret = await world.ask("PUT", PATH + "/secret", role, json={"client_secret": "x"})
    assert secret.status_code == 403
    assert (await world.ask("DELETE", PATH + "/links/mem_1", role)).status_code == 403


async def test_the_secret_is_nowhere_but_in_the_sealed_file(world: World, provider: Provider) -> None:
    await put(world, issuer=provider.url)
    assert (await put_secret(world)).status_code == 200
    kept = (await SealedIdps(world.keys).get(ACME)).reveal()
    assert json.loads(kept)["secret"] == SECRET
    await world.last_entry()
    entries = (await world.ask("GET", "/orgs/acme/audit/entries?limit=1000", OWNER)).text
    assert '"idp.secret"' in entries
    assert SECRET not in entries
    wrong = await world.ask("PUT", PATH + "/secret", OWNER, json={"client_secret": SECRET, "more": SECRET})
    assert (wrong.status_code, SECRET in wrong.text) == (422, False)
    assert (await put_secret(world, "two\nlines")).status_code == 422
    assert (await world.ask("DELETE", PATH, OWNER, headers={"if-match": "*"})).status_code == 204
    with pytest.raises(NoSuchSecretError):
        await SealedIdps(world.keys).get(ACME)
    assert (await put_secret(world)).status_code == 404


async def test_an_organization_that_is_deleted_keeps_no_secret(world: World, provider: Provider) -> None:
    await put(world, issuer=provider.url)
    await put_secret(world)
    assert (await world.ask("DELETE", "/orgs/acme", OWNER, headers={"if-match": "*"})).status_code == 204
    with pytest.raises(NoSuchSecretError):
        await SealedIdps(world.keys).get(ACME)


async def test_changes_name_the_version_that_they_saw(world: World, provider: Provider) -> None:
    await put(world, issuer=provider.url)
    body = {"issuer": provider.url, "client_id": "other"}
    assert (await world.ask("PUT", PATH, OWNER, json=body)).status_code == 428
    assert (await world.ask("PUT", PATH, OWNER, json=body, headers={"if-match": '"7"'})).status_code == 412
    assert (await world.ask("DELETE", PATH, OWNER)).status_code == 428
    assert (await world.ask("DELETE", PATH, OWNER, headers={"if-match": '"1"'})).status_code == 204
    assert (await world.ask("DELETE", PATH, OWNER, headers={"if-match": "*"})).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"issuer": "http://id.example"}, "issuer"),
        ({"issuer": "https://10.0.0.1"}, "issuer"),
        ({"issuer": "https://169.254.169.254"}, "issuer"),
        ({"issuer": "https://id.example", "default_roles": ["owner"]}, "default_roles"),
        ({"issuer": "https://id.example", "default_roles": ["king"]}, "default_roles[0]"),
        ({"issuer": "https://id.example", "group_roles": [{"group": "g"}]}, "group_roles[0].role"),
        ({"issuer": "https://id.example", "version": 9}, "version"),
        ({"issuer": "https://id.example", "org": "globex"}, "org"),
        ({"issuer": "https://id.example", "client_secret": "x"}, "client_secret"),
        ({"issuer": "https://id.example", "only": True}, "break_glass"),
    ],
)
async def test_what_is_wrong_is_said_of_its_field(world: World, body: dict[str, Any], field: str) -> None:
    answer = await put(world, **body)
    assert answer.status_code == 422
    assert field in [one["field"] for one in answer.json()["errors"]], answer.text


async def test_what_it_refers_to_has_to_be_there(world: World) -> None:
    team: dict[str, Any] = {
        "issuer": "https://id.example",
        "groups_claim": "g",
        "group_teams": [{"group": "g", "team": "x"}],
    }
    assert (await put(world, **team)).status_code == 422
    glass: dict[str, Any] = {"issuer": "https://id.example", "break_glass": [world.members[ACME, Role.MEMBER].id]}
    assert (await put(world, **glass)).json()["type"] == "urn:orgate:problem:invalid-reference"
    elsewhere: dict[str, Any] = {**glass, "break_glass": [world.members[GLOBEX, OWNER].id]}
    assert (await put(world, **elsewhere)).status_code == 422


async def test_a_member_is_unlinked(world: World, provider: Provider) -> None:
    await put(world, issuer=provider.url)
    member = world.members[ACME, Role.MEMBER].id
    link = f"{PATH}/links/{member}"
    assert (await world.ask("DELETE", link, OWNER)).status_code == 404
    await world.store.for_org(ACME).idp.link(provider.url, "s-1", member, SETUP)
    assert (await world.ask("DELETE", link, OWNER)).status_code == 204
    assert await world.store.for_org(ACME).idp.linked(provider.url, "s-1") is None
    assert State.ACTIVE is world.members[ACME, Role.MEMBER].state


# -- trying it ----------------------------------------------------------------------------------------------


async def tried(world: World) -> dict[str, Any]:
    answer = await world.ask("POST", PATH + "/test")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def wrong(result: dict[str, Any]) -> list[str]:
    return [f"{step['what']}: {step['detail']}" for step in result["steps"] if step["ok"] is False]


async def test_one_that_works_is_said_to(world: World, provider: Provider) -> None:
    await put(world, issuer=provider.url)
    await put_secret(world)
    result = await tried(world)
    assert (result["ok"], wrong(result)) == (True, [])
    assert result["redirect_uri"].endswith("/oauth/sso/callback/acme")
    assert {step["what"]: step["ok"] for step in result["steps"]} == {
        "discovery document": True,
        "authorization_endpoint": True,
        "token_endpoint": True,
        "response type": True,
        "PKCE": True,
        "signatures": True,
        "keys": True,
        "client credential": True,
    }
    ((_, headers, form),) = [one for one in provider.asked if one[0] == "/token"]
    assert (basic(headers["authorization"]), form["code"]) == ((CLIENT, SECRET), "orgate-idp-test")
    assert (await world.last_entry())["detail"] == {"ok": True}


async def test_there_has_to_be_one(world: World) -> None:
    assert (await world.ask("POST", PATH + "/test")).status_code == 404


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"issuer": "https://other.example"}, "names another issuer"),
        ({"jwks_uri": None}, "none of OpenID"),
        ({"token_endpoint": None}, "names none"),
        ({"response_types_supported": ["id_token"]}, "code is not among"),
        ({"id_token_signing_alg_values_supported": ["HS256"]}, "public key is not among"),
        ({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}, "takes no client secret"),
    ],
)
async def test_what_is_wrong_with_one_is_said_in_words(
    world: World, provider: Provider, metadata: dict[str, Any], said: str
) -> None:
    provider.metadata = metadata
    await put(world, issuer=provider.url)
    await put_secret(world)
    result = await tried(world)
    assert result["ok"] is False
    assert any(said in text for text in wrong(result)), result


@pytest.mark.parametrize(
    ("status", "body", "ok", "said"),
    [
        (401, b"{}", False, "does not accept the gateway's client id and secret"),
        (400, b'{"error": "invalid_client"}', False, "set the secret again"),
        (400, b'{"error": "unauthorized_client"}', False, "does not let this client"),
        (400, b'{"error": "invalid_grant"}', True, "knows the client id and secret"),
        (400, b'{"error": "<script>"}', None, "status 400"),
        (500, b"", None, "status 500"),
    ],
)
async def test_the_credential_is_tried_as_far_as_it_goes(
    world: World, provider: Provider, status: int, body: bytes, ok: bool | None, said: str
) -> None:
    provider.answers["/token"] = (status, body, {})
    await put(world, issuer=provider.url)
    await put_secret(world)
    step = (await tried(world))["steps"][-1]
    assert (step["what"], step["ok"]) == ("client credential", ok)
    assert said in step["detail"]
    assert "script" not in step["detail"]


async def test_a_secret_of_another_provider_is_not_shown_to_the_next(world: World, provider: Provider) -> None:
    await put(world, issuer="https://id.example")
    await put_secret(world)
    moved = await put(world, issuer=provider.url)
    assert moved.json()["secret"] is False
    result = await tried(world)
    assert any("given for another issuer" in text for text in wrong(result))
    assert provider.paths("/token") == 0


async def test_it_is_looked_at_anew_each_time(world: World, provider: Provider) -> None:
    await put(world, issuer=provider.url)
    await tried(world)
    provider.published = [rsa(1), rsa(2)]
    result = await tried(world)
    assert "2 that verify" in str(result["steps"])
