"""What the matrix cannot ask by itself: fields of one's own that would lead into another organization."""

from __future__ import annotations

from tests.isolation.matrix import Matrix
from tests.isolation.names import NAMES

OTHER, OWN = NAMES[:2]


def test_roles_are_not_to_be_had_by_asking(matrix: Matrix) -> None:
    """Mass assignment: no field that the server sets, and no role beyond one's own."""
    world = matrix.world
    planted, pawn = world.orgs[OWN], world.orgs[OWN].people["member"]
    url = world.gateway.admin_url + planted.path("members")
    by_owner = {"authorization": f"Bearer {planted.owner.admin_token}", "if-match": "*"}
    by_pawn = {"authorization": f"Bearer {pawn.admin}", "if-match": "*"}
    base = {"email": f"x@{OWN}.test", "name": "x", "roles": ["member"]}
    for more in (
        {"org": OTHER},
        {"id": world.orgs[OTHER].people["member"].member},
        {"not_before": 1},
        {"version": 7},
        {"state": "suspended"},
    ):
        asked = {**base, **more}
        assert world.gateway.http.post(url, json=asked, headers=by_owner).status_code == 422, more
        assert world.gateway.http.post(url, json=asked, headers=by_pawn).status_code == 403, more
    body = {**base, "email": pawn.email, "roles": ["owner"]}
    assert world.gateway.http.put(f"{url}/{pawn.member}", json=body, headers=by_pawn).status_code == 403


def test_a_host_name_is_nobodys_to_take(matrix: Matrix) -> None:
    world = matrix.world
    planted = world.orgs[OWN]
    body = {"name": "Mine", "hosts": [f"{OTHER}.gateway.example"]}
    planted.owner.admin("PUT", f"/admin/v1/orgs/{OWN}", json=body, headers={"if-match": "*"}, expect=403)


def test_what_a_body_names_is_looked_for_at_home(matrix: Matrix) -> None:
    """A model cannot lead to another's upstream, a static key or a trust not to another's service account."""
    world = matrix.world
    mine, other = world.orgs[OWN], world.orgs[OTHER]
    model = {"name": "borrowed", "model": "m", "upstream": other.ids["upstreams"]}
    mine.owner.admin("POST", mine.path("models"), json=model, expect=422)
    key = {"name": "borrowed", "subject": other.people["member"].member}
    mine.owner.admin("POST", mine.path("personal-tokens"), json=key, expect=422)
    trust = {"name": "borrowed", "service": other.ids["services"], "audience": "x", "claims": ["sub=x"]}
    refused = mine.owner.admin(
        "POST", mine.path("trusts"), json={**trust, "issuer": "https://x.example.com"}, expect=422
    )
    assert other.ids["services"] not in refused.text.replace(f"'{other.ids['services']}'", "")


def test_metrics_are_for_operators_and_this_machine(matrix: Matrix) -> None:
    world = matrix.world
    headers = {
        "x-forwarded-for": "203.0.113.9",
        "authorization": f"Bearer {world.orgs[OWN].owner.admin_token}",
    }
    assert world.gateway.http.get(f"{world.gateway.admin_url}/metrics", headers=headers).status_code == 403
    assert world.gateway.http.get(f"{world.gateway.url}/metrics", headers=headers).status_code == 404
