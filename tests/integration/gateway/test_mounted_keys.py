"""A whole gateway opened by a passphrase, whose upstream keys are mounted files: swapped under load, removed."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.secrets.masterkey import read_master_key
from gateway.secrets.passphrase import Passphrase
from gateway.secrets.sealed import SealedFile
from tests.integration.gateway.world import bind
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway
from tests.kit.scripts import openai
from tests.kit.upstream import RecordingUpstream

FRESH_S = 5.0
"""By when every worker has a changed key: what the guide promises."""


def mount(folder: Path, number: int, **keys: str) -> None:
    """What a kubelet does: files in a new folder, then `..data` is swapped in one rename."""
    version = folder / f"..version_{number}"
    version.mkdir(parents=True)
    for name, key in keys.items():
        (version / name).write_text(key)
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")
    (folder / "..next").symlink_to(version.name)
    os.replace(folder / "..next", folder / "..data")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[RunningGateway]:
    """Two workers. The keys are under `keys` beside its home; its sealed file has a passphrase."""
    (tmp_path / "keys").mkdir()
    settings = {
        "ORGATE_SECRETS__UPSTREAM_KEYS": "mounted-files",
        "ORGATE_SECRETS__MOUNTED": str(tmp_path / "keys"),
        "ORGATE_SECRETS__MASTER_KEY": "passphrase:phrase",
    }
    made = RunningGateway(tmp_path / "home", workers=2, settings=settings)
    (made.home / "phrase").write_text("correct horse battery staple\n")
    (made.home / "phrase").chmod(0o600)
    sealed = SealedFile(made.home / "secrets.sealed", read_master_key("master.key", made.home))
    asyncio.run(sealed.reseal(Passphrase("correct horse battery staple")))
    (made.home / "master.key").unlink()
    with made:
        yield made


async def test_keys_are_swapped_under_load_and_taken_away(
    pki: Pki, gateway: RunningGateway, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    owner = await asyncio.to_thread(gateway.owner)
    async with RecordingUpstream(tls=pki.server_context(), script=openai()) as upstream:
        model = await asyncio.to_thread(bind, owner, pki, upstream.url, key="")
        context = ssl.create_default_context(cafile=gateway.ca)
        statuses: list[int] = []

        async def ask() -> int:
            """On a connection of its own: workers take turns."""
            async with httpx.AsyncClient(verify=context, base_url=gateway.url, trust_env=False) as client:
                body = {"model": model, "prompt": "def fib(n):", "max_tokens": 5}
                answer = await client.post("/v1/completions", headers=owner.bearer, json=body)
            return answer.status_code

        assert await ask() == 503, "no file, no key"
        for number in range(1, 3):
            await asyncio.to_thread(mount, keys / "acme", number, **{model: f"sk-mounted-{number}\n"})
            swapped = time.monotonic()
            while time.monotonic() < swapped + FRESH_S:
                statuses.append(await ask())
                await asyncio.sleep(0.02)  # so many requests a second are load enough
            before = len(upstream.requests)
            statuses += [await ask() for _ in range(12)]
            used = {request.headers["authorization"] for request in upstream.requests[before:]}
            assert used == {f"Bearer sk-mounted-{number}"}
        assert set(statuses) == {200}
        (keys / "acme" / model).unlink()
        end = time.monotonic() + 60
        while await ask() != 503:
            assert time.monotonic() < end, "a key that was taken away goes on"

    assert "sk-mounted" not in gateway.log.read_text()
