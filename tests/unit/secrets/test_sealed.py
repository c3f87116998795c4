"""What the sealed file adds to the contract: tampering, wrong keys, and a writer killed at any moment."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.secret import Secret
from gateway.secrets.sealed import SealedCerts, SealedFile
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError
from tenants.ids import OrgId

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
KEY = b"m" * 32


@pytest.fixture
async def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.sealed"
    store = SealedFile(path, Secret(KEY))
    await store.put(ACME, "openai", Secret("sk-of-acme"))
    await store.put(GLOBEX, "openai", Secret("sk-of-globex"))
    await store.store("signing/keys", Secret("signing"))
    await store.store("refresh/hmac", Secret("hmac"))
    return path


def _edit(path: Path, change: Any) -> None:
    content = msgspec.json.decode(path.read_bytes())
    change(content)
    path.write_bytes(msgspec.json.encode(content))


async def test_the_file_is_private_and_holds_no_plain_text(sealed: Path) -> None:
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o600
    assert b"sk-of" not in sealed.read_bytes()
    assert sorted(p.name for p in sealed.parent.iterdir()) == ["secrets.sealed", "secrets.sealed.lock"]


async def test_a_wrong_master_key_is_named_as_such(sealed: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="master key does not fit"):
        await SealedFile(sealed, Secret(b"w" * 32)).get(ACME, "openai")
    with pytest.raises(StoreUnavailableError, match="master key does not fit"):
        await SealedFile(sealed, Secret(b"w" * 32)).put(ACME, "openai", Secret("x"))
    assert (await SealedFile(sealed, Secret(KEY)).get(ACME, "openai")).version == 1


async def test_an_entry_moved_to_another_organization_does_not_open(sealed: Path) -> None:
    def swap(content: Any) -> None:
        content["entries"]["orgs/globex/upstreams/openai"] = content["entries"]["orgs/acme/upstreams/openai"]

    _edit(sealed, swap)
    with pytest.raises(StoreUnavailableError, match=r"orgs/globex/upstreams/openai .* tampered"):
        await SealedFile(sealed, Secret(KEY)).get(GLOBEX, "openai")


async def test_an_entry_moved_to_another_system_name_or_version_does_not_open(sealed: Path) -> None:
    def change(content: Any) -> None:
        content["entries"]["system/signing/keys"] = content["entries"]["system/refresh/hmac"]
        content["entries"]["orgs/acme/upstreams/openai"]["version"] = 9

    _edit(sealed, change)
    store = SealedFile(sealed, Secret(KEY))
    with pytest.raises(StoreUnavailableError, match="tampered"):
        await store.load("signing/keys")
    with pytest.raises(StoreUnavailableError, match="tampered"):
        await store.get(ACME, "openai")
    assert (await store.get(GLOBEX, "openai")).secret.reveal() == b"sk-of-globex"  # the others still serve


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b'{"format":"orgate-sealed-9","salt":"","check":"","entries":{}}', "unknown format"),
        (b'{"format":"orgate-sealed-1","salt":"","check":"","entries":{}}', "head is damaged"),
    ],
)
async def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "secrets.sealed"
    path.write_bytes(content)
    with pytest.raises(StoreUnavailableError, match=says):
        await SealedFile(path, Secret(KEY)).get(ACME, "openai")


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        await SealedFile(tmp_path / "absent" / "secrets.sealed", Secret(KEY)).put(ACME, "openai", Secret("x"))


_WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.secret import Secret
from gateway.secrets.sealed import SealedFile
async def main():
    store = SealedFile(Path(sys.argv[1]), Secret(b"m" * 32))
    while True:
        version = await store.put("acme", "openai", Secret(f"sk-{sys.argv[2]}" + "x" * 4000))
        print(version, flush=True)
asyncio.run(main())
"""


async def test_a_writer_killed_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "secrets.sealed"
    acknowledged = 0
    for kill in range(30):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), str(kill)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(1 + kill % 3):  # the kill falls anywhere in the write that follows the n-th
                acknowledged = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        found = await SealedFile(path, Secret(KEY)).get(ACME, "openai")
        assert found.version in {acknowledged, acknowledged + 1}
        assert found.secret.reveal().endswith(b"x" * 4000)
        acknowledged = found.version
    assert await SealedFile(path, Secret(KEY)).put(ACME, "openai", Secret("after")) == acknowledged + 1


async def test_a_full_disk_leaves_the_old_file_and_no_other(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sealed.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = SealedFile(sealed, Secret(KEY))
    with monkeypatch.context() as patched:
        patched.setattr("gateway.secrets.sealed.os.fsync", full)
        with pytest.raises(StoreUnavailableError, match="No space left"):
            await store.put(ACME, "openai", Secret("sk-next"))
    assert sealed.read_bytes() == before
    assert sorted(p.name for p in sealed.parent.iterdir()) == ["secrets.sealed", "secrets.sealed.lock"]
    assert await store.put(ACME, "openai", Secret("sk-next")) == 2


async def test_a_file_that_has_settled_is_parsed_once(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(sealed, (1, 1))
    store = SealedFile(sealed, Secret(KEY))
    await store.get(ACME, "openai")
    monkeypatch.setattr("gateway.secrets.sealed.msgspec.json.decode", lambda *_, **__: pytest.fail("parsed again"))
    assert (await store.get(GLOBEX, "openai")).secret.reveal() == b"sk-of-globex"


async def test_a_client_certificate_is_apart_from_the_key_of_its_upstream(sealed: Path) -> None:
    store = SealedFile(sealed, Secret(KEY))
    certs = SealedCerts(store)
    with pytest.raises(NoSuchSecretError):
        await certs.get(ACME, "openai")
    assert await certs.put(ACME, "openai", Secret("pair-of-acme")) == 1
    assert await certs.put(ACME, "openai", Secret("pair-of-acme-2")) == 2
    await store.delete(ACME, "openai")
    found = await SealedCerts(SealedFile(sealed, Secret(KEY))).get(ACME, "openai")
    assert (found.version, found.secret.reveal()) == (2, b"pair-of-acme-2")
    await certs.delete(ACME, "openai")
    with pytest.raises(NoSuchSecretError):
        await certs.delete(ACME, "openai")
    assert await certs.put(ACME, "openai", Secret("pair-of-acme-3")) == 4
    for org, name in ((GLOBEX, "openai"), (ACME, "other")):
        with pytest.raises(NoSuchSecretError):
            await certs.get(org, name)


async def test_a_client_certificate_moved_to_another_organization_does_not_open(sealed: Path) -> None:
    certs = SealedCerts(SealedFile(sealed, Secret(KEY)))
    await certs.put(ACME, "openai", Secret("pair-of-acme"))

    def move(content: Any) -> None:
        entries = content["entries"]
        entries["orgs/globex/upstreams/openai/client-cert"] = entries["orgs/acme/upstreams/openai/client-cert"]

    _edit(sealed, move)
    with pytest.raises(StoreUnavailableError, match="tampered"):
        await SealedCerts(SealedFile(sealed, Secret(KEY))).get(GLOBEX, "openai")
