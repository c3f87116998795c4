"""Upstreams that let nobody in without a client certificate: shown, missing, of a stranger, replaced."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import UnavailableError
from gateway.pki import Issued, make_ca
from gateway.secret import Secret
from gateway.secrets.pair import judge
from gateway.upstream.auth.grant import TokenEndpoints
from gateway.upstream.auth.tokens import ClientTokens
from gateway.upstream.errors import ClientCertError
from gateway.upstream.probe import UpstreamProbe
from gateway.upstream.transport import TransportPool, UpstreamTransport
from tenants.ids import OrgId
from tenants.models import Upstream
from tests.integration.upstream.caller import LOOPBACK, Caller
from tests.integration.upstream.test_cancel import finish
from tests.kit.certs import Pki
from tests.kit.client_certs import Demanding, Doorman, issue, texts
from tests.kit.upstream import RecordingUpstream

NO_TOKENS = ClientTokens(TokenEndpoints().ask, lambda: 0.0)


class Certs:
    """Which pair is shown, and how often that was asked."""

    def __init__(self, issued: Issued | None = None) -> None:
        self.pair = kept(issued) if issued else None
        self.asked = 0
        self.away = False

    async def __call__(self, upstream: Upstream) -> Secret | None:
        self.asked += 1
        if self.away:
            raise UnavailableError("the client certificate for upstream 'main' cannot be read now")
        return self.pair


def kept(issued: Issued) -> Secret:
    return judge(**texts(issued), now=issued.certificate.not_valid_before_utc.timestamp() + 60)


@pytest.fixture
def demanding(tmp_path: Path, pki: Pki) -> Demanding:
    return Demanding(tmp_path, pki)


def bound(url: str, pki: Pki, **fields: Any) -> Upstream:
    defaults: dict[str, Any] = {
        "org": OrgId("acme"),
        "name": "main",
        "base_url": url,
        "ca_pem": pki.ca_pem,
        "connections": 1,
        "connect_timeout_ms": 5_000,
        "client_cert_version": 1,
    }
    return Upstream(**(defaults | fields))


def transport(pool: TransportPool, url: str, pki: Pki, **fields: Any) -> UpstreamTransport:
    return pool.for_upstream(bound(url, pki, **fields))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
async def test_the_right_certificate_lets_in(
    pki: Pki, demanding: Demanding, alpn: str, version: ssl.TLSVersion
) -> None:
    certs = Certs(issue(demanding.ca))
    async with RecordingUpstream(tls=demanding.context(alpn, version=version)) as upstream:
        pool = TransportPool(allowed=LOOPBACK, identity=certs)
        caller = Caller(transport(pool, upstream.url, pki, connections=2), upstream.url)
        try:
            for number in (1, 2):
                answer = asyncio.ensure_future(caller.ask())
                await finish(await upstream.arrived(number))
                await answer
        finally:
            await pool.aclose()
    assert certs.asked == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
@pytest.mark.parametrize("who", ["nobody", "a stranger"])
async def test_without_it_nothing_is_sent_and_why_is_said(
    pki: Pki, demanding: Demanding, alpn: str, version: ssl.TLSVersion, who: str
) -> None:
    certs = Certs(issue(make_ca("Somebody's CA")) if who == "a stranger" else None)
    with Doorman(demanding.context(alpn, version=version)) as upstream:
        pool = TransportPool(allowed=LOOPBACK, identity=certs)
        caller = Caller(transport(pool, upstream.url, pki), upstream.url)
        try:
            with pytest.raises(httpx.ConnectError) as refusal:
                await caller.ask()
        finally:
            await pool.aclose()
    assert upstream.refused == 1
    if version is ssl.TLSVersion.TLSv1_3 or who == "a stranger":
        assert isinstance(refusal.value, ClientCertError)
        wanted = "wants a client certificate" if who == "nobody" else "refused the gateway's client certificate"
        assert wanted in str(refusal.value)
    else:  # TLS 1.2 has one alert for every failed handshake
        assert "HANDSHAKE_FAILURE" in str(refusal.value)


async def test_a_new_version_makes_new_connections_and_leaves_no_file_behind(
    pki: Pki, demanding: Demanding
) -> None:
    certs = Certs()
    files = set(os.listdir("/proc/self/fd"))
    async with RecordingUpstream(tls=demanding.context()) as upstream:
        pool = TransportPool(allowed=LOOPBACK, identity=certs)
        with pytest.raises(httpx.ConnectError):
            await Caller(transport(pool, upstream.url, pki), upstream.url).ask()
        certs.pair = kept(issue(demanding.ca))
        newer = transport(pool, upstream.url, pki, client_cert_version=2, version=2)
        answer = asyncio.ensure_future(Caller(newer, upstream.url).ask())
        await finish(await upstream.arrived(1))
        await answer
        memory = [fd for fd in os.listdir("/proc/self/fd") if fd not in files and "client-cert" in _link(fd)]
        assert not memory
        await pool.aclose()


def _link(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


async def test_one_organizations_certificate_is_not_shown_for_another(pki: Pki, demanding: Demanding) -> None:
    certs = Certs(issue(demanding.ca))
    async with RecordingUpstream(tls=demanding.context()) as upstream:
        pool = TransportPool(allowed=LOOPBACK, identity=certs)
        answer = asyncio.ensure_future(Caller(transport(pool, upstream.url, pki), upstream.url).ask())
        await finish(await upstream.arrived(1))
        await answer
        other = transport(pool, upstream.url, pki, org="globex", client_cert_version=0)
        with pytest.raises(httpx.ConnectError):
            await Caller(other, upstream.url).ask()
        await pool.aclose()


async def test_a_pair_that_cannot_be_read_or_used_is_said(pki: Pki, demanding: Demanding) -> None:
    certs = Certs()
    certs.away = True
    async with RecordingUpstream(tls=demanding.context()) as upstream:
        pool = TransportPool(allowed=LOOPBACK, identity=certs)
        with pytest.raises(ClientCertError, match="cannot be read now"):
            await Caller(transport(pool, upstream.url, pki), upstream.url).ask()
        certs.away, certs.pair = False, Secret(b"no PEM at all")
        with pytest.raises(ClientCertError, match="cannot be used"):
            await Caller(transport(pool, upstream.url, pki, version=2), upstream.url).ask()
        await pool.aclose()


async def test_the_probe_shows_it_and_says_when_it_is_refused(pki: Pki, demanding: Demanding) -> None:
    certs = Certs(issue(demanding.ca))
    async with RecordingUpstream(tls=demanding.context()) as upstream:
        pool = TransportPool(allowed=LOOPBACK, identity=certs)
        probe = UpstreamProbe(pool, lambda: 0, NO_TOKENS, lambda: 0.0)
        asking = asyncio.ensure_future(probe.probe(bound(upstream.url, pki, client_cert_version=1), None))
        await finish(await upstream.arrived(1))
        assert (await asking).ok
        await pool.aclose()
    with Doorman(demanding.context()) as doorman:
        pool = TransportPool(allowed=LOOPBACK, identity=certs)
        refused = await UpstreamProbe(pool, lambda: 0, NO_TOKENS, lambda: 0.0).probe(
            bound(doorman.url, pki, client_cert_version=0), None
        )
        assert (refused.ok, refused.status) == (False, 0)
        assert refused.detail == "the model's server wants a client certificate, and none is set for it"
        await pool.aclose()
