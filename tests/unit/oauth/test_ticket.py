"""A ticket says who came how far, to the server that wrote it, and nobody else can write one."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.oauth.digests import ServerKey
from gateway.oauth.errors import InvalidGrantError
from gateway.oauth.ticket import TICKET_S, Stage, Ticket, Tickets
from gateway.secret import Secret
from tenants.ids import MemberId, OrgId

ADA = Ticket(
    OrgId("acme"), MemberId("mem_ada"), Stage.CONSENT, "code", "browser", ("pwd", "otp", "mfa"), 1_799_999_990, "x"
)


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tickets(clock: Clock) -> Tickets:
    return Tickets(ServerKey(Secret(b"k" * 32)), clock)


def test_a_ticket_says_who_it_was_until_it_is_too_old(tickets: Tickets, clock: Clock) -> None:
    ticket = tickets.issue(ADA)
    clock.now += TICKET_S - 1
    assert replace(tickets.read(ticket, Stage.CONSENT, "code", "browser"), until=0) == ADA
    clock.now += 1
    with pytest.raises(InvalidGrantError):
        tickets.read(ticket, Stage.CONSENT, "code", "browser")


def test_trying_again_does_not_take_longer(tickets: Tickets, clock: Clock) -> None:
    first = tickets.read(tickets.issue(ADA), Stage.CONSENT, "code", "browser")
    clock.now += TICKET_S - 1
    again = tickets.issue(replace(first, extra="another challenge"))
    assert tickets.read(again, Stage.CONSENT, "code", "browser").until == first.until
    clock.now += 1
    with pytest.raises(InvalidGrantError):
        tickets.read(again, Stage.CONSENT, "code", "browser")


@pytest.mark.parametrize(("about", "browser"), [("other", "browser"), ("code", "other"), ("code", ""), ("", "")])
def test_it_is_of_one_thing_and_one_browser(tickets: Tickets, about: str, browser: str) -> None:
    with pytest.raises(InvalidGrantError):
        tickets.read(tickets.issue(ADA), Stage.CONSENT, about, browser)


@pytest.mark.parametrize("stage", [Stage.FACTOR, Stage.ENROL])
def test_it_is_of_one_step(tickets: Tickets, stage: Stage) -> None:
    with pytest.raises(InvalidGrantError):
        tickets.read(tickets.issue(replace(ADA, stage=stage)), Stage.CONSENT, "code", "browser")


def test_one_of_no_browser_is_worth_nothing(tickets: Tickets) -> None:
    with pytest.raises(InvalidGrantError):
        tickets.read(tickets.issue(replace(ADA, browser="")), Stage.CONSENT, "code", "")


def test_none_can_be_made_or_changed(tickets: Tickets, clock: Clock) -> None:
    good = tickets.issue(ADA)
    foreign = Tickets(ServerKey(Secret(b"x" * 32)), clock).issue(ADA)
    changed = [good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :] for at in range(0, len(good) - 1, 7)]
    for ticket in (foreign, "", "A", "\u00e9", "A" * 60, good[:40], *changed):
        with pytest.raises(InvalidGrantError):
            tickets.read(ticket, Stage.CONSENT, "code", "browser")
