"""openid-client (certified relying party) against the running gateway."""

from __future__ import annotations

import pytest

from tests.integration.oauth.certified.conftest import House
from tests.integration.oauth.certified.library import Library

SEEN = [200, "list"]
ALGORITHMS = ["ES256", "RS256", "PS256", "Ed25519"]


def test_the_metadata_names_what_there_is(openid_client: Library, house: House) -> None:
    found = openid_client.run("metadata", client="orgate-cli")
    assert found["issuer"] == house.gateway.url
    assert set(ALGORITHMS) <= set(found["dpop_signing_alg_values_supported"])
    for name, value in found.items():
        if name.endswith("_endpoint"):
            assert value.startswith(house.gateway.url + "/oauth/")


@pytest.mark.parametrize("push", [False, True])
@pytest.mark.parametrize("client", ["orgate-cli", "acme.app"])
def test_code_with_pkce_refresh_and_revocation(openid_client: Library, client: str, push: bool) -> None:
    assert openid_client.run("code", client=client, push=push) == {
        "kind": "bearer",
        "scope": "inference",
        "expires": pytest.approx(900, abs=30),
        "models": SEEN,
        "rotated": True,
        "renewed": SEEN,
        "revoked": "invalid_grant",
        "twice": "invalid_grant",
    }


@pytest.mark.parametrize(("alg", "push"), [*((alg, False) for alg in ALGORITHMS), ("ES256", True)])
def test_the_same_with_a_key(openid_client: Library, alg: str, push: bool) -> None:
    found = openid_client.run("code", client="acme.app", alg=alg, push=push)
    assert (found["kind"], found["models"], found["renewed"]) == ("dpop", SEEN, SEEN)
    assert (found["bare"], found["other"]) == ("invalid_dpop_proof", "invalid_grant")
    assert (found["revoked"], found["twice"]) == ("invalid_grant", "invalid_grant")


@pytest.mark.parametrize(("alg", "kind"), [(None, "bearer"), ("ES256", "dpop")])
def test_the_device_flow(openid_client: Library, alg: str | None, kind: str) -> None:
    assert openid_client.run("device", client="acme.app", alg=alg) == {"kind": kind, "models": SEEN}


@pytest.mark.parametrize("alg", [None, "ES256"])
@pytest.mark.parametrize("name", ["backend", "posting", "signed"])
def test_client_credentials_introspection_and_revocation(
    openid_client: Library, house: House, name: str, alg: str | None
) -> None:
    key = house.private() if name == "signed" else None
    shown = {"secret": house.secrets.get(name), "post": name == "posting", "jwk": key}
    found = openid_client.run("credentials", client=f"acme.{name}", alg=alg, **shown)
    assert (found["kind"], found["refresh"], found["models"]) == ("dpop" if alg else "bearer", None, SEEN)
    seen = found["seen"]
    assert bool(seen.pop("jkt")) is bool(alg)
    assert seen == {"active": True, "client": f"acme.{name}", "scope": "inference"}
    assert found["after"] is False


@pytest.mark.parametrize(("alg", "kind"), [(None, "bearer"), ("ES256", "dpop")])
def test_a_ci_job_s_token_is_exchanged(openid_client: Library, house: House, alg: str | None, kind: str) -> None:
    tokens = {"token": house.job(), "forged": house.job(key=house.key)}
    assert openid_client.run("exchange", client=house.exchanger, alg=alg, **tokens) == {
        "kind": kind,
        "issued": "urn:ietf:params:oauth:token-type:access_token",
        "models": SEEN,
        "forged": "invalid_grant",
    }
