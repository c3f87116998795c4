"""Every kind of credential that somebody may come with, and what each is made of."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.isolation.orgs import ROLES, World

GARBAGE = "zq.not.a-token"


@dataclass(frozen=True)
class Credential:
    """What goes into a request. `org`: whose it is, '' when nobody should take it for anybody's; `role`: what it
    may do there, '' for nothing."""

    name: str
    headers: Mapping[str, Mapping[str, str]]
    """Listener (`admin`, `public`) → header fields."""
    org: str = ""
    role: str = ""
    more: Mapping[str, str] = field(default_factory=dict)
    opens: frozenset[str] = frozenset()
    """Where it says who somebody is (`Route.opened_by`)."""

    def on(self, listener: str) -> dict[str, str]:
        return {**self.headers.get(listener, {}), **self.more}


def kinds(world: World, attacker: str, victim: str) -> list[Credential]:
    """Those of people of `attacker`, who are after `victim`."""
    planted = world.orgs[attacker]
    owner, leaver = planted.owner, planted.people["leaver"]
    target = world.orgs[victim].people["owner"]
    expired = {
        plane: world.sign({**claims, "iat": claims["iat"] - 3_600, "exp": claims["exp"] - 3_600})
        for plane, claims in (("admin", world.claims(target.admin)), ("data", world.claims(target.data)))
    }
    claimed = {
        "x-orgate-org": victim,
        "openai-organization": victim,
        "x-forwarded-host": f"{victim}.gateway.example",
        "x-original-url": f"/admin/v1/orgs/{victim}",
        "x-http-method-override": "GET",
        "forwarded": f"host={victim}.gateway.example",
    }
    found = [
        Credential("none", {}),
        _bearer("garbage", GARBAGE, GARBAGE),
        _bearer("forged", _forged(target.admin), _forged(target.data)),
        _bearer("expired", expired["admin"], expired["data"]),
        _bearer("revoked", leaver.admin, leaver.data),
        _bearer("swapped audience", owner.access_token, owner.admin_token),
        _bearer("refresh token", owner.refresh_token, owner.refresh_token),
        _bearer("two tokens", f"{owner.admin_token}, {target.admin}", f"{owner.access_token}, {target.data}"),
        Credential("basic", {plane: _basic(target.email, GARBAGE) for plane in ("admin", "public")}),
        Credential("cookie", {}, more={"cookie": f"__Host-orgate_session={'A' * 43}"}),
        *(
            _bearer(f"another's {role}", person.admin, person.data, attacker, role)
            for role, person in planted.people.items()
            if role in ROLES
        ),
        _bearer("header claims", owner.admin_token, owner.access_token, attacker, "owner", claimed),
        _bearer(
            "swapped host", owner.admin_token, owner.access_token, "", "", {"host": f"{victim}.gateway.example"}
        ),
    ]
    for name, headers in planted.credentials.items():
        opens = frozenset(one.removeprefix("opens ") for one in headers if one.startswith("opens "))
        found.append(Credential(f"another's {name}", headers, attacker, "member", opens=opens))
    return found


def own(world: World, org: str, role: str) -> Credential:
    person = world.orgs[org].people[role]
    return _bearer(f"own {role}", person.admin, person.data, org, role)


def _bearer(
    name: str, admin: str, data: str, org: str = "", role: str = "", more: Mapping[str, str] | None = None
) -> Credential:
    headers = {"admin": {"authorization": f"Bearer {admin}"}, "public": {"authorization": f"Bearer {data}"}}
    return Credential(name, headers, org, role, more or {}, frozenset({"admin", "public"} if role else ()))


def _basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _forged(token: str) -> str:
    """The claims are those of an owner, the signature one of the same key over something else."""
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{signature[10:]}{signature[:10]}"
