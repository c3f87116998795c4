"""A redirect URI on this machine (RFC 8252 section 7.3): one listener for one sign-in, gone afterwards."""

from __future__ import annotations

import hmac
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cli.errors import NotAllowedError, RefusedError
from cli.output import printable

PATH = "/callback"
MAX_LINE = 8_192
POLL_S = 0.05
_PAGE = (
    b'<!doctype html><html lang="en"><meta charset="utf-8"><title>Orgate</title>'
    b"<p>%b You can close this page and go back to the terminal."
)


class Loopback:
    """Listens on 127.0.0.1, on a port that the system chooses, between `with` and its end.

    Another program of this machine may knock: what does not bring `state` is answered 404 and ignored. A thread
    for each connection, because browsers open some that they never use.
    """

    def __init__(self, state: str, issuer: str) -> None:
        self._state = state
        self._issuer = issuer
        self._answer: dict[str, str] = {}
        self._answered = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True)

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def redirect_uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{PATH}"

    def code(self, within_s: float) -> str:
        """Wait for the browser to come back. Errors: `NotAllowedError`, `RefusedError`."""
        if not self._answered.wait(within_s):
            raise NotAllowedError("nobody signed in in time", "run `orgate login` again")
        answer = self._answer
        if answer.get("iss") != self._issuer:
            # RFC 9207 section 2.4: the code of one server must not be sent to another.
            raise RefusedError("the answer does not come from the server that was asked")
        if error := answer.get("error"):
            said = printable(answer.get("error_description", error))
            raise NotAllowedError(f"the sign-in was refused: {said}", "run `orgate login` again")
        return answer.get("code", "")

    def _take(self, query: str) -> bool:
        """Whether `query` is the answer to this sign-in. The first one counts."""
        found = parse_qs(query, max_num_fields=16)
        if any(len(values) > 1 for values in found.values()):
            return False
        answer = {name: values[0] for name, values in found.items()}
        if not hmac.compare_digest(answer.get("state", "").encode(), self._state.encode()):
            return False
        self._answer = self._answer or answer
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # seconds for one request: a connection that says nothing must not keep the browser out

            def do_GET(self) -> None:
                parts = urlsplit(self.path[:MAX_LINE])
                try:
                    taken = parts.path == PATH and outer._take(parts.query)
                except ValueError:  # more fields than an answer has
                    taken = False
                said = b"Not the answer that is waited for." if not taken else b"The sign-in was refused."
                if taken and "code" in outer._answer:
                    said = b"You are signed in."
                body = _PAGE % said
                self.send_response(200 if taken else 404)
                for name, value in (
                    ("content-type", "text/html; charset=utf-8"),
                    ("content-length", str(len(body))),
                    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
                    ("cache-control", "no-store"),
                    ("referrer-policy", "no-referrer"),
                    ("connection", "close"),
                ):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                if taken:  # after the page is out: what waits for this ends the program
                    outer._answered.set()

            def log_message(self, *_: Any) -> None:
                """Nothing: the line would hold the code."""

        return Handler
