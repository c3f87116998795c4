"""The sealed file: every secret encrypted on its own with AES-256-GCM, bound to its path and version.

The associated data is `orgs/<org>/upstreams/<name>#<version>` or `system/<name>`, so an entry copied to
another organization, another name or another version does not open. The file as a whole carries no
counter: whoever can write it can put an old file back, or remove entries, and nothing more.
Trusted: whoever can read this file *and* the master key has every secret in it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.masterkey import KEY_BYTES, fsync_folder
from gateway.secrets.passphrase import SALT_BYTES, SHORTEST, Passphrase, Stretching
from gateway.secrets.store import (
    NoSuchSecretError,
    StoreUnavailableError,
    before_path,
    cert_path,
    idp_path,
    stream_path,
    upstream_path,
    webhook_path,
)
from tenants.ids import OrgId

FORMAT: Final = "orgate-sealed-1"
_INFO: Final = b"orgate sealed file, AES-256-GCM, version 1"  # RFC 5869: binds the derived key to its use
_CHECK: Final = b"orgate-sealed-1 check"
_MAX_FILE: Final = 64 * 1024 * 1024


class _Entry(msgspec.Struct, frozen=True):
    """`box` is nonce (12 bytes) and ciphertext with tag. An empty plaintext is a tombstone: the version stays."""

    version: int
    box: bytes


class _File(msgspec.Struct, frozen=True, omit_defaults=True):
    """`check` is a known text sealed with the file's key: it tells a wrong key from a damaged entry.
    `argon2id`: the file is sealed with a passphrase, stretched like this."""

    format: str
    salt: bytes
    check: bytes
    entries: dict[str, _Entry]
    argon2id: Stretching | None = None


class _Opened(msgspec.Struct, frozen=True):
    file: _File
    cipher: AESGCM


class SealedFile:
    """`UpstreamKeys` and `SystemSecrets` in one file. One object per process; its methods run in threads.

    Writers (any process) take turns by flock on `<path>.lock`. Readers take no lock: they see the file before
    or after a rename. A call that is cancelled may still complete its write.
    """

    def __init__(self, path: Path, master_key: Secret, random: Callable[[int], bytes] = os.urandom) -> None:
        self._path = path
        self._master_key = master_key
        self._random = random
        self._seen: tuple[tuple[int, int, int], _Opened] | None = None  # replaced whole: safe between threads

    async def get(self, org: OrgId, upstream: str) -> Credential:
        return await self.get_at(upstream_path(org, upstream))

    async def get_before(self, org: OrgId, upstream: str, version: int) -> Credential:
        found = await self.get_at(before_path(org, upstream))
        if found.version >= version:
            raise NoSuchSecretError(f"nothing is kept from before version {version} of {upstream}")
        return found

    async def put(self, org: OrgId, upstream: str, secret: Secret, *, keep: bool = False) -> int:
        """As the Protocol says; raises `ValueError` for an empty secret."""
        path = upstream_path(org, upstream)
        return await self.put_at(path, secret, before=before_path(org, upstream), keep=keep)

    async def forget_before(self, org: OrgId, upstream: str, version: int) -> None:
        try:
            kept = await self.get_before(org, upstream, version)
        except NoSuchSecretError:
            return
        await asyncio.to_thread(self._erase, before_path(org, upstream), kept.version)

    async def delete(self, org: OrgId, upstream: str) -> None:
        """Forget the key. Its version number is spent: the next `put` counts on from it."""
        await self.delete_at(upstream_path(org, upstream), before=before_path(org, upstream))

    async def get_at(self, path: str) -> Credential:
        found = await asyncio.to_thread(self._open, path)
        if found is None or not found[1]:
            raise NoSuchSecretError(f"nothing is stored at {path}")
        return Credential(found[0], Secret(found[1]))

    async def put_at(self, path: str, secret: Secret, *, before: str = "", keep: bool = False) -> int:
        """`before`: where the entry that `secret` replaces goes with `keep`, and what is erased without."""
        if not secret.reveal():
            raise ValueError("a secret cannot be empty")
        return await asyncio.to_thread(self._write, path, secret, before, keep=keep)

    async def delete_at(self, path: str, *, before: str = "") -> None:
        found = await asyncio.to_thread(self._open, path)
        if found is None or not found[1]:
            raise NoSuchSecretError(f"nothing is stored at {path}")
        await asyncio.to_thread(self._write, path, Secret(b""), before)

    async def aclose(self) -> None:
        """Nothing is held: each call opens the file and closes it."""

    async def reseal(self, master_key: Secret) -> int:
        """Seal everything anew with another key or passphrase; returns how many entries there are.

        Crash: the old file with the old key, or the new file with the new one. No other process may be writing.
        """
        return await asyncio.to_thread(self._reseal, master_key)

    async def load(self, name: str) -> Secret | None:
        found = await asyncio.to_thread(self._open, f"system/{name}")
        return Secret(found[1]) if found is not None else None

    async def store(self, name: str, secret: Secret) -> None:
        await asyncio.to_thread(self._write, f"system/{name}", secret)

    def _open(self, path: str) -> tuple[int, bytes] | None:
        opened = self._read()
        entry = opened.file.entries.get(path) if opened is not None else None
        if opened is None or entry is None:
            return None
        try:
            return entry.version, opened.cipher.decrypt(entry.box[:12], entry.box[12:], _aad(path, entry.version))
        except (InvalidTag, ValueError):
            raise StoreUnavailableError(f"the entry {path} of {self._path} has been tampered with") from None

    def _read(self) -> _Opened | None:
        """The file as it is now, parsed again only when it was replaced. None: nothing was ever stored."""
        try:
            with self._path.open("rb") as source:
                status = os.fstat(source.fileno())
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
                seen = self._seen
                if seen is not None and seen[0] == stamp:
                    return seen[1]
                raw = source.read(_MAX_FILE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailableError(f"{self._path} cannot be read: {error.strerror}") from None
        try:
            file = msgspec.json.decode(raw, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise StoreUnavailableError(f"{self._path} is not a sealed file or is damaged") from None
        if file.format != FORMAT:
            raise StoreUnavailableError(f"{self._path} has the unknown format {file.format[:32]!r}")
        cipher = self._cipher(file.salt, file.argon2id)
        try:
            cipher.decrypt(file.check[:12], file.check[12:], _CHECK)
        except (InvalidTag, ValueError):
            what = "master key" if file.argon2id is None else "passphrase"
            raise StoreUnavailableError(f"the {what} does not fit {self._path}, or its head is damaged") from None
        opened = _Opened(file, cipher)
        # Inodes are used again and file times tick every few milliseconds, so a stamp that young may come back
        # with other content: it is trusted once it is a second old (as git does with its index).
        if time.time_ns() - status.st_mtime_ns > 1_000_000_000:
            self._seen = (stamp, opened)
        return opened

    def _write(self, path: str, secret: Secret, before: str = "", *, keep: bool = False) -> int:
        """One replacement of the file: a crash leaves all of it done, or nothing."""
        with self._turn():
            opened = self._read() or self._empty()
            entries = dict(opened.file.entries)
            old = entries.get(path)
            version = old.version + 1 if old is not None else 1
            if before:
                entries.pop(before, None)
                kept = self._open(path) if keep and old is not None else None
                if kept is not None and kept[1]:
                    entries[before] = self._sealed(opened, before, kept[0], kept[1])
            entries[path] = self._sealed(opened, path, version, secret.reveal())
            self._replace(msgspec.json.encode(msgspec.structs.replace(opened.file, entries=entries)))
        return version

    def _erase(self, path: str, version: int) -> None:
        """Leave out the entry, if it still has that version."""
        with self._turn():
            opened = self._read()
            found = opened.file.entries.get(path) if opened is not None else None
            if opened is None or found is None or found.version != version:
                return
            entries = {name: entry for name, entry in opened.file.entries.items() if name != path}
            self._replace(msgspec.json.encode(msgspec.structs.replace(opened.file, entries=entries)))

    def _sealed(self, opened: _Opened, path: str, version: int, plain: bytes) -> _Entry:
        nonce = self._random(12)
        return _Entry(version, nonce + opened.cipher.encrypt(nonce, plain, _aad(path, version)))

    def _reseal(self, master_key: Secret) -> int:
        with self._turn():
            opened = self._read() or self._empty()
            fresh = SealedFile(self._path, master_key, self._random)._empty()
            entries = {}
            for path, entry in opened.file.entries.items():
                aad, nonce = _aad(path, entry.version), self._random(12)
                try:
                    plain = opened.cipher.decrypt(entry.box[:12], entry.box[12:], aad)
                except (InvalidTag, ValueError):
                    raise StoreUnavailableError(
                        f"the entry {path} of {self._path} has been tampered with; nothing was changed"
                    ) from None
                entries[path] = _Entry(entry.version, nonce + fresh.cipher.encrypt(nonce, plain, aad))
            self._replace(msgspec.json.encode(msgspec.structs.replace(fresh.file, entries=entries)))
            self._master_key, self._seen = master_key, None
        return len(entries)

    def _empty(self) -> _Opened:
        """What a file begins with. A passphrase is judged here only: one that was taken once opens for ever."""
        how = None
        if isinstance(self._master_key, Passphrase):
            if len(self._master_key.reveal()) < SHORTEST:
                raise StoreUnavailableError(f"a passphrase for {self._path} needs {SHORTEST} characters at least")
            how = Stretching(self._random(SALT_BYTES))
        salt, nonce = self._random(16), self._random(12)
        cipher = self._cipher(salt, how)
        return _Opened(_File(FORMAT, salt, nonce + cipher.encrypt(nonce, b"", _CHECK), {}, how), cipher)

    def _cipher(self, salt: bytes, how: Stretching | None) -> AESGCM:
        key = self._master_key
        if how is None:
            if isinstance(key, Passphrase):
                raise StoreUnavailableError(f"{self._path} is sealed with a key, and a passphrase was given")
        else:
            if not isinstance(key, Passphrase):
                raise StoreUnavailableError(f"{self._path} is sealed with a passphrase, and a key was given")
            if not how.sound():
                raise StoreUnavailableError(f"the head of {self._path} asks for an Argon2id out of bounds")
            key = key.stretched(how)
        hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=_INFO)
        return AESGCM(hkdf.derive(key.reveal()))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One writer at a time. The lock is a file of its own: the sealed file's inode changes at each write.

        The kernel drops the lock when its holder dies, so a crash leaves an empty `.lock` file and no lock.
        """
        try:
            descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(f"{self._path}.lock cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _replace(self, content: bytes) -> None:
        """Swap the whole file. Each line says what a crash right after it leaves."""
        temporary = f"{self._path}.tmp"
        try:
            # A stray `.tmp`, perhaps short: never read, and truncated by the next writer (we hold the lock).
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(
                    file.fileno()
                )  # the new content is on disk under a name nobody reads: the old file stands
            os.replace(temporary, self._path)  # kill -9: the new file; a power cut: the old one or the new one
            fsync_folder(self._path.parent)  # the new file stands, whatever happens
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                Path(temporary).unlink(missing_ok=True)
            raise StoreUnavailableError(f"{self._path} cannot be written: {error.strerror}") from None


class SealedCerts:
    """`ClientCerts` in the sealed file. They are there with every store of keys: a pair is more than the one
    line that Vault keeps for a key."""

    def __init__(self, file: SealedFile) -> None:
        self._file = file

    async def get(self, org: OrgId, upstream: str) -> Credential:
        return await self._file.get_at(cert_path(org, upstream))

    async def put(self, org: OrgId, upstream: str, pair: Secret) -> int:
        return await self._file.put_at(cert_path(org, upstream), pair)

    async def delete(self, org: OrgId, upstream: str) -> None:
        await self._file.delete_at(cert_path(org, upstream))


class SealedWebhooks:
    """`WebhookSecrets` in the sealed file, with every store of keys."""

    def __init__(self, file: SealedFile) -> None:
        self._file = file

    async def get(self, org: OrgId) -> Secret:
        return (await self._file.get_at(webhook_path(org))).secret

    async def put(self, org: OrgId, secret: Secret) -> None:
        await self._file.put_at(webhook_path(org), secret)

    async def delete(self, org: OrgId) -> None:
        await self._file.delete_at(webhook_path(org))


class SealedIdps:
    """`IdpSecrets` in the sealed file, with every store of keys."""

    def __init__(self, file: SealedFile) -> None:
        self._file = file

    async def get(self, org: OrgId) -> Secret:
        return (await self._file.get_at(idp_path(org))).secret

    async def put(self, org: OrgId, secret: Secret) -> None:
        await self._file.put_at(idp_path(org), secret)

    async def delete(self, org: OrgId) -> None:
        await self._file.delete_at(idp_path(org))


class SealedStreams:
    """`StreamSecrets` in the sealed file, with every store of keys."""

    def __init__(self, file: SealedFile) -> None:
        self._file = file

    async def get(self, org: OrgId, name: str) -> Secret:
        return (await self._file.get_at(stream_path(org, name))).secret

    async def put(self, org: OrgId, name: str, secret: Secret) -> None:
        await self._file.put_at(stream_path(org, name), secret)

    async def delete(self, org: OrgId, name: str) -> None:
        await self._file.delete_at(stream_path(org, name))


def _aad(path: str, version: int) -> bytes:
    return (f"{path}#{version}" if path.startswith("orgs/") else path).encode()
