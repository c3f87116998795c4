"""A fake Vault over a real socket: the part of its HTTP API that Orgate uses, with the real thing's rules.

It was held against OpenBao, answer by answer (tests/contract/test_vault_server.py runs on both), and refuses
what the real one refuses: a policy that does not allow it, a token that has ended, a wrapping token that was
used. It can be sealed, made to stand by, to redirect, to answer any status, and to hold its answers back.
"""

from __future__ import annotations

import json
import secrets
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct

from tests.fakes.vault_reply import Reply, failed
from tests.fakes.vault_rules import (
    AppRole,
    Engine,
    JwtRoles,
    Token,
    Tree,
    allows,
    capability,
    parse_policy,
)
from tests.fakes.vault_transit import TransitEngine

ROOT = "root"
UNSEAL = "unseal-key"
HEALTH = {"sealed": 503, "standby": 429, "performance standby": 473, "dr secondary": 472}


class Seen(Struct, frozen=True):
    """One request as it arrived."""

    method: str
    path: str
    token: str
    namespace: str


class FakeVault:
    """`with FakeVault() as vault:` serves at `vault.address`; the root token is `ROOT`."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._trees: dict[str, Tree] = {"": Tree()}
        self._tokens = {ROOT: Token(ROOT, "", frozenset({"root"}), float("inf"), float("inf"), 0)}
        self._wrapped: dict[str, tuple[str, Any, float]] = {}
        self.sealed = False
        self.condition = "active"
        """`active`, or a key of `HEALTH`. A standby sends everything else to `elsewhere`, as a real one does."""
        self.elsewhere = "https://active.vault.test:8200"
        self.status = 0
        """Answer everything with this, whatever it is; 0: don't."""
        self.body: bytes | None = None
        """Answer everything with these bytes, and with status 200 or `status`."""
        self.open = threading.Event()
        """Cleared: answers are held back until it is set."""
        self.open.set()
        self.seen: list[Seen] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.address = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FakeVault:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def calls(self, path: str) -> list[Seen]:
        """What arrived at paths that end with `path`."""
        return [seen for seen in list(self.seen) if seen.path.endswith(path)]

    def forget_tokens(self) -> None:
        """What a restart of a development server does: no token but root's is known any more."""
        with self._lock:
            self._tokens = {ROOT: self._tokens[ROOT]}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Answers are held back inside the block, and come at its end."""
        self.open.clear()
        try:
            yield
        finally:
            self.open.set()

    # -- one request ------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> Reply:
        with self._lock:
            token = headers.get("x-vault-token", "")
            namespace = headers.get("x-vault-namespace", "").strip("/")
            self.seen.append(Seen(method, path, token, namespace))
            if self.status:
                return Reply(self.status, {"errors": []})
            if path.startswith("sys/") and (early := self._public(method, path, body)) is not None:
                return early
            if self.sealed:
                return failed(503, "Vault is sealed")
            if self.condition != "active":
                return Reply(307, None, {"location": f"{self.elsewhere}/v1/{path}"})
            tree = self._trees.get(namespace)
            if tree is None:
                return failed(404, "namespace not found")
            reply = self._route(method, path, namespace, tree, token, body)
            if (ttl := headers.get("x-vault-wrap-ttl")) and reply.status == 200:
                return self._wrap(path, reply, float(ttl.rstrip("s")))
            return reply

    def _public(self, method: str, path: str, body: dict[str, Any]) -> Reply | None:
        match path:
            case "sys/health":
                status = 503 if self.sealed else HEALTH.get(self.condition, 200)
                return Reply(status, {"initialized": True, "sealed": self.sealed, "version": "fake"})
            case "sys/unseal" if body.get("key") == UNSEAL:
                self.sealed = False
                return Reply(200, {"sealed": False, "t": 1, "n": 1, "progress": 0})
            case "sys/wrapping/lookup" if not self.sealed:
                found = self._wrapped.get(str(body.get("token")))
                if found is None or self._clock() >= found[2]:
                    return failed(400, "wrapping token is not valid or does not exist")
                return Reply.of({"creation_path": found[0], "creation_ttl": 60})
        return None

    def _route(
        self, method: str, path: str, namespace: str, tree: Tree, bearer: str, body: dict[str, Any]
    ) -> Reply:
        if path.startswith("auth/") and path.endswith("/login"):
            return self._login(path, namespace, tree, body)
        if path == "sys/wrapping/unwrap":
            return self._unwrap(str(body.get("token") or bearer), bearer)
        token = self._tokens.get(bearer)
        if token is None or self._clock() >= token.ends:
            return failed(403, "permission denied")
        if path.startswith("auth/token/"):
            return self._about_token(path.removeprefix("auth/token/"), token)
        policies = [tree.policies.get(name, {}) for name in token.policies]
        below = token.namespace in ("", namespace)
        if "root" not in token.policies and not (below and allows(policies, path, capability(method))):
            return failed(403, "1 error occurred:\n\t* permission denied\n\n")
        if path == "sys/seal":
            self.sealed = True
            return Reply(204)
        return self._administer(method, path, tree, body) or tree.serve(method, path, body)

    def _administer(self, method: str, path: str, tree: Tree, body: dict[str, Any]) -> Reply | None:
        parts = path.split("/")
        match parts:
            case ["sys", "namespaces", *name] if method in ("POST", "PUT"):
                self._trees.setdefault("/".join(name), Tree())
                return Reply.of({"path": "/".join(name) + "/"})
            case ["sys", "policies", "acl", name]:
                if not body.get("policy"):
                    return failed(400, "'policy' parameter not supplied or empty")
                rules = parse_policy(str(body.get("policy", "")))
                if rules is None:
                    return failed(400, "failed to parse policy: At 1:8: object expected closing RBRACE got: EOF")
                tree.policies[name] = rules
                return Reply(204)
            case ["sys", "mounts", *mount] if body.get("type") == "transit":
                return tree.mount("/".join(mount), TransitEngine(self._now))
            case ["sys", "mounts", *mount]:
                kind = "kv-v2" if body.get("options", {}).get("version") == "2" else "kv-v1"
                return tree.mount("/".join(mount), Engine(kind, now=self._now))
            case ["sys", "auth", *mount]:
                kind = str(body.get("type"))
                made = AppRole() if kind == "approle" else JwtRoles(kind)
                return tree.mount("auth/" + "/".join(mount), made)
        return None

    def _login(self, path: str, namespace: str, tree: Tree, body: dict[str, Any]) -> Reply:
        method = tree.mounts.get(path.removesuffix("/login"))
        if not isinstance(method, AppRole | JwtRoles):
            if namespace:
                return failed(403, "permission denied")
            return failed(404, f'no handler for route "{path}". route entry not found.')
        granted = method.login(body)
        if isinstance(granted, Reply):
            return granted
        now = self._clock()
        ends, last = now + granted.ttl_s, now + granted.max_ttl_s
        value = "s." + secrets.token_hex(12)
        token = Token(value, namespace, frozenset(granted.policies), min(ends, last), last, granted.ttl_s)
        self._tokens[value] = token
        return self._auth(token)

    def _about_token(self, what: str, token: Token) -> Reply:
        match what:
            case "renew-self":
                token.ends = min(self._clock() + token.ttl_s, token.last)
                return self._auth(token)
            case "revoke-self":
                self._tokens.pop(token.value, None)
                return Reply(204)
            case "lookup-self":
                return Reply.of({"id": token.value, "policies": sorted(token.policies)})
        return failed(404, "1 error occurred:\n\t* unsupported path\n\n")

    def _auth(self, token: Token) -> Reply:
        left = int(token.ends - self._clock()) if token.ttl_s else 0
        auth = {
            "client_token": token.value,
            "accessor": "accessor",
            "policies": sorted({"default", *token.policies}),
            "lease_duration": min(left + 1, int(token.ttl_s)) if left + 1 < token.ttl_s else int(token.ttl_s),
            "renewable": bool(token.ttl_s),
        }
        return Reply(200, {"request_id": "1", "data": None, "wrap_info": None, "warnings": None, "auth": auth})

    def _wrap(self, path: str, reply: Reply, ttl_s: float) -> Reply:
        value = "s." + secrets.token_hex(12)
        self._wrapped[value] = (path, reply.body, self._clock() + ttl_s)
        info = {"token": value, "ttl": int(ttl_s), "creation_path": path}
        return Reply(200, {"request_id": "", "data": None, "wrap_info": info, "auth": None})

    def _unwrap(self, value: str, bearer: str) -> Reply:
        # The wrapping token has to be the client's own, or the client's must be good for something.
        if bearer != value and bearer not in self._tokens:
            return failed(403, "permission denied")
        found = self._wrapped.pop(value, None)
        if found is None or self._clock() >= found[2]:
            return failed(400, "wrapping token is not valid or does not exist")
        return Reply(200, found[1])

    def _now(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ".000000000Z"


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a caller that hangs up is no fault of ours
            super().handle_error(request, client_address)


def _handler(vault: FakeVault) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            body = json.loads(raw) if raw else {}
            path, _, query = self.path.removeprefix("/v1/").partition("?")
            body.update(parse_qsl(query))
            headers = {name.lower(): value for name, value in self.headers.items()}
            vault.open.wait(30)
            reply = vault.answer(self.command, path, headers, body)
            sent = vault.body if vault.body is not None else b"" if reply.body is None else _json(reply.body)
            try:
                self.send_response(reply.status if vault.body is None else vault.status or 200)
                self.send_header("content-type", "application/json")
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)
            except ConnectionError:  # the caller did not wait
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = do_LIST = _serve  # noqa: N815 - the base class's names

    return Handler


def _json(body: object) -> bytes:
    return json.dumps(body).encode() + b"\n"
