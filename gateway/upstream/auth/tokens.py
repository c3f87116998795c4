"""Access tokens for upstreams, as a worker holds them: fetched once, then renewed behind the requests' back.

A token is renewed at 80 % of its life by a timer, for as long as somebody uses it, so that no request waits for a
token endpoint once one has. An endpoint that is down is not felt before the token in hand has ended.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from gateway.errors import UnavailableError
from gateway.exchange import Credential
from gateway.upstream.auth.authorizer import Token, other_kind
from gateway.upstream.auth.grant import Grant, GrantError
from gateway.upstream.auth.shapes import Client, ShapeError, read
from tenants.ids import OrgId
from tenants.models import Upstream

RENEW_AT: Final = 0.8
"""Part of a token's life after which it is renewed."""

MARGIN_S: Final = 10.0
"""A token is not used in the last tenth of its life, or these seconds if they are less: requests take time."""

FLOOR_S: Final = 5.0
"""A token that the upstream refuses is fetched anew at once, but not one that is younger than this."""

RETRY_S: Final = 2.0
MAX_RETRY_S: Final = 60.0

log = logging.getLogger(__name__)

Ask = Callable[[Upstream, Client], Awaitable[Grant]]


class Timer(Protocol):
    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class _Held:
    """What one worker knows of one upstream's token; `client` is the key it is fetched with, one value for the
    life of this object. Changed only by `ClientTokens`, on its loop.

    `doubted`: the upstream refused the token, and another is being fetched. `used`: since it was fetched.
    `retry_at`: the endpoint failed, and is not asked again before this. All times are the clock's.
    """

    __slots__ = (
        "base_url",
        "client",
        "doubted",
        "ends",
        "failures",
        "fetched_at",
        "fetching",
        "retry_at",
        "timer",
        "token",
        "used",
    )

    def __init__(self, base_url: str, client: Credential) -> None:
        self.base_url = base_url
        self.client = client
        self.token: Token | None = None
        self.ends = 0.0
        self.fetched_at = 0.0
        self.fetching: asyncio.Task[Token] | None = None
        self.retry_at = 0.0
        self.failures = 0
        self.doubted = False
        self.used = False
        self.timer: Timer | None = None


class ClientTokens:
    """The tokens of one process. `clock` gives monotonic seconds. Belongs to one event loop."""

    def __init__(self, ask: Ask, clock: Callable[[], float], call_later: CallLater | None = None) -> None:
        self._ask = ask
        self._clock = clock
        self._call_later = call_later
        self._held: dict[tuple[OrgId, str], dict[int, _Held]] = {}  # by the key's version
        self._tasks: set[asyncio.Task[Any]] = set()

    def peek(self, upstream: Upstream, client: Credential) -> Token | None:
        """The token in hand, at once. None means: call `lease`.

        When `client` is another key than before, its own token is fetched in the background, and the one in hand
        serves until it is there: a rotation makes nobody wait. Not where the upstream leads elsewhere now.
        """
        held = self._find(upstream, client)
        if held is None:
            return None
        held.used = True
        if held.doubted or held.token is None or self._clock() >= held.ends:
            return None
        return held.token

    async def lease(self, upstream: Upstream, client: Credential) -> Token:
        """The token for `client`, a stored key. Asks the token endpoint when there is none; many callers wait for
        one answer. Raises `UnavailableError` with Retry-After when there is none within 2 s."""
        ready = self.peek(upstream, client)
        if ready is not None:
            return ready
        held = self._find(upstream, client) or self._keep(upstream, client)
        held.used = True
        wait = held.retry_at - self._clock()
        if held.fetching is None and wait > 0:
            raise _unavailable(upstream, wait)
        fetching = held.fetching or self._fetch(held, upstream)
        try:
            return await asyncio.shield(fetching)  # one caller's cancel must not end what the others wait for
        except ShapeError:
            raise other_kind(upstream) from None
        except GrantError:
            if held.token is not None and self._clock() < held.ends:
                return held.token  # refused once, and perhaps wrongly: there is no better one
            raise _unavailable(upstream, RETRY_S) from None

    async def fetched(self, upstream: Upstream, client: Credential) -> Token:
        """A token for `client` alone, whatever is in hand: to try a key. Raises as `lease`, and says why."""
        try:
            return (await self._granted(upstream, client))[0]
        except ShapeError:
            raise other_kind(upstream) from None
        except GrantError as error:
            raise UnavailableError(str(error), retry_after_s=math.ceil(RETRY_S)) from None

    def refused(self, upstream: Upstream, token: Credential) -> None:
        """The upstream answered 401 to `token`: fetch another at once, in the background. Requests wait for it."""
        now = self._clock()
        for held in self._held.get((upstream.org, upstream.name), {}).values():
            due = now >= held.retry_at and now - held.fetched_at >= FLOOR_S
            if held.token is token and held.fetching is None and due:
                held.doubted = True
                self._fetch(held, upstream)

    async def aclose(self) -> None:
        """End renewals. The tokens in hand end by themselves."""
        for kept in self._held.values():
            for version in list(kept):
                _drop(kept, version)
        self._held.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _find(self, upstream: Upstream, client: Credential) -> _Held | None:
        """What is held for `client`, which is often the same key in another object, leased anew."""
        kept = self._held.get((upstream.org, upstream.name))
        if kept is None:
            return None
        held = kept.get(client.version)
        if held is None or held.client is not client or held.base_url != upstream.base_url:
            return self._turned(kept, upstream, client)
        return held

    def _turned(self, kept: dict[int, _Held], upstream: Upstream, client: Credential) -> _Held | None:
        for version in [version for version, held in kept.items() if held.base_url != upstream.base_url]:
            _drop(kept, version)
        for version, held in list(kept.items()):
            if hmac.compare_digest(held.client.secret.reveal(), client.secret.reveal()):
                kept[client.version] = kept.pop(version)  # under another number too: a key that was set back
                held.client = client
                return held
        older = [version for version in kept if version <= client.version]
        if not older:
            return None  # the key from before, tried once more: it has a token of its own, or none
        before = kept[max(older)]
        held = self._keep(upstream, client)
        if not before.doubted:
            held.token, held.ends, held.fetched_at = before.token, before.ends, before.fetched_at
        self._fetch(held, upstream)
        return held

    def _keep(self, upstream: Upstream, client: Credential) -> _Held:
        """A place for `client`, beside that of one other key: in a rotation either may be asked for."""
        kept = self._held.setdefault((upstream.org, upstream.name), {})
        _drop(kept, client.version)
        # A fetch for a dropped key that is under way ends in an object that nobody looks at any more.
        for version in sorted(kept)[:-1]:
            _drop(kept, version)
        held = kept[client.version] = _Held(upstream.base_url, client)
        return held

    def _fetch(self, held: _Held, upstream: Upstream) -> asyncio.Task[Token]:
        held.fetching = fetching = asyncio.ensure_future(self._into(held, upstream))
        self._tasks.add(fetching)
        fetching.add_done_callback(self._done)
        return fetching

    def _done(self, task: asyncio.Task[Token]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # logged where it was raised; whoever waits has it too

    async def _into(self, held: _Held, upstream: Upstream) -> Token:
        asked_at = self._clock()  # its life has begun when the answer is on its way
        try:
            token, life_s = await self._granted(upstream, held.client)
        except (GrantError, ShapeError) as error:
            now = self._clock()
            delay = min(RETRY_S * 2**held.failures, MAX_RETRY_S)
            held.failures += 1
            held.retry_at = now + delay
            log.warning("the token for upstream %s of %s was not fetched: %s", upstream.name, upstream.org, error)
            if held.token is not None and now < held.ends:
                held.used = True  # it has not been renewed: the next try is owed, whoever comes
                self._later(held, upstream, delay)
            raise
        else:
            held.failures, held.retry_at = 0, 0.0
            held.token, held.used, held.fetched_at = token, False, asked_at
            held.ends = asked_at + life_s - min(MARGIN_S, life_s / 10)
            self._later(held, upstream, asked_at + life_s * RENEW_AT - self._clock())
            return token
        finally:
            held.fetching = None
            held.doubted = False

    async def _granted(self, upstream: Upstream, client: Credential) -> tuple[Token, float]:
        grant = await self._ask(upstream, read(Client, client.secret))
        return Token(client.version, grant.token, client), grant.life_s

    def _later(self, held: _Held, upstream: Upstream, delay_s: float) -> None:
        if held.timer is not None:
            held.timer.cancel()
        call_later = self._call_later or asyncio.get_running_loop().call_later
        held.timer = call_later(max(delay_s, 0.0), lambda: self._renew(held, upstream))

    def _renew(self, held: _Held, upstream: Upstream) -> None:
        held.timer = None
        kept = self._held.get((upstream.org, upstream.name), {})
        version = next((version for version, each in kept.items() if each is held), None)
        if version is None or held.fetching is not None:
            return
        if held.used:
            self._fetch(held, upstream)
        else:
            _drop(kept, version)  # nobody came for most of its life: whoever comes next waits


def _drop(kept: dict[int, _Held], version: int) -> None:
    held = kept.pop(version, None)
    if held is not None and held.timer is not None:
        held.timer.cancel()


def _unavailable(upstream: Upstream, wait_s: float) -> UnavailableError:
    return UnavailableError(
        f"the token for upstream '{upstream.name}' cannot be fetched now", retry_after_s=max(math.ceil(wait_s), 1)
    )
