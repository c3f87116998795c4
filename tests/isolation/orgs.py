"""Organizations on one running gateway, each with a canary of its own in every field that holds text.

Every organization has two sets of things. One is named alike everywhere (`shared`): whoever looks up a name and
forgets the organization finds another's. The other is named after its organization, and has a twin of the same
length that never existed: an answer must not tell the two apart.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.oauth.signing import SigningKeys
from gateway.pki import make_ca
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.sealed import SealedFile
from gateway.settings import load
from policies.facts import Role
from tests.isolation import identities
from tests.isolation.model import Outside
from tests.isolation.names import NAMES, NEVER, SHARED, label, secret, word
from tests.isolation.table import Route
from tests.kit.client_certs import issue, texts
from tests.kit.gateway import PASSWORD, RunningGateway, Session
from tests.kit.redis import RedisServer

MINT = "/usr/bin/true"
TILES = ("0/000.p/1", "entries/000.p/1")
"""Paths of tiles that every log with an entry has, once a checkpoint was signed."""
CONSTANT = {
    "web": "web.css",
    "verifier": "web.css",
    "schema": "openapi.json",
    "Schemas": "User",
    "ResourceTypes": "User",
}
"""What stands before a slot that is no id of an organization's thing, and what goes there."""

ROLES = tuple(role for role in Role if role is not Role.OPERATOR)
_FIELD = re.compile(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"')
_LETTER, _DIGIT = re.compile("[A-Za-z]"), re.compile("[0-9]")


@dataclass(frozen=True)
class Person:
    """Somebody with real tokens of the server's own making, without the seconds that a sign-in takes."""

    org: str
    member: str
    role: str
    email: str
    admin: str
    data: str


@dataclass
class Planted:
    """`ids`: what the path calls it → the id of one that only this organization has."""

    id: str
    owner: Session
    member: str
    """The owner's id."""
    email: str
    people: dict[str, Person] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    alike: dict[str, str] = field(default_factory=dict)
    """The same for those whose name every organization gives."""
    canaries: list[str] = field(default_factory=list)
    credentials: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    """Kinds of credential beside people's tokens: name → listener → header fields."""

    def path(self, part: str, *more: str) -> str:
        return "/".join([f"/admin/v1/orgs/{self.id}/{part}", *more])

    def authority(self) -> str:
        """A CA's certificate in PEM, a line of which is a canary."""
        pem = make_ca(f"{self.id} CA").certificate_pem().decode()
        self.canaries.append(pem.splitlines()[5])
        return pem

    def put(self, part: str, body: Any) -> Any:
        return self.owner.admin("PUT", self.path(part), json=body, headers={"if-match": "*"})

    def post(self, part: str, body: Any) -> Any:
        return self.owner.admin("POST", self.path(part), json=body).json()


def absent(org: str, value: str) -> str:
    """The twin of an id of `org`'s: as long, of the same letters, and nobody's."""
    if org in value:
        return value.replace(org, NEVER)
    head, mark, rest = value.rpartition("_")
    return head + mark + _DIGIT.sub("0", _LETTER.sub("q", rest))


@dataclass
class World:
    gateway: RunningGateway
    outside: Outside
    operator: Session
    orgs: dict[str, Planted] = field(default_factory=dict)
    keys: SigningKeys | None = None
    audiences: dict[str, str] = field(default_factory=dict)
    redis: RedisServer | None = None
    """Where limits are, if not in memory."""

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.gateway.ca))

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token by the gateway's own key, which is borrowed."""
        assert self.keys is not None
        return self.keys.sign({**claims, "jti": secrets.token_hex(12)})

    def claims(self, token: str) -> dict[str, Any]:
        assert self.keys is not None
        found = self.keys.own_claims(token)
        assert found is not None
        return found

    def slots(self, route: Route, org: str, *, never: bool = False, alike: bool = False) -> dict[str, str]:
        """What goes into the slots of `route` but for the organization: ids of `org`'s, or (`never`) their twins.

        Raises `KeyError` where nobody planted a thing of that kind: a new route needs one here.
        """
        planted = self.orgs[org]
        filled = {}
        for name, under in route.slots:
            if name in {"org", "below"} or under in CONSTANT:
                continue
            if name == "path":
                filled[name] = TILES[0]
                continue
            value = planted.alike.get(under, planted.ids[under]) if alike else planted.ids[under]
            filled[name] = absent(org, value) if never else value
        return filled


def fill(route: Route, org: str, slots: Mapping[str, str]) -> str:
    path = route.path.replace("{org}", org)
    for name, value in slots.items():
        path = path.replace(f"{{{name}}}", value)
    for name, under in route.slots:
        path = path.replace(f"{{{name}}}", CONSTANT.get(under, SHARED))
    return path


def furnish(gateway: RunningGateway, outside: Outside, names: tuple[str, ...] = NAMES) -> World:
    """Sign the owners in, and fill every organization by the admin API. Passwords are hashed: a second each."""
    world = World(gateway, outside, gateway.operator())
    world.keys = asyncio.run(_borrowed(gateway))
    world.audiences = {
        plane: world.claims(token)["aud"]
        for plane, token in (("admin", world.operator.admin_token), ("data", world.operator.access_token))
    }
    for name in names:
        host = [f"{name}.gateway.example"]
        if name == "acme":
            owner, email = gateway.owner(), "owner@acme.test"
            body: dict[str, Any] = {"name": f"{word(name)} org", "hosts": host, "personal_tokens": True}
            world.operator.admin("PUT", f"/admin/v1/orgs/{name}", json=body, headers={"if-match": "*"})
        else:
            body = {"id": name, "name": f"{word(name)} org", "hosts": host, "personal_tokens": True}
            world.operator.admin("POST", "/admin/v1/orgs", json=body)
            email = f"{word(name)}.owner@{name}.test"
            person = {"email": email, "name": word(name), "roles": ["owner"]}
            made = world.operator.admin("POST", f"/admin/v1/orgs/{name}/members", json=person).json()
            owner = gateway.sign_in(name, email, invitation=made["invitation"]["code"])
        world.orgs[name] = planted = Planted(
            name, owner, world.claims(owner.admin_token)["sub"], email, canaries=[word(name), secret(name)]
        )
        _people(world, planted)
        for plant in PLANTS:
            plant(world, planted)
    return world


async def _borrowed(gateway: RunningGateway) -> SigningKeys:
    settings = load(gateway.installed.settings)
    key = read_master_key(settings.secrets.master_key, settings.home)
    return await SigningKeys.load_or_create(SealedFile(settings.path(settings.secrets.path), key), time.time)


def _people(world: World, planted: Planted) -> None:
    org = planted.id
    like = world.claims(planted.owner.admin_token)
    for role in (*(str(role) for role in ROLES), "leaver"):
        email = f"{word(org)}.{role}2@{org}.test"
        body = {"email": email, "name": f"{word(org)} {role}", "roles": [role if role in list(Role) else "member"]}
        member = planted.post("members", body)["member"]["id"]
        # A second ago: what is made in this second may begin in the next one, beyond a revocation of before.
        claims = {**like, "sub": member, "roles": body["roles"], "iat": like["iat"] - 1, "exp": like["exp"] - 1}
        tokens = {plane: world.sign({**claims, "aud": aud}) for plane, aud in world.audiences.items()}
        planted.people[role] = Person(org, member, role, email, tokens["admin"], tokens["data"])
    planted.owner.admin("POST", planted.path("members", planted.people["leaver"].member, "revoke"))
    planted.ids["members"] = planted.ids["persons"] = planted.people["member"].member


# -- what an organization has ------------------------------------------------------------------------------


def _each(planted: Planted, kind: str) -> Iterator[str]:
    """The two names of things of one kind, both of which are made."""
    planted.ids[kind], planted.alike[kind] = f"{label(planted.id)}-{kind}", SHARED
    yield from (planted.alike[kind], planted.ids[kind])


def _teams(world: World, planted: Planted) -> None:
    for name in _each(planted, "teams"):
        planted.post("teams", {"name": name, "title": f"{word(planted.id)} team"})
        planted.owner.admin("PUT", planted.path("teams", name, "members", planted.ids["members"]))


def _upstreams(world: World, planted: Planted) -> None:
    org = planted.id
    pem = planted.authority()
    cert = texts(issue(make_ca(f"{org} client CA"), word(org)))
    planted.canaries.append(cert["key"].splitlines()[2])
    for name in _each(planted, "upstreams"):
        key = f"sk-{secret(org)}-{name}"
        world.outside.keys[key] = org
        served = f"{world.outside.urls[org]}/{word(org)}" if name == SHARED else f"https://{word(org)}.example.com"
        planted.post("upstreams", {"name": name, "base_url": served, "ca_pem": pem})
        planted.put(f"upstreams/{name}/key", {"key": key})
        schedule = {"every_s": 86_400, "command": MINT, "revoke": MINT}
        planted.put(f"upstreams/{name}/key/schedule", schedule)
        if name != SHARED:  # a certificate is shown over TLS alone
            planted.put(f"upstreams/{name}/cert", cert)
        model = {"name": name.replace("upstreams", "models"), "upstream": name, "model": f"{word(org)}-real"}
        planted.post("models", model)
    planted.ids["models"], planted.alike["models"] = f"{label(org)}-models", SHARED


def _limits(world: World, planted: Planted) -> None:
    amount = 900_000_000 + NAMES.index(planted.id)
    limit = {"unit": "requests", "amount": amount, "period_s": 3_600}
    for name in _each(planted, "limits"):
        planted.post("limits", {"name": name, "scope": "client", "subject": f"{word(planted.id)}-client", **limit})
    # It refills so slowly that what was used is still to be seen a minute later.
    slow = {"unit": "requests", "amount": 100_000, "period_s": 31 * 86_400}
    planted.post("limits", {"name": "everybody", "scope": "member", **slow})
    budget = {"scope": "org", "unit": "tokens", "amount": amount, "window": "month", "notify_at": [1]}
    planted.post("limits", {"name": "month", **budget})


def _rules(world: World, planted: Planted) -> None:
    for name in _each(planted, "rules"):
        rule = {"effect": "deny", "roles": ["auditor"], "actions": ["chat"], "models": [f"{word(planted.id)}-*"]}
        planted.post("rules", {"name": name, **rule})


def _streams(world: World, planted: Planted) -> None:
    org = planted.id
    for name in _each(planted, "audit-streams"):
        url = f"{world.outside.urls[org]}/in/{org}"
        stream = {"kind": "splunk", "url": world.outside.urls[org], "index": word(org), "sourcetype": word(org)}
        body = {"kind": "ndjson", "url": url} if name == SHARED else {**stream, "paused": True}
        planted.post("audit-streams", {"name": name, "ca_pem": planted.authority(), **body})
        token = f"Bearer {secret(org)}" if name == SHARED else secret(org)
        planted.put(f"audit-streams/{name}/secret", {"secret": token})


def _rest(world: World, planted: Planted) -> None:
    org = planted.id
    planted.put("prices", {"prices": [{"model": f"{word(org)}-real", "input": 1, "output": 1}]})
    planted.put("webhook", {"url": f"{world.outside.urls[org]}/hook/{org}", "ca_pem": planted.authority()})
    cookie = {"cookie": session(world, planted)}
    planted.credentials["session"] = {"admin": cookie, "opens pages": cookie}
    planted.put("audit/hold", {"reason": f"{word(org)} hold"})
    planted.owner.admin("GET", planted.path("audit/checkpoint"))


def session(world: World, planted: Planted) -> str:
    """The cookie of the owner's session on the web pages, come by as a browser does it, however many forms ask."""
    known = {"org": planted.id, "email": planted.email, "password": PASSWORD, "action": "approve"}
    with httpx.Client(verify=world.context, timeout=20) as browser:
        answer = browser.get(f"{world.gateway.admin_url}/sign-in")
        for _ in range(8):
            if answer.is_redirect:
                answer = browser.get(str(answer.url.join(answer.headers["location"])))
            elif "__Host-orgate_session" in browser.cookies or "<form" not in answer.text:
                break
            else:
                form = {**dict(_FIELD.findall(answer.text)), **known}
                answer = browser.post(str(answer.url.copy_with(query=None)), data=form)
        return f"__Host-orgate_session={browser.cookies['__Host-orgate_session']}"


PLANTS = [
    _teams,
    _upstreams,
    _limits,
    _rules,
    _streams,
    _rest,
    identities.clients,
    identities.static_keys,
    identities.sessions,
    identities.provider,
    identities.scim,
]
"""A new kind of thing with an id in a path needs a function here that plants one."""
