"""The master key: 32 bytes, written as 64 hexadecimal digits in a file only its owner can read. Or a passphrase.

Trusted: whoever can read this file and the sealed file has every organization's upstream keys.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.secret import Secret
from gateway.secrets.passphrase import LONGEST, Passphrase, ask, hand_down, typed_before
from gateway.secrets.store import StoreUnavailableError

KEY_BYTES = 32
ENV_SOURCE = "env:"
PASSPHRASE_SOURCE = "passphrase:"  # noqa: S105 - the name of a kind
PROMPT = "prompt"
SYSTEMD = "systemd:"

log = logging.getLogger(__name__)


class MasterKeyError(StoreUnavailableError):
    """There is no usable master key. The message says which source, what is wrong and what to do."""


def create_master_key(path: Path, random: Callable[[int], bytes] = os.urandom) -> None:
    """Write a fresh key to `path` with mode 0600. Raises `FileExistsError`: a key is never overwritten.

    A crash before the last fsync leaves an empty or short file, which `read_master_key` refuses by name.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask took away or a default ACL added
        file.write(random(KEY_BYTES).hex().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    fsync_folder(path.parent)


def read_master_key(source: str, home: Path, environment: Mapping[str, str] | None = None) -> Secret:
    """The key that `secrets.master_key` of the settings names: a file (relative to `home`) or `env:NAME`.

    A `Passphrase` for `passphrase:prompt` (typed once for this process and those it starts),
    `passphrase:systemd:NAME` (systemd.exec(5), `LoadCredential=`) and `passphrase:FILE`. Raises
    `MasterKeyError` when it is missing, malformed, or a file that others than its owner can open.
    """
    if source.startswith(ENV_SOURCE):
        name = source.removeprefix(ENV_SOURCE)
        text = (os.environ if environment is None else environment).get(name)
        if text is None:
            raise MasterKeyError(f"the environment variable {name} is not set; it should hold the master key")
        log.warning("the master key comes from the environment variable %s: for development only", name)
        return _parse(text.encode(), f"the environment variable {name}")
    if source.startswith(PASSPHRASE_SOURCE):
        return _passphrase(
            source.removeprefix(PASSPHRASE_SOURCE), home, os.environ if environment is None else environment
        )
    path = home / source
    if not path.exists():
        raise MasterKeyError(f"there is no master key at {path}; `orgate init` writes one")
    return _parse(_private(path, "the master key", 1024), f"the master key {path}")


def _passphrase(source: str, home: Path, environment: Mapping[str, str]) -> Passphrase:
    if source == PROMPT:
        found = typed_before()
        if found is None:
            try:
                found = ask("Passphrase of the sealed file: ")
            except EOFError as error:
                raise MasterKeyError(
                    f"the passphrase of the sealed file is to be typed, and {error}; start it at a terminal, or"
                    " set secrets.master_key to passphrase:FILE or passphrase:systemd:NAME"
                ) from None
            hand_down(found)
        return found
    if source.startswith(SYSTEMD):
        folder = environment.get("CREDENTIALS_DIRECTORY")
        if not folder:
            name = source.removeprefix(SYSTEMD)
            raise MasterKeyError(
                f"systemd gave no credentials ($CREDENTIALS_DIRECTORY is not set); the unit needs"
                f" LoadCredential={name}:… or LoadCredentialEncrypted={name}:…"
            )
        path = Path(folder) / source.removeprefix(SYSTEMD)
    else:
        path = home / source
    text = _private(path, "the passphrase", LONGEST + 2).removesuffix(b"\n").removesuffix(b"\r")
    if not 0 < len(text) <= LONGEST or b"\n" in text:
        raise MasterKeyError(f"the passphrase {path} must be one line of 1 to {LONGEST} bytes")
    return Passphrase(text)


def _private(path: Path, what: str, most: int) -> bytes:
    """The content of a regular file that nobody but its owner can open."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MasterKeyError(f"{what} {path} cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)  # of what was opened: a later change of the name cannot slip in
        if not stat.S_ISREG(status.st_mode):
            raise MasterKeyError(f"{what} {path} is not a regular file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise MasterKeyError(f"{what} {path} has mode {mode:04o}; run `chmod 600 {path}`")
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def _parse(text: bytes, where: str) -> Secret:
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:  # from None: the cause would carry the text
        raise MasterKeyError(f"{where} is not {KEY_BYTES * 2} hexadecimal digits") from None
    if len(key) != KEY_BYTES:
        raise MasterKeyError(f"{where} is not {KEY_BYTES * 2} hexadecimal digits")
    return Secret(key)


def fsync_folder(folder: Path) -> None:
    """Make names created or renamed in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
