"""What a witness keeps, in one folder of files that a person can read.

    key                     the witness's private key, mode 0600, made once
    lock                    held by the process that serves
    logs/<hash>/keys        verifier keys of one log, one a line; the hash is SHA-256 of its origin, hexadecimal
    logs/<hash>/checkpoint  the last checkpoint that was cosigned, with the cosignature under it
    logs/<hash>/refused-…   checkpoints that the log signed and that do not follow the one above: evidence

`checkpoint` is all the memory a witness has. It is replaced as a whole and synced (write, sync, rename, sync of
the folder) before the cosignature leaves: whatever crash comes, no cosignature was given for a tree that is not
there at the next start. Trusted: whoever can write this folder can make the witness forget.
"""

from __future__ import annotations

import fcntl
import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.cosignature import CosignerKey, cosigned, key_of
from gateway.audit.disk import Disk, replace_file, sync_folder
from gateway.audit.note import Checkpoint, NoteError, VerifierKey, base64, parse_key
from gateway.audit.witness_wire import tree_head

REFUSED_MAX = 32
"""Of one log, and as many again that show two trees of one size. Those only the log's key can make; the others
anybody can, of a checkpoint that is not cosigned yet and a wrong proof, and must not use up the room for those."""

_PRIVATE = "PRIVATE+KEY+"


class FolderError(Exception):
    """The folder is not what a witness needs. Says what is wrong, and what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


class Known(NamedTuple):
    """What a witness knows of a log: the last note it cosigned, its own line under it, and when (Unix seconds)."""

    head: Checkpoint
    note: str
    at: int


class Served(NamedTuple):
    """A log that the witness serves. `known` is None until its first checkpoint."""

    origin: str
    keys: tuple[VerifierKey, ...]
    known: Known | None


class WitnessFolder:
    """An existing folder; `make` makes one. Calls raise `FolderError` for what was tampered with, and OSError."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = path
        self._disk = disk or Disk()
        self.name, self.private = self._read_key()

    @property
    def key(self) -> CosignerKey:
        return key_of(self.name, self.private)

    # -- logs -----------------------------------------------------------------------------------------------

    def logs(self) -> list[Served]:
        """Every log that is served, in the order of origins; each is read whole, so damage is found here."""
        try:
            folders = list((self.path / "logs").iterdir())
        except FileNotFoundError:
            return []
        read = [(folder, self._keys(folder)) for folder in folders]
        found = [Served(keys[0].name, keys, self._known(folder)) for folder, keys in read if keys]
        return sorted(found, key=lambda log: log.origin)

    def keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """Whose checkpoints of `origin` count; none for a log that is not served."""
        return self._keys(self._folder(origin))

    def known(self, origin: str) -> Known | None:
        return self._known(self._folder(origin))

    def published(self, origin_hash: str) -> str | None:
        """The last cosigned note of the log whose origin has this SHA-256 (hexadecimal), if it is served."""
        folder = self.path / "logs" / origin_hash
        if len(origin_hash) != 64 or not all(c in "0123456789abcdef" for c in origin_hash):
            return None
        known = self._known(folder) if self._keys(folder) else None
        return known.note if known else None

    def add(self, key: VerifierKey) -> bool:
        """Serve the log of `key`; False when it was served before. A log that is replacing its key has both."""
        keys = self.keys(key.name)
        if key in keys:
            return False
        folder = self._folder(key.name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)
        text = "".join(f"{one}\n" for one in (*keys, key))
        replace_file(folder / "keys", text.encode(), self._disk)
        return True

    def remove(self, origin: str) -> bool:
        """Serve it no more; False when it was not served. What was cosigned stays known: a log that is added again
        cannot have been rolled back meanwhile."""
        try:
            (self._folder(origin) / "keys").unlink()
        except FileNotFoundError:
            return False
        sync_folder(self._folder(origin))
        return True

    def save(self, origin: str, note: str) -> None:
        """Remember a note with the cosignature under it: durable when this returns, and not before."""
        replace_file(self._folder(origin) / "checkpoint", note.encode(), self._disk)

    def keep_refused(self, head: Checkpoint, note: str, *, forked: bool) -> Path | None:
        """Keep a signed checkpoint that does not follow, once; None when there are enough already. `forked`: it
        has the size of the one known, and another root."""
        path = self._refused(head)
        if not path.exists():
            if len(self.refused(head.origin)) >= (2 * REFUSED_MAX if forked else REFUSED_MAX):
                return None
            replace_file(path, note.encode(), self._disk)
        return path

    def drop_refused(self, head: Checkpoint) -> None:
        """What has been cosigned does follow: only the proof was wrong that somebody sent with it before."""
        self._refused(head).unlink(missing_ok=True)

    def refused(self, origin: str) -> list[Path]:
        return sorted(self._folder(origin).glob("refused-*"))

    # -- one process ----------------------------------------------------------------------------------------

    @contextmanager
    def held(self) -> Iterator[None]:
        """Two processes on one folder could cosign two trees. Raises `FolderError` while another one serves."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fix = "end that one first, or name another folder"
                raise FolderError(f"{self.path}: another witness serves from this folder", fix) from None
            yield
        finally:
            os.close(fd)

    # -- files ----------------------------------------------------------------------------------------------

    def _refused(self, head: Checkpoint) -> Path:
        return self._folder(head.origin) / f"refused-{head.size}-{head.root.hex()[:16]}"

    def _folder(self, origin: str) -> Path:
        return self.path / "logs" / sha256(origin.encode()).hexdigest()

    def _keys(self, folder: Path) -> tuple[VerifierKey, ...]:
        path = folder / "keys"
        try:
            text = path.read_text(encoding="utf-8")
            keys = tuple(parse_key(line) for line in text.splitlines())
        except FileNotFoundError:
            return ()
        except (NoteError, UnicodeDecodeError) as error:
            raise FolderError(
                f"{path}: {error}", "put back what was there, or remove the log and add it"
            ) from None
        for key in keys:
            if sha256(key.name.encode()).hexdigest() != folder.name:
                raise FolderError(f"{path}: holds a key of another log, {key.name}", "remove that line")
        return keys

    def _known(self, folder: Path) -> Known | None:
        """Never None for a file that is there and cannot be understood: that would be forgetting."""
        path = folder / "checkpoint"
        fix = "put back a copy of this file; without it the witness cannot say what it has seen"
        try:
            note = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise FolderError(f"{path}: is not UTF-8", fix) from None
        try:
            head = tree_head(note.partition("\n\n")[0] + "\n")
            at = cosigned(note, [self.key]).get(self.key)
            if at is None:
                raise NoteError("it is not cosigned by this witness")
            if sha256(head.origin.encode()).hexdigest() != folder.name:
                raise NoteError("it is of another log")
        except NoteError as error:
            raise FolderError(f"{path}: {error}", fix) from None
        return Known(head, note, at)

    def _read_key(self) -> tuple[str, Ed25519PrivateKey]:
        path = self.path / "key"
        fix = "name the folder of a witness, or make one with --name"
        try:
            mode = path.stat().st_mode & 0o777
            text = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise FolderError(f"{self.path}: there is no witness in this folder", fix) from None
        except UnicodeDecodeError:
            raise FolderError(f"{path}: is no key", fix) from None
        if mode & 0o077:
            raise FolderError(f"{path}: others may read it (mode {mode:04o})", f"run `chmod 600 {path}`")
        parts = text.removeprefix(_PRIVATE).split("+", 2)
        try:
            raw = base64(parts[2], "the key") if text.startswith(_PRIVATE) and len(parts) == 3 else b""
            if len(raw) != 33 or raw[:1] != b"\x04":
                raise NoteError("is no private key of a witness")
            private = Ed25519PrivateKey.from_private_bytes(raw[1:])
            if key_of(parts[0], private).id.hex() != parts[1]:
                raise NoteError("its id does not fit: it was changed")
        except NoteError as error:
            raise FolderError(f"{path}: {error}", "put back a copy of it") from None
        return parts[0], private


def make(path: Path, name: str, generate: Callable[[], Ed25519PrivateKey] = Ed25519PrivateKey.generate) -> None:
    """Make the folder and the key of a new witness. Raises `FolderError` for a bad name or a second key, OSError.

    Crash before the key has its name: nothing was signed with it; the next call makes another.
    """
    if not name or "+" in name or any(c.isspace() or not c.isprintable() for c in name):
        fix = "write something like witness.example/audit: a host and path of yours without https://"
        raise FolderError(f"{name!r} can be no witness's name: it has no spaces and no plus", fix)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (path / "key").exists():
        raise FolderError(f"{path}: there is a witness already", "leave out --name, or name another folder")
    private = generate()
    secret = b64encode(b"\x04" + private.private_bytes_raw()).decode()
    text = f"{_PRIVATE}{name}+{key_of(name, private).id.hex()}+{secret}\n"
    replace_file(path / "key", text.encode(), Disk())
