"""Second factors of embedded accounts: what a member has, how it is shown, added and taken away.

Someone who knows the password guesses codes of six digits: those are counted by member, across browsers,
addresses and nodes, and a right password does not forgive them. About twenty guesses fit into a day. A passkey and
a recovery code cannot be guessed, and stay open to whoever is locked out that way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from gateway.oauth import recovery, totp
from gateway.oauth.caller import Caller
from gateway.oauth.digests import ServerKey, sha256
from gateway.oauth.errors import InvalidRequestError, SecondFactorRefusedError
from gateway.oauth.factors_store import MAX_FACTORS, Factor, FactorKind, FactorStore, NoRoomError
from gateway.oauth.lockout import Lockout
from gateway.oauth.passkeys import Passkeys, credential_id
from gateway.oauth.store import OAuthStore
from gateway.oauth.throttle import Throttles
from gateway.secret import Secret
from tenants.ids import MemberId, OrgId
from tenants.models import Member
from tenants.store import Actor, ControlStore, NotFoundError

LONGEST_CODE_WAIT_S: Final = 43_200.0
LONGEST_RECOVERY_WAIT_S: Final = 900.0
FAILURES_PER_ADDRESS: Final = 100
PERIOD_S: Final = 600.0
MAX_NAME: Final = 60
ONE_TIME: Final = "otp"
"""RFC 8176. Also of a recovery code: a one-time password out of a list."""

REFUSED: Final = "this is not right, was used before, or is too old"


class Due(StrEnum):
    """What is still to be done before anybody is asked anything."""

    NOTHING = "nothing"
    FACTOR = "factor"
    ENROL = "enrol"


class Challenge(Struct, frozen=True):
    """What a page asks of somebody who has factors. `options`: of passkeys, as JSON, '' without any; `codes`:
    whether an authenticator app is among them; `extra`: what the answer is held against, for the ticket."""

    options: str
    codes: bool
    extra: str


class Offer(Struct, frozen=True):
    """What a page offers somebody who may add one: an app's secret, its URI, and a passkey's `options` ('' where
    browsers make none). `extra` as in `Challenge`."""

    secret: str
    uri: str
    options: str
    extra: str


class Enrolled(Struct, frozen=True):
    """`codes`: recovery codes, with the first factor; they are never shown again. `methods`: RFC 8176's words."""

    factor: Factor
    codes: tuple[str, ...]
    methods: tuple[str, ...]


class Factors:
    """`clock` gives Unix seconds."""

    def __init__(
        self,
        *,
        store: OAuthStore,
        control: ControlStore,
        key: ServerKey,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        throttle: Throttles,
        base: str,
    ) -> None:
        """`base`: the public URL; passkeys belong to its host name."""
        self._store: FactorStore = store.factors
        self._control = control
        self._key = key
        self._clock = clock
        self._random = random
        self._secrets = totp.TotpSecrets(key, random)
        self._passkeys = Passkeys(base, key, random)
        self._issuer = f"Orgate {self._passkeys.rp_id}"
        self._codes = Lockout(store, clock, LONGEST_CODE_WAIT_S)
        self._recoveries = Lockout(store, clock, LONGEST_RECOVERY_WAIT_S)
        # Every refusal is written down: nobody with a password fills the log.
        self._addresses = throttle("wrong-factors", FAILURES_PER_ADDRESS, PERIOD_S)

    async def of(self, org: OrgId, member: MemberId) -> tuple[Factor, ...]:
        """Those of a member, the oldest first."""
        return await self._store.all(org, member)

    async def codes_left(self, org: OrgId, member: MemberId) -> int:
        return await self._store.recovery_left(org, member)

    async def demanded(self, member: Member) -> bool:
        """Whether the organization demands a second factor of a role of theirs."""
        try:
            org = await self._control.orgs.get(member.org)
        except NotFoundError:
            return False  # they cannot sign in at all
        return bool(set(org.second_factor).intersection(member.roles))

    async def due(self, member: Member) -> Due:
        """`FACTOR` if the member has one, else `ENROL` if one is demanded."""
        if await self._store.all(member.org, member.id):
            return Due.FACTOR
        return Due.ENROL if await self.demanded(member) else Due.NOTHING

    async def challenge(self, member: Member) -> Challenge:
        """A new one for whoever has shown `member`'s password."""
        found = await self._store.all(member.org, member.id)
        passkeys = [factor for factor in found if factor.kind is FactorKind.PASSKEY]
        codes = len(passkeys) < len(found)
        if not passkeys:
            return Challenge("", codes, "")
        await self._passkeys.ready()
        challenge = self._passkeys.challenge()
        made_at = int(self._clock() * 1e6)
        return Challenge(self._passkeys.request(passkeys, challenge), codes, f"{challenge}.{made_at}")

    async def verify(self, member: Member, form: Mapping[str, str], extra: str, caller: Caller) -> tuple[str, ...]:
        """Take what the page's form brings: `credential`, a passkey's answer to the challenge in `extra`, or
        `code`. Returns RFC 8176's words for it.

        Raises `SecondFactorRefusedError`, always in the same words; `TooManyAttemptsError`.
        """
        await self._addresses.check(caller.address)
        found = await self._store.all(member.org, member.id)
        used: tuple[str, str] | None = None
        if "credential" in form:
            used = await self._by_passkey(found, form["credential"], extra)
        elif totp.is_code(code := "".join(form.get("code", "").split())):
            used = await self._by_app(member, found, code)
        elif recovery.is_code(code):
            used = await self._by_recovery(member, code)
        if used is None:
            await self._addresses.charge(caller.address)
            detail = {"reason": "second factor"}
            await self._note("session.refuse", member, caller, detail)
            raise SecondFactorRefusedError(REFUSED)
        kind, method = used
        await self._note("factor.use", member, caller, {"kind": kind})
        return (method,)

    async def offer(self, member: Member, extra: str = "") -> Offer:
        """What may be added. With the `extra` of an earlier offer its secret stays: the app may have it."""
        found = await self._store.all(member.org, member.id)
        secret = extra.partition(".")[0] or totp.new_secret(self._random)
        challenge = self._passkeys.challenge()
        options = ""
        if self._passkeys.available:
            await self._passkeys.ready()
            known = [factor for factor in found if factor.kind is FactorKind.PASSKEY]
            options = self._passkeys.creation(member, known, challenge)
        uri = totp.uri(secret, f"{member.email} ({member.org})", self._issuer)
        return Offer(secret, uri, options, f"{secret}.{challenge}")

    async def enrol(self, member: Member, form: Mapping[str, str], extra: str, caller: Caller) -> Enrolled:
        """Add what the form of an offer brings, named `name`: a passkey's `credential`, or an app's first `code`.

        Raises `SecondFactorRefusedError` for what does not fit the offer, `InvalidRequestError`.
        """
        secret, _, challenge = extra.partition(".")
        now = int(self._clock())
        id_ = self._random(16).hex()
        kind = FactorKind.PASSKEY if "credential" in form else FactorKind.TOTP
        name = _named(form.get("name", ""), kind)
        if kind is FactorKind.PASSKEY:
            await self._passkeys.ready()
            made = self._passkeys.created(form["credential"], challenge)
            if made is None:
                raise SecondFactorRefusedError("the passkey was not made; try again")
            method = made.method
            factor = Factor(
                org=member.org,
                member=member.id,
                id=id_,
                kind=kind,
                name=name,
                key=made.key,
                credential=made.credential,
                sign_count=made.sign_count,
                mark=int(self._clock() * 1e6),
                created_at=now,
                used_at=now,
            )
        else:
            code = "".join(form.get("code", "").split())
            step = totp.step_of(Secret(secret), code, self._clock()) if secret and totp.is_code(code) else -1
            if step < 0:
                raise SecondFactorRefusedError(
                    "the code is not the one that the app shows now; if it is, set the phone's clock right"
                )
            method = ONE_TIME
            sealed = self._secrets.seal(secret, member.org, member.id, id_)
            factor = Factor(
                org=member.org,
                member=member.id,
                id=id_,
                kind=kind,
                name=name,
                key=sealed,
                credential=id_,
                mark=step,
                created_at=now,
                used_at=now,
            )
        codes = recovery.new_codes(self._random)
        first = not await self._store.all(member.org, member.id)
        try:
            await self._store.add(factor, self._digests(member, codes))
        except NoRoomError:
            raise InvalidRequestError(f"there are {MAX_FACTORS} already, or you have this one") from None
        # A crash here leaves a factor without an audit entry, and recovery codes that nobody has seen: new ones
        # can be made on the account page.
        await self._note("factor.add", member, caller, {"kind": kind.value, "factor": id_})
        return Enrolled(factor, codes if first else (), (method,))

    async def remove(self, member: Member, factor: str, caller: Caller) -> None:
        """Raises `InvalidRequestError` for one that is not there, and for the last one where one is demanded."""
        found = await self._store.all(member.org, member.id)
        if factor not in {one.id for one in found}:
            raise InvalidRequestError("there is no such factor any more")
        if len(found) == 1 and await self.demanded(member):
            raise InvalidRequestError("your organization demands a second factor of you: add another one first")
        if await self._store.remove(member.org, member.id, factor):
            kind = next(one.kind.value for one in found if one.id == factor)
            await self._note("factor.remove", member, caller, {"kind": kind, "factor": factor})

    async def renew_codes(self, member: Member, caller: Caller) -> tuple[str, ...]:
        """New recovery codes, those of before void. Raises `InvalidRequestError` for who has no factor."""
        if not await self._store.all(member.org, member.id):
            raise InvalidRequestError("recovery codes are for who has a second factor: add one first")
        codes = recovery.new_codes(self._random)
        await self._store.set_recovery(member.org, member.id, self._digests(member, codes))
        await self._note("factor.recovery", member, caller, {})
        return codes

    async def reset(self, org: OrgId, member: MemberId) -> int:
        """Forget them all, and what was guessed; how many there were. Who calls writes it down."""
        count = await self._store.reset(org, member)
        for lockout, account in ((self._codes, _account), (self._recoveries, _recovery_account)):
            await lockout.forgive(account(org, member))
        return count

    async def _by_passkey(self, found: Sequence[Factor], answer: str, extra: str) -> tuple[str, str] | None:
        challenge, _, made_at = extra.partition(".")
        wanted = credential_id(answer)
        await self._passkeys.ready()
        for factor in found:
            if factor.kind is FactorKind.PASSKEY and factor.credential == wanted and challenge:
                used = self._passkeys.asserted(answer, challenge, factor)
                # Conditional on a challenge newer than the last one answered: the same answer is taken once,
                # also of a passkey that does not count.
                if used is not None and await self._store.use(
                    factor, int(made_at), used.sign_count, int(self._clock())
                ):
                    return FactorKind.PASSKEY.value, used.method
        return None

    async def _by_app(self, member: Member, found: Sequence[Factor], code: str) -> tuple[str, str] | None:
        account = _account(member.org, member.id)
        await self._codes.charge(account)
        now = self._clock()
        for factor in found:
            if factor.kind is not FactorKind.TOTP:
                continue
            secret = self._secrets.open(factor.key, member.org, member.id, factor.id)
            step = totp.step_of(secret, code, now) if secret is not None else -1
            # A step that was used is not taken again (RFC 6238 section 5.2), nor one before it.
            if step >= 0 and await self._store.use(factor, step, factor.sign_count, int(now)):
                await self._codes.forgive(account)
                return FactorKind.TOTP.value, ONE_TIME
        return None

    async def _by_recovery(self, member: Member, code: str) -> tuple[str, str] | None:
        account = _recovery_account(member.org, member.id)
        await self._recoveries.charge(account)
        kept = recovery.digest(self._key, member.org, member.id, code)
        if not await self._store.use_recovery(member.org, member.id, kept):
            return None
        await self._recoveries.forgive(account)
        return "recovery code", ONE_TIME

    def _digests(self, member: Member, codes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(recovery.digest(self._key, member.org, member.id, code) for code in codes)

    async def _note(self, action: str, member: Member, caller: Caller, detail: Mapping[str, str]) -> None:
        by = Actor(org=member.org, member=member.id, request_id=caller.request_id)
        await self._control.for_org(member.org).note(action, member.id, by, detail)


def _named(name: str, kind: FactorKind) -> str:
    """What the person calls it: one line, and not a long one."""
    clean = "".join(letter for letter in name if letter.isprintable()).strip()[:MAX_NAME]
    return clean or ("Passkey" if kind is FactorKind.PASSKEY else "Authenticator app")


def _account(org: OrgId, member: MemberId) -> str:
    return sha256(f"codes\0{org}\0{member}")


def _recovery_account(org: OrgId, member: MemberId) -> str:
    return sha256(f"recovery codes\0{org}\0{member}")
