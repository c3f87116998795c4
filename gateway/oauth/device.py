"""Device authorization, RFC 8628: a code for the device, a short one for the person, one use of each."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from gateway.oauth.caller import Caller
from gateway.oauth.digests import ServerKey, sha256
from gateway.oauth.errors import (
    AccessDeniedError,
    AuthorizationPendingError,
    ExpiredTokenError,
    InvalidGrantError,
    SlowDownError,
    TemporarilyUnavailableError,
)
from gateway.oauth.signin import SignedIn, joined
from gateway.oauth.store import DeviceGrant, DeviceStatus, DuplicateUserCodeError, Family, OAuthStore
from gateway.oauth.throttle import Throttles
from tenants.clients import org_of
from tenants.models import Member

ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 section 6.1: no vowels, no digits, 34.5 bits in eight letters
LETTERS: Final = 8
MAX_PENDING: Final = 40_000
MAX_OF_BUILT_IN: Final = 4_000
MAX_OF_ORG: Final = 500
STARTS_PER_ADDRESS: Final = 100
"""Pending at once: of all; of each built-in client, which anybody may begin with; of one organization's own
clients together. The built-in ones leave organizations 8,000. An address (an IPv6 /64) begins 100 in ten
minutes, which is how long they wait, and 200 across the end of a window: to fill a built-in client's share takes
20 to 40 addresses, and the other clients and organizations' own go on."""

WRONG_CODES_PER_MEMBER: Final = 10
PERIOD_S: Final = 600.0
SLOWER_S: Final = 5.0


class DeviceAuthorization(Struct, frozen=True):
    """The answer of RFC 8628 section 3.2."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class DeviceFlow:
    """`interval_s` is what clients wait between polls; `expires_s` the life of both codes.

    Guessing user codes: only a member who has signed in may enter one, ten wrong ones in ten minutes, against
    at most 40,000 pending among 25 billion.
    """

    def __init__(
        self,
        *,
        store: OAuthStore,
        key: ServerKey,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        throttle: Throttles,
        page_url: str,
        interval_s: int,
        expires_s: int,
    ) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._random = random
        self._page_url = page_url
        self._interval_s = interval_s
        self._expires_s = expires_s
        self._starts = throttle("device-starts", STARTS_PER_ADDRESS, PERIOD_S)
        self._wrong = throttle("wrong-user-codes", WRONG_CODES_PER_MEMBER, PERIOD_S)

    async def start(self, client: str, resource: str, scope: str, caller: Caller) -> DeviceAuthorization:
        """Begin. Raises `TooManyAttemptsError`, `TemporarilyUnavailableError`."""
        await self._starts.check(caller.address)
        await self._starts.charge(caller.address)
        now = self._clock()
        most = MAX_OF_ORG if org_of(client) else MAX_OF_BUILT_IN
        if (
            await self._store.pending_devices(now, client) >= most
            or await self._store.pending_devices(now) >= MAX_PENDING
        ):
            raise TemporarilyUnavailableError("too many sign-ins are waiting", retry_after_s=30)
        device_code = urlsafe_b64encode(self._random(32)).rstrip(b"=").decode()
        while True:  # ends: two of at most 40,000 pending codes meet about once in 600,000
            user_code = self._user_code()
            grant = DeviceGrant(
                digest=sha256(device_code),
                user_code_digest=self.digest_of(user_code),
                client=client,
                resource=resource,
                scope=scope,
                expires_at=now + self._expires_s,
                interval=self._interval_s,
            )
            try:
                await self._store.add_device(grant, now)
            except DuplicateUserCodeError:
                continue
            return DeviceAuthorization(
                device_code=device_code,
                user_code=user_code,
                verification_uri=self._page_url,
                verification_uri_complete=f"{self._page_url}?user_code={user_code}",
                expires_in=self._expires_s,
                interval=self._interval_s,
            )

    def began(self, grant: DeviceGrant) -> float:
        """When `grant` was asked for, Unix seconds: before anybody signed in for it."""
        return grant.expires_at - self._expires_s

    async def asked(self, user_code: str, member: Member) -> DeviceGrant:
        """What `member`, who has just signed in, is asked. Raises as `decide`."""
        key = f"{member.org}/{member.id}"
        await self._wrong.check(key)
        found = await self._store.device_of(self.digest_of(user_code), self._clock())
        if found is None or org_of(found.client) not in ("", member.org):
            raise await self._unknown(key)
        return found

    async def decide(self, user_code: str, who: SignedIn, *, approve: bool) -> DeviceGrant:
        """`who`, who has just signed in, says yes or no. Raises `InvalidGrantError`, `TooManyAttemptsError`. The
        code of another organization's client is as unknown as one that never was."""
        member = who.member
        key = f"{member.org}/{member.id}"
        await self.asked(user_code, member)
        status = DeviceStatus.APPROVED if approve else DeviceStatus.DENIED
        decided = await self._store.decide(
            self.digest_of(user_code),
            status,
            member.org,
            member.id,
            self._clock(),
            amr=joined(who.amr),
            auth_time=who.auth_time,
        )
        if decided is None:
            raise await self._unknown(key)
        return decided

    async def _unknown(self, key: str) -> InvalidGrantError:
        await self._wrong.charge(key)
        return InvalidGrantError("this code is unknown, was used, or has expired; start again on the device")

    async def poll(self, device_code: str, client: str) -> DeviceGrant:
        """The approved grant. Raises what RFC 8628 section 3.5 says a client hears until then."""
        grant = await self._store.device(sha256(device_code))
        if grant is None or grant.client != client:
            raise InvalidGrantError("the device code is unknown")
        if grant.status is DeviceStatus.REDEEMED:
            raise InvalidGrantError("the device code was used")
        if grant.status is DeviceStatus.DENIED:
            raise AccessDeniedError("the sign-in was refused")
        now = self._clock()
        if now >= grant.expires_at:
            raise ExpiredTokenError("the device code has expired")
        if grant.status is DeviceStatus.APPROVED:
            return grant
        # A tenth of tolerance: a client that waits its interval to the dot must not be told to slow down.
        hasty = grant.polled_at and now - grant.polled_at < grant.interval * 0.9
        interval = grant.interval + SLOWER_S if hasty else grant.interval
        await self._store.polled(grant.digest, now, interval)
        if hasty:
            raise SlowDownError(f"wait {interval:.0f} seconds between requests")
        raise AuthorizationPendingError("nobody has decided yet")

    async def redeem(self, grant: DeviceGrant, family: Family) -> None:
        """Use the grant: of concurrent polls one begins the family. Raises `InvalidGrantError` to the others."""
        if not await self._store.redeem(grant.digest, family):
            raise InvalidGrantError("the device code was used")

    def _user_code(self) -> str:
        letters = ""
        while len(letters) < LETTERS:  # 240 is the largest multiple of 20 in a byte: no letter comes more often
            letters += "".join(ALPHABET[byte % 20] for byte in self._random(LETTERS) if byte < 240)
        return f"{letters[:4]}-{letters[4:LETTERS]}"

    def digest_of(self, user_code: str) -> str:
        """How a user code is stored: its letters alone, in capitals."""
        # Under a key: eight letters could be tried out against a stolen database.
        letters = "".join(letter for letter in user_code.upper() if letter.isalnum())
        return self._key.mac(b"user_code", letters.encode()).hex()
