"""What a witness answers, and what it remembers: each status, races, faults of the disk, other logs' rights."""

from __future__ import annotations

import errno
import os
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.cosignature import cosigned, verified
from gateway.audit.disk import Disk
from gateway.audit.note import Checkpoint, open_note, sign, split_note
from gateway.audit.witness_wire import BODY_MAX, SIZE_TYPE, submission
from gateway.witness.folder import REFUSED_MAX, FolderError, WitnessFolder, make
from gateway.witness.protocol import Answer, Witness
from tests.fakes.audit import FaultyDisk
from tests.fakes.growinglog import GrowingLog

ACME = GrowingLog()
CUT = GrowingLog(forked=15)
GLOBEX = GrowingLog(origin="gateway.example/audit/globex")
AT = 1_763_690_000
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def folder(path: Path, disk: Disk | None = None) -> WitnessFolder:
    if not path.exists():
        make(path, "w1.example/audit")
    kept = WitnessFolder(path, disk)
    kept.add(ACME.key)
    return kept


def witness(path: Path, disk: Disk | None = None) -> Witness:
    return Witness(folder(path, disk), lambda: AT)


def at_20(path: Path) -> Witness:
    """A witness that has seen twenty leaves."""
    made = witness(path)
    assert made.judge(ACME.submission(0, 20)).status == 200
    return made


def resigned(note: str, *, name: str = ACME.origin, private: Ed25519PrivateKey = OTHER) -> str:
    return sign(split_note(note)[0], name, private)


def body(old: int | str, proof: list[bytes], note: str) -> bytes:
    lines = "".join(f"{b64encode(one).decode()}\n" for one in proof)
    return f"old {old}\n{lines}\n{note}".encode()


EMPTY = sha256().digest()
CONSISTENT = ACME.proof(20, 30)
TABLE: list[tuple[str, bytes, int, str]] = [
    ("not UTF-8", b"old 20\n\n\xff", 400, "UTF-8"),
    ("too long", b"old 20\n\n" + b"x" * BODY_MAX, 400, "longer than"),
    ("no old line", ACME.note(30).encode(), 400, "'old N'"),
    ("no empty line", b"old 20\n", 400, "'old N'"),
    ("an old size with a zero before it", body("020", CONSISTENT, ACME.note(30)), 400, "plain decimal"),
    ("an old size below zero", body("-1", CONSISTENT, ACME.note(30)), 400, "plain decimal"),
    ("an old size in other digits", body("٢٠", CONSISTENT, ACME.note(30)), 400, "plain decimal"),
    ("an old size beyond all", body("9" * 19, CONSISTENT, ACME.note(30)), 400, "larger than any"),
    ("64 lines of proof", body(20, [bytes(32)] * 64, ACME.note(30)), 400, "64 lines"),
    ("a short hash", body(20, [bytes(31)], ACME.note(30)), 400, "32 bytes"),
    ("a proof that is no base64", b"old 20\n!\n\n" + ACME.note(30).encode(), 400, "base64"),
    ("no signature", b"old 20\n\n" + split_note(ACME.note(30))[0].encode(), 400, "signature lines"),
    ("no root", b"old 20\n\nacme\n3\n\n\xe2\x80\x94 acme AAAA\n", 400, "root is not"),
    ("an old size larger than the new one", submission(31, [], ACME.note(30)), 400, "larger than the"),
    ("another origin", GLOBEX.submission(0, 20), 404, "does not serve"),
    ("another key", body(20, CONSISTENT, resigned(ACME.note(30))), 403, "no key of the log"),
    (
        "another log's signature",
        body(20, CONSISTENT, resigned(ACME.note(30), name=GLOBEX.origin)),
        403,
        "no key of the log",
    ),
    (
        "a signature of another size",
        body(20, CONSISTENT, ACME.note(30).replace("\n30\n", "\n31\n")),
        403,
        "is wrong",
    ),
    ("too small an old size", submission(10, ACME.proof(10, 30), ACME.note(30)), 409, "20\n"),
    ("no old size", submission(0, [], ACME.note(30)), 409, "20\n"),
    ("too large an old size", submission(25, ACME.proof(25, 30), ACME.note(30)), 409, "20\n"),
    ("a shorter log, told as it is", submission(15, [], ACME.note(15)), 409, "20\n"),
    ("a shorter log that is said to follow", submission(20, [], ACME.note(15)), 400, "larger than the"),
    ("no proof", submission(20, [], ACME.note(30)), 422, "does not show"),
    ("a proof of another size", submission(20, ACME.proof(19, 30), ACME.note(30)), 422, "does not show"),
    ("a proof too long", submission(20, [*CONSISTENT, bytes(32)], ACME.note(30)), 422, "does not show"),
    ("a log that was cut and goes on", submission(20, CUT.proof(20, 30), CUT.note(30)), 422, "does not show"),
    ("the same size with another root", submission(20, [], CUT.note(20)), 422, "one size with different"),
    ("the same size with a proof", submission(20, [bytes(32)], ACME.note(20)), 422, "does not show"),
    ("what follows", ACME.submission(20, 30), 200, "— w1.example/audit "),
    ("the same again", ACME.submission(20, 20), 200, "— w1.example/audit "),
    (
        "lines of others are ignored",
        body(20, CONSISTENT, ACME.note(30) + "— witness.example.com/w1 jWbPPwAAAABkGFDL\n"),
        200,
        "— w1.example/audit ",
    ),
]


@pytest.mark.parametrize(("given", "status", "said"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_every_answer(tmp_path: Path, given: bytes, status: int, said: str) -> None:
    made = at_20(tmp_path / "w")
    answer = made.judge(given)
    assert (answer.status, said in answer.body) == (status, True), answer
    assert (answer.kind == SIZE_TYPE) is (status == 409)
    known = WitnessFolder(tmp_path / "w").known(ACME.origin)
    assert known
    assert known.head.size == (30 if status == 200 and b"\n30\n" in given else 20)


def test_a_cosignature_is_over_the_checkpoint_at_the_witness_time(tmp_path: Path) -> None:
    made = witness(tmp_path / "w")
    note = ACME.note(7)
    answer = made.judge(submission(0, [], note))
    key = WitnessFolder(tmp_path / "w").key
    assert verified(split_note(note)[0], answer.body, key) == AT


def test_a_first_checkpoint_may_be_of_any_size_and_needs_no_proof(tmp_path: Path) -> None:
    assert witness(tmp_path / "a").judge(submission(0, [bytes(32)], ACME.note(7))).status == 422
    assert witness(tmp_path / "b").judge(submission(3, ACME.proof(3, 7), ACME.note(7))) == Answer(
        409, "0\n", SIZE_TYPE
    )
    made = witness(tmp_path / "c")
    assert made.judge(ACME.submission(0, 0)).status == 200
    assert made.judge(ACME.submission(0, 40)).status == 200


def test_a_clock_that_goes_back_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = iter([AT, AT - 60, AT - 59])
    made = Witness(folder(tmp_path / "w"), lambda: next(times))
    key = WitnessFolder(tmp_path / "w").key
    for old, new, at in ((0, 3, AT), (3, 5, AT - 60), (5, 9, AT - 59)):
        line = made.judge(ACME.submission(old, new)).body
        assert verified(split_note(ACME.note(new))[0], line, key) == at
    assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == [
        f"the clock has gone back: {ACME.origin} was cosigned 60 s from now"
    ]


def test_an_empty_tree_has_one_root(tmp_path: Path) -> None:
    note = sign(Checkpoint(ACME.origin, 0, bytes(32)).text(), ACME.origin, OTHER)
    made = witness(tmp_path / "w")
    assert made.judge(submission(0, [], note)).status == 403
    forged = GrowingLog(private=OTHER)
    WitnessFolder(tmp_path / "w").add(forged.key)
    assert made.judge(submission(0, [], note)).status == 422
    assert made.judge(forged.submission(0, 0)).status == 200


def test_extension_lines_are_cosigned_too(tmp_path: Path) -> None:
    made = Witness(folder(tmp_path / "w"), lambda: AT)
    forged = GrowingLog(private=OTHER)
    WitnessFolder(tmp_path / "w").add(forged.key)
    text = Checkpoint(ACME.origin, 3, forged.root(3)).text() + "more of it\n"
    note = sign(text, ACME.origin, OTHER)
    line = made.judge(submission(0, [], note)).body
    assert verified(text, line, WitnessFolder(tmp_path / "w").key) == AT
    with_gap = sign(f"{text}\nand more\n", ACME.origin, OTHER)
    assert made.judge(submission(3, [], with_gap)).status == 400


async def test_what_was_cosigned_is_published_with_both_signatures(tmp_path: Path) -> None:
    made = at_20(tmp_path / "w")
    name = sha256(ACME.origin.encode()).hexdigest()
    answer = await made.published(name)
    assert answer.status == 200
    assert open_note(answer.body, ACME.key) == split_note(ACME.note(20))[0]
    key = WitnessFolder(tmp_path / "w").key
    assert cosigned(answer.body, [key]) == {key: AT}
    for other in (sha256(GLOBEX.origin.encode()).hexdigest(), name.upper(), "..", "", "logs", name[:-1]):
        assert (await made.published(other)).status == 404


def test_a_witness_of_one_log_says_nothing_of_another(tmp_path: Path) -> None:
    made = at_20(tmp_path / "w")
    assert made.judge(GLOBEX.submission(0, 20)) == made.judge(GrowingLog(origin="nobody").submission(0, 20))
    forged = resigned(GLOBEX.note(20), name=ACME.origin, private=OTHER)
    assert made.judge(submission(20, [], forged)).status == 404  # what the text says counts, not the line


def test_the_key_of_one_origin_signs_for_no_other(tmp_path: Path) -> None:
    made = at_20(tmp_path / "w")
    WitnessFolder(tmp_path / "w").add(GrowingLog(origin=GLOBEX.origin, private=OTHER).key)
    assert made.judge(GLOBEX.submission(0, 20)).status == 403


def test_a_removed_log_is_forgotten_by_nobody(tmp_path: Path) -> None:
    made, kept = at_20(tmp_path / "w"), WitnessFolder(tmp_path / "w")
    assert kept.remove(ACME.origin)
    assert not kept.remove(ACME.origin)
    assert made.judge(ACME.submission(20, 30)).status == 404
    assert kept.logs() == []
    assert kept.add(ACME.key)
    assert not kept.add(ACME.key)
    assert made.judge(CUT.submission(0, 30)).status == 409
    assert made.judge(ACME.submission(20, 30)).status == 200


def test_a_log_that_changes_its_key_has_two_for_a_time(tmp_path: Path) -> None:
    made, kept = at_20(tmp_path / "w"), WitnessFolder(tmp_path / "w")
    follower = GrowingLog(private=OTHER)
    kept.add(follower.key)
    assert made.judge(follower.submission(20, 30)).status == 200
    assert made.judge(ACME.submission(30, 40)).status == 200
    assert [len(one.keys) for one in kept.logs()] == [2]
    both = ACME.note(40) + str(split_note(follower.note(40))[1][0])
    assert made.judge(submission(40, [], both)).status == 200
    known = kept.known(ACME.origin)
    assert known
    assert len(split_note(known.note)[1]) == 3


def test_one_wrong_signature_of_a_known_key_spoils_the_note(tmp_path: Path) -> None:
    made = at_20(tmp_path / "w")
    follower = GrowingLog(private=OTHER)
    WitnessFolder(tmp_path / "w").add(follower.key)
    stray = str(split_note(follower.note(29))[1][0])
    assert made.judge(submission(20, CONSISTENT, ACME.note(30) + stray)).status == 403


@pytest.mark.parametrize("round_", range(4))
def test_two_requests_at_once_follow_one_tree(tmp_path: Path, round_: int) -> None:
    made = witness(tmp_path / "w")
    together = threading.Barrier(8)

    def ask(n: int) -> Answer:
        together.wait()
        return made.judge((ACME, CUT)[n % 2].submission(0, 16 + n))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    known = WitnessFolder(tmp_path / "w").known(ACME.origin)
    assert known
    assert answers[known.head.size - 16].status == 200
    assert {answer.body for answer in answers if answer.status == 409} == {f"{known.head.size}\n"}


class Step(Disk):
    """A disk that fails at one step, and all after it."""

    def __init__(self, step: str) -> None:
        self.step = step

    def write(self, fd: int, data: bytes, offset: int) -> None:
        super().write(fd, data[:10] if self.step == "write" else data, offset)
        if self.step == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self, fd: int) -> None:
        if self.step == "sync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)


@pytest.mark.parametrize("step", ["write", "sync"])
def test_nothing_is_cosigned_that_could_not_be_kept(tmp_path: Path, step: str) -> None:
    at_20(tmp_path / "w")
    failing = Witness(WitnessFolder(tmp_path / "w", Step(step)), lambda: AT)
    answer = failing.judge(ACME.submission(20, 30))
    assert answer.status == 503
    assert "—" not in answer.body
    again = WitnessFolder(tmp_path / "w").known(ACME.origin)
    assert again
    assert again.head.size == 20


def test_the_state_is_synced_before_the_cosignature_leaves(tmp_path: Path) -> None:
    disk = FaultyDisk()
    made = witness(tmp_path / "w", disk)
    disk.calls.clear()
    assert made.judge(ACME.submission(0, 20)).status == 200
    assert disk.calls == ["write", "sync"]


def test_what_does_not_follow_is_kept_as_evidence(tmp_path: Path) -> None:
    made, kept = at_20(tmp_path / "w"), WitnessFolder(tmp_path / "w")
    for given in (submission(20, [], CUT.note(20)), submission(0, [], CUT.note(20)), CUT.submission(20, 30)):
        made.judge(given)
    made.judge(submission(20, [], resigned(CUT.note(25))))
    found = [path.read_text() for path in kept.refused(ACME.origin)]
    assert sorted(found) == sorted([CUT.note(20), CUT.note(30)])


def test_evidence_is_bounded(tmp_path: Path) -> None:
    made, kept = at_20(tmp_path / "w"), WitnessFolder(tmp_path / "w")
    many = GrowingLog(20 + REFUSED_MAX + 5, forked=1)
    for size in range(21, 20 + REFUSED_MAX + 5):
        assert made.judge(submission(20, [], many.note(size))).status == 422
    assert len(kept.refused(ACME.origin)) == REFUSED_MAX


def test_strangers_neither_accuse_a_log_nor_use_up_the_room_for_evidence(tmp_path: Path) -> None:
    """Whoever reads a checkpoint before the witness has it can post it with a wrong proof."""
    made, kept = at_20(tmp_path / "w"), WitnessFolder(tmp_path / "w")
    grown = GrowingLog(21 + REFUSED_MAX)
    for size in range(21, 21 + REFUSED_MAX):
        assert made.judge(submission(20, [], grown.note(size))).status == 422
    assert made.judge(submission(20, [], CUT.note(20))).status == 422
    assert CUT.note(20) in [path.read_text() for path in kept.refused(ACME.origin)]
    assert made.judge(grown.submission(20, 30)).status == 200
    assert grown.note(30) not in [path.read_text() for path in kept.refused(ACME.origin)]


def test_evidence_of_two_trees_is_bounded_too(tmp_path: Path) -> None:
    made, kept = at_20(tmp_path / "w"), WitnessFolder(tmp_path / "w")
    for forked in range(20):
        for leaf in range(1, 6):
            other = GrowingLog(20, forked=forked, leaf=leaf)
            assert made.judge(submission(20, [], other.note(20))).status == 422
    assert len(kept.refused(ACME.origin)) == 2 * REFUSED_MAX


@pytest.mark.parametrize(
    "left", ["", "nonsense", ACME.note(20), ACME.note(20).replace("\n20\n", "\n21\n")], ids=range(4)
)
async def test_a_memory_that_was_changed_is_no_empty_one(tmp_path: Path, left: str) -> None:
    made = at_20(tmp_path / "w")
    name = sha256(ACME.origin.encode()).hexdigest()
    (tmp_path / "w" / "logs" / name / "checkpoint").write_text(left)
    assert made.judge(ACME.submission(0, 30)).status == 503
    assert (await made.published(name)).status == 503
    with pytest.raises(FolderError, match="checkpoint"):
        WitnessFolder(tmp_path / "w").logs()
