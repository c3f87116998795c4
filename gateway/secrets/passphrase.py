"""A passphrase instead of a key file: stretched by Argon2id (RFC 9106) with what the sealed file's head says.

It is typed at the start, or read from a file that something else protects, such as systemd's `LoadCredential=`.
Typed, it is handed to the processes below in a memory file (memfd_create(2)): no disk, no environment, no command
line has it, and nobody may look into these processes (`gateway.hardening`).

Trusted: whoever knows it and can read the sealed file has every secret in it.
"""

from __future__ import annotations

import getpass
import os
import sys
from functools import lru_cache
from typing import Final

import msgspec
from argon2.low_level import Type, hash_secret_raw

from gateway.secret import Secret

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
SHORTEST: Final = 12
LONGEST: Final = 1024
DESCRIPTOR: Final = "ORGATE_PASSPHRASE_FD"
"""The number of the memory file, in the environment of the processes below; never its content."""


class Stretching(msgspec.Struct, frozen=True):
    """How a passphrase becomes a key: Argon2id, version 1.3. The defaults are the second choice of RFC 9106
    section 4, for machines that have not 2 GiB to spare. They are stored, so that they may rise later."""

    salt: bytes
    memory_kib: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4

    def sound(self) -> bool:
        """Whoever can write the file could ask for all of this machine's memory, or for hardly any work."""
        return (
            len(self.salt) >= SALT_BYTES
            and 19 * 1024 <= self.memory_kib <= 1024 * 1024
            and 1 <= self.iterations <= 16
            and 1 <= self.lanes <= 16
        )


class Passphrase(Secret):
    """What opens a sealed file once it is stretched. Prints as `***`, as every secret."""

    __slots__ = ()

    def stretched(self, how: Stretching) -> Secret:
        """The key for a file with this head. About 0.1 s and 64 MiB; done once for a file in each process."""
        return _stretched(self.reveal(), how)


@lru_cache(maxsize=4)
def _stretched(passphrase: bytes, how: Stretching) -> Secret:
    return Secret(
        hash_secret_raw(
            passphrase, how.salt, how.iterations, how.memory_kib, how.lanes, KEY_BYTES, Type.ID, version=19
        )
    )


def typed_before() -> Passphrase | None:
    """What was typed in this process or in the one that started it; None: nothing was."""
    number = os.environ.get(DESCRIPTOR, "")
    if not number.isdigit():
        return None
    try:
        return Passphrase(os.pread(int(number), LONGEST + 1, 0))
    except OSError:
        return None  # a shell that was given the variable, and not the file


def ask(question: str) -> Passphrase:
    """Have it typed unseen. Raises `EOFError` where there is no terminal or nothing is typed."""
    if not sys.stdin.isatty():
        raise EOFError("there is no terminal to type it at")
    typed = getpass.getpass(question).encode()
    if not typed:
        raise EOFError("nothing was typed")
    return Passphrase(typed)


def hand_down(passphrase: Passphrase) -> None:
    """Keep it for this process and the ones it starts with `inherited()`."""
    descriptor = os.memfd_create("orgate-passphrase", os.MFD_CLOEXEC)
    os.write(descriptor, passphrase.reveal())
    os.environ[DESCRIPTOR] = str(descriptor)


def inherited() -> tuple[int, ...]:
    """The descriptors that a process started from this one needs (`pass_fds` of subprocess)."""
    number = os.environ.get(DESCRIPTOR, "")
    return (int(number),) if number.isdigit() and typed_before() is not None else ()
