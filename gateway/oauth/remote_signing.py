"""Access tokens signed elsewhere, by a key that this server never sees: RS256 (RFC 7518), published as JWKS.

The key's versions are made by whoever keeps it. A new one is published at once, and signs `AHEAD_S` after it was
made: by then every verifier has read it. An old one is published until the last token it signed has ended.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from math import floor
from typing import Any, Final, Protocol

import msgspec
from joserfc.jwk import RSAKey

from gateway.errors import UnavailableError
from gateway.oauth.errors import RotatedElsewhereError, TemporarilyUnavailableError
from gateway.oauth.published import KeyUse, PublicKeys, Published, SigningKey
from gateway.oauth.signing import AHEAD_S
from tenants.revocations import LEEWAY_S, LONGEST_TOKEN_S

LOOK_S: Final = 60.0

log = logging.getLogger(__name__)


class Version(Protocol):
    """One version of the key. `created_at` in Unix seconds, `pem` its public key."""

    @property
    def number(self) -> int: ...
    @property
    def created_at(self) -> float: ...
    @property
    def pem(self) -> str: ...


class RemoteKey(Protocol):
    """The key, where it is kept.

    Trusted: whoever may use it can sign a token for anybody in any organization, while they may.
    """

    async def versions(self) -> Sequence[Version]:
        """Those that still exist, the oldest first. Raises what the store of secrets raises."""

    async def sign(self, version: int, data: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256. Raises `gateway.errors.UnavailableError`."""


class _Version(msgspec.Struct, frozen=True):
    """`signs_at` in Unix seconds."""

    number: int
    signs_at: float
    public: Published


class RemoteSigningKeys:
    """`tokens.TokenSigner` over a `RemoteKey`. Made by `open`; `clock` gives Unix seconds."""

    def __init__(self, key: RemoteKey, clock: Callable[[], float], found: Sequence[Version]) -> None:
        self._key = key
        self._clock = clock
        self._use(found)

    @classmethod
    async def open(cls, key: RemoteKey, clock: Callable[[], float]) -> RemoteSigningKeys:
        """Read the public keys. Raises what `RemoteKey.versions` raises."""
        return cls(key, clock, await key.versions())

    async def signed(self, claims: Mapping[str, Any]) -> str:
        """A JWT access token (RFC 9068). Raises `TemporarilyUnavailableError` when the key is out of reach."""
        version = self._signing()
        header = {"typ": "at+jwt", "alg": "RS256", "kid": version.public.kid}
        text = b".".join(urlsafe_b64encode(msgspec.json.encode(part)).rstrip(b"=") for part in (header, claims))
        try:
            signature = await self._key.sign(version.number, text)
        except UnavailableError as error:
            log.warning("a token was not signed: %s", error)  # its words name the server: not for the caller
            raise TemporarilyUnavailableError(
                "tokens cannot be signed now; try again in a few seconds", retry_after_s=error.retry_after_s
            ) from None
        return (text + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode("ascii")

    def own_claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a token that this key signed, whatever its times say. None: not one of ours."""
        return self._public.own_claims(token)

    def jwks_json(self) -> str:
        """The public keys, RFC 7517 section 5: the one that signs, newer ones, older ones whose tokens live."""
        return self._public.jwks_json(self._clock())

    def facts(self) -> tuple[SigningKey, ...]:
        """The one that signs, newer ones, older ones that are still published."""
        signing, now = self._signing(), self._clock()
        facts = []
        for one in sorted(self._versions, key=lambda one: (one is not signing, -one.number)):
            use = KeyUse.CURRENT if one is signing else KeyUse.RETIRED
            if one.number > signing.number:
                use = KeyUse.NEXT
            gone_at = floor(one.public.gone_at) if use is KeyUse.RETIRED else 0
            if not gone_at or gone_at > now:
                facts.append(SigningKey(one.public.kid, use, floor(one.signs_at), gone_at))
        return tuple(facts)

    async def rotate(self) -> None:
        """Raises `RotatedElsewhereError`: who keeps the key makes its versions."""
        raise RotatedElsewhereError

    async def follow(self) -> None:
        """Look for new versions once a minute, until cancelled. What is known serves on while none can be read."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        try:
            found = await self._key.versions()
        except Exception as error:  # noqa: BLE001  # the store's own kinds are not known here; said, and tried again
            log.warning("the signing key's versions cannot be read: %s", error)
            return
        if [one.number for one in found] != [one.number for one in self._versions]:
            self._use(found)
            log.info("the signing key has the versions %s", ", ".join(str(one.number) for one in found))

    def _signing(self) -> _Version:
        """The newest that every verifier has; the oldest, where all are that young."""
        now = self._clock()
        return next((one for one in reversed(self._versions) if one.signs_at <= now), self._versions[0])

    def _use(self, found: Sequence[Version]) -> None:
        versions = []
        for version, after in zip(found, [*found[1:], None], strict=True):
            jwk = RSAKey.import_key(version.pem).as_dict(private=False)
            last = 0 if after is None else after.created_at + AHEAD_S + LONGEST_TOKEN_S + LEEWAY_S
            public = Published.of(str(jwk["n"]), str(jwk["e"]), last)
            versions.append(_Version(version.number, version.created_at + AHEAD_S, public))
        self._versions = versions
        self._public = PublicKeys([one.public for one in versions])
