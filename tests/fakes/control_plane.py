"""A control plane for the CLI's tests: OAuth and the admin API over a real socket, scripted where a test says so.

It keeps the rules of the real one and shouts: a refresh token that is used twice ends its family, a form
without its CSRF cookie is refused, a PUT without If-Match gets 428 and a stale one 412, an unknown field 422.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.fakes.credentials import personal_token, personal_tokens, sessions
from tests.fakes.plane_answers import Answer, Refused, Seen
from tests.fakes.plane_audit import AuditLog
from tests.fakes.plane_items import Items
from tests.fakes.plane_oauth import OAuthServer


class ControlPlane(OAuthServer, Items, AuditLog):
    """State and answers. `script` puts an answer before the real one; `seen` has every request."""

    def __init__(self) -> None:
        OAuthServer.__init__(self)
        Items.__init__(self)
        AuditLog.__init__(self)
        self.lock = threading.Lock()
        self.seen: list[Seen] = []
        self.scripted: dict[tuple[str, str], list[Answer]] = {}
        self.roles = ["owner"]
        self.cuts: list[int] = []
        """After so many bytes the next downloads break off, one each."""

    @property
    def writes(self) -> list[Seen]:
        """What was sent to change something on the admin API."""
        return [s for s in self.seen if s.path.startswith("/admin/") and s.method != "GET"]

    def script(self, method: str, path: str, *answers: Answer) -> None:
        """Give `answers`, one a request, before the real ones."""
        self.scripted.setdefault((method, path), []).extend(answers)

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


def _nothing() -> Answer:
    raise Refused(404, "There is nothing here, or it is not yours to see.")


def _facts(name: str) -> dict[str, Any]:
    times = {"set_at": 1_700_000_000, "used_at": 1_700_000_060, "overlap_ends_at": 0, "next_at": 1_800_000_000}
    known = {"kind": "bearer", "state": "set", "version": 2, "stored": 2, "failure": ""}
    return {"upstream": name, **known, **times}


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
            cut = self.plane.cuts.pop(0)
            # Who has a whole answer may ask again on this connection: it is not closed then.
            self.close_connection |= cut < len(raw)
            raw = raw[:cut]
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
