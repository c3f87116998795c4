"""Trust in outside tokens over the admin API, and tokens that are bound to keys there."""

from __future__ import annotations

from typing import Any

import pytest

from policies.facts import Role
from tenants.models import Dpop
from tests.integration.admin.world import ACME, AUDIENCE, World
from tests.kit.dpop import ProofKey
from tests.unit.authn import tokens

CLAIMS = ["repository=acme/app", "ref=refs/heads/*"]
GITHUB = "https://token.actions.githubusercontent.com"


async def _service(world: World) -> str:
    made = await world.ask("POST", "/orgs/acme/services", json={"name": "build"})
    assert made.status_code == 201
    return str(made.json()["id"])


def _trust(service: str, **changes: Any) -> dict[str, Any]:
    return {"name": "main", "service": service, "issuer": GITHUB, "audience": "gw", "claims": CLAIMS, **changes}


async def test_a_trust_lives_and_goes_with_its_account(world: World) -> None:
    service = await _service(world)
    made = await world.ask("POST", "/orgs/acme/trusts", Role.ADMIN, json=_trust(service))
    assert (made.status_code, made.headers["location"]) == (201, "/admin/v1/orgs/acme/trusts/main")
    assert made.json().items() >= {**_trust(service), "planes": ["v1"], "org": "acme", "version": 1}.items()
    entry = await world.last_entry()
    assert (entry["action"], entry["detail"]["claims"]) == ("trust.create", CLAIMS)
    found = await world.ask("GET", "/orgs/acme/trusts", Role.AUDITOR, params={"service": service})
    assert [item["name"] for item in found.json()["items"]] == ["main"]
    changed = await world.ask(
        "PUT", "/orgs/acme/trusts/main", json=_trust(service, audience="other"), headers={"if-match": '"1"'}
    )
    assert (changed.status_code, changed.json()["audience"]) == (200, "other")
    gone = await world.ask("DELETE", f"/orgs/acme/services/{service}", headers={"if-match": '"1"'})
    assert gone.status_code == 204
    assert (await world.ask("GET", "/orgs/acme/trusts/main")).status_code == 404


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"claims": ["ref=refs/heads/main"]}, "whose the job is"),
        ({"claims": []}, "which is meant"),
        ({"claims": ["sub=repo:*"], "issuer": "http://ci.example"}, "https"),
        ({"service": "svc_none"}, "no service account"),
        ({"claims": ["sub=re*"]}, "whole part"),
    ],
)
async def test_a_trust_that_would_let_in_strangers_is_refused(
    world: World, changes: dict[str, Any], says: str
) -> None:
    body = _trust(await _service(world)) | changes
    answer = await world.ask("POST", "/orgs/acme/trusts", json=body)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


async def test_members_may_not_read_and_auditors_may_not_write(world: World) -> None:
    service = await _service(world)
    assert (await world.ask("GET", "/orgs/acme/trusts", Role.MEMBER)).status_code == 403
    assert (await world.ask("POST", "/orgs/acme/trusts", Role.AUDITOR, json=_trust(service))).status_code == 403


# -- DPoP ---------------------------------------------------------------------------------------------------

KEY = ProofKey.make()
BASE = tokens.ISSUER


def _token(world: World, **changes: Any) -> str:
    member = world.members[ACME, Role.OWNER]
    return tokens.token(sub=member.id, aud=AUDIENCE, roles=["owner"], scope="admin", **changes)


async def _ask(world: World, method: str, path: str, token: str, *proofs: str, **more: Any) -> Any:
    fields = [("authorization", f"DPoP {token}"), *(("dpop", proof) for proof in proofs), ("if-match", "*")]
    return await world.client.request(method, f"/admin/v1{path}", headers=fields, **more)


async def test_the_admin_listener_wants_a_proof_with_a_bound_token(world: World) -> None:
    token = _token(world, cnf={"jkt": KEY.jkt})

    def proof(method: str = "GET", path: str = "/orgs/acme") -> str:
        return KEY.proof(method, f"{BASE}/admin/v1{path}", world.clock.now(), token=token)

    with_query = await _ask(world, "GET", "/orgs/acme?x=1", token, proof())  # which no proof is about
    assert with_query.status_code == 200
    used = proof()
    assert (await _ask(world, "GET", "/orgs/acme", token, used)).status_code == 200
    for proofs in ((used,), (), ("x",), (proof("PUT"),), (proof(path="/me"),), (proof(), proof())):
        answer = await _ask(world, "GET", "/orgs/acme", token, *proofs)
        assert answer.status_code == 401
        assert answer.json()["type"] == "urn:orgate:problem:invalid-dpop-proof"
        assert answer.headers["www-authenticate"] == (
            'DPoP error="invalid_dpop_proof", algs="ES256 RS256 PS256 EdDSA Ed25519"'
        )
    stolen = await world.client.get("/admin/v1/orgs/acme", headers={"authorization": f"Bearer {token}"})
    assert stolen.status_code == 401
    assert stolen.headers["www-authenticate"].startswith('DPoP error="invalid_token", algs=')


async def test_nobody_locks_themselves_out(world: World) -> None:
    body = {"name": "Acme", "dpop": "required"}
    answer = await world.ask("PUT", "/orgs/acme", json=body, headers={"if-match": "*"})
    assert answer.status_code == 422
    assert "login --dpop" in answer.json()["detail"]
    token = _token(world, cnf={"jkt": KEY.jkt})
    proof = KEY.proof("PUT", f"{BASE}/admin/v1/orgs/acme", world.clock.now(), token=token)
    assert (await _ask(world, "PUT", "/orgs/acme", token, proof, json=body)).status_code == 200
    refused = await world.ask("GET", "/orgs/acme")
    assert refused.status_code == 401
    assert "DPoP" in refused.json()["detail"]
    assert (await world.store.orgs.get(ACME)).dpop is Dpop.REQUIRED
