"""Which entries a filter wants: all that is given has to match, whatever order the clock gave them."""

from __future__ import annotations

import json

import msgspec
import pytest

from gateway.audit.selection import Selection, facts
from tenants.ids import PLATFORM
from tests.fakes.audit import ACME, change, lines

MEMBER = "mem_0123456789abcdefghjk"
OWN = {(ACME, MEMBER)}


def line(**changes: object) -> bytes:
    """The stored line of a request, with other members."""
    return json.dumps({**json.loads(lines(1)[0][0]), **changes}).encode()


def wants(chosen: Selection, raw: bytes, actors: set[tuple[object, object]] | None = None) -> bool:
    return chosen.matcher(ACME, OWN if actors is None else actors)(facts(raw))


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (Selection(), True),
        (Selection(action="completion.create"), True),
        (Selection(action="completion"), False),
        (Selection(outcome="served", model="code", client="orgate-editor"), True),
        (Selection(outcome="served", model="chat"), False),
        (Selection(since=1_763_690_000_000), True),
        (Selection(since=1_763_690_000_001), False),
        (Selection(until=1_763_690_000_000), False),
        (Selection(until=1_763_690_000_001), True),
        (Selection(actor=MEMBER), True),
    ],
)
def test_all_that_is_given_has_to_match(chosen: Selection, wanted: bool) -> None:
    assert wants(chosen, line()) is wanted


def test_an_actor_is_of_the_log_or_of_where_the_entry_says() -> None:
    chosen = Selection(actor=MEMBER)
    assert not wants(chosen, line(actor="per_1"))
    assert not wants(chosen, line(actor_org=PLATFORM))
    assert wants(chosen, line(actor_org=PLATFORM), {(PLATFORM, MEMBER)})
    assert wants(Selection(actor="per_1,per_2"), line(actor="per_2"), {(ACME, "per_1"), (ACME, "per_2")})


def test_a_change_has_no_outcome_to_match() -> None:
    made = {"@timestamp": change(1).at * 1000, "action": "key.write", "actor": MEMBER}
    assert wants(Selection(action="key.write"), json.dumps(made).encode())
    assert not wants(Selection(outcome="served"), json.dumps(made).encode())


def test_what_is_asked_is_told_in_seconds_and_nothing_else() -> None:
    chosen = Selection(action="key.write", since=1_763_690_000_500)
    assert chosen.asked() == {"action": "key.write", "since": 1_763_690_000}
    assert Selection().asked() == {}


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"@timestamp":"soon","action":"a.b","actor":""}'])
def test_what_is_no_entry_is_not_passed_over(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        facts(raw)
