"""Entries to spell: real ones, with whatever texts a test wants in them, read back from their stored lines."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from gateway.audit.chain import Chain
from gateway.audit.entry import from_change, from_receipt
from gateway.audit.formats.context import Context
from gateway.exchange import Outcome
from policies.facts import Action
from tenants.store import Actor, Change
from tests.fakes.audit import ACME, receipt

CTX = Context(host="gateway.example")
Entry = dict[str, Any]


def request(**changes: Any) -> Entry:
    number = changes.pop("number", 7)
    draft = from_receipt(receipt(number, **changes), "boot", number)
    return _stored(dict(draft.fields))


def change(action: str = "key.write", target: str = "gpt", actor: str = "per_1", **detail: Any) -> Entry:
    made = Change(9, 1_763_690_000, ACME, action, target, Actor(ACME, actor, "orgate-cli", "req_9"), detail)
    return _stored(dict(from_change(made).fields))


def _stored(fields: Entry) -> Entry:
    found: Entry = json.loads(Chain().seal(fields))
    return found


_NASTY = st.sampled_from(
    [*"=+-@\t\r\n\\\"'|];,{}[] \x00\x07\x1b\x7f\x85\u2028\u2029\u202e＝＠é😀",
     "\r\n", "\\n", '"]', "=cmd|' /C calc'!A0", ";=1", "\n<34>1 ", "\nCEF:0|", " cs1=x", "%0a", "\ufeff="]
)  # fmt: skip
texts = st.lists(st.one_of(_NASTY, st.text(st.characters(exclude_categories=["Cs"]), max_size=4)), max_size=8).map(
    "".join
)
"""What somebody might say to break a record, a cell or a terminal."""

requests = st.builds(
    request,
    number=st.integers(1, 10**6),
    action=st.sampled_from(Action),
    outcome=st.sampled_from(Outcome),
    **dict.fromkeys(("model", "client", "client_version", "error", "rule", "upstream", "request_id"), texts),
)
changes = st.builds(
    change,
    action=st.builds("{}.{}".format, texts.filter(bool), texts.filter(bool)),
    target=texts,
    actor=texts,
    why=texts,
    rules=st.lists(texts, max_size=3),
    version=st.integers(-(2**53) + 1, 2**53 - 1),
)
entries = st.one_of(requests, changes)
"""Any entry of a log."""

UNSEEN = {*map(chr, range(32)), *map(chr, range(127, 160)), "\u2028", "\u2029"}
"""What no record may hold: line ends as any reader may see them, and what steers a terminal."""
