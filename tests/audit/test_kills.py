"""The judge of the kills says no to each thing that it is there for."""

from __future__ import annotations

import mmap
import random
from pathlib import Path

import pytest

from gateway.audit.chain import Chain, ChainError
from gateway.audit.entry import from_receipt
from tests.audit.killed import ACKNOWLEDGED, ADMITTED, IN_MEMORY
from tests.audit.kills import House, Killed, Log
from tests.fakes.audit import ACME, SIGNER, receipt


def judged(folder: Path, told: bytes, entries: dict[int, list[str]]) -> Killed:
    found = Killed()
    memory = mmap.mmap(-1, 4096)
    memory[: len(told)] = told
    House(folder, random.Random(1), found, faulty=False)._judge(memory, entries)
    return found


@pytest.mark.parametrize(
    ("told", "outcomes", "lost", "doubled"),
    [
        (ACKNOWLEDGED, ["served"], 0, 0),
        (ACKNOWLEDGED, ["unknown"], 1, 0),
        (ACKNOWLEDGED, [], 1, 0),
        (ACKNOWLEDGED, ["served", "unknown"], 0, 1),
        (IN_MEMORY, ["unknown"], 0, 0),
        (IN_MEMORY, [], 1, 0),
        (ADMITTED, ["unknown"], 0, 0),
        (ADMITTED, [], 1, 0),
        (ADMITTED, ["served"], 0, 0),
        (0, ["unknown"], 0, 0),
    ],
)
def test_a_request_has_one_entry_with_what_was_acknowledged(
    tmp_path: Path, told: int, outcomes: list[str], lost: int, doubled: int
) -> None:
    found = judged(tmp_path, bytes([ACKNOWLEDGED, told]), {0: ["served"], 1: outcomes})
    assert (found.lost, found.doubled) == (lost, doubled)
    assert found.good is not bool(lost or doubled)


def test_more_than_one_receipt_that_nobody_was_told_of_is_a_fault(tmp_path: Path) -> None:
    assert judged(tmp_path, bytes([ADMITTED, ADMITTED]), {0: ["served"], 1: ["served"]}).lost == 1


def test_a_log_is_read_on_and_held_against_what_was_signed(tmp_path: Path) -> None:
    chain, path = Chain(), tmp_path / "log-00000000.jsonl"

    def write(*numbers: int) -> str:
        with path.open("ab") as file:
            for number in numbers:
                file.write(chain.seal(from_receipt(receipt(number), "boot", number).fields) + b"\n")
        return SIGNER.checkpoint(ACME, chain.size, chain.tree.root())

    log = Log(tmp_path, ACME)
    log.read_on(write(1, 2))
    log.read_on(write(3))
    assert log.requests == {"boot": {1: ["served"], 2: ["served"], 3: ["served"]}}
    with pytest.raises(ValueError, match="do not rise"):
        log.read_on(write(3))
    other = Log(tmp_path, ACME)
    with pytest.raises(ValueError, match="root"):
        other.read_on(SIGNER.checkpoint(ACME, 2, bytes(32)))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[1])
    with pytest.raises(ChainError):
        Log(tmp_path, ACME).read_on(SIGNER.checkpoint(ACME, 1, bytes(32)))
