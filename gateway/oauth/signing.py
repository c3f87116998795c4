"""The keys that sign access tokens: RS256 (RFC 7518), named by their thumbprint (RFC 7638), published as JWKS.

Three generations are public at once: the next key (published ahead of its first use, so that every verifier
has it by then), the current one, and retired ones until the last token they signed has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from math import ceil, floor
from typing import Any, Final, Protocol

import msgspec
from joserfc import jws
from joserfc.jwk import RSAKey
from msgspec import structs

from gateway.oauth.errors import RotatedLatelyError
from gateway.oauth.published import KeyUse, PublicKeys, Published, SigningKey
from gateway.secret import Secret
from tenants.revocations import LEEWAY_S, LONGEST_TOKEN_S

KEY_BITS: Final = 2048
KEYS_NAME: Final = "signing/keys"
AHEAD_S: Final = 600
"""How long a key is published before it signs: the JWKS may be cached for 300 s."""


class KeyStore(Protocol):
    """Where the private keys rest. Durable and atomic when `store` returns; `SystemSecrets` is one.

    Trusted: whoever can read it can sign a token for anybody in any organization.
    """

    async def load(self, name: str) -> Secret | None: ...
    async def store(self, name: str, secret: Secret) -> None: ...


class _StoredKey(msgspec.Struct, frozen=True):
    """A private JWK. `since`: when it was made or, once it signs, since when it does; `gone_at`: a retired key
    leaves the JWKS then. Unix seconds; 0 in what an older Orgate wrote."""

    jwk: dict[str, str]
    gone_at: int = 0
    since: int = 0


class _StoredKeys(msgspec.Struct, frozen=True):
    """All generations in one secret: a rotation is one atomic write, a crash leaves the old set or the new."""

    current: _StoredKey
    next: _StoredKey
    retired: tuple[_StoredKey, ...] = ()


class SigningKeys:
    """Signs in the control process. Made by `load_or_create`; `sign` may be called from any thread."""

    def __init__(self, stored: _StoredKeys, store: KeyStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._rotating = asyncio.Lock()
        self._use(stored)

    @classmethod
    async def load_or_create(cls, store: KeyStore, clock: Callable[[], float]) -> SigningKeys:
        """The stored keys, or fresh ones stored first. `clock` gives Unix seconds.

        Two processes that create at once would each keep their own: only the control process may call this.
        """
        secret = await store.load(KEYS_NAME)
        now = floor(clock())
        if secret is None:
            stored = _StoredKeys(current=await _generate(now), next=await _generate(now))
            await store.store(KEYS_NAME, _sealed(stored))
        else:
            stored = msgspec.json.decode(secret.reveal(), type=_StoredKeys)
            if not stored.current.since:  # its age is not known: it counts from here
                stored = structs.replace(stored, current=structs.replace(stored.current, since=now))
                await store.store(KEYS_NAME, _sealed(stored))
        return cls(stored, store, clock)

    @property
    def kid(self) -> str:
        """The key that signs now."""
        return self._kid

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWT access token (RFC 9068: `typ` is `at+jwt`) in compact serialization. About 1 ms."""
        header = {"typ": "at+jwt", "alg": "RS256", "kid": self._kid}
        return jws.serialize_compact(header, msgspec.json.encode(claims), self._key, algorithms=["RS256"])

    async def signed(self, claims: Mapping[str, Any]) -> str:
        """As `sign`, beside the loop."""
        return await asyncio.to_thread(self.sign, claims)

    def own_claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a token that a key of ours signed, whatever its times say. None: not one of ours."""
        return self._public.own_claims(token)

    def jwks_json(self) -> str:
        """The public keys, RFC 7517 section 5: current, next, then those whose tokens still live."""
        return self._public.jwks_json(self._clock())

    def facts(self) -> tuple[SigningKey, ...]:
        """Current, next, then retired ones that are still published."""
        stored, now = self._stored, self._clock()
        every = (stored.current, stored.next, *stored.retired)
        uses = (KeyUse.CURRENT, KeyUse.NEXT, *(KeyUse.RETIRED for _ in stored.retired))
        return tuple(
            SigningKey(public.kid, use, key.since, key.gone_at)
            for key, use, public in zip(every, uses, self._public.keys, strict=True)
            if key.gone_at == 0 or key.gone_at > now
        )

    async def rotate(self) -> None:
        """Sign with the next key from now on and publish another. No token already issued stops working.

        Raises `RotatedLatelyError` while somebody may not have read the next key yet. A crash before the write
        changes nothing; after it, the next start signs with the new key.
        """
        async with self._rotating:
            now = self._clock()
            old = self._stored
            wait = old.next.since + AHEAD_S - now
            if wait > 0:
                raise RotatedLatelyError(ceil(wait))
            gone_at = floor(now) + LONGEST_TOKEN_S + LEEWAY_S
            retired = (
                structs.replace(old.current, gone_at=gone_at),
                *(key for key in old.retired if key.gone_at > now),
            )
            current = structs.replace(old.next, since=floor(now))
            stored = _StoredKeys(current=current, next=await _generate(floor(now)), retired=retired)
            await self._store.store(KEYS_NAME, _sealed(stored))
            self._use(stored)

    def _use(self, stored: _StoredKeys) -> None:
        self._stored = stored
        self._key = RSAKey.import_key({**stored.current.jwk})
        self._kid = self._key.thumbprint()
        every = (stored.current, stored.next, *stored.retired)
        self._public = PublicKeys([Published.of(key.jwk["n"], key.jwk["e"], key.gone_at) for key in every])


def _sealed(stored: _StoredKeys) -> Secret:
    return Secret(msgspec.json.encode(stored))


async def _generate(now: int) -> _StoredKey:
    key = await asyncio.to_thread(RSAKey.generate_key, KEY_BITS)
    return _StoredKey({name: str(value) for name, value in key.as_dict(private=True).items()}, since=now)
