"""What stands outside the gateway for all organizations at once: their models, webhooks and log receivers.

Each organization has an address of its own, and the same program answers at all of them; it remembers who came
with what, and where.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Came:
    """A request: at whose address, on which path, with whose key."""

    at: str
    path: str
    whose: str
    body: str


@dataclass
class Outside:
    """`urls`: organization → where its things are. `keys`: whose an upstream key is."""

    urls: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    came: list[Came] = field(default_factory=list)

    def at(self, org: str, path: str) -> list[str]:
        return [one.body for one in self.came if (one.at, one.path) == (org, path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    outside: Outside
    at: str

    def do_GET(self) -> None:
        self._answer(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        whose = self.outside.keys.get((self.headers.get("authorization") or "").removeprefix("Bearer "), "nobody")
        self.outside.came.append(Came(self.at, self.path, whose, body))
        if "/v1/" not in self.path:
            self._answer(200, {})
            return
        said = f"zqsaid{whose}"
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        choice = {"index": 0, "text": said, "message": {"role": "assistant", "content": said}}
        self._answer(
            200, {"id": "x", "object": "x", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        )

    def _answer(self, status: int, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A gateway that is killed cuts its connections."""


@contextmanager
def outside(names: Iterable[str] = ("acme", "glob", "vqtx", "umbr", "hool")) -> Iterator[Outside]:
    """Listens on loopback for as long as the block lasts."""
    made = Outside()
    with ExitStack() as stack:
        for name in names:
            handler = type("Handler", (_Handler,), {"outside": made, "at": name})
            server = stack.enter_context(_Server(("127.0.0.1", 0), handler))
            made.urls[name] = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield made
