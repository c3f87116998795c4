"""The endpoints for programs: answers, headers, and every mistake by its RFC code."""

from __future__ import annotations

from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from gateway.authn.verify import Authenticator
from gateway.oauth.clients import GrantType
from tenants.models import Org, Team
from tenants.snapshot import Snapshot, TenantRecord
from tenants.store import Actor
from tests.unit.oauth.conftest import ACME, ADA, ISSUER, Bench

Http = AsyncTestClient[Litestar]
DEVICE = GrantType.DEVICE_CODE.value
FORM = "application/x-www-form-urlencoded"


async def test_device_flow_refresh_and_revocation(client: Http, bench: Bench) -> None:
    device = (await client.post("/oauth/device_authorization", data={"client_id": "orgate-cli"})).json()
    poll = {"grant_type": DEVICE, "device_code": device["device_code"], "client_id": "orgate-cli"}
    pending = await client.post("/oauth/token", data=poll)
    assert (pending.status_code, pending.json()["error"]) == (400, "authorization_pending")
    hasty = await client.post("/oauth/token", data=poll)
    assert (hasty.status_code, hasty.json()["error"]) == (400, "slow_down")
    await bench.decide(device["user_code"])
    answer = await client.post("/oauth/token", data=poll)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    tokens = answer.json()
    assert set(tokens) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}

    jwks = (await client.get("/.well-known/jwks.json")).text
    authn = Authenticator(ISSUER, f"{ISSUER}/v1", lambda: bench.now)
    snapshot = Snapshot(1, [TenantRecord(Org(id=ACME, name="Acme"))], (), jwks)
    principal = authn.authenticate(f"Bearer {tokens['access_token']}".encode(), "h", snapshot)
    assert (principal.member, principal.teams) == (ADA, ())

    teams = bench.control.for_org(ACME).teams
    await teams.create(Team(ACME, "core"), Actor(ACME, ADA))
    await teams.add("core", ADA, Actor(ACME, ADA))
    again = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": "orgate-cli"}
    renewed = (await client.post("/oauth/token", data={**again, "resource": f"{ISSUER}/admin"})).json()
    assert renewed["scope"] == "admin"
    told = Authenticator(ISSUER, f"{ISSUER}/admin", lambda: bench.now)
    assert told.authenticate(f"Bearer {renewed['access_token']}".encode(), "h", snapshot).teams == ("core",)
    gone = await client.post("/oauth/revoke", data={"token": renewed["refresh_token"], "client_id": "orgate-cli"})
    assert (gone.status_code, gone.content) == (200, b"")
    dead = await client.post("/oauth/token", data={**again, "refresh_token": renewed["refresh_token"]})
    assert (dead.status_code, dead.json()["error"]) == (400, "invalid_grant")


async def test_metadata_and_keys_are_public(client: Http) -> None:
    metadata = await client.get("/.well-known/oauth-authorization-server")
    assert metadata.headers["content-type"] == "application/json"
    assert metadata.json()["issuer"] == ISSUER
    keys = await client.get("/.well-known/jwks.json")
    assert keys.headers["content-type"] == "application/jwk-set+json"
    assert {key["kty"] for key in keys.json()["keys"]} == {"RSA"}
    assert all("d" not in key for key in keys.json()["keys"])


MALFORMED = (
    (FORM, b"", 401, "invalid_client"),
    (FORM, b"client_id=", 401, "invalid_client"),
    (FORM, b"client_id=nobody", 401, "invalid_client"),
    (FORM, b"client_id=orgate-cli&client_secret=x", 401, "invalid_client"),
    (FORM, b"client_id=orgate-cli&client_id=orgate-cli", 400, "invalid_request"),
    (FORM, b"client_id=orgate-cli&token=a&token=", 400, "invalid_request"),
    (FORM, b"client_id=%ff", 400, "invalid_request"),
    (FORM, b"client_id=\xff", 400, "invalid_request"),
    (FORM, b"&".join(b"p%d=1" % n for n in range(40)), 400, "invalid_request"),
    (FORM, b"client_id=" + b"x" * 20_000, 413, "invalid_request"),
    (FORM + "; charset=latin-1", b"client_id=orgate-cli", 400, "invalid_request"),
    ("application/json", b'{"client_id": "orgate-cli"}', 400, "invalid_request"),
    ("multipart/form-data; boundary=x", b"--x--", 400, "invalid_request"),
    ("", b"client_id=orgate-cli", 400, "invalid_request"),
)


@pytest.mark.parametrize(
    "path", ["/oauth/token", "/oauth/revoke", "/oauth/device_authorization", "/oauth/par", "/oauth/introspect"]
)
async def test_a_malformed_request_is_answered_by_its_code(client: Http, path: str) -> None:
    for kind, body, status, error in MALFORMED:
        answer = await client.post(path, content=body, headers={"content-type": kind} if kind else {})
        assert (answer.status_code, answer.json()["error"]) == (status, error), body[:60]
        assert answer.headers["cache-control"] == "no-store"
        assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({}, 400, "invalid_request"),
        ({"grant_type": "password", "username": "a", "password": "b"}, 400, "unsupported_grant_type"),
        ({"grant_type": "authorization_code", "code": "x"}, 400, "invalid_request"),
        ({"grant_type": "authorization_code", "code": "x", "code_verifier": "v" * 43}, 400, "invalid_grant"),
        ({"grant_type": "client_credentials"}, 400, "unauthorized_client"),
        ({"grant_type": DEVICE}, 400, "invalid_request"),
        ({"grant_type": DEVICE, "device_code": "\x00" * 9}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "ogr_" + "é" * 86}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "x", "resource": "https://x"}, 400, "invalid_target"),
        ({"grant_type": "refresh_token", "refresh_token": "x", "scope": "openid"}, 400, "invalid_scope"),
    ],
)
async def test_a_wrong_grant_is_answered_by_its_code(
    client: Http, form: dict[str, str], status: int, error: str
) -> None:
    answer = await client.post("/oauth/token", data={"client_id": "orgate-cli", **form})
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["error_description"]


async def test_a_client_that_authenticates_is_refused(client: Http) -> None:
    answer = await client.post("/oauth/token", data={"client_id": "orgate-cli"}, auth=("orgate-cli", "secret"))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("name", ["register", "userinfo", "end_session"])
async def test_other_flows_do_not_exist(client: Http, name: str) -> None:
    assert (await client.get(f"/oauth/{name}")).status_code == 404
    assert (await client.post(f"/oauth/{name}", data={})).status_code == 404


async def test_a_store_that_is_down_is_503_and_names_no_file(client: Http, bench: Bench, tmp_path: Path) -> None:
    await bench.control.close()
    (tmp_path / "control.db").write_bytes(b"not a database" * 1000)
    answer = await client.post("/oauth/device_authorization", data={"client_id": "orgate-cli"})
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert answer.headers["retry-after"] == "2"
    assert "control.db" not in answer.text


async def test_what_nobody_expected_is_logged_by_its_place_and_said_without_values(
    client: Http, bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("PLANTED")

    monkeypatch.setattr(bench.service, "token", broken)
    form = {"client_id": "orgate-cli", "grant_type": "refresh_token", "refresh_token": "PLANTED"}
    answer = await client.post("/oauth/token", data=form, headers={"x-request-id": "req_12345678"})
    assert (answer.status_code, answer.json()["error"]) == (500, "server_error")
    assert "request req_12345678 to /oauth/token failed: KeyError at test_endpoints.py" in caplog.text
    assert "PLANTED" not in answer.text + caplog.text
