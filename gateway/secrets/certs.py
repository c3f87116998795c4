"""Client certificates as a process holds them: read when a connection is made, kept while the store is away.

Connections live for an hour and more, so a minute's lease costs nothing and is renewed by asking.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from gateway.errors import UnavailableError
from gateway.secret import Secret
from gateway.secrets.lease import READ_TIMEOUT_S, RETRY_S, SOFT_TTL_S, STALE_IF_ERROR_S
from gateway.secrets.store import CertReader, NoSuchSecretError, StoreUnavailableError
from tenants.ids import OrgId
from tenants.models import Upstream

log = logging.getLogger(__name__)

REMEMBERED: Final = 4_096


class _Held(Struct, frozen=True):
    """`pair` None: the store said that there is none."""

    version: int
    pair: Secret | None
    read_at: float


class CertLeases:
    """The client certificates of one process. `clock` gives monotonic seconds. Belongs to one event loop."""

    def __init__(self, certs: CertReader, clock: Callable[[], float]) -> None:
        self._certs = certs
        self._clock = clock
        self._held: dict[tuple[OrgId, str], _Held] = {}

    async def __call__(self, upstream: Upstream) -> Secret | None:
        """The PEM chain and key to show to `upstream`; None when none is set.

        Reads the store when the upstream's version is newer than what is held, or that is older than a minute.
        A store that is down is not felt for 15 minutes; then raises `UnavailableError`.
        """
        wanted = upstream.client_cert_version
        if wanted == 0:
            return None
        key = (upstream.org, upstream.name)
        held = self._held.get(key)
        now = self._clock()
        if held is not None and held.version == wanted and now - held.read_at < SOFT_TTL_S:
            return held.pair
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                pair: Secret | None = (await self._certs.get(upstream.org, upstream.name)).secret
        except NoSuchSecretError:
            pair = None
        except (StoreUnavailableError, TimeoutError) as error:
            # The store's own words name paths: they are for the operator's log, never for the caller.
            log.warning(
                "the client certificate for upstream %s of %s cannot be read: %s",
                upstream.name,
                upstream.org,
                str(error) or "timed out",
            )
            if held is not None and now - held.read_at < STALE_IF_ERROR_S:
                return held.pair
            raise UnavailableError(
                f"the client certificate for upstream '{upstream.name}' cannot be read now", retry_after_s=RETRY_S
            ) from None
        if len(self._held) >= REMEMBERED:
            self._held.clear()
        self._held[key] = _Held(wanted, pair, now)
        return pair
