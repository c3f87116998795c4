"""The hash chain: what continues it and what is said of a line that does not."""

from __future__ import annotations

from hashlib import sha256

import pytest

from gateway.audit.canonical import LINE_MAX, CanonicalError, parse
from gateway.audit.chain import GENESIS, Chain, ChainError, judge
from tests.fakes.audit import ACME, lines


def test_each_entry_holds_the_hash_of_the_line_before() -> None:
    made, chain = lines(3)
    entries = [parse(line) for line in made]
    assert [entry["index"] for entry in entries] == [0, 1, 2]
    assert [entry["prev"] for entry in entries] == [GENESIS, *(sha256(line).hexdigest() for line in made[:2])]
    assert chain.last == sha256(made[2]).hexdigest()
    assert chain.size == 3


def test_lines_that_were_sealed_are_accepted_and_end_in_the_same_place() -> None:
    made, sealed = lines(9)
    chain = Chain()
    for line in made:
        chain.accept(line, ACME)
    assert (chain.size, chain.last, chain.tree.root()) == (9, sealed.last, sealed.tree.root())


def test_a_copy_can_go_another_way() -> None:
    _, chain = lines(2)
    trial = chain.copy()
    trial.seal({"org": "acme"})
    assert (chain.size, trial.size) == (2, 3)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda made: made[2], "entries are missing or out of order"),
        (lambda made: made[0], "repeated, inserted or moved"),
        (lambda made: made[1].replace(b'"acme"', b'"globex"'), "another organization"),
        (lambda made: made[1].replace(b'"schema":1', b'"schema":2'), "its schema is 2"),
        (lambda made: made[1].replace(b'"schema":1', b'"schema":true'), "its schema is True"),
        (lambda made: made[1].replace(b'"index":1', b'"index":"1"'), "has no index"),
        (lambda made: made[1].replace(b'"prev":"', b'"prev":"0'), "not the hash of the entry before"),
        (lambda made: made[1][:-1], "not JSON"),
    ],
)
def test_a_line_that_is_not_next_is_refused_in_words(spoil: object, says: str) -> None:
    made, _ = lines(3)
    chain = Chain()
    chain.accept(made[0], ACME)
    before = chain.last
    with pytest.raises(ChainError, match="entry 1: ") as caught:
        chain.accept(spoil(made), ACME)  # type: ignore[operator]  # a lambda of the table above
    assert says in caught.value.what
    assert caught.value.index == 1
    assert (chain.size, chain.last) == (1, before)


def test_without_a_hash_to_compare_with_the_link_is_not_judged() -> None:
    made, _ = lines(2)
    assert judge(parse(made[1]), org="acme", index=1, prev=None) == []


def test_a_line_that_no_entry_bundle_can_hold_is_not_sealed() -> None:
    """Its length has to fit into 16 bits (C2SP tlog-tiles)."""
    chain = Chain()
    room = LINE_MAX - len(Chain().seal({"org": "acme", "text": ""}))
    with pytest.raises(CanonicalError, match="65536 bytes, more than 65535"):
        chain.seal({"org": "acme", "text": "x" * (room + 1)})
    assert chain.size == 0
    assert len(chain.seal({"org": "acme", "text": "x" * room})) == LINE_MAX == 2**16 - 1
