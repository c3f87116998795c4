"""A ticket says who signed in, to the server that wrote it, and nobody else can write one."""

from __future__ import annotations

import pytest

from gateway.oauth.digests import ServerKey
from gateway.oauth.errors import InvalidGrantError
from gateway.oauth.ticket import TICKET_S, Tickets
from gateway.secret import Secret
from policies.facts import Role
from tenants.ids import MemberId, OrgId
from tenants.models import Member

ADA = Member(org=OrgId("acme"), id=MemberId("mem_ada"), email="a@acme.example", name="A", roles=(Role.MEMBER,))


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
    ticket = tickets.issue(ADA, "code", "browser")
    clock.now += TICKET_S - 1
    assert tickets.who(ticket, "code", "browser") == ("acme", "mem_ada")
    clock.now += 1
    with pytest.raises(InvalidGrantError):
        tickets.who(ticket, "code", "browser")


@pytest.mark.parametrize(("about", "browser"), [("other", "browser"), ("code", "other"), ("code", ""), ("", "")])
def test_it_is_of_one_thing_and_one_browser(tickets: Tickets, about: str, browser: str) -> None:
    with pytest.raises(InvalidGrantError):
        tickets.who(tickets.issue(ADA, "code", "browser"), about, browser)


def test_one_of_no_browser_is_worth_nothing(tickets: Tickets) -> None:
    with pytest.raises(InvalidGrantError):
        tickets.who(tickets.issue(ADA, "code", ""), "code", "")


def test_none_can_be_made_or_changed(tickets: Tickets, clock: Clock) -> None:
    good = tickets.issue(ADA, "code", "browser")
    foreign = Tickets(ServerKey(Secret(b"x" * 32)), clock).issue(ADA, "code", "browser")
    changed = [good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :] for at in range(0, len(good) - 1, 7)]
    for ticket in (foreign, "", "A", "\u00e9", "A" * 60, good[:40], *changed):
        with pytest.raises(InvalidGrantError):
            tickets.who(ticket, "code", "browser")
