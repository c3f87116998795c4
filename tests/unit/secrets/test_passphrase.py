"""A sealed file that a passphrase opens: stretched as its head says, refused clearly when it is another."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from argon2.low_level import Type, hash_secret_raw

from gateway.secret import Secret
from gateway.secrets.masterkey import MasterKeyError, read_master_key
from gateway.secrets.passphrase import DESCRIPTOR, Passphrase, Stretching, inherited, typed_before
from gateway.secrets.sealed import SealedFile
from gateway.secrets.store import StoreUnavailableError
from tenants.ids import OrgId

ACME = OrgId("acme")
PHRASE = "correct horse battery staple"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once: argon2id takes 64 MiB and its time."""
    path = tmp_path_factory.mktemp("passphrase") / "secrets.sealed"

    async def write() -> None:
        store = SealedFile(path, Passphrase(PHRASE))
        await store.put(ACME, "openai", Secret("sk-1"))
        await store.store("signing/keys", Secret("signing"))

    asyncio.run(write())
    return path


@pytest.fixture
def sealed(written: Path, tmp_path: Path) -> Path:
    """A copy of the test's own, with the mode of what it is a copy of."""
    return Path(shutil.copy(written, tmp_path / "secrets.sealed"))


def head(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())


async def test_it_opens_with_the_passphrase_and_with_nothing_else(sealed: Path) -> None:
    assert (await SealedFile(sealed, Passphrase(PHRASE)).get(ACME, "openai")).secret.reveal() == b"sk-1"
    with pytest.raises(StoreUnavailableError, match="the passphrase does not fit"):
        await SealedFile(sealed, Passphrase(PHRASE + "!")).get(ACME, "openai")
    with pytest.raises(StoreUnavailableError, match="is sealed with a passphrase, and a key was given"):
        await SealedFile(sealed, Secret(b"m" * 32)).get(ACME, "openai")


async def test_a_passphrase_for_a_file_with_a_key_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "secrets.sealed"
    await SealedFile(path, Secret(b"m" * 32)).put(ACME, "openai", Secret("sk-1"))
    with pytest.raises(StoreUnavailableError, match="is sealed with a key, and a passphrase was given"):
        await SealedFile(path, Passphrase(PHRASE)).get(ACME, "openai")


def test_it_is_argon2id_with_the_parameters_of_the_head(sealed: Path) -> None:
    how = msgspec.convert(head(sealed)["argon2id"], Stretching)
    assert (how.memory_kib, how.iterations, how.lanes) == (64 * 1024, 3, 4)
    wanted = hash_secret_raw(PHRASE.encode(), how.salt, 3, 64 * 1024, 4, 32, Type.ID)
    assert Passphrase(PHRASE).stretched(how).reveal() == wanted


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_kib", 2**31),
        ("memory_kib", 8),
        ("iterations", 0),
        ("iterations", 10**6),
        ("lanes", 0),
        ("salt", ""),
    ],
)
async def test_a_head_that_asks_for_too_much_or_too_little_is_refused(
    sealed: Path, field: str, value: Any
) -> None:
    content = head(sealed)
    content["argon2id"] = {
        "memory_kib": 64 * 1024,
        "iterations": 3,
        "lanes": 4,
        **content["argon2id"],
        field: value,
    }
    sealed.write_bytes(msgspec.json.encode(content))
    with pytest.raises(StoreUnavailableError, match="out of bounds"):
        await SealedFile(sealed, Passphrase(PHRASE)).get(ACME, "openai")


async def test_a_short_passphrase_begins_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="needs 12 characters"):
        await SealedFile(tmp_path / "secrets.sealed", Passphrase("short")).store("x", Secret("y"))
    assert not (tmp_path / "secrets.sealed").exists()


async def test_everything_is_sealed_anew_with_another_key(sealed: Path) -> None:
    before = sealed.read_bytes()
    store = SealedFile(sealed, Passphrase(PHRASE))
    assert await store.reseal(Secret(b"n" * 32)) == 2
    assert (await store.get(ACME, "openai")).secret.reveal() == b"sk-1"
    other = SealedFile(sealed, Secret(b"n" * 32))
    found = await other.get(ACME, "openai")
    assert (found.version, found.secret.reveal()) == (1, b"sk-1")
    signing = await other.load("signing/keys")
    assert signing is not None
    assert signing.reveal() == b"signing"
    with pytest.raises(StoreUnavailableError):
        await SealedFile(sealed, Passphrase(PHRASE)).get(ACME, "openai")
    boxes = {name: entry["box"] for name, entry in msgspec.json.decode(before)["entries"].items()}
    assert all(entry["box"] != boxes[name] for name, entry in head(sealed)["entries"].items())


async def test_what_a_rotation_keeps_is_sealed_anew_too(sealed: Path) -> None:
    store = SealedFile(sealed, Passphrase(PHRASE))
    await store.put(ACME, "openai", Secret("sk-2"), keep=True)
    await store.reseal(Secret(b"n" * 32))
    other = SealedFile(sealed, Secret(b"n" * 32))
    assert (await other.get(ACME, "openai")).secret.reveal() == b"sk-2"
    assert (await other.get_before(ACME, "openai", 2)).secret.reveal() == b"sk-1"


async def test_a_file_with_a_tampered_entry_is_not_sealed_anew(sealed: Path) -> None:
    content = head(sealed)
    content["entries"]["system/signing/keys"] = content["entries"]["orgs/acme/upstreams/openai"]
    sealed.write_bytes(msgspec.json.encode(content))
    before = sealed.read_bytes()
    with pytest.raises(StoreUnavailableError, match="tampered with; nothing was changed"):
        await SealedFile(sealed, Passphrase(PHRASE)).reseal(Secret(b"n" * 32))
    assert sealed.read_bytes() == before


@pytest.mark.parametrize("text", [PHRASE, PHRASE + "\n", PHRASE + "\r\n"])
def test_a_file_with_the_passphrase(tmp_path: Path, text: str) -> None:
    file = tmp_path / "phrase"
    file.write_text(text, newline="")
    file.chmod(0o600)
    found = read_master_key("passphrase:phrase", tmp_path)
    assert isinstance(found, Passphrase)
    assert found.reveal() == PHRASE.encode()
    given = read_master_key("passphrase:systemd:phrase", Path("/"), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert isinstance(given, Passphrase)
    assert given.reveal() == PHRASE.encode()


@pytest.mark.parametrize(("text", "says"), [("", "one line"), ("a\nb\n", "one line"), ("x" * 1025, "one line")])
def test_a_file_that_holds_no_passphrase(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "phrase"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(MasterKeyError, match=says):
        read_master_key("passphrase:phrase", tmp_path)


def test_faults_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError, match=r"phrase cannot be opened: No such file"):
        read_master_key("passphrase:phrase", tmp_path)
    (tmp_path / "phrase").write_text(PHRASE)
    (tmp_path / "phrase").chmod(0o644)
    with pytest.raises(MasterKeyError, match="mode 0644; run `chmod 600 "):
        read_master_key("passphrase:phrase", tmp_path)
    with pytest.raises(MasterKeyError, match="LoadCredential=seal:"):
        read_master_key("passphrase:systemd:seal", tmp_path, {})


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(DESCRIPTOR, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(MasterKeyError, match=r"no terminal.*passphrase:FILE or passphrase:systemd:NAME"):
        read_master_key("passphrase:prompt", tmp_path)


def test_what_was_typed_is_asked_for_once_and_reaches_the_processes_below(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(DESCRIPTOR, "")  # so that it is taken back at the end
    asked = []

    def ask(question: str) -> Passphrase:
        asked.append(question)
        return Passphrase(PHRASE)

    monkeypatch.setattr("gateway.secrets.masterkey.ask", ask)
    for _ in range(2):
        assert read_master_key("passphrase:prompt", tmp_path).reveal() == PHRASE.encode()
    assert asked == ["Passphrase of the sealed file: "]
    look = (
        "from pathlib import Path; from gateway.secrets.masterkey import read_master_key as r;"
        "print(r('passphrase:prompt', Path('/')).reveal().decode())"
    )
    below = subprocess.run([sys.executable, "-c", look], pass_fds=inherited(), capture_output=True, check=True)
    assert below.stdout.decode().strip() == PHRASE
    assert PHRASE not in str(dict(os.environ))
    os.close(int(os.environ[DESCRIPTOR]))
    assert typed_before() is None
    assert inherited() == ()


def test_it_prints_as_a_secret() -> None:
    assert f"{Passphrase(PHRASE)!r} {Passphrase(PHRASE)}" == "*** ***"
