"""The concrete parts of a worker that settings ask for; the control process has some of them too.

What a worker imports every worker pays for, in memory and at its start: nothing here knows SQL, the admin API or
the authorization server.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.clock import Clock
from gateway.limits.redis import RedisSlices
from gateway.limits.redis_open import open_slices
from gateway.secrets.certs import CertLeases
from gateway.secrets.lease import KeyLeases
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.sealed import SealedCerts, SealedFile
from gateway.secrets.sources import EnvironmentKeys, MountedKeys, SourceLeases
from gateway.secrets.store import ReadOnlyKeys, UpstreamKeys
from gateway.settings import Settings
from gateway.upstream.auth.grant import TokenEndpoints
from gateway.upstream.auth.tokens import ClientTokens
from gateway.upstream.transport import TransportPool
from tenants.ids import OrgId


def data_audience(settings: Settings) -> str:
    return settings.server.url + "/v1"


def sealed_file(settings: Settings) -> SealedFile:
    return SealedFile(
        settings.path(settings.secrets.path), read_master_key(settings.secrets.master_key, settings.home)
    )


def upstream_keys(settings: Settings, clock: Clock) -> UpstreamKeys:
    match settings.secrets.upstream_keys:
        case "sealed-file":
            return sealed_file(settings)
        case "mounted-files":
            return MountedKeys(settings.path(settings.secrets.mounted))
        case "environment":
            return EnvironmentKeys()
    # hvac and requests take 0.3 s of CPU to import, and 19 MB: only who uses them pays for them.
    from gateway.secrets.vault import VaultKeys  # noqa: PLC0415

    return VaultKeys(settings.vault, settings.home, sealed_file(settings), lambda: clock.monotonic_us() / 1e6)


def key_leases(
    keys: UpstreamKeys, clock: Clock, tell: Callable[[OrgId, str, int], None]
) -> KeyLeases | SourceLeases:
    """What a worker keeps of the keys: announced by the control process, or looked for by itself."""
    if isinstance(keys, ReadOnlyKeys):
        return SourceLeases(keys, lambda: clock.monotonic_us() / 1e6)
    return KeyLeases(keys, lambda: clock.monotonic_us() / 1e6, tell=tell)


def transport_pool(settings: Settings, clock: Clock) -> TransportPool:
    certs = CertLeases(SealedCerts(sealed_file(settings)), lambda: clock.monotonic_us() / 1e6)
    return TransportPool(allowed=settings.upstreams.networks(), identity=certs)


def client_tokens(settings: Settings, clock: Clock) -> ClientTokens:
    endpoints = TokenEndpoints(allowed=settings.upstreams.networks())
    return ClientTokens(endpoints.ask, lambda: clock.monotonic_us() / 1e6)


def slices_in_redis(settings: Settings) -> RedisSlices | None:
    """The store of the limits that several nodes share; None: the control process of this one has them."""
    return open_slices(settings.limits, settings.home) if settings.limits.store == "redis" else None


def limit_books(settings: Settings) -> Path:
    return settings.bus_socket.parent / "limits"


async def warm_store(buckets: object) -> None:
    if isinstance(buckets, RedisSlices):
        await buckets.warm()


async def leave_store(buckets: object) -> None:
    if isinstance(buckets, RedisSlices):
        await buckets.aclose()


def spool_folder(settings: Settings) -> Path:
    return settings.path(settings.audit.path) / "spool"
