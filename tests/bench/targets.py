"""What is measured: anything that speaks the OpenAI dialect at a port and takes a bearer token."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.bench.processes import Cores, pinned
from tests.kit.certs import Pki
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from tests.kit.gateway import RunningGateway

PATIENCE_S = 30
TOKEN_LIFETIME_S = 3600


class MissingPackageError(Exception):
    """A program the benchmark needs is not installed; the message names its Debian package."""


@dataclass(frozen=True)
class Target:
    """`pids`: roots of the process trees whose CPU counts; maybe none. `ca`: PEM, what the load trusts. `redis`:
    process of the Redis that it asks, whose CPU is shown beside; 0: none."""

    name: str
    port: int
    pids: tuple[int, ...]
    token: str
    ca: Path
    redis: int = 0


def direct_target(upstream_port: int, pki: Pki) -> Target:
    """The upstream itself: what the others add is judged against it."""
    return Target("direct", upstream_port, (), "", pki.files.ca)


@contextmanager
def haproxy_target(folder: Path, upstream_port: int, pki: Pki, cores: Cores) -> Iterator[Target]:
    """HAProxy with `haproxy.cfg`, one thread, and a token it accepts."""
    program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        raise MissingPackageError("haproxy is missing: apt-get install haproxy")
    port = free_port()
    key = RSAKey.generate_key(2048)
    _write_haproxy_files(folder, pki, key)
    environment = {
        **os.environ,
        "GATEWAY_PORT": str(port),
        "UPSTREAM_PORT": str(upstream_port),
        "PKI": str(folder),
    }
    config = Path(__file__).with_name("haproxy.cfg")
    with pinned(cores.target), (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-f", str(config), "-db"], env=environment, stdout=log, stderr=log)
    try:
        wait_listening(process, port, folder / "haproxy.log")
        yield Target("HAProxy", port, (process.pid,), _token(key), pki.files.ca)
    finally:
        process.terminate()
        process.wait()


# ==== The gateway plugs in here: everything else in the benchmark knows a `Target` only. ====
@contextmanager
def gateway_target(
    folder: Path, upstream_port: int, pki: Pki, cores: Cores, *, limits: str = "redis"
) -> Iterator[Target]:
    """`orgate serve` with one worker and everything on, set up over its admin API as a customer would. `limits`:
    where they are counted, `redis` (on the rig's core) or `embedded`."""
    from tests.kit.gateway import RunningGateway  # HAProxy and direct are measured without loading the server
    from tests.kit.redis import redis_server

    settings = {"ORGATE_UPSTREAMS__ALLOW_NETWORKS": "127.0.0.0/8"}
    with ExitStack() as stack:
        redis = 0
        if limits == "redis":
            with pinned(cores.rig):
                store = stack.enter_context(redis_server())
            settings |= {"ORGATE_LIMITS__STORE": "redis", "ORGATE_LIMITS__ADDRESSES": store.address}
            redis = store.process.pid if store.process else 0
        gateway = RunningGateway(folder, workers=1, settings=settings)
        stack.callback(gateway.http.close)
        stack.callback(gateway.stop)
        with pinned(cores.target):
            gateway.start()
        owner = gateway.owner()
        base_url = f"https://127.0.0.1:{upstream_port}"
        owner.create("upstreams", name="rig", base_url=base_url, protocol="h2", ca_pem=pki.ca_pem)
        owner.admin("PUT", f"/admin/v1/orgs/{owner.org}/upstreams/rig/key", json={"key": "sk-bench-upstream"})
        owner.create("models", name="bench", upstream="rig", model="bench")
        owner.create("rules", name="all", effect="allow", roles=["owner"], actions=["chat"], models=["*"])
        # Never reached: counted on each request, as a limit is.
        for unit in ("requests", "tokens"):
            owner.create("limits", name=unit, scope="member", unit=unit, amount=2_000_000_000)
        wait_served(gateway, owner.access_token)
        if gateway.process is None:
            raise RuntimeError("the gateway ended")
        pids, token = (gateway.process.pid,), owner.access_token
        yield Target("gateway", gateway.public_port, pids, token, gateway.ca, redis)


def wait_served(gateway: RunningGateway, token: str) -> None:
    """A change is live within seconds; then the first completion passes."""
    body = {"model": "bench", "messages": [{"role": "user", "content": "x"}]}
    headers = {"authorization": f"Bearer {token}"}
    end = time.monotonic() + PATIENCE_S
    while True:
        answer = gateway.http.post(gateway.url + "/v1/chat/completions", json=body, headers=headers)
        if answer.status_code == httpx.codes.OK:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"the gateway does not serve: {answer.status_code} {answer.text}")
        time.sleep(0.1)


def _write_haproxy_files(folder: Path, pki: Pki, key: RSAKey) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pair = pki.files.certificate.read_bytes() + pki.files.key.read_bytes()
    (folder / "haproxy.pem").write_bytes(pair)
    (folder / "ca.pem").write_bytes(pki.files.ca.read_bytes())
    public = key.public_key
    if not isinstance(public, rsa.RSAPublicKey):
        raise TypeError("an RSA key has an RSA public key")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "token.pub").write_bytes(public.public_bytes(serialization.Encoding.PEM, form))


def _token(key: RSAKey) -> str:
    """The claims of an access token (RFC 9068), so that both verify the same amount."""
    now = int(time.time())
    claims = {
        "iss": "https://127.0.0.1:8443",
        "aud": "https://127.0.0.1:8443/v1",
        "sub": "mem_01jbenchbenchbenchbench",
        "org": "acme",
        "roles": ["owner"],
        "scope": "",
        "client_id": "orgate-cli",
        "jti": "bench",
        "iat": now,
        "exp": now + TOKEN_LIFETIME_S,
    }
    return jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": key.thumbprint()}, claims, key)


def wait_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Raises `RuntimeError` with what the process wrote when it ends or takes too long."""
    name = log.stem
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended:\n{log.read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{name} does not listen:\n{log.read_text()}")
