"""Which HTTP client can cancel: the gateway's own beside the stock one, against the rig's upstream.

    python -m tests.bench.clients [--cancels N]

Each client opens N answers that the upstream holds back, cancels each as soon as the upstream has its request, and
sends one more request in the end. Printed: how many of those streams the upstream saw reset, how many it still
had open, how many ended with their connection (lost), what became of the last request, and the client's own CPU
for one cancelled request. Exits 1 on errors only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

import httpx
from rich.console import Console
from rich.table import Table

from gateway.upstream.transport import UpstreamTransport
from tenants.ids import OrgId
from tenants.models import Upstream, WireProtocol
from tests.bench.processes import choose_cores
from tests.bench.rig import Rig, RigError, running
from tests.kit.certs import Pki, make_pki

PATIENCE_S = 5.0


class Finding(NamedTuple):
    """What one client did with `cancels` requests that were given up. `cpu_us`: for each, of this process."""

    client: str
    cancels: int
    reached: int
    reset: int
    left_open: int
    connections_lost: int
    next_request: str
    cpu_us: float


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.clients", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--cancels", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orgate-clients-") as name:
        folder = Path(name)
        pki = make_pki(folder / "tls")
        try:
            with running(folder, pki, choose_cores()) as rig:
                found = [asyncio.run(_try(what, make, rig, pki, options.cancels)) for what, make in CLIENTS]
        except RigError as problem:
            sys.stderr.write(f"cannot run: {problem}\n")
            return 1
    table = Table(
        "client", "cancelled", "reached", "reset", "left open", "connections lost", "then", "CPU µs each"
    )
    for row in found:
        table.add_row(row.client, *map(str, row[1:-1]), f"{row.cpu_us:.0f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    sys.stdout.write(json.dumps([row._asdict() for row in found]) + "\n")
    return 0


def _stock_http2(rig: Rig, pki: Pki) -> httpx.AsyncBaseTransport:
    return httpx.AsyncHTTPTransport(verify=pki.client_context(), http2=True, http1=False)


def _stock_http1(rig: Rig, pki: Pki) -> httpx.AsyncBaseTransport:
    return httpx.AsyncHTTPTransport(verify=pki.client_context())


def _orgate(rig: Rig, pki: Pki) -> httpx.AsyncBaseTransport:
    upstream = Upstream(
        org=OrgId("bench"),
        name="rig",
        base_url=f"https://127.0.0.1:{rig.upstream_port}",
        protocol=WireProtocol.H2,
        ca_pem=pki.files.ca.read_text(),
    )
    return UpstreamTransport(upstream, allowed=(ip_network("127.0.0.0/8"),))


Make = Callable[[Rig, Pki], httpx.AsyncBaseTransport]
CLIENTS: tuple[tuple[str, Make], ...] = (
    ("httpx, HTTP/2", _stock_http2),
    ("httpx, HTTP/1.1", _stock_http1),
    ("Orgate's transport", _orgate),
)


class _Journal:
    """The upstream's journal from now on: which requests it has had, and their ends. `cost_s`: CPU spent here."""

    def __init__(self, path: Path) -> None:
        self._file = path.open()
        self._file.seek(0, 2)
        self._found: dict[str, set[int]] = {"open": set(), "reset": set(), "lost": set()}
        self.cost_s = 0.0

    def __getitem__(self, what: str) -> set[int]:
        began = time.process_time()
        for line in self._file.readlines():
            kind, number, _ = line.split()
            self._found[kind].add(int(number))
        self.cost_s += time.process_time() - began
        return self._found[what]

    async def opened(self, number: int, sending: asyncio.Task[httpx.Response]) -> bool:
        """Wait until the upstream has request `number`. False: the request ended first, or never arrived."""
        ends = time.monotonic() + PATIENCE_S
        while number not in self["open"]:
            if sending.done() or time.monotonic() > ends:
                return False
            await asyncio.sleep(0.001)
        return True

    def close(self) -> None:
        self._file.close()


async def _try(what: str, make: Make, rig: Rig, pki: Pki, cancels: int) -> Finding:
    transport = make(rig, pki)
    url = f"https://127.0.0.1:{rig.upstream_port}/v1/completions"
    async with transport:
        await _ask(transport, url)  # connected
        with closing(_Journal(rig.upstream_journal)) as journal:
            cpu = time.process_time()
            cancelled = 0
            for number in range(cancels):
                request = _request(url, {"stream": True, "user": f"hold-0-{number:08d}"})
                sending = asyncio.create_task(transport.handle_async_request(request))
                arrived = await journal.opened(number, sending)
                sending.cancel()
                await asyncio.wait((sending,))
                if not arrived:
                    break
                cancelled += 1
            cpu = time.process_time() - cpu - journal.cost_s
            then = await _ask(transport, url)
            # What was written on a connection before that last request has arrived when it is answered; the rest
            # gets a moment.
            await asyncio.sleep(0.2)
            opened, reset, lost = (len(journal[kind]) for kind in ("open", "reset", "lost"))
    return Finding(
        what, cancelled, opened, reset, opened - reset - lost, lost, then, cpu / max(cancelled, 1) * 1e6
    )


async def _ask(transport: httpx.AsyncBaseTransport, url: str) -> str:
    try:
        async with asyncio.timeout(PATIENCE_S):
            answer = await transport.handle_async_request(_request(url, {"user": "json"}))
            await answer.aread()
    except (httpx.HTTPError, TimeoutError) as error:
        return type(error).__name__
    return f"answered {answer.status_code}"


def _request(url: str, body: dict[str, object]) -> httpx.Request:
    return httpx.Request("POST", url, json=body, extensions={"timeout": {"pool": PATIENCE_S}})


if __name__ == "__main__":
    sys.exit(main())
