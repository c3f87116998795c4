"""Argon2id (RFC 9106) in threads, a few at a time: each costs 64 MiB and tens of milliseconds by intent."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from gateway.oauth.errors import InvalidRequestError, TemporarilyUnavailableError

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 256
AT_ONCE: Final = 2
MAX_WAITING: Final = 64


def check_password(password: str) -> None:
    """Whether it may become a password: length only (NIST SP 800-63B section 3.1.1.2)."""
    if not MIN_LENGTH <= len(normalized(password)) <= MAX_LENGTH:
        raise InvalidRequestError(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters")


def normalized(password: str) -> str:
    """One spelling per password, whatever keyboard it came from (RFC 8265 section 4.2.2)."""
    return unicodedata.normalize("NFC", password)


class Passwords:
    """Hashes and verifies. `hasher` holds the costs: RFC 9106's second recommendation by default."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._dummy: str | None = None

    async def hash(self, password: str) -> str:
        async with self._place():
            return await asyncio.to_thread(self._hasher.hash, normalized(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether `password` is the one. Without a `stored` hash the same work is done for nothing: how long an
        answer takes does not tell whether the account exists."""
        if len(password) > MAX_LENGTH:
            return False
        async with self._place():
            if self._dummy is None:
                self._dummy = await asyncio.to_thread(self._hasher.hash, "nobody's password")
            return await asyncio.to_thread(self._matches, stored or self._dummy, password) and stored is not None

    def outdated(self, stored: str) -> bool:
        """Whether `stored` was made with other costs than today's."""
        return self._hasher.check_needs_rehash(stored)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, normalized(password))
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._waiting >= MAX_WAITING:
            raise TemporarilyUnavailableError("too many sign-ins at once", retry_after_s=5)
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1
