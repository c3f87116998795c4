"""Refresh tokens: opaque, rotated at each use, a family per sign-in (RFC 9700 section 4.14.2).

A token is `ogr_` + base64url(family 16 bytes | secret 32 bytes | tag 16 bytes). The tag is an HMAC under the
server's key: a token this server never made is refused unread, and one that it made and is neither current
nor within the grace must have been copied. So one row per family suffices to notice any reuse.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Final

from msgspec import structs

from gateway.oauth.digests import ServerKey, sha256
from gateway.oauth.store import Consumed, Family, OAuthStore
from tenants.ids import MemberId, OrgId

PREFIX: Final = "ogr_"
MAX_RECENT: Final = 32
_FAMILY, _SECRET, _TAG = 16, 32, 16
_LENGTH: Final = len(PREFIX) + 86  # 64 bytes in base64url without padding


class ReusedError(Exception):
    """A consumed token came back after the grace: somebody copied it. Its family has been ended."""


class RefreshTokens:
    """`lifetime_s` is the whole family's; `grace_s` how long a consumed token still gets its successor."""

    def __init__(
        self,
        *,
        store: OAuthStore,
        key: ServerKey,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        lifetime_s: int,
        grace_s: int,
    ) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._random = random
        self._lifetime_s = lifetime_s
        self._grace_s = grace_s

    def begin(
        self, org: OrgId, member: MemberId, client: str, *, amr: str = "", auth_time: int = 0, jkt: str = ""
    ) -> tuple[str, Family]:
        """A new family and its first token; `amr`, `auth_time` and `jkt` as in `Family`. Nothing is stored here:
        the grant that is redeemed stores it."""
        family = self._random(_FAMILY)
        token = self._make(family, self._random(_SECRET))
        now = self._clock()
        return token, Family(
            id=family.hex(),
            org=org,
            member=member,
            client=client,
            current=sha256(token),
            created_at=now,
            expires_at=now + self._lifetime_s,
            amr=amr,
            auth_time=auth_time,
            jkt=jkt,
        )

    async def find(self, token: str) -> Family | None:
        """The living family that `token` was made for, whether or not `token` is still its current one."""
        family_id = self._family_of(token)
        family = await self._store.family(family_id) if family_id else None
        if family is None or family.ended_at or family.expires_at <= self._clock():
            return None
        return family

    async def current(self, token: str) -> Family | None:
        """The living family in which `token` would still bring tokens: it is the current one, or within the
        grace."""
        family, digest, now = await self.find(token), sha256(token), self._clock()
        if family is None:
            return None
        good = (family.current, *(one.digest for one in family.recent if now - one.at <= self._grace_s))
        return family if any(hmac.compare_digest(one, digest) for one in good) else None

    async def rotate(self, token: str, family: Family, jkt: str = "") -> str | None:
        """The successor of `token`: the same one for everybody who brings `token` within the grace. The family is
        bound to `jkt` from now on, if it is to none yet.

        None when the family has ended, or was bound to another key, meanwhile. Raises `ReusedError` once it is
        dead.
        """
        digest = sha256(token)
        successor = self._make(bytes.fromhex(family.id), self._key.mac(b"refresh successor", token.encode()))
        if family.current == digest:
            now = self._clock()
            kept = tuple(one for one in family.recent if now - one.at <= self._grace_s)
            consumed = (*kept, Consumed(digest, now))[-MAX_RECENT:]
            # A crash after this leaves the token consumed and the answer unsent: the retry gets the same one.
            bound = structs.replace(family, jkt=family.jkt or jkt)
            if await self._store.rotate(bound, sha256(successor), consumed):
                return successor
            found = await self._store.family(family.id)  # somebody was faster: look again
            if found is None or found.ended_at or found.jkt not in {"", jkt}:
                return None
            family = found
        now = self._clock()
        if any(hmac.compare_digest(one.digest, digest) and now - one.at <= self._grace_s for one in family.recent):
            return successor
        await self._store.end_family(family.id, now)
        raise ReusedError

    async def end(self, family: Family) -> bool:
        return await self._store.end_family(family.id, self._clock())

    def _make(self, family: bytes, secret: bytes) -> str:
        body = family + secret
        return PREFIX + urlsafe_b64encode(body + self._tag(body)).rstrip(b"=").decode()

    def _tag(self, body: bytes) -> bytes:
        return self._key.mac(b"refresh tag", body)[:_TAG]

    def _family_of(self, token: str) -> str | None:
        if len(token) != _LENGTH or not token.startswith(PREFIX) or not token.isascii():
            return None
        try:
            raw = urlsafe_b64decode(token[len(PREFIX) :] + "==")
        except (Base64Error, ValueError):
            return None
        body = raw[:-_TAG]
        if len(raw) != _FAMILY + _SECRET + _TAG or not hmac.compare_digest(raw[-_TAG:], self._tag(body)):
            return None
        # Another spelling of the same bytes has another digest and would look like a copy: refuse it unread.
        return raw[:_FAMILY].hex() if self._make(raw[:_FAMILY], body[_FAMILY:]) == token else None
