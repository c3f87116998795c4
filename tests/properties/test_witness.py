"""Whatever a witness is asked, what it has cosigned of a log is one tree that grew."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.note import split_note
from gateway.audit.witness_wire import submission
from gateway.witness.folder import WitnessFolder, make
from gateway.witness.protocol import Witness
from tests.fakes.growinglog import GrowingLog

SIZE = 24
TREES = (GrowingLog(SIZE), GrowingLog(SIZE, forked=5), GrowingLog(SIZE, forked=17))
"""Histories of one log, all signed with its key: the same up to leaf 5, and up to leaf 17."""

Ask = tuple[int, int, int, int, bool]
ASKS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, SIZE), st.integers(0, SIZE), st.integers(0, 2), st.booleans()),
    max_size=30,
)


def body(ask: Ask, known: int) -> bytes:
    """A submission of one history; `honest` begins where the witness is, and every proof may be another's."""
    tree, old, new, prover, honest = ask
    old = known if honest else old
    proof = TREES[prover].proof(min(old, new), new)
    return submission(old, proof, TREES[tree].note(new))


@settings(max_examples=25, deadline=None)
@given(asks=ASKS)
def test_what_was_cosigned_is_one_history(asks: list[Ask]) -> None:
    with TemporaryDirectory() as folder:
        make(Path(folder) / "w", "w1.example")
        kept = WitnessFolder(Path(folder) / "w")
        kept.add(TREES[0].key)
        witness = Witness(kept, lambda: 1_763_690_000)
        cosigned: list[tuple[int, bytes]] = []
        for ask in asks:
            known = cosigned[-1][0] if cosigned else 0
            given_body = body(ask, known)
            if witness.judge(given_body).status == 200:
                text, _ = split_note(given_body.decode().partition("\n\n")[2])
                size = int(text.split("\n")[1])
                assert size >= known
                cosigned.append((size, TREES[ask[0]].root(size)))
        assert any(all(root == tree.root(size) for size, root in cosigned) for tree in TREES)
        stored = kept.known(TREES[0].origin)
        assert (stored is None) is (not cosigned)
        assert stored is None or (stored.head.size, stored.head.root) == cosigned[-1]
