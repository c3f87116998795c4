"""HTTPS as a command needs it: own CA, timeouts, and failures said in words with what to do about them."""

from __future__ import annotations

import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from cli.errors import UnreachableError, UsageError
from cli.profiles import LOOPBACK
from gateway.version import VERSION

TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class Connection:
    """One origin. Not safe for threads; closed at the end of the command."""

    def __init__(self, origin: str, *, ca: str = "", verbose: bool = False) -> None:
        self.origin = origin
        self._verbose = verbose
        self._client = httpx.Client(
            base_url=origin,
            verify=_trust(ca) if origin.startswith("https:") else False,
            timeout=TIMEOUT,
            # A proxy from the environment stands between people and the world, not between them and loopback.
            trust_env=urlsplit(origin).hostname not in LOOPBACK,
            headers={"user-agent": f"orgate-cli/{VERSION}", "accept": "application/json"},
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        form: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send one request. Raises `UnreachableError` when no answer came; any status is an answer."""
        started = time.perf_counter()
        try:
            answer = self._client.request(method, path, params=params, headers=headers, content=content, data=form)
        except httpx.TransportError as error:
            raise _unreachable(self.origin, error) from None
        if self._verbose:
            spent = (time.perf_counter() - started) * 1000
            said = f"{method} {answer.url.copy_with(query=None)} {answer.status_code} {spent:.0f} ms"
            sys.stderr.write(said + "\n")
        return answer

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int],
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> Iterator[httpx.Response]:
        """A request whose answer is read inside the block, piece by piece."""
        try:
            with self._client.stream(method, path, params=params, headers=headers, content=content) as answer:
                yield answer
        except httpx.TransportError as error:
            raise _unreachable(self.origin, error) from None

    def close(self) -> None:
        self._client.close()


def _trust(ca: str) -> ssl.SSLContext:
    if not ca:
        return ssl.create_default_context()
    path = Path(ca).expanduser()
    try:
        return ssl.create_default_context(cafile=str(path))
    except FileNotFoundError:
        raise UsageError(
            f"the CA file {path} does not exist", "give the gateway's ca.pem with `orgate login --ca FILE`"
        ) from None
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"the CA file {path} cannot be used: {error}", "it must hold PEM certificates") from None


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    here: BaseException | None = error
    while here is not None and here not in found:
        found.append(here)
        here = here.__cause__ or here.__context__
    return found


def _unreachable(origin: str, error: httpx.TransportError) -> UnreachableError:
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UnreachableError(
                f"the certificate of {origin} is not trusted: {cause.verify_message}",
                "if it is signed by your own authority (`orgate init` makes one), sign in with `--ca FILE`",
            )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return UnreachableError(
            f"no TLS connection with {origin}: {causes[-1]}", "is that the address of a gateway, and its port?"
        )
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(
            f"{origin} did not answer in time", "try again; look at the server's load and logs"
        )
    if isinstance(error, httpx.ConnectError):
        reason = causes[-1].strerror if isinstance(causes[-1], OSError) and causes[-1].strerror else str(error)
        return UnreachableError(
            f"no connection to {origin}: {reason}", "check the address; on the server, is `orgate serve` running?"
        )
    if origin.startswith("http:"):
        # A port that speaks TLS ends a connection that begins with anything else.
        return UnreachableError(
            f"the connection to {origin} broke off before the answer was whole ({type(error).__name__})",
            f"gateways speak TLS: use https://{origin.removeprefix('http://')}",
        )
    return UnreachableError(
        f"the connection to {origin} broke off before the answer was whole ({type(error).__name__})",
        "look at what is so with `orgate ... show`, then try again",
    )
