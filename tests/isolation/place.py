"""Two organizations on one running gateway: `acme`, whose every field holds a canary, and `globex`, which attacks.

Every name of acme's has a twin of the same length that never existed: an answer must not tell the two apart.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.backends import admin_audience
from gateway.oauth.signing import SigningKeys
from gateway.pki import make_ca
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.sealed import SealedFile
from gateway.settings import load
from gateway.workerparts import data_audience
from tests.kit.client_certs import issue, texts
from tests.kit.gateway import RunningGateway, Session

CANARY = "zqcanary"
KINDS = ("teams", "upstreams", "models", "limits", "rules", "audit-streams")
BODIES: Mapping[str, dict[str, Any]] = {
    "teams": {"title": f"{CANARY} team"},
    "upstreams": {"base_url": f"https://{CANARY}.example.com"},
    "models": {"upstream": f"{CANARY}-upstreams", "model": f"{CANARY}-real"},
    "limits": {"scope": "client", "unit": "requests", "amount": 9_999, "subject": f"{CANARY}-client"},
    "rules": {"effect": "deny", "roles": ["member"], "actions": ["chat"], "models": [f"{CANARY}-*"]},
    "audit-streams": {"kind": "ndjson", "url": f"https://{CANARY}.example.com/in", "paused": True},
}
UPSTREAM_KEY = f"sk-{CANARY}-key"
PRICES = {"prices": [{"model": f"{CANARY}-real", "input": 1, "output": 1}]}
WEBHOOK = {"url": f"https://{CANARY}.example.com/in"}
MINT = "/usr/bin/true"
"""The one command that the gateway may run; nothing here lives to see it run."""
TILE = "0/000.p/1"
"""Of acme's audit log: every log with an entry has it, once a checkpoint was signed."""
SCHEDULE = {"every_s": 86_400, "command": MINT}

Shape = tuple[int, str, tuple[tuple[str, str], ...]]
_VOLATILE = {"date", "x-request-id", "connection"}
"""`connection: close`: HTTP/1.1 ends after a refusal that did not wait for the body, if that was not there yet."""
_REQUEST_ID = re.compile(r'"request_id":"[^"]*"')


@dataclass
class Place:
    gateway: RunningGateway
    owner: Session
    auditor: Session
    thief: Session
    """Owner of globex: may do everything there."""
    pawn: Session
    """Member of globex."""
    member: str
    """Id of a member of acme."""
    tokens: dict[str, dict[str, str]] = field(default_factory=dict)
    """Kind of credential → token for the admin and for the data plane."""

    def real(self, kind: str) -> str:
        """The key of a thing of acme's."""
        return self.member if kind == "members" else f"{CANARY}-{kind}"

    @staticmethod
    def absent(kind: str) -> str:
        return "mem_" + "0" * 20 if kind == "members" else f"zqabsent-{kind}"

    def url(self, template: str, org: str, kind: str, key: str) -> str:
        """`template` with its places filled. A team's member is one of acme's when the team is."""
        member = self.real("members") if key == self.real(kind) else self.absent("members")
        path = template.replace("{org}", org).replace("{key}", key).replace("{member}", member)
        path = path.replace("{path}", TILE)
        return self.gateway.admin_url + path

    def body(self, kind: str, key: str) -> dict[str, Any]:
        """A body that would be accepted under `kind`."""
        if kind == "members":
            return {"email": "somebody@globex.test", "name": "Somebody", "roles": ["owner"]}
        return {**BODIES[kind], "name": key}

    def send(self, method: str, url: str, credential: str, plane: str, **more: Any) -> httpx.Response:
        headers = {"if-match": "*", **more.pop("headers", {})}
        token = self.tokens[credential][plane]
        if token:
            headers["authorization"] = f"Bearer {token}"
        return self.gateway.http.request(method, url, headers=headers, **more)


def shape(answer: httpx.Response, *names: str) -> Shape:
    """What of an answer may not differ; `names` are those that the request itself gave, echoed or not."""
    text = _REQUEST_ID.sub("", answer.text)
    for name in names:
        text = text.replace(name, "<NAME>")
    headers = tuple(sorted((name, value) for name, value in answer.headers.items() if name not in _VOLATILE))
    return answer.status_code, text, headers


def furnish(gateway: RunningGateway) -> Place:
    """Sign everybody in and fill acme. Seconds, for passwords are hashed."""
    operator, owner = gateway.operator(), gateway.owner()
    operator.admin("POST", "/admin/v1/orgs", json={"id": "globex", "name": "Globex"})
    auditor, _ = _join(gateway, owner, "acme", f"{CANARY}-auditor", "auditor")
    _, member = _join(gateway, owner, "acme", f"{CANARY}-member", "member")
    thief, _ = _join(gateway, operator, "globex", "thief", "owner")
    pawn, _ = _join(gateway, operator, "globex", "pawn", "member")
    place = Place(gateway, owner, auditor, thief, pawn, member)
    for kind in KINDS:
        owner.create(kind, **place.body(kind, place.real(kind)))
    owner.admin("PUT", f"/admin/v1/orgs/acme/teams/{CANARY}-teams/members/{member}")
    owner.admin("PUT", f"/admin/v1/orgs/acme/upstreams/{CANARY}-upstreams/key", json={"key": UPSTREAM_KEY})
    owner.admin("PUT", f"/admin/v1/orgs/acme/upstreams/{CANARY}-upstreams/key/schedule", json=SCHEDULE)
    owner.admin("PUT", "/admin/v1/orgs/acme/prices", json=PRICES, headers={"if-match": "*"})
    owner.admin("PUT", "/admin/v1/orgs/acme/webhook", json=WEBHOOK)
    secret = {"secret": f"Bearer {UPSTREAM_KEY}"}
    owner.admin("PUT", f"/admin/v1/orgs/acme/audit-streams/{CANARY}-audit-streams/secret", json=secret)
    owner.admin("GET", "/admin/v1/orgs/acme/audit/checkpoint")
    cert = texts(issue(make_ca("Client CA"), f"{CANARY}-cert"))
    owner.admin("PUT", f"/admin/v1/orgs/acme/upstreams/{CANARY}-upstreams/cert", json=cert)
    place.tokens = {
        "none": {"admin": "", "data": ""},
        "forged": {"admin": _forged(owner.admin_token), "data": _forged(owner.access_token)},
        "expired": asyncio.run(_expired(gateway, owner)),
        "swapped audience": {"admin": owner.access_token, "data": owner.admin_token},
        "another's member": {"admin": pawn.admin_token, "data": pawn.access_token},
        "another's owner": {"admin": thief.admin_token, "data": thief.access_token},
        "own auditor": {"admin": auditor.admin_token, "data": auditor.access_token},
    }
    return place


def _join(gateway: RunningGateway, by: Session, org: str, name: str, role: str) -> tuple[Session, str]:
    body = {"email": f"{name}@{org}.test", "name": name, "roles": [role]}
    made = by.admin("POST", f"/admin/v1/orgs/{org}/members", json=body).json()
    session = gateway.sign_in(org, body["email"], invitation=made["invitation"]["code"])  # type: ignore[arg-type]
    return session, made["member"]["id"]


def _forged(token: str) -> str:
    """The claims are those of an owner of acme, the signature one of the same key over something else."""
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{signature[10:]}{signature[:10]}"


async def _expired(gateway: RunningGateway, owner: Session) -> dict[str, str]:
    """A token that was good an hour ago: only the gateway's own key can make one, so it is borrowed."""
    settings = load(gateway.installed.settings)
    key = read_master_key(settings.secrets.master_key, settings.home)
    keys = await SigningKeys.load_or_create(SealedFile(settings.path(settings.secrets.path), key), lambda: 0.0)
    claims = keys.own_claims(owner.access_token)
    assert claims is not None
    past = {**claims, "iat": claims["iat"] - 3_600, "exp": claims["exp"] - 3_600}
    made = {"admin": admin_audience(settings), "data": data_audience(settings)}
    return {plane: keys.sign({**past, "aud": audience}) for plane, audience in made.items()}


def everything(place: Place) -> str:
    """All that acme has, versions included: to be the same before and after."""
    pages = (place.owner.admin("GET", f"/admin/v1/orgs/acme/{kind}").json() for kind in (*KINDS, "members"))
    team = place.owner.admin("GET", f"/admin/v1/orgs/acme/teams/{CANARY}-teams/members").json()
    single = (
        place.owner.admin("GET", f"/admin/v1/orgs/acme{path}").json() for path in ("", "/prices", "/webhook")
    )
    return json.dumps([*single, team, *pages])


def entries(place: Place) -> list[dict[str, Any]]:
    """Acme's audit log, but for what tells of reading it: this does."""
    found: list[dict[str, Any]] = []
    after = -1
    following = 0
    while following != after:
        after = following
        query = {"after": after, "limit": 1000}
        page = place.owner.admin("GET", "/admin/v1/orgs/acme/audit/entries", params=query).json()
        found += [entry for entry in page["items"] if entry["action"] != "audit.read"]
        following = page["next"]
    return found
