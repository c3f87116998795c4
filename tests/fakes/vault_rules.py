"""The rules of the fake Vault: what policies allow, what KV v2 keeps, who may log in."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from msgspec import Struct

from tests.fakes.vault_reply import Reply, failed
from tests.fakes.vault_transit import TransitEngine

Policy = dict[str, frozenset[str]]
_PATH = re.compile(r'path\s+"([^"]*)"\s*\{\s*capabilities\s*=\s*\[([^\]]*)\]\s*\}')


class Token(Struct):
    """Times are the fake's clock. `last`: renewals never go beyond."""

    value: str
    namespace: str
    policies: frozenset[str]
    ends: float
    last: float
    ttl_s: float


class Grant(Struct, frozen=True):
    policies: list[str]
    ttl_s: float
    max_ttl_s: float


def parse_policy(text: str) -> Policy | None:
    """`path "…" { capabilities = […] }` and nothing else. None: it does not parse."""
    if _PATH.sub("", text).strip():
        return None
    return {path: frozenset(re.findall(r'"(\w+)"', can)) for path, can in _PATH.findall(text)}


def capability(method: str) -> str:
    return {"GET": "read", "LIST": "list", "DELETE": "delete"}.get(method, "update")


def allows(policies: Iterable[Policy], path: str, wanted: str) -> bool:
    """The rule with the exact path counts, else the one with the longest prefix (Vault's policies, "Priority
    matching"). A write to what is not there is `create`; the fake asks for either."""
    rules: dict[str, set[str]] = {}
    for policy in policies:
        for pattern, can in policy.items():
            rules.setdefault(pattern, set()).update(can)
    best = max(
        (p for p in rules if p == path or (p.endswith("*") and path.startswith(p[:-1]))),
        key=lambda p: (p == path, len(p)),
        default=None,
    )
    if best is None or "deny" in rules[best]:
        return False
    return wanted in rules[best] or (wanted == "update" and "create" in rules[best])


class Version(Struct):
    data: dict[str, Any] | None
    created: str
    deleted: str = ""
    destroyed: bool = False

    def metadata(self, number: int) -> dict[str, Any]:
        return {
            "created_time": self.created,
            "custom_metadata": None,
            "deletion_time": self.deleted,
            "destroyed": self.destroyed,
            "version": number,
        }


class Engine:
    """A KV engine; version 1 only exists so that it can be told apart."""

    def __init__(self, kind: str, *, now: Callable[[], str]) -> None:
        self._v2 = kind == "kv-v2"
        self._now = now
        self._secrets: dict[str, list[Version]] = {}

    def serve(self, method: str, path: str, body: dict[str, Any]) -> Reply:
        kind, _, name = path.partition("/")
        if not self._v2:
            return failed(404)
        match kind:
            case "config":
                return Reply.of({"max_versions": 0, "cas_required": False, "delete_version_after": "0s"})
            case "data":
                return self._data(method, name, body)
            case "metadata":
                return self._metadata(method, name)
            case "destroy" | "undelete":
                for number in body.get("versions", []):
                    if 0 < number <= len(versions := self._secrets.get(name, [])):
                        version = versions[number - 1]
                        if kind == "destroy":
                            version.data, version.destroyed = None, True
                        elif not version.destroyed:
                            version.deleted = ""
                return Reply(204)
        return failed(404)

    def _data(self, method: str, name: str, body: dict[str, Any]) -> Reply:
        versions = self._secrets.get(name, [])
        if method in ("POST", "PUT"):
            if not isinstance(body.get("data"), dict):
                return failed(400, "no data provided")
            cas = body.get("options", {}).get("cas")
            if cas is not None and cas != len(versions):
                return failed(400, "check-and-set parameter did not match the current version")
            made = self._secrets.setdefault(name, versions)
            made.append(Version(dict(body["data"]), self._now()))
            for old in made[:-10]:  # max_versions is 10 unless told otherwise
                old.data, old.destroyed = None, True
            return Reply.of(made[-1].metadata(len(made)))
        if not versions:
            return failed(404)
        if method == "DELETE":
            versions[-1].deleted = versions[-1].deleted or self._now()
            return Reply(204)
        number = int(body.get("version", len(versions)))
        asked = versions[number - 1]
        gone = asked.destroyed or asked.deleted
        found = {"data": None if gone else asked.data, "metadata": asked.metadata(number)}
        return Reply.of(found, 404 if gone else 200)

    def _metadata(self, method: str, name: str) -> Reply:
        if method == "DELETE":
            self._secrets.pop(name, None)
            return Reply(204)
        versions = self._secrets.get(name)
        if versions is None:
            return failed(404)
        listed = {
            str(number): {
                "created_time": version.created,
                "deletion_time": version.deleted,
                "destroyed": version.destroyed,
            }
            for number, version in enumerate(versions, 1)
        }
        return Reply.of({"current_version": len(versions), "oldest_version": 0, "versions": listed})


class AppRole:
    """Roles by role id, each with its secret ids."""

    def __init__(self) -> None:
        self._roles: dict[str, dict[str, Any]] = {}

    def serve(self, method: str, path: str, body: dict[str, Any]) -> Reply:
        match path.split("/"):
            case ["role", name]:
                old = self._roles.get(name, {"role_id": secrets.token_hex(8), "secret_ids": set()})
                self._roles[name] = {**old, **body}
                return Reply(204)
            case ["role", name, *_] if name not in self._roles:
                return failed(404, f'role "{name}" does not exist')
            case ["role", name, "role-id"]:
                if method == "GET":
                    return Reply.of({"role_id": self._roles[name]["role_id"]})
                self._roles[name]["role_id"] = body["role_id"]
                return Reply(204)
            case ["role", name, "secret-id"]:
                made = secrets.token_hex(16)
                self._roles[name]["secret_ids"].add(made)
                return Reply.of({"secret_id": made, "secret_id_num_uses": 0, "secret_id_ttl": 0})
            case ["role", name, "secret-id", "destroy"]:
                self._roles[name]["secret_ids"].discard(body.get("secret_id"))
                return Reply(204)
        return failed(404)

    def login(self, body: dict[str, Any]) -> Grant | Reply:
        if not body.get("secret_id"):
            return failed(400, "missing secret_id")
        for role in self._roles.values():
            if role["role_id"] == body.get("role_id") and body["secret_id"] in role["secret_ids"]:
                return grant(role)
        return failed(400, "invalid role or secret ID")


class JwtRoles:
    """JWT as it is, RS256 with the public keys of the method's configuration; of Kubernetes a role and a service
    account's token, which here is `token-of-<namespace>/<name>`: there is no cluster to ask about it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._roles: dict[str, dict[str, Any]] = {}
        self._keys: list[RSAKey] = []

    def serve(self, method: str, path: str, body: dict[str, Any]) -> Reply:
        match path.split("/"):
            case ["role", name]:
                self._roles[name] = dict(body)
                return Reply(204)
            case ["config"]:
                self._keys = [RSAKey.import_key(pem) for pem in body.get("jwt_validation_pubkeys", [])]
                return Reply(204)
        return failed(404)

    def login(self, body: dict[str, Any]) -> Grant | Reply:
        name, token = str(body.get("role")), str(body.get("jwt", ""))
        role = self._roles.get(name)
        if self._kind == "jwt":
            if role is None:
                return failed(400, f'role "{name}" could not be found')
            return self._refusal(role, token) or grant(role)
        if role is None:
            return failed(400, f'invalid role name "{name}"')
        bound = f"{role['bound_service_account_namespaces'][0]}/{role['bound_service_account_names'][0]}"
        return grant(role) if token == f"token-of-{bound}" else failed(403, "permission denied")

    def _refusal(self, role: dict[str, Any], token: str) -> Reply | None:
        if not token:
            return failed(400, "missing token")
        claims: dict[str, Any] = {}
        for key in self._keys:
            with suppress(JoseError, ValueError):
                claims = jwt.decode(token, key, algorithms=["RS256"]).claims
        if not claims:
            wrong = "error verifying token signature: no known key successfully validated the token signature"
        elif claims.get("exp", 0) < time.time() - 150:  # it allows for clocks that differ
            wrong = "invalid expiration time (exp) claim: token is expired"
        elif claims.get("sub") != role["bound_subject"]:
            wrong = "invalid subject (sub) claim"
        elif claims.get("aud") not in role["bound_audiences"]:
            wrong = "invalid audience (aud) claim: audience claim does not match any expected audience"
        else:
            return None
        return failed(400, f"error validating token: {wrong}")


def grant(role: dict[str, Any]) -> Grant:
    return Grant(list(role["token_policies"]), _seconds(role["token_ttl"]), _seconds(role["token_max_ttl"]))


def _seconds(text: str) -> float:
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


class Tree:
    """One namespace: what is mounted where, and its policies."""

    def __init__(self) -> None:
        self.mounts: dict[str, Engine | AppRole | JwtRoles | TransitEngine] = {}
        self.policies: dict[str, Policy] = {}

    def mount(self, path: str, made: Engine | AppRole | JwtRoles | TransitEngine) -> Reply:
        if path in self.mounts:
            return failed(400, f"path is already in use at {path.removeprefix('auth/')}/")
        self.mounts[path] = made
        return Reply(204)

    def serve(self, method: str, path: str, body: dict[str, Any]) -> Reply:
        for mount, engine in self.mounts.items():
            if path.startswith(mount + "/"):
                return engine.serve(method, path.removeprefix(mount + "/"), body)
        return failed(404, f'no handler for route "{path}". route entry not found.')
