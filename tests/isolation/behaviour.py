"""What organizations that do the same at the same time, with things named alike, see of each other: nothing.

The matrix asks for another's things; here everybody asks for their own, and a cache, a pool, a stream or a hub
that forgets an organization hands out somebody else's.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any

import httpx

from tests.isolation.credentials import own
from tests.isolation.matrix import Matrix
from tests.isolation.names import SHARED, label, word
from tests.isolation.orgs import Planted, absent
from tests.isolation.table import PUBLIC, Route
from tests.kit.wait import until

COMPLETE = Route(PUBLIC, "/v1/completions", "POST", raw=True, tenancy="token")
LIST = Route(PUBLIC, "/v1/models", "GET", raw=True, tenancy="token")
TAIL_S = 0.6
_COUNT = itertools.count()


def completions(matrix: Matrix) -> None:
    """The same alias everywhere: each organization's own model answers, to its own key, twice in turn."""
    for _ in range(2):
        for org in matrix.world.orgs:
            answer = complete(matrix, org)
            if answer.status_code != 200 or f"zqsaid{org}" not in answer.text:
                matrix.ledger.fault("bytes", f"{COMPLETE} [own member of {org}]", answer.text)
    for came in matrix.world.outside.came:
        if "/v1/" in came.path and (came.path.split("/")[1], came.at) != (word(came.whose), came.whose):
            what = f"was shown a key of {came.whose} on {came.path}"
            matrix.ledger.fault("bytes", f"{COMPLETE} [the upstream of {came.at}]", what)


def complete(matrix: Matrix, org: str, model: str = SHARED) -> httpx.Response:
    credential = own(matrix.world, org, "member")
    return matrix.send(COMPLETE, COMPLETE.path, credential, json={"model": model, "prompt": "x", "max_tokens": 4})


def listings(matrix: Matrix) -> None:
    for org in matrix.world.orgs:
        answer = matrix.send(LIST, LIST.path, own(matrix.world, org, "member"))
        names = sorted(row["id"] for row in answer.json().get("data", ()))
        if names != sorted([SHARED, f"{label(org)}-models"]):
            matrix.ledger.fault("bytes", f"{LIST} [own member of {org}]", answer.text)


def usage(matrix: Matrix) -> None:
    """Who has used what of a limit that is named alike everywhere: the own people, and somebody has."""
    for org, planted in matrix.world.orgs.items():
        for part in ("limits/everybody/usage", "limits-usage"):
            answer = reads(matrix, org, part)
            mine = [item["subject"] for item in answer.json()["items"] if item["limit"] == "everybody"]
            if set(mine) != {planted.people["member"].member}:
                matrix.ledger.fault("bytes", f"{part} of {org}", f"is about {mine}")


def exhaustion(matrix: Matrix) -> None:
    """A limit that one organization has used up, named as everybody's: nobody else is refused."""
    orgs = list(matrix.world.orgs)
    for org in orgs:
        limit = {"scope": "client", "unit": "requests", "amount": 4, "period_s": 86_400}
        matrix.world.orgs[org].post("limits", {"name": "tight", **limit})
    statuses = [complete(matrix, orgs[-1]).status_code for _ in range(6)]
    if statuses[-1] != 429:
        matrix.ledger.fault("gap", f"{COMPLETE} [a limit of {orgs[-1]}]", f"was not reached: {statuses}")
    for org in orgs[:-1]:
        answer = complete(matrix, org)
        if answer.status_code != 200:
            matrix.ledger.fault(
                "bytes", f"{COMPLETE} [own member of {org}]", f"{answer.status_code}: {answer.text}"
            )
    for org in orgs:
        planted = matrix.world.orgs[org]
        planted.owner.admin("DELETE", planted.path("limits/tight"), headers={"if-match": "*"})


def tails(matrix: Matrix) -> None:
    """Whoever waits for the next entry of their log hears of their own and of nothing else."""
    first, second = list(matrix.world.orgs)[:2]
    reader = matrix.world.orgs[first].people["auditor"]
    url = matrix.world.gateway.admin_url + matrix.world.orgs[first].path("audit/entries")
    headers = {"authorization": f"Bearer {reader.admin}"}
    end = _end(matrix.world.orgs[first])
    got: list[httpx.Response] = []

    def listen() -> None:
        query: dict[str, str | int | float] = {
            "after": end,
            "wait_s": TAIL_S,
            "action": "zq.nothing,member.update,team.create",
        }
        got.append(httpx.get(url, params=query, headers=headers, timeout=20, verify=matrix.world.context))

    waiting = threading.Thread(target=listen)
    waiting.start()
    while waiting.is_alive():  # whenever the other has begun to wait, something comes after
        name = f"tail-{next(_COUNT)}"
        matrix.world.orgs[second].post("teams", {"name": name, "title": f"{word(second)} tail"})
        waiting.join(0.1)
    matrix.ledger.requests += 2
    if got[0].status_code != 200 or got[0].json()["items"]:
        matrix.ledger.fault("bytes", f"tail of {first}", got[0].text)


def _end(planted: Planted) -> int:
    page = planted.owner.admin("GET", planted.path("audit/entries"), params={"after": 10**9}).json()
    after, following = 0, -1
    while following != after:
        following = after
        page = planted.owner.admin(
            "GET", planted.path("audit/entries"), params={"after": after, "limit": 1_000}
        ).json()
        after = page["next"]
    return after


def reads(matrix: Matrix, org: str, part: str, **query: Any) -> httpx.Response:
    """What the owner of `org` is told there holds nothing of anybody else's."""
    planted = matrix.world.orgs[org]
    route = next(
        one
        for one in matrix.routes
        if one.path == f"/admin/v1/orgs/{{org}}/{part}"
        or (part.endswith("/usage") and one.path.endswith("/usage"))
    )
    credential = own(matrix.world, org, "owner")
    return matrix.send(route, planted.path(part), credential, params=query)


def logs(matrix: Matrix) -> None:
    """A log, its export and its tail say what happened in their own organization, and each entry is its own."""
    for org in matrix.world.orgs:
        for part in ("audit/log", "audit/export", "audit/entries", "audit/leaves"):
            query = {"limit": 1_000} if part.endswith("entries") else {}
            answer = reads(matrix, org, part, **query)
            if answer.status_code != 200 or (word(org) not in answer.text and not part.endswith("leaves")):
                what = f"{answer.status_code}: has nothing of its own: {answer.text[:200]}"
                matrix.ledger.fault("bytes", f"{part} of {org}", what)


def delivered(matrix: Matrix) -> None:
    """What streams and webhooks bring outside is of the organization that they lead to."""
    world = matrix.world
    for org in world.orgs:
        with contextlib.suppress(AssertionError):
            until(lambda org=org: bool(world.outside.at(org, f"/in/{org}")), "a stream delivers", 8)  # type: ignore[misc]
        world.orgs[org].owner.admin("POST", world.orgs[org].path("webhook/test"))
    for came in world.outside.came:
        if came.path.startswith(("/in/", "/hook/")):
            others = [one for org, planted in world.orgs.items() if org != came.at for one in planted.canaries]
            if came.path.rsplit("/", 1)[1] != came.at or any(canary in came.body for canary in others):
                matrix.ledger.fault("bytes", f"{came.path} of {came.at}", came.body[:300])
    for org in world.orgs:
        if not any(word(org) in body for body in world.outside.at(org, f"/in/{org}")):
            matrix.ledger.fault("gap", f"stream of {org}", "has delivered nothing of its own")
        if not world.outside.at(org, f"/hook/{org}"):
            matrix.ledger.fault("gap", f"webhook of {org}", "has not been called")


def filters(matrix: Matrix) -> None:
    """No filter and no cursor reaches beyond the organization."""
    orgs = list(matrix.world.orgs)
    for org, other in zip(orgs, [*orgs[1:], orgs[0]], strict=True):
        person = matrix.world.orgs[other].people["member"]
        for part, query in (
            ("members", {"email": person.email}),
            ("members", {"after": "mem_"}),
            ("members", {"after": person.member}),
            ("models", {"upstream": f"{label(other)}-upstreams"}),
            ("limits", {"subject": f"{word(other)}-client"}),
            ("audit/entries", {"actor": person.member}),
            ("audit/entries", {"actor": absent(other, person.member)}),
        ):
            answer = reads(matrix, org, part, **query)
            items = answer.json().get("items", ()) if answer.status_code == 200 else ()
            if any(item.get("org", org) != org for item in items) or answer.status_code >= 500:
                matrix.ledger.fault("bytes", f"{part}?{query} of {org}", answer.text[:300])


ALL: Iterable[Callable[[Matrix], None]] = (
    completions,
    listings,
    usage,
    exhaustion,
    tails,
    logs,
    filters,
    delivered,
)
