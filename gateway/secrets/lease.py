"""Upstream keys as a worker holds them: leased for a minute, renewed behind the requests' back.

A store that is down is not felt for 15 minutes by whoever has a key cached; the others get 503. Once a key is
here, no request waits for the store: what is renewed is renewed in the background, when a lease is 48 to 60 s
old, so that the workers' renewals spread out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container
from random import SystemRandom
from typing import Final

from gateway.errors import UnavailableError
from gateway.exchange import Credential
from gateway.secrets.store import KeyReader, NoSuchSecretError, StoreUnavailableError
from tenants.ids import OrgId

SOFT_TTL_S: Final = 60.0
STALE_IF_ERROR_S: Final = 15 * 60.0
JITTER: Final = 0.2
"""The part of the soft TTL within which a renewal falls at random."""

READ_TIMEOUT_S: Final = 1.8
"""Whoever has no key waits for this long at most: the answer is there within 2 s."""

RETRY_S: Final = 2
TELL_S: Final = 1.0

_random: Final = SystemRandom().random
log = logging.getLogger(__name__)


class _Lease:
    """What one worker knows of one upstream's key. Changed only by `KeyLeases`, on its loop.

    `asked`: the highest key version the store has been asked for. `renew_at`: when it is due. `retry_at`: the
    store failed, and is not asked again before this. `before`: the key that a rotation kept, when it was last
    looked for (`looked_at`). `told`: the version whose refusal was said, and when.
    """

    __slots__ = (
        "asked",
        "before",
        "credential",
        "looked_at",
        "looking",
        "read_at",
        "reading",
        "renew_at",
        "retry_at",
        "told",
    )

    def __init__(self) -> None:
        self.credential: Credential | None = None
        self.asked = -1
        self.read_at = 0.0
        self.renew_at = 0.0
        self.retry_at = 0.0
        self.reading: asyncio.Task[Credential] | None = None
        self.before: Credential | None = None
        self.looked_at = float("-inf")
        self.looking: asyncio.Task[None] | None = None
        self.told = (0, float("-inf"))


class KeyLeases:
    """The leases of one worker. `clock` gives monotonic seconds, `random` 0 to 1. Belongs to one event loop."""

    def __init__(
        self,
        keys: KeyReader,
        clock: Callable[[], float],
        random: Callable[[], float] = _random,
        tell: Callable[[OrgId, str, int], None] = lambda *_: None,
    ) -> None:
        """`tell`: the upstream refused this version and took another key for the same request; said once a second
        at most. It never raises."""
        self._keys = keys
        self._tell = tell
        self._clock = clock
        self._random = random
        self._leases: dict[tuple[OrgId, str], _Lease] = {}
        self._swept_at = clock()

    def peek(self, org: OrgId, upstream: str, key_version: int) -> Credential | None:
        """The cached key, at once, when it serves `key_version`; a lease past its minute starts its renewal.

        None means: call `lease`.
        """
        held = self._leases.get((org, upstream))
        if held is None or held.credential is None or not 0 < key_version <= held.asked:
            return None
        now = self._clock()
        if now >= held.renew_at:
            if now - held.read_at >= STALE_IF_ERROR_S:
                return None
            if held.reading is None and now >= held.retry_at:
                self._read(held, org, upstream, key_version)
        return held.credential

    def refused(self, org: OrgId, upstream: str, version: int) -> None:
        """The upstream answered 401 to this version of its key: read the store again at once, in the background.

        The key may have been changed in the store by another hand. At most once in 2 s: a key that is wrong
        in the store too is no reason to ask it on every request.
        """
        held = self._leases.get((org, upstream))
        if held is None or held.credential is None or held.credential.version != version:
            return
        now = self._clock()
        if held.reading is None and now >= held.retry_at and now - held.read_at >= RETRY_S:
            self._read(held, org, upstream, held.asked)

    def outdone(self, org: OrgId, upstream: str, version: int) -> None:
        """The upstream refused this version, and took another key for the same request: say so.

        A refusal alone proves nothing of the key: a member can write a request that a filter in front of the model
        answers with 403, and must not be able to end a rotation so.
        """
        held = self._leases.get((org, upstream))
        if held is None or held.credential is None or held.credential.version != version:
            return
        now = self._clock()
        if held.told[0] != version or now - held.told[1] >= TELL_S:
            held.told = (version, now)
            self._tell(org, upstream, version)

    async def other(self, org: OrgId, upstream: str, version: int, key_version: int) -> Credential | None:
        """The key to try instead of `version`, which was refused: a newer one, or the one that a rotation keeps
        for its overlap. None: there is no other. The store is asked for it once in 2 s at most."""
        try:
            current = await self.lease(org, upstream, key_version)
        except UnavailableError:
            return None
        if current.version != version:
            return current
        held = self._leases.get((org, upstream))
        if held is None:
            return None
        if held.looking is None and self._clock() - held.looked_at >= RETRY_S:
            held.looking = asyncio.ensure_future(self._look_before(held, org, upstream, version))
        if held.looking is not None:
            await asyncio.shield(held.looking)
        return held.before if held.before is not None and held.before.version != version else None

    async def _look_before(self, held: _Lease, org: OrgId, upstream: str, version: int) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                try:
                    held.before = await self._keys.get_before(org, upstream, version)
                except NoSuchSecretError:
                    # Rolled back a moment ago, and not announced yet: then the newest one is another.
                    held.before = await self._keys.get(org, upstream)
        except NoSuchSecretError:
            held.before = None
        except (StoreUnavailableError, TimeoutError) as error:
            log.warning("the key before of upstream %s of %s: %s", upstream, org, str(error) or "timed out")
        finally:
            held.looked_at, held.looking = self._clock(), None

    async def lease(self, org: OrgId, upstream: str, key_version: int) -> Credential:
        """The key of `upstream`. Reads the store when `key_version` is newer than what is cached.

        `key_version` 0 (no key set, or taken away) is never answered from the cache. Raises `UnavailableError`
        with Retry-After when there is no key, or none within 2 s and none cached within 15 minutes.
        """
        ready = self.peek(org, upstream, key_version)
        if ready is not None:
            return ready
        held = self._leases.setdefault((org, upstream), _Lease())
        fresh_enough = held.credential is not None and self._clock() - held.read_at < STALE_IF_ERROR_S
        if key_version and fresh_enough and self._clock() < held.retry_at and held.credential is not None:
            return held.credential  # the store failed a moment ago: the older key beats no key
        if held.credential is None and self._clock() < held.retry_at:
            raise _unreadable(upstream)  # at once: the store failed a moment ago, and nobody need wait for it
        reading = held.reading
        if reading is not None and key_version > held.asked:
            await asyncio.wait([reading])  # it may have started before the new key was written
            ready = self.peek(org, upstream, key_version)
            if ready is not None:
                return ready
            reading = held.reading
        if reading is None:
            reading = self._read(held, org, upstream, key_version)
        try:
            return await asyncio.shield(reading)  # one caller's cancel must not end what the others wait for
        except NoSuchSecretError:
            raise UnavailableError(f"no key is set for upstream '{upstream}'", retry_after_s=RETRY_S) from None
        except (StoreUnavailableError, TimeoutError):
            stale = held.credential
            if key_version and stale is not None and self._clock() - held.read_at < STALE_IF_ERROR_S:
                return stale
            raise _unreadable(upstream) from None

    def keep(self, known: Container[tuple[OrgId, str]]) -> None:
        """Forget the keys of upstreams that are not in `known`: one that is made anew under the same name leads
        elsewhere, and is never shown the key of the one before."""
        for key in [key for key in self._leases if key not in known]:
            del self._leases[key]

    def _read(self, held: _Lease, org: OrgId, upstream: str, key_version: int) -> asyncio.Task[Credential]:
        held.reading = asyncio.ensure_future(self._fetch(held, org, upstream, key_version))
        held.reading.add_done_callback(_observe)
        return held.reading

    async def _fetch(self, held: _Lease, org: OrgId, upstream: str, key_version: int) -> Credential:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                credential = await self._keys.get(org, upstream)
        except NoSuchSecretError:
            held.credential, held.asked = None, -1  # taken away: the cached one must not outlive it
            raise
        except (StoreUnavailableError, TimeoutError) as error:
            held.retry_at = self._clock() + RETRY_S
            # The store's own words name paths: they are for the operator's log, never for the caller.
            log.warning(
                "the key of upstream %s of %s was not renewed: %s", upstream, org, str(error) or "timed out"
            )
            raise
        else:
            held.before = None  # looked for again when it is needed: it is not kept here beyond its overlap
            held.credential, held.read_at = credential, self._clock()
            held.renew_at = held.read_at + SOFT_TTL_S * (1 - JITTER * self._random())
            # A store that lags behind `key_version` is asked again after the TTL, not on every request.
            held.asked = max(credential.version, key_version)
            return credential
        finally:
            held.reading = None
            self._sweep()

    def _sweep(self) -> None:
        """Forget keys that nobody has used for longer than they may be served; at most once a minute."""
        now = self._clock()
        if now - self._swept_at < SOFT_TTL_S:
            return
        self._swept_at = now
        for key, held in list(self._leases.items()):
            if held.reading is None and now - held.read_at >= STALE_IF_ERROR_S:
                del self._leases[key]


def _unreadable(upstream: str) -> UnavailableError:
    return UnavailableError(f"the key for upstream '{upstream}' cannot be read now", retry_after_s=RETRY_S)


def _observe(reading: asyncio.Task[Credential]) -> None:
    """A renewal nobody waits for has already logged its failure: take the exception, so asyncio does not."""
    if not reading.cancelled():
        reading.exception()
