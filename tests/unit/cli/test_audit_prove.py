"""`orgate audit prove` and `consistency` at the command line: files, words and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.chain import Chain
from gateway.audit.entry import from_change, from_receipt
from gateway.audit.signer import Signer
from tests.fakes.audit import ACME, change, receipt
from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

COUNT = 1_203
SIGNER = Signer("gateway.example:8443", Ed25519PrivateKey.generate())
WRONG = Signer("gateway.example:8443", Ed25519PrivateKey.generate())


def grow(plane: ControlPlane, count: int) -> str:
    """Add entries, sign them; the checkpoint."""
    for _ in range(count):
        number = plane.chain.size
        draft = from_receipt(receipt(number), "boot", number + 1) if number % 2 else from_change(change(number))
        plane.lines.append(plane.chain.seal(draft.fields))
    plane.checkpoint = SIGNER.checkpoint(ACME, plane.chain.size, plane.chain.tree.root())
    return plane.checkpoint


@pytest.fixture
def logged(plane: ControlPlane) -> ControlPlane:
    grow(plane, COUNT)
    plane.key = str(SIGNER.key(ACME))
    return plane


@pytest.fixture
def key(tmp_path: Path, logged: ControlPlane) -> str:
    path = tmp_path / "acme.key"
    path.write_text(logged.key + "\n")
    return str(path)


def test_a_proof_is_written_and_checked_offline(cli: Cli, signed_in: Cli, logged: ControlPlane, key: str) -> None:
    entry = json.loads(logged.lines[101])
    for wanted in ("101", entry["request_id"], entry["_document_id"]):
        said = signed_in("audit", "prove", wanted, "--to", f"{wanted}.tlog-proof", "-o", "json")
        assert (said.code, json.loads(said.out)["index"]) == (0, 101), said.err
    logged.checkpoint = logged.key = ""  # no server is asked any more
    asked = len(logged.seen)
    good = cli("audit", "prove", "--check", "101.tlog-proof", "--key", key)
    assert good.code == 0, good.err
    where, what = good.out.splitlines()
    assert where == "101.tlog-proof: entry 101 of 1203 of gateway.example:8443/audit/acme, unchanged"
    assert f"action=completion.create  actor={entry['actor']}" in what
    assert good.err.startswith("not proven: that everybody was shown the same log")
    assert len(logged.seen) == asked
    report = json.loads(cli("audit", "prove", "--check", "101.tlog-proof", "--key", key, "-o", "json").out)
    assert (report["ok"], report["index"], report["entries"], report["faults"]) == (True, 101, COUNT, [])


@pytest.mark.usefixtures("logged")
def test_a_proof_is_called_after_its_entry_and_never_written_over(signed_in: Cli, tmp_path: Path) -> None:
    assert signed_in("audit", "prove", "0").code == 0
    before = (tmp_path / "acme-0.tlog-proof").read_bytes()
    again = signed_in("audit", "prove", "0")
    assert (again.code, "never written over" in again.err) == (2, True)
    assert (tmp_path / "acme-0.tlog-proof").read_bytes() == before
    assert signed_in("audit", "prove", "0", "--to", "no/such/folder").code == 1
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (str(COUNT), f"the checkpoint signs no entry {COUNT}: it is over {COUNT}"),
        ("9" * 15, "the checkpoint signs no entry"),
        ("req_nobody", "no entry has the id req_nobody"),
        ("9" * 40, "no entry has the id"),
    ],
)
def test_an_entry_that_is_not_there(signed_in: Cli, entry: str, says: str) -> None:
    said = signed_in("audit", "prove", entry)
    assert (said.code, says in said.err) == (1, True), said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "which entry?"),
        (["--key", "x"], "go with --check"),
        (["5", "--entry", "x"], "go with --check"),
        (["5", "--check", "p"], "neither an ENTRY nor --to"),
        (["--check", "p", "--to", "q"], "neither an ENTRY nor --to"),
        (["--check", "p"], "whose log?"),
        (["--check", "p", "--key", "nonsense"], "no such file, and it is no key"),
        (["--check", "p", "--key", sys.executable], "cannot be read: 'utf-8' codec"),
        (["--check", "p", "--witnesses", "absent"], "absent: cannot be read (No such file or directory)"),
    ],
)
def test_a_command_that_cannot_be_meant_is_told_so(cli: Cli, arguments: list[str], says: str) -> None:
    said = cli("audit", "prove", *arguments)
    assert (said.code, says in said.err) == (2, True), said.err


def test_a_proof_that_was_changed_exits_1_and_says_what(
    signed_in: Cli, logged: ControlPlane, key: str, tmp_path: Path
) -> None:
    signed_in("audit", "prove", "7", "--to", "p")
    whole = (tmp_path / "p").read_text()
    for changed, says in (
        (whole.replace("index 7", "index 6"), "the entry is not entry 6"),
        (whole.replace("\n1203\n", "\n1204\n"), "the signature of gateway.example:8443/audit/acme is wrong"),
        (whole[:200], "the file was cut off"),
        ("\x1b[31mowned", "its first line is not c2sp.org/tlog-proof@v1"),
    ):
        (tmp_path / "q").write_text(changed)
        said = signed_in("audit", "prove", "--check", "q", "--key", key)
        assert (said.code, "q proves nothing" in said.err, says in said.err) == (1, True, True), said.err
        assert said.out == ""
    wrong = signed_in("audit", "prove", "--check", "p", "--key", str(WRONG.key(ACME)))
    assert (wrong.code, "not signed by" in wrong.err) == (1, True)
    (tmp_path / "e").write_bytes(logged.lines[7] + b"\n")
    assert signed_in("audit", "prove", "--check", "p", "--key", key, "--entry", "e").code == 0
    (tmp_path / "e").write_bytes(logged.lines[8] + b"\n")
    other = signed_in("audit", "prove", "--check", "p", "--key", key, "--entry", "e")
    assert (other.code, "is not the one that the proof is about" in other.err) == (1, True)


def test_witnesses_count_as_a_policy_says(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    signed_in("audit", "prove", "7", "--to", "p")
    (tmp_path / "policy").write_text(f"log {logged.key}\nquorum none\n")
    assert signed_in("audit", "prove", "--check", "p", "--witnesses", "policy").code == 0
    from gateway.audit import cosignature

    witness = cosignature.key_of("witness.example", Ed25519PrivateKey.generate())
    (tmp_path / "policy").write_text(f"log {logged.key}\nwitness w {witness}\nquorum w\n")
    said = signed_in("audit", "prove", "--check", "p", "--witnesses", "policy")
    assert (said.code, "the quorum w is not met" in said.err) == (1, True)
    (tmp_path / "policy").write_text("quorum w\n")
    assert signed_in("audit", "prove", "--check", "p", "--witnesses", "policy").code == 2


def test_a_server_that_proves_nothing_writes_nothing(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    path = "/admin/v1/orgs/acme/audit/proof"
    line = logged.lines[5].decode()
    logged.script(
        "GET",
        path,
        *[(200, {"index": 5, "size": COUNT, "entry": line, "hashes": hashes}, {}) for hashes in ([], ["x"])],
    )
    for says in ("the server's proof shows nothing", "the server's proof cannot be understood"):
        said = signed_in("audit", "prove", "5")
        assert (said.code, says in said.err) == (1, True), said.err
    logged.key = "no key"
    assert "the server's key cannot be understood" in signed_in("audit", "prove", "5").err
    assert not list(tmp_path.glob("*.tlog-proof"))


# -- consistency ----------------------------------------------------------------------------------------------


def test_a_log_that_only_grew_continues_the_checkpoint_that_was_kept(
    signed_in: Cli, logged: ControlPlane, key: str, tmp_path: Path
) -> None:
    first = signed_in("audit", "consistency", "--keep", "old", "--key", key)
    assert (first.code, first.out) == (0, "gateway.example:8443/audit/acme: 1203 entries\n")
    assert (tmp_path / "old").read_text() == logged.checkpoint
    for added in (0, 1, 700):
        grow(logged, added)
        said = signed_in("audit", "consistency", "old", "--key", key)
        assert (said.code, said.err) == (0, "")
        assert said.out.endswith(f"{logged.chain.size} entries, the first 1203 of them those of old\n")
    unsure = signed_in("audit", "consistency", "old")
    assert (unsure.code, unsure.err.startswith("not proven: the key came from the server")) == (0, True)
    report = json.loads(signed_in("audit", "consistency", "old", "--key", key, "-o", "json").out)
    assert (report["ok"], report["before"], report["entries"]) == (True, 1203, 1904)
    assert signed_in("audit", "consistency", "--keep", "old", "--key", key).code == 2


def test_a_checkpoint_that_waits_for_witnesses_is_not_a_log_that_was_cut(
    signed_in: Cli, logged: ControlPlane, key: str, tmp_path: Path
) -> None:
    """What is served may be older than what was kept: the newest that has its quorum."""
    witnessed = logged.checkpoint
    (tmp_path / "old").write_text(grow(logged, 10))
    newest = grow(logged, 10)
    path = "/admin/v1/orgs/acme/audit/checkpoint"
    remark = {"x-orgate-remark": "it ends before the newest 20 entries", "content-type": "text/plain"}
    logged.script("GET", path, (200, witnessed, remark), (200, newest, {"content-type": "text/plain"}))
    said = signed_in("audit", "consistency", "old", "--key", key)
    assert (said.code, said.err) == (0, "remark: it ends before the newest 20 entries\n")
    assert said.out.endswith("1223 entries, the first 1213 of them those of old\n")
    assert [seen.query for seen in logged.seen if seen.path == path] == [{}, {"newest": "true"}]


def test_a_pack_has_a_checkpoint_too(signed_in: Cli, logged: ControlPlane, key: str, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "checkpoint").write_text(logged.checkpoint)
    grow(logged, 3)
    assert signed_in("audit", "consistency", "pack", "--key", key).code == 0


@pytest.mark.parametrize(("size", "changed", "says"), [
    (900, None, "the log was cut: it had 1203 entries, and today it has 900"),
    (COUNT, 5, "the log was rewritten: of 1203 entries, as many as before, some are others"),
    (COUNT + 50, 5, "the log was rewritten: the first 1203 of its 1253 entries are not those that it had"),
    (COUNT + 50, COUNT - 1, "the log was rewritten: the first 1203 of its 1253"),
])  # fmt: skip
def test_a_log_that_was_cut_or_rewritten_is_told_in_words(
    signed_in: Cli, logged: ControlPlane, key: str, tmp_path: Path, size: int, changed: int | None, says: str
) -> None:
    """The operator has the key, and signs anew: everything verifies, but for what the auditor kept."""
    assert signed_in("audit", "consistency", "--keep", "old", "--key", key).code == 0
    chain = Chain()
    made = [from_change(change(n + 1 if n == changed else n)) if n % 2 == 0 or n == changed
            else from_receipt(receipt(n), "boot", n + 1) for n in range(size)]  # fmt: skip
    logged.lines[:] = [chain.seal(draft.fields) for draft in made]
    logged.checkpoint = SIGNER.checkpoint(ACME, size, chain.tree.root())
    said = signed_in("audit", "consistency", "old", "--key", key, "--keep", "new")
    assert (said.code, says in said.err, said.out) == (1, True, ""), said.err
    assert "does not continue old" in said.err
    assert (tmp_path / "new").read_text() == logged.checkpoint
    report = json.loads(signed_in("audit", "consistency", "old", "--key", key, "-o", "json").out)
    assert (report["ok"], len(report["faults"])) == (False, 1)


def test_what_is_no_checkpoint_of_the_log_is_told_apart(
    signed_in: Cli, logged: ControlPlane, key: str, tmp_path: Path
) -> None:
    (tmp_path / "theirs").write_text(WRONG.checkpoint(ACME, 3, bytes(32)))
    (tmp_path / "junk").write_bytes(b"\xff\x00")
    for file, says in (("theirs", "theirs: the note is not signed by"), ("junk", "junk: the note")):
        said = signed_in("audit", "consistency", file, "--key", key)
        assert (said.code, says in said.err) == (1, True), said.err
    assert signed_in("audit", "consistency", "absent", "--key", key).code == 2
    assert signed_in("audit", "consistency").code == 2
    (tmp_path / "old").write_text(logged.checkpoint)
    logged.checkpoint = WRONG.checkpoint(ACME, COUNT, bytes(32))
    said = signed_in("audit", "consistency", "old", "--key", key)
    assert (said.code, "today's checkpoint: the note is not signed" in said.err) == (1, True)


def test_the_key_is_printed_as_verifiers_take_it(signed_in: Cli, logged: ControlPlane) -> None:
    said = signed_in("audit", "key")
    assert (said.code, said.out) == (0, f"{logged.key}\n"), said.err
    logged.key = "no key"
    refused = signed_in("audit", "key")
    assert refused.code == 1
    assert "the server's key cannot be understood" in refused.err
