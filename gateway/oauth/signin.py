"""A sign-in in steps: who it is, a second factor where one is due, and then what the person is asked.

Every way in, a password here or the organization's own identity provider, ends in a `SignedIn`; what follows is
the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct, structs

from gateway.oauth.accounts import Accounts
from gateway.oauth.caller import Caller
from gateway.oauth.errors import InvalidGrantError, InvalidRequestError, SecondFactorError
from gateway.oauth.factors import Challenge, Due, Enrolled, Factors, Offer
from gateway.oauth.ticket import TICKET_S, Stage, Ticket, Tickets
from tenants.models import Member

PASSWORD: Final = "pwd"  # noqa: S105  # RFC 8176's word for it
SEVERAL: Final = "mfa"
FEDERATED: Final = "fed"
"""Not in the registry of RFC 8176, which has no word for it: another identity provider said who it is."""


class SignedIn(Struct, frozen=True):
    """Who it is, and how that was shown. `amr`: methods of RFC 8176, and `fed`; `auth_time`: Unix seconds."""

    member: Member
    amr: tuple[str, ...]
    auth_time: int


class FactorStep(Struct, frozen=True):
    """The page of the second factor: what it asks, and its ticket."""

    who: SignedIn
    challenge: Challenge
    ticket: str


class EnrolStep(Struct, frozen=True):
    """The page on which a second factor is added, where one is demanded."""

    who: SignedIn
    offer: Offer
    ticket: str


class SignIn:
    """The steps. `clock` gives Unix seconds."""

    def __init__(
        self,
        accounts: Accounts,
        tickets: Tickets,
        factors: Factors,
        clock: Callable[[], float],
    ) -> None:
        self._accounts = accounts
        self._tickets = tickets
        self._factors = factors
        self._clock = clock

    async def password(self, form: Mapping[str, str], caller: Caller) -> SignedIn:
        """The first step's form. Raises `OAuthError`."""
        for name in ("org", "email", "password"):
            if not form.get(name):
                raise InvalidRequestError(f"{name} is missing")
        member = await self._accounts.sign_in(form["org"], form["email"], form["password"], caller)
        return SignedIn(member, (PASSWORD,), int(self._clock()))

    async def due(self, who: SignedIn) -> Due:
        """What `who` has to do yet. Asked again before a yes counts: the demand may be of this minute.

        Somebody who came by another identity provider is that one's to judge.
        """
        if SEVERAL in who.amr or FEDERATED in who.amr:
            return Due.NOTHING
        return await self._factors.due(who.member)

    async def at_once(self, form: Mapping[str, str], caller: Caller) -> SignedIn:
        """For a program, which has nobody to ask: password and yes in one form.

        Raises `SecondFactorError` where a second factor is due.
        """
        who = await self.password(form, caller)
        await self.finished(who)
        return who

    async def lacks(self, member: Member, amr: tuple[str, ...], began: float) -> str:
        """What a session that began so, at `began` in Unix seconds, has not, and is demanded by now: '' where it
        may go on."""
        if FEDERATED in amr:
            return "" if await self._accounts.provider_stands(member, began) else "another sign-in"
        if await self._accounts.password_closed(member):
            return "single sign-on"
        return "" if SEVERAL in amr or not await self._factors.demanded(member) else "second factor"

    async def finished(self, who: SignedIn) -> None:
        """Raises `SecondFactorError` unless nothing is due."""
        if await self.due(who) is not Due.NOTHING:
            raise SecondFactorError("this account signs in with a second factor: use the page in a browser")

    async def ticket(self, who: SignedIn, stage: Stage, about: str, browser: str, extra: str = "") -> str:
        """What stands in the place of all `who` has shown so far, on the page of `stage`."""
        member = who.member
        password = await self._accounts.mark(member) if PASSWORD in who.amr else ""
        return self._tickets.issue(
            Ticket(member.org, member.id, stage, about, browser, who.amr, who.auth_time, extra, password)
        )

    async def resume(self, text: str, stage: Stage, about: str, browser: str) -> tuple[SignedIn, Ticket]:
        """Who comes back to the page of `stage`, as stored now. Raises `InvalidGrantError`."""
        ticket = self._tickets.read(text, stage, about, browser)
        member = await self._accounts.member(ticket.org, ticket.member)
        began = ticket.until - TICKET_S
        # Taken away, suspended, or signed out everywhere since. A ticket of that very second may be of after it.
        ended = member is None or began + 1 < member.not_before
        if member is not None and FEDERATED in ticket.amr:
            ended = ended or not await self._accounts.provider_stands(member, began)
        # The password that was shown is not theirs any more: whoever shows the new one begins anew.
        if member is None or ended or (ticket.password and ticket.password != await self._accounts.mark(member)):
            raise InvalidGrantError("this page is too old; sign in again")
        return SignedIn(member, ticket.amr, ticket.auth_time), ticket

    async def consented(self, text: str, about: str, browser: str) -> SignedIn:
        """Who answers the last page. Raises `InvalidGrantError`, `SecondFactorError`."""
        who, _ = await self.resume(text, Stage.CONSENT, about, browser)
        await self.finished(who)
        return who

    async def factor_step(self, who: SignedIn, about: str, browser: str) -> FactorStep:
        """The step for who has a second factor."""
        challenge = await self._factors.challenge(who.member)
        return FactorStep(who, challenge, await self.ticket(who, Stage.FACTOR, about, browser, challenge.extra))

    async def factor_again(self, text: str, about: str, browser: str) -> FactorStep:
        """The same page once more, with another challenge and as much time as was left. Raises
        `InvalidGrantError`."""
        who, ticket = await self.resume(text, Stage.FACTOR, about, browser)
        challenge = await self._factors.challenge(who.member)
        return FactorStep(who, challenge, self._again(ticket, challenge.extra))

    async def factor(self, form: Mapping[str, str], text: str, about: str, browser: str, by: Caller) -> SignedIn:
        """The form of that page. Raises `InvalidGrantError`, `SecondFactorRefusedError`,
        `TooManyAttemptsError`."""
        who, ticket = await self.resume(text, Stage.FACTOR, about, browser)
        return _with(who, await self._factors.verify(who.member, form, ticket.extra, by))

    async def enrol_step(self, who: SignedIn, about: str, browser: str) -> EnrolStep:
        """The step for who has none, and needs one. Whoever knows the password may add the first one: there is
        nothing else yet to tell them by."""
        offer = await self._factors.offer(who.member)
        return EnrolStep(who, offer, await self.ticket(who, Stage.ENROL, about, browser, offer.extra))

    async def enrol_again(self, text: str, about: str, browser: str) -> EnrolStep:
        """The same page once more: the secret stays, it may be in the app already. Raises `InvalidGrantError`."""
        who, ticket = await self.resume(text, Stage.ENROL, about, browser)
        offer = await self._factors.offer(who.member, ticket.extra)
        return EnrolStep(who, offer, self._again(ticket, offer.extra))

    async def enrol(
        self, form: Mapping[str, str], text: str, about: str, browser: str, by: Caller
    ) -> tuple[SignedIn, Enrolled]:
        """The form of that page. Raises `InvalidGrantError`, `SecondFactorRefusedError`, `InvalidRequestError`."""
        who, ticket = await self.resume(text, Stage.ENROL, about, browser)
        if await self._factors.due(who.member) is Due.FACTOR:
            # Added in another tab meanwhile, or by somebody else who has the password: this page adds none now.
            raise InvalidGrantError("there is a second factor by now; sign in again")
        enrolled = await self._factors.enrol(who.member, form, ticket.extra, by)
        return _with(who, enrolled.methods), enrolled

    def _again(self, ticket: Ticket, extra: str) -> str:
        return self._tickets.issue(structs.replace(ticket, extra=extra))


def _with(who: SignedIn, methods: tuple[str, ...]) -> SignedIn:
    amr = dict.fromkeys((*who.amr, *methods, SEVERAL))
    return structs.replace(who, amr=tuple(amr))


def joined(amr: tuple[str, ...]) -> str:
    """`amr` as it is stored."""
    return " ".join(amr)


def parted(amr: str) -> tuple[str, ...]:
    return tuple(amr.split())
