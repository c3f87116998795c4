"""A CI system's token issuer on this machine: a discovery document, keys, and the tokens of its jobs."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.kit.dpop import ProofKey


class CiIssuer:
    """Use as a context manager. Plain HTTP, as the gateway allows on loopback alone."""

    def __init__(self) -> None:
        self.key = ProofKey.make("RS256")
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(issuer.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing to say."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> CiIssuer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str) -> dict[str, Any]:
        if path == "/keys":
            return {"keys": [{**self.key.jwk, "kid": "k1", "alg": "RS256", "use": "sig"}]}
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}

    def token(self, audience: str, *, key: ProofKey | None = None, **claims: Any) -> str:
        """A job's token, for five minutes. `key`: of somebody else, who would like to be this issuer."""
        now = int(time.time())
        said = {"iss": self.url, "aud": audience, "iat": now, "nbf": now, "exp": now + 300, **claims}
        return (key or self.key).sign({"typ": "JWT", "alg": "RS256", "kid": "k1"}, said)
