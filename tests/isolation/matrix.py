"""Every operation × every id slot × every kind of credential, over the network; and what the answers may not tell.

What belongs to another organization is asked for beside what never existed: status, bytes and headers must be the
same. Nothing here knows an operation by name: routes come from the running processes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from policies.facts import Role
from tenants.roles import ALLOWED, Operation
from tests.isolation.credentials import Credential, kinds, own
from tests.isolation.names import NEVER, SHARED
from tests.isolation.orgs import World, fill
from tests.isolation.table import ADMIN, BUS, PUBLIC, Route

Shape = tuple[int, str, tuple[tuple[str, str], ...]]
_VOLATILE = {"date", "x-request-id", "connection", "retry-after", "x-orgate-overhead-ms"}
"""`connection: close`: HTTP/1.1 ends after a refusal that did not wait for the body, if that was not there yet."""
_RANDOM = re.compile(
    r'"request_id":"[^"]*"|name="(?:csrf|csrf_token|ticket|state)" value="[^"]*"|(?<=orgate_csrf=)[^;]+'
    r"|(?<=orgate_signin=)[^;]+|(?<=[?&]state=)[^&]+|(?<=code_challenge=)[^&]+"
    r'|(?<="person":")per_[A-Za-z0-9_-]+'
    r'|"(?:device_code|user_code)":"[^"]*"|(?<=user_code=)[A-Z0-9-]+|(?<=request_uri:)[A-Za-z0-9_-]+'
)
"""What is made anew for every answer."""

ADDRESSES = 200

QUERIES: Mapping[str, dict[str, Any]] = {
    "proof": {"index": 0},
    "consistency": {"old": 1},
    "find": {"id": "req_nobody"},
    "actors": {"actor": "nobody"},
}
"""Of operations that cannot be asked without."""


@dataclass(frozen=True)
class Fault:
    """`kind`: `oracle` (two answers differ), `bytes` (somebody else's canary), `status`, `gap` (not tested)."""

    kind: str
    cell: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.cell}: {self.what}"


@dataclass
class Ledger:
    """What was asked, and what was wrong."""

    requests: int = 0
    tested: set[Route] = field(default_factory=set)
    credentials: set[str] = field(default_factory=set)
    canary_bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    def fault(self, kind: str, cell: object, what: str) -> None:
        self.faults.append(Fault(kind, str(cell), what[:600]))


def shape(answer: httpx.Response, *names: str) -> Shape:
    """What of an answer may not differ; `names` are those that the request itself gave, echoed or not."""

    def plain(text: str) -> str:
        for place, name in enumerate(names):
            text = text.replace(name, f"<{place}>")
        return _RANDOM.sub("", text)

    kept = ((name, plain(value)) for name, value in answer.headers.items() if name not in _VOLATILE)
    return answer.status_code, plain(answer.text), tuple(sorted(kept))


class Matrix:
    """Asks, and keeps the ledger. `only`: which routes, all of them without."""

    def __init__(self, world: World, routes: Iterable[Route], only: Callable[[Route], bool] | None = None) -> None:
        self.world = world
        self.routes = [route for route in routes if only is None or only(route)]
        self.ledger = Ledger()
        self._turn = 0
        self._clients: dict[int, httpx.Client] = {}
        self._bodies: dict[tuple[str, str], Any] = {}
        self._canaries = {
            org: [one for other, planted in world.orgs.items() if other != org for one in planted.canaries]
            for org in (*world.orgs, "")
        }

    # -- asking --------------------------------------------------------------------------------------------

    def send(
        self, route: Route, path: str, credential: Credential, *, names: Iterable[str] = (), **more: Any
    ) -> httpx.Response:
        """One request. Looks for canaries that are nobody's business whoever asks, and for failures."""
        world, listener = self.world, route.listener
        url = (world.gateway.url if listener == PUBLIC else world.gateway.admin_url) + path
        given = more.pop("headers", {})
        headers = {"if-match": "*", **credential.on(listener), **given} if listener == ADMIN else {
            **credential.on(listener), **given
        }  # fmt: skip
        http = self._far() if route.opened_by == "scim" else world.gateway.http
        answer = http.request(route.method, url, headers=headers, **more)
        self.ledger.requests += 1
        self.ledger.tested.add(route)
        self.ledger.credentials.add(credential.name)
        self.ledger.statuses[answer.status_code] = self.ledger.statuses.get(answer.status_code, 0) + 1
        cell = f"{route} [{credential.name} of {credential.org or 'nobody'}]"
        said = f"{answer.text}\n{answer.headers}"
        for name in sorted(names, key=len, reverse=True):
            said = said.replace(name, "")
        for canary in self._canaries[credential.org]:
            if canary in said:
                self.ledger.canary_bytes += len(canary) * said.count(canary)
                at = said.index(canary)
                self.ledger.fault("bytes", cell, f"{answer.status_code} …{said[max(0, at - 120) : at + 60]}…")
        if answer.status_code >= 500 and answer.status_code not in {501, 503}:
            self.ledger.fault("status", cell, f"{answer.status_code} {answer.text}")
        return answer

    def _far(self) -> httpx.Client:
        """SCIM counts wrong tokens by address: one that has not been told to wait yet."""
        self._turn += 1
        number = self._turn % ADDRESSES + 2
        if number not in self._clients:
            address, limits = f"127.0.1.{number}", httpx.Limits(max_keepalive_connections=0)
            transport = httpx.HTTPTransport(verify=self.world.context, local_address=address, limits=limits)
            self._clients[number] = httpx.Client(transport=transport, timeout=20)
        return self._clients[number]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    # -- another organization's ----------------------------------------------------------------------------

    def strangers(self, pairs: Iterable[tuple[str, str]], every: int = 1, first: int = 0) -> None:
        """`pairs`: (attacker, victim). Each route meets every `every`-th kind of credential, and in as many pairs
        all of them; `first`: how many pairs there were before."""
        for number, (attacker, victim) in enumerate(pairs, first):
            credentials = kinds(self.world, attacker, victim)
            for place, route in enumerate(self.routes):
                if route.listener != ADMIN:
                    continue
                for turn, credential in enumerate(credentials):
                    if (turn + place + number) % every == 0 or (
                        every > 1 and credential.name == "another's owner"
                    ):
                        self._stranger(route, credential, attacker, victim)

    def _stranger(self, route: Route, credential: Credential, attacker: str, victim: str) -> None:
        try:
            real, never = self.world.slots(route, victim), self.world.slots(route, victim, never=True)
        except KeyError as unknown:
            self.ledger.fault("gap", route, f"nobody planted {unknown}: add it to orgs.PLANTS")
            return
        tries = [(victim, real), (NEVER, never)] if route.org_in_path else [("", real)]
        if real:
            tries.append((victim, never))
        answers = [self._try(route, org, slots, credential, attacker) for org, slots in tries]
        self._judge(route, credential, [answer for answer, _ in answers], [one for _, one in answers])
        self._shut(route, credential, answers[0][0], foreign=route.org_in_path or bool(real))
        if real and credential.role and route.org_in_path:
            twins = [self._try(route, attacker, slots, credential, attacker) for slots in (real, never)]
            self._judge(route, credential, [answer for answer, _ in twins], [one for _, one in twins], "own org")

    def _shut(
        self, route: Route, credential: Credential, answer: httpx.Response, *, foreign: bool = False
    ) -> None:
        """Nobody is let into another's, and who is nobody into nothing: 401, on a page the way to sign in."""
        if route.public or route.operation == Operation.METRICS_READ:  # scrapers on this machine come without
            return
        status, sent_away = answer.status_code, "/sign-in" in str(answer.headers.get("location", ""))
        known = route.opened_by in credential.opens
        if (not known and status != 401 and not sent_away) or (foreign and status < 400 and not sent_away):
            self.ledger.fault("status", f"{route} [{credential.name}]", f"{status}: {answer.text[:200]}")

    def _try(
        self, route: Route, org: str, slots: Mapping[str, str], credential: Credential, attacker: str
    ) -> tuple[httpx.Response, Shape]:
        more = self._more(route, attacker, slots)
        names = [*slots.values(), *([] if org in {attacker, ""} else [org])]
        answer = self.send(route, fill(route, org, slots), credential, names=names, **more)
        return answer, shape(answer, *names)

    def _judge(
        self,
        route: Route,
        credential: Credential,
        answers: list[httpx.Response],
        shapes: list[Shape],
        where: str = "",
    ) -> None:
        for answer, one in zip(answers[1:], shapes[1:], strict=True):
            if one != shapes[0]:
                cell = f"{route} [{credential.name}] {where}".rstrip()
                self.ledger.fault("oracle", cell, _difference(shapes[0], one, answers[0], answer))

    # -- the own organization ------------------------------------------------------------------------------

    def residents(
        self, orgs: Iterable[str], roles: tuple[str, ...] = ("member", "auditor"), every: int = 1
    ) -> None:
        """What people of the organization itself see of it is theirs and nobody else's, whatever is named alike
        elsewhere; and what their role does not allow is refused, whether the thing exists or not."""
        for org in orgs:
            for place, route in enumerate(self.routes):
                if route.listener != ADMIN or not route.org_in_path or route.operation not in list(Operation):
                    continue
                if route.opened_by == "scim":
                    continue
                for turn, role in enumerate((*roles, *(["owner"] if route.method == "GET" else []))):
                    if (place + turn) % every == 0:
                        self._resident(route, org, role)

    def _resident(self, route: Route, org: str, role: str) -> None:
        try:
            slots = [self.world.slots(route, org, alike=True), self.world.slots(route, org)]
        except KeyError:
            return  # told by `_stranger`
        credential = own(self.world, org, role)
        allowed = Role(role) in ALLOWED[Operation(route.operation)]
        if allowed and route.method != "GET":
            return  # it would be done
        for one in slots if slots[0] != slots[1] else slots[:1]:
            answer = self.send(route, fill(route, org, one), credential, **self._more(route, org, one))
            if route.path.startswith("/orgs/"):
                continue  # pages: who comes without a session signs in
            status = answer.status_code
            if (not allowed and status != 403) or (allowed and status >= 400 and status not in {404, 409}):
                what = f"{status} for a {role} who may{'' if allowed else ' not'}: {answer.text}"
                self.ledger.fault("status", f"{route} [own {role}]", what)
            if allowed and status == 404 and one is slots[0] and not _may_be_missing(route):
                self.ledger.fault("gap", route, f"of {org} is not there: {answer.text}")

    # -- what a request carries ----------------------------------------------------------------------------

    def _more(self, route: Route, org: str, slots: Mapping[str, str]) -> dict[str, Any]:
        """The query, or a body that would be taken: what `org` itself has under that path, renamed."""
        last = route.path.rsplit("/", 1)[1]
        if route.method in {"GET", "HEAD", "DELETE", "OPTIONS"}:
            return {"params": QUERIES[last]} if last in QUERIES else {}
        key = (route.path, org)
        if key not in self._bodies:
            self._bodies[key] = self._body(route, org)
        body = self._bodies[key]
        if isinstance(body, dict) and "name" in body and slots and last.startswith("{"):
            body = {**body, "name": next(iter(slots.values()))}
        return {"json": body} if body is not None else {}

    def _body(self, route: Route, org: str) -> Any:
        for end, body in BODIES.items():
            if route.path.endswith(end):
                return body
        if not route.org_in_path or org not in self.world.orgs:
            return {}
        planted = self.world.orgs[org]
        base, _, last = route.path.rpartition("/")
        if last.startswith("{"):
            under = base.rsplit("/", 1)[1]
            thing = f"{base}/{planted.alike.get(under, planted.ids.get(under, ''))}"
        else:
            thing = f"{route.path}/{planted.alike.get(last, planted.ids.get(last, ''))}"
        answer = planted.owner.gateway.http.get(
            self.world.gateway.admin_url + thing.replace("{org}", org),
            headers={"authorization": f"Bearer {planted.owner.admin_token}"},
        )
        if answer.status_code != 200 or not isinstance(found := answer.json(), dict):
            return {}
        server = {"org", "id", "version", "created_at", "not_before", "state"}
        return {
            name: value
            for name, value in found.items()
            if name not in server and not name.endswith("_version") and not name.endswith("_at")
        }

    # -- all in all ----------------------------------------------------------------------------------------

    def covered(self) -> None:
        """A route that no cell has met, or that says nothing of whose data it is about, is a fault."""
        for route in self.routes:
            if not route.annotated:
                self.ledger.fault("gap", route, "has no tenancy annotation")
            if route not in self.ledger.tested:
                self.ledger.fault("gap", route, "was not tested")

    def hidden(self) -> None:
        """What the bus serves is not there for anybody on the listeners, and reaches it by the relay alone."""
        reachable = {(route.path, route.method) for route in self.routes if route.listener == PUBLIC}
        nobody = Credential("none", {})
        for route in self.routes:
            if route.listener != BUS:
                continue
            path = fill(route, "", {})
            relayed = (route.path, route.method) in reachable
            for listener in (ADMIN, *(() if relayed else (PUBLIC,))):
                there = Route(listener, route.path, route.method)
                answer = self.send(there, path, nobody)
                self.ledger.tested.discard(there)
                if answer.status_code not in {404, 405}:
                    self.ledger.fault("status", route, f"{answer.status_code} on the {listener} listener")
            self.ledger.tested.add(route)


BODIES: Mapping[str, Any] = {
    "/key": {"key": "sk-mine"},
    "/cert": {"cert": "-----BEGIN CERTIFICATE-----", "key": "-----BEGIN PRIVATE KEY-----"},
    "/key/schedule": {"every_s": 86_400, "command": "/usr/bin/true"},
    "/secret": {"secret": "Bearer mine"},
    "/prices": {"prices": []},
    "/webhook": {"url": "https://mine.example.com/in"},
    "/hold": {"reason": "mine"},
    "/members": {"email": "somebody@mine.test", "name": "Somebody", "roles": ["member"]},
    "/members/{key}": {"email": "somebody@mine.test", "name": "Somebody", "roles": ["member"]},
    "/orgs/{org}": {"name": "Mine now"},
    "/orgs": {"id": "mine", "name": "Mine"},
    "/limits-simulation": {"name": SHARED, "scope": "org", "unit": "requests", "amount": 1},
}
"""Where another's own answer is not the body that a path takes."""


def _may_be_missing(route: Route) -> bool:
    return route.path.endswith(("/cert", "/find", "/tile/{path}")) or route.operation.startswith("audit")


def _difference(left: Shape, right: Shape, *answers: httpx.Response) -> str:
    if left[0] != right[0]:
        return f"{left[0]} or {right[0]}: {answers[0].text[:200]} / {answers[1].text[:200]}"
    if left[1] != right[1]:
        at = next((i for i, (a, b) in enumerate(zip(left[1], right[1], strict=False)) if a != b), 0)
        shown = (one[1][max(0, at - 40) : at + 80] for one in (left, right))
        return f"bodies differ at {at}: " + " / ".join(map(repr, shown))
    return f"headers differ: {sorted(set(left[2]) ^ set(right[2]))}"


def iterate_pairs(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every organization attacks the one after it, and every other in turn."""
    ring = list(names)
    for step in range(1, len(ring)):
        for place, attacker in enumerate(ring):
            yield attacker, ring[(place + step) % len(ring)]
