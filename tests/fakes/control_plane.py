"""A control plane for the CLI's tests: OAuth and the admin API over a real socket, scripted where a test says so.

It keeps the rules of the real one and shouts: a refresh token that is used twice ends its family, a form
without its CSRF cookie is refused, a PUT without If-Match gets 428 and a stale one 412, an unknown field 422.
"""

from __future__ import annotations

import json
import secrets
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct, field

from gateway.audit.chain import Chain
from gateway.audit.merkle import HashTree, leaf_hash
from gateway.audit.proofs import consistency, inclusion
from tests.fakes.credentials import personal_token, personal_tokens, sessions

READ_ONLY = {"org", "version", "created_at"}
Answer = tuple[int, Any, dict[str, str]]


class Seen(Struct, frozen=True):
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    def __init__(self, status: int, detail: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {
            "type": "about:blank",
            "title": detail,
            "status": status,
            "detail": detail,
            "request_id": "req_1",
        }
        if errors:
            self.body["errors"] = errors


def _nothing() -> Answer:
    raise Refused(404, "There is nothing here, or it is not yours to see.")


def _oauth(status: int, error: str, description: str) -> Refused:
    """A failure as RFC 6749 section 5.2 says it."""
    refused = Refused(status, description)
    refused.body = {"error": error, "error_description": description}
    return refused


class Family(Struct):
    """The refresh tokens that one sign-in led to."""

    current: str
    used: set[str] = field(default_factory=set)
    alive: bool = True


class ControlPlane:
    """State and answers. `script` puts an answer before the real one; `seen` has every request."""

    def __init__(self) -> None:
        self.origin = ""
        self.issuer = ""
        self.lock = threading.Lock()
        self.seen: list[Seen] = []
        self.scripted: dict[tuple[str, str], list[Answer]] = {}
        self.passwords = {("acme", "ann@acme.example"): "correct horse"}
        self.invitations = {"inv-1": ("acme", "new@acme.example")}
        self.devices: dict[str, dict[str, Any]] = {}
        self.families: list[Family] = []
        self.access: dict[str, str] = {}
        self.misuses = 0
        self.refreshes = 0
        self.expires_in = 900
        self.items: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        self.keys: dict[tuple[str, str], tuple[int, str]] = {}
        self.schedules: dict[tuple[str, str], dict[str, Any]] = {}
        self.certs: dict[tuple[str, str], str] = {}
        self.roles = ["owner"]
        self.buckets: list[dict[str, Any]] = []
        self.report: dict[str, Any] | None = None
        self.chain = Chain()
        self.lines: list[bytes] = []
        self.checkpoint = ""
        self.key = ""
        self.begin = 0
        self.policy = "quorum none\n"
        self.cuts: list[int] = []
        """After so many bytes the next downloads break off, one each."""
        self.actors: dict[str, list[str]] = {}

    @property
    def writes(self) -> list[Seen]:
        """What was sent to change something on the admin API."""
        return [s for s in self.seen if s.path.startswith("/admin/") and s.method != "GET"]

    def script(self, method: str, path: str, *answers: Answer) -> None:
        """Give `answers`, one a request, before the real ones."""
        self.scripted.setdefault((method, path), []).extend(answers)

    def put(self, org: str, kind: str, key: str, **item: Any) -> None:
        """Let something exist."""
        name = "id" if kind in ("members", "orgs") else "name"
        scope = {} if kind == "orgs" else {"org": org}
        self.items.setdefault((org, kind), {})[key] = {**scope, name: key, "version": 1, **item}

    def sign_in(self, org: str = "acme") -> str:
        """A refresh token, as if somebody had signed in."""
        family = Family(current="rt_" + secrets.token_hex(8))
        self.families.append(family)
        return family.current

    def answer(self, seen: Seen) -> Answer:
        with self.lock:
            self.seen.append(seen)
            if queue := self.scripted.get((seen.method, seen.path)):
                return queue.pop(0)
            try:
                if seen.path.startswith("/admin/"):
                    return self._admin(seen)
                return self._oauth(seen)
            except Refused as refused:
                return refused.status, refused.body, {"content-type": "application/problem+json"}

    # -- OAuth ----------------------------------------------------------------------------------------------

    def _oauth(self, seen: Seen) -> Answer:
        form = dict(parse_qsl(seen.body))
        match seen.method, seen.path:
            case "GET", "/.well-known/oauth-authorization-server":
                issuer = self.issuer or self.origin
                return (
                    200,
                    {
                        "issuer": issuer,
                        "token_endpoint": issuer + "/oauth/token",
                        "device_authorization_endpoint": issuer + "/oauth/device_authorization",
                        "revocation_endpoint": issuer + "/oauth/revoke",
                    },
                    {},
                )
            case "POST", "/oauth/device_authorization":
                device, user = secrets.token_hex(8), "BCDF-GHJK"
                self.devices[device] = {"user_code": user, "approved": False, "resource": form["resource"]}
                return (
                    200,
                    {
                        "device_code": device,
                        "user_code": user,
                        "verification_uri": self.origin + "/oauth/device",
                        "expires_in": 600,
                        "interval": 0,
                    },
                    {},
                )
            case "GET", ("/oauth/device" | "/oauth/invitation"):
                page = '<form><input type="hidden" name="csrf_token" value="c1"><input name="email"></form>'
                return (
                    200,
                    page,
                    {
                        "content-type": "text/html",
                        "set-cookie": "orgate_csrf=c1; Path=/; HttpOnly; SameSite=Strict",
                    },
                )
            case "POST", "/oauth/device":
                return self._approve(seen, form)
            case "POST", "/oauth/invitation":
                self._csrf(seen, form)
                person = (form.get("org", ""), form.get("email", ""))
                if form["password"] != form["password_again"] or len(form["password"]) < 12:
                    raise _oauth(400, "invalid_request", "a password has at least 12 characters")
                if self.invitations.get(form.get("code", "")) != person:
                    raise _oauth(400, "invalid_grant", "this invitation is not valid")
                del self.invitations[form["code"]]
                self.passwords[person] = form["password"]
                return 200, {"status": "accepted"}, {}
            case "POST", "/oauth/token":
                return self._token(form)
            case "POST", "/oauth/revoke":
                for family in self.families:
                    if family.current == form["token"]:
                        family.alive = False
                return 200, "", {}
        raise Refused(404, "not found")

    def _csrf(self, seen: Seen, form: dict[str, str]) -> None:
        if form.get("csrf_token") != "c1" or "orgate_csrf=c1" not in seen.headers.get("cookie", ""):
            raise _oauth(403, "invalid_request", "this page is no longer valid; load it again")
        if "application/json" not in seen.headers.get("accept", ""):
            raise _oauth(400, "invalid_request", "a program asks for JSON")

    def _approve(self, seen: Seen, form: dict[str, str]) -> Answer:
        self._csrf(seen, form)
        if self.passwords.get((form.get("org", ""), form.get("email", ""))) != form.get("password"):
            raise _oauth(403, "access_denied", "organization, e-mail or password is wrong")
        if form.get("action") != "approve":
            raise _oauth(400, "invalid_request", "action is approve or deny")
        for device in self.devices.values():
            if device["user_code"] == form.get("user_code"):
                device["approved"] = True
        return 200, {"status": "approved"}, {}

    def _token(self, form: dict[str, str]) -> Answer:
        if form.get("client_id") != "orgate-cli":
            return 400, {"error": "invalid_client"}, {}
        if form["grant_type"].endswith("device_code"):
            device = self.devices.get(form["device_code"])
            if device is None:
                return 400, {"error": "invalid_grant"}, {}
            if not device["approved"]:
                return 400, {"error": "authorization_pending"}, {}
            del self.devices[form["device_code"]]
            return self._issue(Family(current=""), form["resource"], new=True)
        self.refreshes += 1
        for family in self.families:
            if form["refresh_token"] in family.used:
                self.misuses += 1
                family.alive = False
            if form["refresh_token"] == family.current and family.alive:
                family.used.add(family.current)
                return self._issue(family, form["resource"])
        return 400, {"error": "invalid_grant", "error_description": "the refresh token has ended"}, {}

    def _issue(self, family: Family, resource: str, *, new: bool = False) -> Answer:
        family.current = "rt_" + secrets.token_hex(8)
        if new:
            self.families.append(family)
        token = "at_" + secrets.token_hex(8)
        self.access[token] = resource
        return (
            200,
            {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": self.expires_in,
                "refresh_token": family.current,
            },
            {"cache-control": "no-store"},
        )

    # -- the admin API --------------------------------------------------------------------------------------

    def _admin(self, seen: Seen) -> Answer:
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        if self.access.get(token) != (self.issuer or self.origin) + "/admin":
            raise Refused(401, "the token is for another audience, or has ended")
        parts = [unquote(part) for part in seen.path.split("/")[3:]]
        body = json.loads(seen.body) if seen.body else None
        match parts:
            case ["me"]:
                return 200, {"org": "acme", "id": "mem_1", "email": "ann@acme.example", "name": "Ann",
                             "roles": self.roles}, {}  # fmt: skip
            case ["status"]:
                return (
                    200,
                    {
                        "gateway": "0.1.0",
                        "version": 7,
                        "published": 7,
                        "workers": [{"worker": "w1", "version": 7}],
                    },
                    {},
                )
            case ["orgs"]:
                return self._collection(seen, "", "orgs", "id", body)
            case ["orgs", org, "suspend"]:
                _, made, _ = self._state("", "orgs", org, "suspend")
                return 200, {"org": made, "steps": [{"what": "suspended", "ms": 1.5}], "fenced": []}, {}
            case ["orgs", org, "resume"]:
                return self._state("", "orgs", org, "resume")
            case ["orgs", org]:
                return self._item(seen, "", "orgs", org, body)
            case ["orgs", org, "audit", what]:
                return self._audit(seen, what)
            case ["orgs", org, "upstreams", name, "key"]:
                return self._key(seen, org, name, body)
            case ["orgs", org, "upstreams", name, "key", "schedule"]:
                return self._schedule(seen, org, name, body)
            case ["orgs", org, "keys"]:
                return 200, {"items": [_facts(name) for name in self.items[org, "upstreams"]], "next": ""}, {}
            case ["orgs", org, "upstreams", name, "cert"]:
                return self._cert(seen, org, name, body)
            case ["orgs", org, "upstreams", name, "test"]:
                return 200, {"ok": True, "status": 200, "ms": 1.5, "detail": ""}, {}
            case ["orgs", org, "teams", key, "members"]:
                one = {"org": org, "team": key, "member": "mem_1", "added_at": 1_700_000_000}
                joined = [{**one, "lead": True, "name": "Ann"}]
                return 200, {"items": joined, "next": ""}, {}
            case ["me", "personal-tokens"] | ["orgs", _, "personal-tokens"]:
                return personal_tokens(seen.method, body)
            case ["me", "personal-tokens", key] | ["orgs", _, "personal-tokens", key]:
                return personal_token(seen.method, key) or _nothing()
            case ["me", "sessions"] | ["orgs", _, "sessions"]:
                return sessions() or _nothing()
            case ["me", "sessions", key] | ["orgs", _, "sessions", key]:
                return sessions(key) or _nothing()
            case ["orgs", org, "teams", key, "members", member, "lead"]:
                made = {"org": org, "team": key, "member": member, "lead": seen.method == "PUT"}
                return 200, made, {}
            case ["orgs", org, "teams", key, "usage"]:
                limits = [{"org": org, "name": "ours", "scope": "team", "unit": "tokens", "amount": 2_000_000}]
                return 200, {"limits": limits, "usage": {"items": self.buckets, "buckets": len(self.buckets)}}, {}
            case ["orgs", org, "member-names"]:
                return 200, {"items": [{"id": "mem_1", "name": "Ann"}], "next": ""}, {}
            case ["orgs", org, "teams", key, "members", member]:
                if seen.method == "DELETE":
                    return 204, None, {}
                return 200, {"org": org, "team": key, "member": member, "added_at": 1_700_000_000}, {}
            case ["orgs", org, "members", key, "invite"]:
                return 200, self._invited(org, key), {}
            case ["orgs", org, "members", key, "revoke"]:
                return 200, {"sessions": 2}, {}
            case ["orgs", org, "members", key, "offboard"]:
                _, member, _ = self._state(org, "members", key, "suspend")
                steps = [{"what": "suspended", "ms": 1.5}, {"what": "sessions ended", "ms": 2.5, "count": 2}]
                return 200, {"member": member, "steps": steps, "fenced": []}, {}
            case ["orgs", org, "members", key, verb]:
                return self._state(org, "members", key, verb)
            case ["orgs", org, "limits", key, "reset"]:
                return 200, {"buckets": 1}, {}
            case ["orgs", org, "limits", key, "usage"]:
                return 200, self._used(seen, org, key), {}
            case ["orgs", org, "limits-usage"]:
                return 200, self._used(seen, org, ""), {}
            case ["orgs", org, "limits-simulation"]:
                return 200, self._simulated(body), {"content-type": "application/jsonl"}
            case ["orgs", org, kind]:
                return self._collection(seen, org, kind, "id" if kind == "members" else "name", body)
            case ["orgs", org, kind, key]:
                return self._item(seen, org, kind, key, body)
        raise Refused(404, "There is nothing here, or it is not yours to see.")

    def _used(self, seen: Seen, org: str, limit: str) -> dict[str, Any]:
        """What `buckets` says, narrowed as the query asks."""
        if limit and limit not in self.items.get((org, "limits"), {}):
            raise Refused(404, "There is nothing here, or it is not yours to see.")
        wanted = {k: v for k, v in {**seen.query, "limit": limit}.items() if v and k != "top"}
        found = [one for one in self.buckets if all(one[k] == v for k, v in wanted.items())]
        return {"items": found[: int(seen.query.get("top", 100))], "buckets": len(found)}

    def _simulated(self, body: Any) -> str:
        lines = [{"read": 1, "of": 2}, {"read": 2, "of": 2}]
        if self.report is not None:
            said = {"since": 1_795_000_000, "until": 1_795_086_400, **self.report}
            lines.append({"report": {"limit": {"org": "acme", **body["limit"]}, **said}})  # type: ignore[dict-item]
        return "".join(json.dumps(line) + "\n" for line in lines)

    def _collection(self, seen: Seen, org: str, kind: str, name: str, body: Any) -> Answer:
        items = self.items.setdefault((org, kind), {})
        if seen.method == "GET":
            wanted = {k: v for k, v in seen.query.items() if k not in ("limit", "after")}
            found = [i for i in items.values() if all(str(i.get(k)) == v for k, v in wanted.items())]
            # Pages of two: a client that reads one page only is found out.
            at = int(seen.query.get("after") or 0)
            return 200, {"items": found[at : at + 2], "next": str(at + 2) if at + 2 < len(found) else ""}, {}
        self._known(body)
        key = body.get(name) or "mem_new"
        if key in items:
            raise Refused(409, f"{key} exists")
        self.put(org, kind, key, **body)
        if kind == "members":
            return 201, self._invited(org, key), {"etag": '"1"'}
        return 201, items[key], {"etag": '"1"', "location": seen.path + "/" + key}

    def _invited(self, org: str, key: str) -> dict[str, Any]:
        url = self.origin + "/oauth/invitation"
        return {
            "member": self.items[org, "members"][key],
            "invitation": {"code": "inv-2", "expires_at": 2_000_000_000, "url": url},
        }

    def _item(self, seen: Seen, org: str, kind: str, key: str, body: Any) -> Answer:
        items = self.items.setdefault((org, kind), {})
        if key not in items:
            raise Refused(404, "There is nothing here, or it is not yours to see.")
        item = items[key]
        if seen.method == "GET":
            return 200, item, {"etag": f'"{item["version"]}"'}
        if "if-match" not in seen.headers:
            raise Refused(428, "Send If-Match")
        if seen.headers["if-match"] != f'"{item["version"]}"':
            raise Refused(412, f"It was changed meanwhile: the current version is {item['version']}.")
        if seen.method == "DELETE":
            del items[key]
            return 204, "", {}
        self._known(body)
        items[key] = {**item, **body, "version": item["version"] + 1}
        return 200, items[key], {"etag": f'"{items[key]["version"]}"'}

    def _state(self, org: str, kind: str, key: str, verb: str) -> Answer:
        item = self.items.get((org, kind), {}).get(key)
        if item is None:
            raise Refused(404, "There is nothing here, or it is not yours to see.")
        item["state"] = "suspended" if verb == "suspend" else "active"
        return 200, item, {}

    def _known(self, body: dict[str, Any]) -> None:
        if unknown := sorted(READ_ONLY & body.keys()):
            raise Refused(
                422, "A field is not known.", [{"field": f, "message": "is not known here"} for f in unknown]
            )

    def _key(self, seen: Seen, org: str, name: str, body: Any) -> Answer:
        version = self.keys.get((org, name), (0, ""))[0]
        if seen.method in ("PUT", "POST"):
            if seen.method == "POST" and "bad" in body["key"]:
                raise Refused(409, "The new key was tried and did not pass. Nothing is changed.")
            self.keys[org, name] = (version + 1, body["key"])
            return 200, {"version": version + 1}, {}
        if seen.method == "DELETE":
            self.keys.pop((org, name), None)
            return 204, "", {}
        return 200, {"version": version, "set": (org, name) in self.keys}, {}

    def _schedule(self, seen: Seen, org: str, name: str, body: Any) -> Answer:
        if seen.method == "PUT":
            self.schedules[org, name] = {**body, "next_at": 1_800_000_000, "failure": ""}
        elif seen.method == "DELETE":
            self.schedules.pop((org, name), None)
            return 204, "", {}
        if (org, name) not in self.schedules:
            raise Refused(404, "There is nothing here, or it is not yours to see.")
        return 200, self.schedules[org, name], {}

    def _cert(self, seen: Seen, org: str, name: str, body: Any) -> Answer:
        if seen.method == "PUT":
            if "BEGIN PRIVATE KEY" not in body["key"]:
                raise Refused(422, "key: is not a private key in PEM (BEGIN PRIVATE KEY)")
            self.certs[org, name] = body["cert"]
            return 200, {"version": 1}, {}
        if seen.method == "DELETE":
            self.certs.pop((org, name), None)
            return 204, "", {}
        state: dict[str, Any] = {"version": 1, "set": (org, name) in self.certs}
        if state["set"]:
            state |= {"subject": "CN=gw", "issuer": "CN=ca", "serial": "1f", "not_before": 1, "not_after": 86_400}
        return 200, state, {}

    def _proof(self, seen: Seen, what: str) -> Answer:
        asked = seen.query
        if what == "find":
            before = int(asked.get("before", len(self.lines)))
            start = max(before - 500, 0)
            span = [json.loads(line) for line in self.lines[start:before]]
            found = [
                entry["index"] for entry in span if asked["id"] in (entry["_document_id"], entry.get("request_id"))
            ]
            return 200, {"index": max(found, default=-1), "before": start}, {}
        tree = HashTree(map(leaf_hash, self.lines))
        if what == "consistency":
            hashes = consistency(tree, int(asked["old"]), int(asked["new"]))
            return 200, {"old": int(asked["old"]), "new": int(asked["new"]), "hashes": _base64(hashes)}, {}
        index, size = int(asked["index"]), int(asked["size"])
        line = self.lines[index].decode()
        hashes = inclusion(tree, index, size)
        return 200, {"index": index, "size": size, "entry": line, "hashes": _base64(hashes)}, {}

    def _audit(self, seen: Seen, what: str) -> Answer:
        plain = {"content-type": "text/plain"}
        if what == "entries":
            at = int(seen.query["after"])
            found = [json.loads(line) for line in self.lines[at : at + int(seen.query["limit"])]]
            kept = [e for e in found if seen.query.get("action", e["action"]) == e["action"]]
            return 200, {"items": kept, "next": at + len(found)}, {}
        if what == "log":
            span = self.lines[int(seen.query["start"]) : int(seen.query["end"])]
            return 200, b"".join(line + b"\n" for line in span), {"content-type": "application/jsonl"}
        if what == "export":
            span = self.lines[int(seen.query["after"]) : int(seen.query["end"])]
            kept_lines = [line + b"\n" for line in span if _matches(json.loads(line), seen.query)]
            # As the real one: it says that it searches on, and when it has said all.
            return 200, b" \n" + b"".join(kept_lines) + b"\n", {"content-type": "application/jsonl"}
        if what == "leaves":
            span = self.lines[int(seen.query["start"]) : int(seen.query["end"])]
            return 200, b"".join(map(leaf_hash, span)), {"content-type": "application/octet-stream"}
        if what in ("proof", "consistency", "find"):
            return self._proof(seen, what)
        if what == "actors":
            return 200, {"items": self.actors.get(seen.query["actor"], [])}, {}
        if what == "hold":
            return 200, {"hold": "", "retention_days": 2_555, "begin": self.begin, "size": len(self.lines)}, {}
        return 200, {"checkpoint": self.checkpoint, "key": self.key, "policy": self.policy}[what], plain


_DOWNLOADS = ("application/jsonl", "application/octet-stream")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    plane: ControlPlane

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client may go away in the middle
            super().handle()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
        status, content, more = self.plane.answer(seen)
        raw = content if isinstance(content, bytes) else b""
        if isinstance(content, str):
            raw = content.encode()
        elif not isinstance(content, bytes):
            raw = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **more}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(raw)))
        self.end_headers()
        if status == 200 and self.plane.cuts and more.get("content-type") in _DOWNLOADS:
            raw = raw[: self.plane.cuts.pop(0)]
            self.close_connection = True
        if status != 204:
            self.wfile.write(raw)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

    def log_message(self, *_args: object) -> None:
        """Tests read `seen` instead."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[ControlPlane]:
    """A control plane on a free port of loopback, both planes on one origin."""
    plane = ControlPlane()
    handler = type("Handler", (_Handler,), {"plane": plane})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    plane.origin = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield plane
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _base64(hashes: list[bytes]) -> list[str]:
    return [b64encode(one).decode() for one in hashes]


def _matches(entry: dict[str, Any], query: dict[str, str]) -> bool:
    exact = ("action", "outcome", "model", "client")
    at = entry["@timestamp"] // 1000
    return (
        all(entry.get(name, "") == query[name] for name in exact if name in query)
        and ("actor" not in query or entry["actor"] in query["actor"].split(","))
        and int(query.get("since", 0)) <= at < int(query.get("until", 2**40))
    )


def _facts(name: str) -> dict[str, Any]:
    times = {"set_at": 1_700_000_000, "used_at": 1_700_000_060, "overlap_ends_at": 0, "next_at": 1_800_000_000}
    known = {"kind": "bearer", "state": "set", "version": 2, "stored": 2, "failure": ""}
    return {"upstream": name, **known, **times}
