"""Vault's Transit, used as the platform's own role: keys that never leave Vault wrap and sign what is sent there.

hvac blocks, so it runs in a thread; every call, its login included, ends within `vault.timeout_s`. The token is
replaced at two thirds of its life and given back at the end.

Trusted: whoever may log in as the platform's role can have anything unwrapped, and with `secrets.signing =
"transit"` any token signed, for as long as Vault lets them: each use is a line in Vault's audit log.
"""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import Struct

from gateway.errors import UnavailableError
from gateway.secret import Secret
from gateway.secrets.store import StoreUnavailableError, SystemSecrets
from gateway.secrets.vault_client import VaultAnswerError, VaultServer
from gateway.secrets.vault_login import Token, keep, kept, kept_name, log_in, read_credential, unwrap
from gateway.vault_settings import VaultSettings
from tenants.ids import PLATFORM

THREADS: Final = 2
USED_UP: Final = 2 / 3
"""The part of a token's life after which another one is asked for."""
RETRY_S: Final = 2

T = TypeVar("T")


class PublicVersion(Struct, frozen=True):
    """One version of the signing key. `created_at` in Unix seconds, `pem` a SubjectPublicKeyInfo."""

    number: int
    created_at: float
    pem: str


class Transit:
    """One server. `memory` keeps an unwrapped secret id, `clock` gives monotonic seconds. Belongs to one loop."""

    def __init__(
        self, vault: VaultSettings, home: Path, memory: SystemSecrets, clock: Callable[[], float]
    ) -> None:
        """Raises `StoreUnavailableError` for a CA file that is not there. Connects to nothing yet."""
        self._vault = vault
        self._home = home
        self._memory = memory
        self._clock = clock
        self._server = VaultServer(vault, home, threads=THREADS)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="transit")
        self._entering = asyncio.Lock()
        self._token: Token | None = None
        self._good_until = 0.0

    @property
    def wrapping_key(self) -> str:
        """Which key wraps, for messages and for what is kept."""
        return f"{self._vault.transit_mount}/{self._vault.transit_key}"

    async def encrypt(self, plain: Secret) -> str:
        """`vault:v<version>:…`. Raises `StoreUnavailableError`, as all of these do."""
        return await self._text("encrypt", {"plaintext": b64encode(plain.reveal()).decode()}, "ciphertext")

    async def decrypt(self, wrapped: str) -> Secret:
        found = await self._text("decrypt", {"ciphertext": wrapped}, "plaintext")
        try:
            return Secret(b64decode(found, validate=True))
        except (Base64Error, ValueError):  # from None: a cause could quote it
            raise StoreUnavailableError(f"{self.wrapping_key} answers with what is no base64") from None

    async def rewrap(self, wrapped: str) -> str:
        """The same under the newest version of the key; what is wrapped never leaves Vault."""
        return await self._text("rewrap", {"ciphertext": wrapped}, "ciphertext")

    async def versions(self) -> tuple[PublicVersion, ...]:
        """The signing key's versions that Vault still has, the oldest first."""
        path = f"{self._vault.transit_mount}/keys/{self._vault.signing_key}"
        answer = await self._ask(lambda client: client.adapter.get(f"/v1/{path}"))
        match answer:
            case {"data": {"type": str(kind), "keys": dict(found)}} if kind.startswith("rsa-") and found:
                try:
                    return tuple(
                        PublicVersion(
                            int(number),
                            datetime.fromisoformat(one["creation_time"]).timestamp(),
                            one["public_key"],
                        )
                        for number, one in sorted(found.items(), key=lambda item: int(item[0]))
                    )
                except (KeyError, TypeError, ValueError):
                    pass
        raise StoreUnavailableError(f"{path} is no RSA key, or its description cannot be understood")

    async def sign(self, version: int, data: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2) by that version of the signing key.

        Raises `gateway.errors.UnavailableError` when Vault does not answer, or refuses: its log says why.
        """
        path = f"{self._vault.transit_mount}/sign/{self._vault.signing_key}/sha2-256"
        body = {
            "input": b64encode(data).decode(),
            "key_version": version,
            "signature_algorithm": "pkcs1v15",
        }
        try:
            answer = await self._ask(lambda client: client.adapter.post(f"/v1/{path}", json=body))
            match answer:
                case {"data": {"signature": str(text)}} if text.startswith(f"vault:v{version}:"):
                    return b64decode(text.split(":", 2)[2], validate=True)
            raise StoreUnavailableError(f"{path} answers with something else than a signature")
        except (StoreUnavailableError, Base64Error) as error:
            raise UnavailableError(f"Vault does not sign: {error}", retry_after_s=RETRY_S) from None

    async def aclose(self) -> None:
        """Give the token back. One that cannot be given back ends by itself, within its TTL."""
        token, self._token = self._token, None
        if token is not None and token.lease_s:
            with contextlib.suppress(StoreUnavailableError, TimeoutError):
                async with asyncio.timeout(min(1.0, self._vault.timeout_s)):
                    await self._in_thread(
                        lambda: self._server.ask(
                            PLATFORM, token.value, lambda client: client.auth.token.revoke_self()
                        )
                    )
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._server.close()

    async def _text(self, what: str, body: dict[str, str], field: str) -> str:
        path = f"{self._vault.transit_mount}/{what}/{self._vault.transit_key}"
        answer = await self._ask(lambda client: client.adapter.post(f"/v1/{path}", json=body))
        match answer:
            case {"data": {**found}} if isinstance(found.get(field), str) and found[field]:
                return str(found[field])
        raise StoreUnavailableError(f"{path} answers without a {field}")

    async def _ask(self, work: Callable[[Any], T]) -> T:
        try:
            async with asyncio.timeout(self._vault.timeout_s):
                before = self._token
                token = await self._enter(before if self._clock() >= self._good_until else None)
                try:
                    return await self._in_thread(lambda: self._server.ask(PLATFORM, token.value, work))
                except VaultAnswerError as error:
                    # 403 is a token that was revoked, or that a restarted server never knew: log in again, once.
                    if error.status != 403 or token is not before or self._vault.auth == "token":
                        raise
                token = await self._enter(token)
                return await self._in_thread(lambda: self._server.ask(PLATFORM, token.value, work))
        except TimeoutError:
            limit = f"{self._vault.timeout_s:g} s"
            raise StoreUnavailableError(f"the server at {self._vault.address} did not answer in {limit}") from None

    async def _enter(self, spent: Token | None) -> Token:
        """The token there is, unless it is `spent`; else another one. One login at a time."""
        async with self._entering:
            if self._token is not None and self._token is not spent:
                return self._token
            credential = await self._in_thread(lambda: read_credential(self._vault, self._home, PLATFORM))
            if self._vault.wrapped:
                credential = await self._unwrapped(credential)
            token = await self._in_thread(lambda: log_in(self._server, self._vault, PLATFORM, credential))
            self._token = token
            life_s = token.lease_s * USED_UP if token.lease_s else float("inf")
            self._good_until = self._clock() + life_s
            return token

    async def _unwrapped(self, wrapping: Secret) -> Secret:
        known = kept(await self._memory.load(kept_name(PLATFORM)), wrapping)
        if known is not None:
            return known
        secret_id = await self._in_thread(lambda: unwrap(self._server, self._vault, PLATFORM, wrapping))
        # A crash here loses the secret id for good: an operator wraps another one.
        await self._memory.store(kept_name(PLATFORM), keep(wrapping, secret_id))
        return secret_id

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
