"""Every operation of the admin API × every id in its path × every kind of credential, over the network.

Acme's own is asked for beside what never existed: status, bytes and headers must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.isolation.place import (
    CANARY,
    KINDS,
    PRICES,
    SCHEDULE,
    UPSTREAM_KEY,
    WEBHOOK,
    Place,
    entries,
    everything,
    shape,
)

STRANGERS = {
    "none": 401,
    "forged": 401,
    "expired": 401,
    "swapped audience": 401,
    "another's member": 404,
    "another's owner": 404,
}
QUERIES = {"proof": {"index": 0}, "consistency": {"old": 1}, "find": {"id": "req_nobody"}}
"""Of operations that cannot be asked without."""
COLLECTIONS = (*KINDS, "members")
NEVER = "zzzz"
"""As long as `acme`: not even a length may differ."""


def operations(place: Place) -> Iterator[tuple[str, str, str]]:
    """(method, path template, kind) of everything that is about one organization, as the server documents it."""
    document = place.gateway.http.get(place.gateway.admin_url + "/admin/schema/openapi.json").json()
    for path, methods in document["paths"].items():
        if "{org}" in path:
            for method in methods:
                under = path.removeprefix("/admin/v1/orgs/{org}").strip("/").split("/")[0]
                under = "members" if "/audit/persons/{key}" in path else under
                yield method.upper(), path, under if under in COLLECTIONS else ""


def request(place: Place, method: str, path: str, kind: str, key: str, real: bool) -> dict[str, Any]:
    """The body or the query that `method` takes there. One about a key of acme's names it also inside."""
    if method not in {"POST", "PUT"}:
        return {"params": QUERIES[path.rsplit("/", 1)[1]]} if path.rsplit("/", 1)[1] in QUERIES else {}
    if path.endswith("/key"):
        return {"json": {"key": "sk-mine"}}
    if path.endswith("/cert"):
        return {"json": {"cert": "-----BEGIN CERTIFICATE-----", "key": "-----BEGIN PRIVATE KEY-----"}}
    if path.endswith("/key/schedule"):
        return {"json": SCHEDULE}
    if path.endswith("/prices"):
        return {"json": PRICES}
    if path.endswith("/secret"):
        return {"json": {"secret": "Bearer mine"}}
    if path.endswith("/webhook"):
        return {"json": WEBHOOK}
    if path.endswith("{org}"):
        return {"json": {"name": "Mine now"}}
    if kind and path.rsplit("/", 1)[1] in {"{key}", kind}:
        body = place.body(kind, key)
        if kind == "models":
            body["upstream"] = place.real("upstreams") if real else place.absent("upstreams")
        return {"json": body}
    return {}


@pytest.mark.parametrize("credential", STRANGERS)
def test_a_stranger_cannot_tell_acme_from_what_never_existed(place: Place, credential: str) -> None:
    before, logged = everything(place), len(entries(place))
    asked = 0
    for method, template, kind in operations(place):
        answers = []
        for org in ("acme", NEVER):
            for real in (True, False) if "{key}" in template else (True,):
                key = (place.real(kind) if real else place.absent(kind)) if kind else ""
                url = place.url(template, org, kind, key)
                more = request(place, method, template, kind, key, real)
                answers.append(place.send(method, url, credential, "admin", **more))
        assert {shape(answer) for answer in answers} == {shape(answers[0])}, (method, template)
        assert answers[0].status_code == STRANGERS[credential], (method, template, answers[0].text)
        assert not any(CANARY in answer.text + str(answer.headers) for answer in answers)
        asked += len(answers)
    assert asked > 100
    assert everything(place) == before
    assert len(entries(place)) == logged, "a stranger wrote into acme's log"


@pytest.mark.parametrize("credential", ["another's owner", "another's member"])
def test_acmes_ids_mean_nothing_in_the_callers_own_organization(place: Place, credential: str) -> None:
    """In the path and in the body: a model cannot lead to acme's upstream, a member cannot be taken over."""
    before = everything(place)
    asked = 0
    for method, template, kind in operations(place):
        if "{key}" not in template and (method != "POST" or kind != "models"):
            continue
        answers = []
        for real in (True, False):
            key = place.real(kind) if real else place.absent(kind)
            url = place.url(template, "globex", kind, key)
            which = place.real if real else place.absent
            names = [key, which("upstreams"), which("members")]
            more = request(place, method, template, kind, key, real)
            answers.append(shape(place.send(method, url, credential, "admin", **more), *names))
        assert answers[0] == answers[1], (method, template)
        assert answers[0][0] in {403, 404, 422}, (method, template, answers[0])
        asked += 1
    assert asked > 20
    assert everything(place) == before


@pytest.mark.parametrize(
    "query",
    [
        ("upstreams", {"base_url": f"https://{CANARY}.example.com"}),
        ("members", {"email": f"{CANARY}-member@acme.test"}),
        ("members", {"after": "mem_"}),
        ("models", {"after": CANARY[:3]}),
        ("models", {"upstream": f"{CANARY}-upstreams"}),
        ("limits", {"subject": f"{CANARY}-client"}),
    ],
)
def test_no_filter_and_no_cursor_reaches_beyond_the_organization(
    place: Place, query: tuple[str, dict[str, str]]
) -> None:
    kind, params = query
    url = f"{place.gateway.admin_url}/admin/v1/orgs/globex/{kind}"
    answer = place.send("GET", url, "another's owner", "admin", params=params)
    assert answer.status_code == 200
    assert CANARY not in answer.text
    assert all(item["org"] == "globex" for item in answer.json()["items"])


def test_the_own_auditor_changes_nothing_and_never_sees_the_key(place: Place) -> None:
    before = everything(place)
    read = refused = 0
    for method, template, kind in operations(place):
        key = place.real(kind) if kind else ""
        url = place.url(template, "acme", kind, key)
        answer = place.send(
            method, url, "own auditor", "admin", **request(place, method, template, kind, key, True)
        )
        assert answer.status_code == (200 if method == "GET" else 403), (method, template, answer.text)
        assert UPSTREAM_KEY not in answer.text
        read, refused = read + (method == "GET"), refused + (method != "GET")
    assert min(read, refused) > 10
    assert everything(place) == before


def test_roles_are_not_to_be_had_by_asking(place: Place) -> None:
    """Mass assignment: no field that the server sets, and no role beyond one's own."""
    url = f"{place.gateway.admin_url}/admin/v1/orgs/globex/members"
    base = {"email": "x@globex.test", "name": "x", "roles": ["member"]}
    for more in (
        {"org": "acme"},
        {"roles": ["operator"]},
        {"roles": ["owner", "owner"]},
        {"roles": ["OWNER"]},
        {"id": place.member},
        {"not_before": 1},
        {"version": 7},
        {"state": "suspended"},
    ):
        assert place.send("POST", url, "another's owner", "admin", json={**base, **more}).status_code == 422, more
        assert place.send("POST", url, "another's member", "admin", json={**base, **more}).status_code == 403, more
    me = place.send("GET", place.gateway.admin_url + "/admin/v1/me", "another's member", "admin").json()
    mine = f"{url}/{me['id']}"
    body = {**base, "email": me["email"], "roles": ["owner"]}
    assert place.send("PUT", mine, "another's member", "admin", json=body).status_code == 403
    hosts = {"name": "Globex", "hosts": ["acme.gateway.example"]}
    org = f"{place.gateway.admin_url}/admin/v1/orgs/globex"
    assert place.send("PUT", org, "another's owner", "admin", json=hosts).status_code == 403
