"""An organization's webhook: set, tried, taken away; and how one message is signed and posted.

Messages are as standardwebhooks.com says: headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, the
last an HMAC-SHA256 of `<id>.<timestamp>.<body>` in base64 behind `v1,`. Whoever sets a URL is not trusted: where
it leads is judged when it is set and at every dial, as with upstreams; no redirect is followed; and nothing that
the receiver says goes on but its status.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import httpx
import msgspec
from msgspec import Struct

from gateway.clock import Clock
from gateway.secret import Secret
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError, WebhookSecrets
from gateway.upstream.addresses import Network
from gateway.upstream.dial import Resolve, resolve
from gateway.upstream.transport import UpstreamTransport
from tenants.budgets import Webhook
from tenants.ids import OrgId
from tenants.models import Upstream
from tenants.store import Actor, NotFoundError, WebhookBook

TIMEOUT_S: Final = 5.0
"""For all of it, name and TLS included."""

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
GONE: Final = 410
"""The receiver wants no more of it: nothing is sent again."""


class DeliveryError(Exception):
    """It did not arrive. Says why in words that may be shown: none of them is the receiver's. `status` 0: no
    answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class WebhookResult(Struct, frozen=True):
    """What a test met. `status` 0: no answer."""

    ok: bool
    status: int
    ms: float
    detail: str


class Posting(Protocol):
    """`WebhookPost.post`."""

    async def __call__(self, hook: Webhook, secret: Secret, message_id: str, body: bytes) -> int: ...


class WebhookPost:
    """Posts messages; a connection for each. `allowed`: networks that receivers may be in besides public ones."""

    def __init__(self, clock: Clock, *, allowed: Sequence[Network] = (), resolver: Resolve = resolve) -> None:
        self._clock = clock
        self._allowed = tuple(allowed)
        self._resolver = resolver

    async def post(self, hook: Webhook, secret: Secret, message_id: str, body: bytes) -> int:
        """The status of a success. Raises `DeliveryError`, at the latest after `TIMEOUT_S`."""
        timestamp = int(self._clock.now())
        url = httpx.URL(hook.url)
        headers = [
            (b"host", url.netloc),
            (b"content-type", b"application/json"),
            (b"user-agent", b"orgate"),
            (b"webhook-id", message_id.encode()),
            (b"webhook-timestamp", b"%d" % timestamp),
            (b"webhook-signature", signature(secret, message_id, timestamp, body).encode()),
        ]
        place = Upstream(
            org=hook.org,
            name="webhook",
            base_url=f"{url.scheme}://{url.netloc.decode('ascii')}",
            ca_pem=hook.ca_pem,
            connections=1,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = await self._send(place, httpx.Request("POST", url, headers=headers, content=body))
        except TimeoutError:
            raise DeliveryError(f"no answer in {TIMEOUT_S:g} s") from None
        except httpx.HTTPError as error:
            raise DeliveryError(_why(error)) from None
        if not 200 <= status < 300:
            raise DeliveryError(f"the receiver answered status {status}", status)
        return status

    async def _send(self, place: Upstream, request: httpx.Request) -> int:
        transport = UpstreamTransport(place, allowed=self._allowed, resolver=self._resolver)
        try:
            response = await transport.handle_async_request(request)
            await response.aclose()
            return response.status_code
        finally:
            transport.close()


class Webhooks:
    """What an admin does with an organization's webhook. One at a time for the whole process: seldom, and quick.

    `random`: so many random bytes.
    """

    def __init__(
        self,
        book: WebhookBook,
        secrets: WebhookSecrets,
        post: Posting,
        clock: Clock,
        random: Callable[[int], bytes],
    ) -> None:
        self._book = book
        self._secrets = secrets
        self._post = post
        self._clock = clock
        self._random = random
        self._turn = asyncio.Lock()

    async def get(self, org: OrgId) -> Webhook | None:
        return await self._book.get(org)

    async def put(self, item: Webhook, by: Actor) -> tuple[Webhook, str]:
        """Set it, with a new secret each time; returns what stands and the secret, which nobody is shown again.

        A crash between the two writes leaves a webhook that is signed with the secret from before, or with none:
        whoever set it has no answer, and sets it again.
        """
        text = PREFIX + base64.b64encode(self._random(SECRET_BYTES)).decode()
        async with self._turn:
            made = await self._book.put(item, by)
            await self._secrets.put(item.org, Secret(text))
        return made, text

    async def delete(self, org: OrgId, by: Actor) -> None:
        """Raises `tenants.store.NotFoundError` where there is none."""
        async with self._turn:
            await self._book.delete(org, by)
            await self.forget(org)

    async def forget(self, org: OrgId) -> None:
        """The secret of an organization whose webhook is gone."""
        try:
            await self._secrets.delete(org)
        except NoSuchSecretError:
            return

    async def test(self, org: OrgId) -> WebhookResult:
        """Post a message of type `webhook.test`, once. Raises `NotFoundError` where there is no webhook."""
        hook = await self._book.get(org)
        if hook is None:
            raise NotFoundError("no webhook")
        begun = self._clock.monotonic_us()
        body = message("webhook.test", int(self._clock.now()), {"org": org, "text": "This is a test."})
        try:
            status = await self.send(hook, f"msg_{self._random(12).hex()}", body)
        except DeliveryError as error:
            return WebhookResult(False, error.status, self._since(begun), str(error))
        return WebhookResult(True, status, self._since(begun), "the receiver took it")

    async def send(self, hook: Webhook, message_id: str, body: bytes) -> int:
        """Sign and post. Raises `DeliveryError`."""
        try:
            secret = await self._secrets.get(hook.org)
        except NoSuchSecretError:
            raise DeliveryError("its secret is gone; set the webhook again") from None
        except StoreUnavailableError:
            raise DeliveryError("its secret cannot be read now") from None
        return await self._post(hook, secret, message_id, body)

    def _since(self, begun_us: int) -> float:
        return (self._clock.monotonic_us() - begun_us) / 1000


def signature(secret: Secret, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`. Raises `ValueError` for what is no `whsec_` secret."""
    text = secret.reveal().decode()
    if not text.startswith(PREFIX):
        raise ValueError(f"a webhook's secret begins with {PREFIX}")
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    digest = hmac.new(base64.b64decode(text.removeprefix(PREFIX)), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def message(kind: str, at: int, data: dict[str, Any]) -> bytes:
    """The body: `type`, `timestamp` (RFC 3339) and `data`."""
    return msgspec.json.encode({"type": kind, "timestamp": instant(at), "data": data})


def instant(at: int) -> str:
    """Unix seconds as RFC 3339, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _why(error: httpx.HTTPError) -> str:
    """The dialler's words are our own, about upstreams; what a peer sends never is in them."""
    if isinstance(error, httpx.TimeoutException):
        return "the receiver did not answer in time"
    if isinstance(error, httpx.ConnectError):
        return str(error).replace("the upstream", "the receiver")
    return "the receiver broke off without an answer"
