"""From the settings `[limits]` to Redis: who we are there, over TLS or not, one server or many."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.limits.redis import RedisSlices
from gateway.limits.redis_library import Library, library
from gateway.limits.redis_orgs import ByOrg, login_of
from gateway.limits.redis_route import Cluster, Route, Sentinels, Single
from gateway.limits.redis_server import Server, Times
from gateway.limits.redis_wire import Address, Login, shown_address
from gateway.limits_settings import LimitsSettings, LimitsSettingsError
from gateway.secret import Secret
from gateway.secret_source import SecretSourceError, read_secret


def open_slices(limits: LimitsSettings, home: Path) -> RedisSlices:
    """The store that `limits` describes; connects when it is first asked, or `warm`ed. Relative paths are below
    `home`. Raises `LimitsSettingsError`."""
    text = library()
    return RedisSlices(open_route(limits, home, text), prefix=limits.prefix, text=text)


def open_route(limits: LimitsSettings, home: Path, text: Library) -> Route:
    tls = _tls(limits, home)
    login = Login(limits.username, read_password(limits.password, home), tls)
    sentinel = Login(limits.sentinel_username, read_password(limits.sentinel_password, home), tls)
    own = _route(limits, login, sentinel, text)
    if limits.user_per_org:
        return ByOrg(own, lambda org: _route(limits, login_of(login, org), sentinel, text))
    return own


def _route(limits: LimitsSettings, login: Login, sentinel: Login, text: Library) -> Route:
    times = Times(answer_s=limits.timeout_ms / 1_000, connect_s=limits.connect_timeout_ms / 1_000)
    hosts = limits.hosts()
    if limits.topology == "cluster":
        return Cluster(hosts, login, times, text)
    if limits.topology == "sentinel":
        sentinels = Sentinels(hosts, limits.master, sentinel, times)
        return Single(f"master {limits.master}", Server(sentinels.find, login, times, text))
    address = hosts[0]

    async def find() -> Address:
        return address

    return Single(shown_address(address), Server(find, login, times, text))


def read_password(source: str, home: Path) -> Secret | None:
    """As `read_secret`. Raises `LimitsSettingsError`."""
    try:
        return read_secret(source, home)
    except SecretSourceError as error:
        raise LimitsSettingsError(str(error)) from None


def _tls(limits: LimitsSettings, home: Path) -> ssl.SSLContext | None:
    if not limits.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=str(home / limits.ca) if limits.ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if limits.certificate:
            context.load_cert_chain(home / limits.certificate, home / limits.key, password="")
    except (OSError, ssl.SSLError) as error:
        raise LimitsSettingsError(f"limits.ca, limits.certificate or limits.key cannot be used: {error}") from None
    return context
