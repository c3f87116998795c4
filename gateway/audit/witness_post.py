"""How a witness is asked over HTTP. Who writes the settings is trusted to say where; what answers there is not."""

from __future__ import annotations

import asyncio
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, Protocol

import httpx

from gateway.audit.witness_answer import ANSWER_MAX, Reply, WitnessError

TIMEOUT_S: Final = 5.0
"""For all of it, name and TLS included."""


class Ask(Protocol):
    async def ask(self, url: str, body: bytes) -> Reply:
        """POST to `<url>/add-checkpoint`. Raises `WitnessError`, at the latest after `TIMEOUT_S`."""

    async def aclose(self) -> None: ...


class WitnessPost:
    """Connections are kept for the next checkpoint. `ca`: PEM of the authorities to trust besides public ones."""

    def __init__(self, ca: str = "") -> None:
        context = ssl.create_default_context()
        if ca:
            context.load_verify_locations(cadata=ca)
        self._client = httpx.AsyncClient(
            verify=context,
            timeout=TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # else it could fill our memory with them
            headers={
                "user-agent": "orgate",
                "content-type": "text/plain; charset=utf-8",
                "accept-encoding": "identity",
            },
        )

    async def ask(self, url: str, body: bytes) -> Reply:
        """POST to `<url>/add-checkpoint`. Raises `WitnessError`, at the latest after `TIMEOUT_S`."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._send(f"{url.rstrip('/')}/add-checkpoint", body)
        except TimeoutError:
            raise WitnessError(f"no answer in {TIMEOUT_S:g} s") from None
        except (httpx.InvalidURL, UnicodeError):  # said of this witness, for the others are asked all the same
            raise WitnessError("its URL names no host") from None
        except httpx.HTTPError as error:
            raise WitnessError(_why(error)) from None

    async def _send(self, url: str, body: bytes) -> Reply:
        async with self._client.stream("POST", url, content=body) as response:
            found = bytearray()
            async for piece in response.aiter_raw():  # as it came: a few bytes could be inflated to any number
                found += piece
                if len(found) > ANSWER_MAX:
                    raise WitnessError("its answer is too long")
            return Reply(response.status_code, bytes(found), response.headers.get("content-type", ""))

    async def aclose(self) -> None:
        await self._client.aclose()


def _why(error: httpx.HTTPError) -> str:
    """In our own words: what a peer sends never goes into a log."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    match error:
        case httpx.TimeoutException():
            return f"no answer in {TIMEOUT_S:g} s"
        case httpx.ConnectError():
            return "it cannot be reached"
        case _:
            return "it broke off without an answer"
