"""The offline verifier: an honest pack passes, and each kind of fault is said in words, with its place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.chain import Chain
from gateway.audit.merkle import leaf_hash
from gateway.audit.note import Checkpoint, sign
from gateway.audit.pack import PackWriter, whole_log
from gateway.audit.signer import Signer
from gateway.audit.verify import FAULTS_MAX, verify_pack
from tests.fakes.audit import ACME, GLOBEX, SIGNER, lines, write_old_pack, write_pack
from tests.unit.audit.packs import KEY, mend_manifest, spoil, words


def test_an_honest_pack_of_a_whole_log(pack: Path) -> None:
    seen: list[tuple[int, int]] = []
    verdict = verify_pack(pack, KEY, lambda done, of: seen.append((done, of)))
    assert verdict.ok
    assert (verdict.org, verdict.entries, verdict.checkpoint_size) == ("acme", 12, 12)
    assert verdict.faults == []
    assert [text.partition(":")[0] for text in verdict.unproven] == ["that everybody was shown the same log"]
    assert seen[-1] == (12, 12)
    found = sorted(path.relative_to(pack).as_posix() for path in pack.rglob("*") if path.is_file())
    assert found == ["README.txt", "checkpoint", "entries.jsonl", "key", "manifest.json", "tile/0/000.p/12"]
    assert {oct(path.stat().st_mode & 0o777) for path in pack.rglob("*")} == {"0o700", "0o600"}


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 513])
def test_a_tree_of_each_shape_verifies(tmp_path: Path, count: int) -> None:
    write_pack(tmp_path / "pack", count)
    assert words(tmp_path / "pack") == ""
    write_old_pack(tmp_path / "old", count)
    assert words(tmp_path / "old") == ""


def test_the_key_of_the_pack_itself_proves_less(either: Path) -> None:
    verdict = verify_pack(either)
    assert verdict.ok
    assert "compare it" in verdict.unproven[0]


# -- what was changed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: spoil(f / "entries.jsonl", b'"status":200', b'"status":201'), "line 2 (entry 1): its `prev`"),
        (
            lambda f: spoil(f / "entries.jsonl", b'"status":200', b'"status": 200'),
            "line 1 (entry 0): the line is JSON",
        ),
        (lambda f: spoil(f / "entries.jsonl", b'"org":"acme"', b'"org":"acme","org":"acme"'), "appears twice"),
        (
            lambda f: spoil(f / "entries.jsonl", b'"org":"acme"', b'"org":"evil"'),
            "another organization than 'acme'",
        ),
        (lambda f: spoil(f / "entries.jsonl", b'"schema":1', b'"schema":9'), "its schema is 9"),
        (lambda f: spoil(f / "entries.jsonl", b'["boot",2]', b'["boot",1]'), "its receipt is an entry already"),
        (lambda f: spoil(f / "entries.jsonl", b'["boot",2]', b'["boot","x"]'), "its `spool` is not a boot"),
        (lambda f: spoil(f / "entries.jsonl", b'["boot",2]', b"[true,2]"), "its `spool` is not a boot"),
        (lambda f: spoil(f / "entries.jsonl", b'["boot",2]', b"[2,true]"), "its `spool` is not a boot"),
        (lambda f: spoil(f / "entries.jsonl", b'["boot",2]', b'"boot"'), "its `spool` is not a boot"),
        (lambda f: (f / "entries.jsonl").write_bytes((f / "entries.jsonl").read_bytes()[:-1]), "with a newline"),
        (lambda f: (f / "entries.jsonl").write_bytes(b"x" * 200_000), "the line has"),
        (lambda f: (f / "entries.jsonl").write_bytes(b""), "has 0 entries, the manifest counts 12"),
        (
            lambda f: spoil(f / "checkpoint", b"\n12\n", b"\n11\n"),
            "the signature of gateway.example/audit/acme is wrong",
        ),
        (lambda f: (f / "checkpoint").write_bytes(b"\xff"), "is not UTF-8"),
        (lambda f: (f / "key").write_bytes(b"\xff"), "key: is not UTF-8"),
        (lambda f: spoil(f / "key", b"acme", b"acne"), "id does not fit"),
        (lambda f: (f / "key").write_bytes(KEY.encode()), "not spelt as it was written"),
        (lambda f: (f / "key").write_text(f"{SIGNER.key(GLOBEX)}\n"), "is not the key that was given"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_a_change_is_found_also_when_the_manifest_hides_it(
    either: Path, change: Callable[[Path], object], says: str, hidden: bool
) -> None:
    change(either)
    if hidden:
        mend_manifest(either)
    found = words(either)
    assert says in found
    assert ("SHA-256" in found or "the manifest counts" in found) or hidden


def test_more_lines_than_the_tree_has_leaves(pack: Path) -> None:
    made, _ = lines(13)
    (pack / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in made))
    mend_manifest(pack)
    assert "line 13 (entry 12): is beyond the end of the log" in words(pack)


def test_entries_made_anew_do_not_fit_what_was_signed(either: Path) -> None:
    """A whole other history, its chain intact: only the signed root tells."""
    made, _ = lines(13)
    chain = Chain()
    other = [
        chain.seal({k: v for k, v in json.loads(line).items() if k not in ("index", "prev")}) for line in made[1:]
    ]
    (either / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in other))
    if (tile := either / "tile/0/000.p/12").exists():
        mend_manifest(either)
        assert "its hash is not the one in the tiles" in words(either)
        tile.write_bytes(b"".join(map(leaf_hash, other)))
    mend_manifest(either)
    assert words(either) == "checkpoint: the entries are not those that were signed: the Merkle root differs"


def test_entries_cut_off_at_the_end_are_missed(either: Path) -> None:
    path = either / "entries.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    mend_manifest(either)
    assert "has 11 entries, the manifest counts 12" in words(either)
    size = {} if (either / "tile").exists() is False else {"size": 12}
    mend_manifest(either, count=11, end=11, **size)
    verdict = verify_pack(either, KEY)
    # Format 2 says so, and is right: they are the first eleven of twelve.
    assert verdict.ok is bool(size)
    assert (verdict.end, verdict.checkpoint_size) == (11, 12)


def test_a_forger_cannot_pass_other_entries_off_as_a_part(either: Path) -> None:
    """A chain linked anew and one entry fewer than were signed."""
    chain = Chain()
    found = [json.loads(line) for line in (either / "entries.jsonl").read_bytes().splitlines()[:-1]]
    found[3]["actor"] = "mem_somebodyelse"
    forged = [chain.seal({k: v for k, v in entry.items() if k not in ("index", "prev")}) for entry in found]
    (either / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in forged))
    mend_manifest(either, count=11, end=11)
    assert not verify_pack(either, KEY).ok


def test_a_tree_of_another_size_than_was_signed_is_refused(either: Path) -> None:
    path = either / "checkpoint"
    made, chain = lines(11)
    path.write_text(SIGNER.checkpoint(ACME, len(made), chain.tree.root()))
    mend_manifest(either)
    assert words(either) == "checkpoint: signs 11 entries, but the pack is of a tree of 12"


def test_another_signers_pack_is_refused(pack: Path) -> None:
    other = Signer("gateway.example", Ed25519PrivateKey.generate())
    found = words(pack, str(other.key(ACME)))
    assert "is not the key that was given" in found
    assert "not signed by" in found
    assert "the key given: the key is not of the form" in words(pack, "nonsense")


def test_another_organizations_checkpoint_is_refused(tmp_path: Path) -> None:
    made, chain = lines(2)
    checkpoint, key = SIGNER.checkpoint(GLOBEX, 2, chain.tree.root()), str(SIGNER.key(GLOBEX))
    with PackWriter(tmp_path / "pack", whole_log("acme", checkpoint, key)) as pack:
        pack.write(b"".join(line + b"\n" for line in made))
        pack.finish(1)
    assert "is not the log of organization 'acme'" in words(tmp_path / "pack", key)


def test_an_origin_that_is_not_the_keys_is_refused(tmp_path: Path) -> None:
    made, chain = lines(1)
    private = Ed25519PrivateKey.generate()
    key = Signer("h", private).key(ACME)
    note = sign(Checkpoint("x/audit/acme", 1, chain.tree.root()).text(), key.name, private)
    with PackWriter(tmp_path / "pack", whole_log("acme", note, str(key))) as pack:
        pack.write(made[0] + b"\n")
        pack.finish(1)
    assert "its origin is 'x/audit/acme', but the key is that of 'h/audit/acme'" in words(
        tmp_path / "pack", str(key)
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 3}, "not a manifest of format 2"),
        ({"format": True}, "not a manifest of format 2"),
        ({"made_at": "today"}, "does not say when it was made"),
        ({"more": 1}, "not a manifest of format 2"),
        ({"org": 1}, "does not name its organization"),
        ({"start": -1}, "is none of a tree of 12"),
        ({"start": True}, "no range"),
        ({"end": "12"}, "no range"),
        ({"start": 13}, "its range [13, 12) is none"),
        ({"count": 11}, "counts 11 entries, but its range [0, 12) has 12"),
    ],
)
def test_a_manifest_that_is_none_is_refused(either: Path, change: dict[str, object], says: str) -> None:
    mend_manifest(either, **change)
    assert says in words(either)


GOOD = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"files": {"entries.jsonl": GOOD}}, "exactly the files"),
        ({"files": {"..": GOOD, "key": GOOD, "checkpoint": GOOD, "README.txt": GOOD}}, "exactly the files"),
        ({"files": 1}, "exactly the files"),
        ({"files": dict.fromkeys(("README.txt", "checkpoint", "entries.jsonl", "key"), 1)}, "size and SHA-256"),
        ({"size": 13}, "its tiles are not those of a tree of 13"),
        ({"size": 11}, "is none of a tree of 11"),
        ({"size": "12"}, "no range"),
        ({"tiles": []}, "its tiles are not those"),
        ({"tiles": {}}, "its tiles are not those"),
        ({"tiles": [GOOD]}, "its tiles are not those"),
        ({"tiles": [{"bytes": 384, "sha256": "0" * 63}]}, "size and SHA-256"),
        ({"tiles": [{"bytes": 384, "sha256": "F" * 64}]}, "size and SHA-256"),
        ({"tiles": [{"bytes": True, "sha256": "0" * 64}]}, "size and SHA-256"),
        ({"tiles": [{"bytes": 384, "sha256": "0" * 64}]}, "tile/0: its SHA-256 is not the one"),
        ({"filter": {}, "count": 12, "format": 1}, "not a manifest of format 2"),
    ],
)
def test_a_manifest_of_format_2_names_every_file(pack: Path, change: dict[str, object], says: str) -> None:
    mend_manifest(pack, **change)
    assert says in words(pack)


@pytest.mark.parametrize(
    "change", [{"sha256": {"entries.jsonl": "x"}}, {"sha256": {"..": "x", "key": "x", "checkpoint": "x"}}]
)
def test_a_manifest_of_format_1_names_three(tmp_path: Path, change: dict[str, object]) -> None:
    write_old_pack(tmp_path / "pack", 3)
    mend_manifest(tmp_path / "pack", **change)
    assert "exactly the files" in words(tmp_path / "pack")


def test_a_manifest_that_was_touched_is_refused(pack: Path) -> None:
    spoil(pack / "manifest.json", b"1763690001", b"1763690002")
    assert "its digest does not fit" in words(pack)
    (pack / "manifest.json").write_bytes(b"{}")
    assert "cut off" in words(pack)
    (pack / "manifest.json").write_bytes(b"{ }\n")
    assert "canonical" in words(pack)


@pytest.mark.parametrize("name", ["checkpoint", "key", "manifest.json", "README.txt"])
def test_nothing_stands_after_the_part_that_is_read(pack: Path, name: str) -> None:
    with (pack / name).open("ab") as file:
        file.write(b"x" * 65_536)
    assert words(pack) == f"{name}: is longer than 65536 bytes"


def test_the_folder_holds_the_pack_and_nothing_else(pack: Path, tmp_path: Path) -> None:
    (pack / "notes.txt").write_text("")
    assert words(pack) == "notes.txt: is not part of a pack: it was added"
    (pack / "notes.txt").unlink()
    (pack / "key").rename(tmp_path / "key")
    assert words(pack) == "key: is missing: the pack is not complete"
    (pack / "key").symlink_to(tmp_path / "key")
    assert words(pack) == "key: is not a plain file"
    (pack / "manifest.json").unlink()
    assert words(pack) == f"{pack}: this is no pack: manifest.json is missing"
    assert "this is no pack" in words(tmp_path / "nowhere")
    assert "cannot be read (Not a directory)" in words(tmp_path / "key")


def test_a_file_that_cannot_be_read_is_a_fault(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def refuse(self: Path, mode: str = "r") -> object:
        if self.name == "entries.jsonl":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, mode)

    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read (Permission denied)" in words(pack)


def test_faults_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.audit.verify.STEP", 10)
    write_pack(tmp_path / "pack", FAULTS_MAX + 50)
    path = tmp_path / "pack" / "entries.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"org":"acme"', b'"org": "acme"'))
    verdict = verify_pack(tmp_path / "pack", KEY)
    assert FAULTS_MAX <= len(verdict.faults) <= FAULTS_MAX + 1
    assert "too many faults" in verdict.faults[-1].what


def test_the_verifier_needs_no_server() -> None:
    code = (
        "import sys; import gateway.audit.verify; "
        "print([m for m in ('litestar','msgspec','sqlalchemy','httpx','pydantic','tenants') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
