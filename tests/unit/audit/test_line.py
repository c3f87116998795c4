"""The sequencer's fast spelling of an entry is RFC 8785's, byte for byte, for whatever a receipt may hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.audit.canonical import LINE_MAX, CanonicalError, canonical
from gateway.audit.chain import Chain
from gateway.audit.entry import from_receipt
from gateway.audit.line import spell
from gateway.exchange import Outcome, Receipt
from policies.facts import Action
from tests.fakes.audit import receipt

TEXTS = [name for name in Receipt.__struct_fields__ if type(getattr(receipt(), name)) is str and name != "org"]
NUMBERS = [name for name in Receipt.__struct_fields__ if type(getattr(receipt(), name)) is int]
FLAGS = [name for name in Receipt.__struct_fields__ if type(getattr(receipt(), name)) is bool]
EVERY_CHARACTER = "".join(map(chr, range(0x180))) + "\u2028\u2029\ufeff\uffff\U0001f600\U0010ffff"


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    fields: dict[str, Any] = {name: draw(st.text(max_size=700)) for name in draw(st.sets(st.sampled_from(TEXTS)))}
    fields |= {name: draw(st.integers(-(2**63), 2**63 - 1)) for name in draw(st.sets(st.sampled_from(NUMBERS)))}
    fields |= {name: draw(st.booleans()) for name in FLAGS}
    fields["action"] = draw(st.sampled_from(Action))
    fields["outcome"] = draw(st.sampled_from(Outcome))
    return receipt(1, **fields)


@given(receipts(), st.text(max_size=40), st.integers(1, 2**53 - 1))
@example(receipt(1, model=EVERY_CHARACTER, error=EVERY_CHARACTER[::-1], rule="\ud800"), "b\u00fcro\n", 1)
@example(receipt(1, at_us=2**63 - 1, total_us=-(2**63), bytes_in=2**53), "boot", 2)
def test_a_receipts_line_is_spelt_canonically(one: Receipt, boot: str, seq: int) -> None:
    draft = from_receipt(one, boot.encode("utf-8", "replace").decode(), seq)
    quick, checked = Chain(), Chain()
    assert quick.seal(draft.fields, spell) == checked.seal(draft.fields)
    assert quick.last == checked.last


@given(st.dictionaries(st.from_regex(r"[@A-Za-z0-9_.-]{1,8}", fullmatch=True), st.text() | st.booleans()))
def test_members_are_sorted_and_texts_escaped_alike(fields: dict[str, str | bool]) -> None:
    assert spell(fields) == canonical(fields)


def test_what_has_no_spelling_is_refused() -> None:
    with pytest.raises(CanonicalError, match="surrogate"):
        spell({"a": "\ud800"})
    with pytest.raises(CanonicalError, match="more than"):
        spell({"a": "x" * LINE_MAX})
