"""The offline verifier: an honest pack passes, and each kind of fault is said in words, with its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.canonical import canonical
from gateway.audit.pack import PackWriter, digest
from gateway.audit.signer import Signer
from gateway.audit.verify import FAULTS_MAX, verify_pack
from tests.fakes.audit import ACME, GLOBEX, SIGNER, lines, write_pack

KEY = str(SIGNER.key(ACME))


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_pack(tmp_path / "pack", 12)
    return tmp_path / "pack"


def words(folder: Path, key: str | None = KEY) -> str:
    verdict = verify_pack(folder, key)
    assert verdict.ok is not bool(verdict.faults)
    return "\n".join(f"{fault.where}: {fault.what}" for fault in verdict.faults)


def spoil(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def mend_manifest(folder: Path, **changes: object) -> None:
    """Make the manifest fit again, as somebody who hides a change would."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    from hashlib import sha256

    manifest["sha256"] = {n: sha256((folder / n).read_bytes()).hexdigest() for n in manifest["sha256"]}
    manifest.update(changes)
    manifest["digest"] = digest(manifest)
    (folder / "manifest.json").write_bytes(canonical(manifest) + b"\n")


def test_an_honest_pack_of_a_whole_log_proves_everything(pack: Path) -> None:
    seen: list[tuple[int, int]] = []
    verdict = verify_pack(pack, KEY, lambda done, of: seen.append((done, of)))
    assert verdict.ok
    assert (verdict.org, verdict.entries, verdict.checkpoint_size) == ("acme", 12, 12)
    assert verdict.faults == []
    assert verdict.unproven == []
    assert seen[-1] == (12, 12)
    assert sorted(os.listdir(pack)) == ["checkpoint", "entries.jsonl", "key", "manifest.json"]


def test_an_empty_log_verifies(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack", 0)
    assert verify_pack(tmp_path / "pack", KEY).ok


def test_the_key_of_the_pack_itself_proves_less(pack: Path) -> None:
    verdict = verify_pack(pack)
    assert verdict.ok
    assert "compare it" in verdict.unproven[0]


@pytest.mark.parametrize(("start", "end"), [(0, 5), (3, 9), (4, 12), (6, 6)])
def test_a_part_is_not_what_was_signed(tmp_path: Path, start: int, end: int) -> None:
    write_pack(tmp_path / "pack", 12, start, end)
    verdict = verify_pack(tmp_path / "pack", KEY)
    assert not verdict.ok
    assert [fault.where for fault in verdict.faults] == ["checkpoint"]
    assert f"a part, entries [{start}, {end})" in words(tmp_path / "pack")
    path = tmp_path / "pack" / "entries.jsonl"
    if end - start > 2:
        found = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*found[:1], *found[2:]]))
        mend_manifest(tmp_path / "pack", end=end - 1, count=end - start - 1)
        assert "entries are missing or out of order before it" in words(tmp_path / "pack")


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
    pack: Path, change: Callable[[Path], object], says: str, hidden: bool
) -> None:
    change(pack)
    if hidden:
        mend_manifest(pack)
    found = words(pack)
    assert says in found
    assert ("SHA-256" in found) is not hidden


def test_entries_made_anew_do_not_fit_what_was_signed(pack: Path) -> None:
    """A whole other history, its chain intact: only the signed root tells."""
    made, _ = lines(13)
    from gateway.audit.chain import Chain

    chain = Chain()
    other = [
        chain.seal({k: v for k, v in json.loads(line).items() if k not in ("index", "prev")}) for line in made[1:]
    ]
    (pack / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in other))
    mend_manifest(pack)
    assert words(pack) == "checkpoint: the entries are not those that were signed: the Merkle root differs"


def test_entries_cut_off_at_the_end_are_missed(pack: Path) -> None:
    path = pack / "entries.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    mend_manifest(pack)
    assert "has 11 entries, the manifest counts 12" in words(pack)
    mend_manifest(pack, count=11, end=11)
    assert "the pack is a part, entries [0, 11)" in words(pack)


def test_a_forger_cannot_pass_other_entries_off_as_a_part(pack: Path) -> None:
    """A chain linked anew and one entry fewer than were signed: there is no root to compare it with."""
    from gateway.audit.chain import Chain

    chain = Chain()
    found = [json.loads(line) for line in (pack / "entries.jsonl").read_bytes().splitlines()[:-1]]
    found[3]["actor"] = "mem_somebodyelse"
    forged = [chain.seal({k: v for k, v in entry.items() if k not in ("index", "prev")}) for entry in found]
    (pack / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in forged))
    mend_manifest(pack, count=11, end=11)
    assert not verify_pack(pack, KEY).ok


def test_a_claim_beyond_what_was_signed_is_refused(pack: Path) -> None:
    made, _ = lines(13)
    (pack / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in made))
    mend_manifest(pack, end=13, count=13)
    assert "signs 12 entries, but the pack claims entries up to 13" in words(pack)


def test_another_signers_pack_is_refused(pack: Path) -> None:
    other = Signer("gateway.example", Ed25519PrivateKey.generate())
    found = words(pack, str(other.key(ACME)))
    assert "is not the key that was given" in found
    assert "not signed by" in found
    assert "the key given: the key is not of the form" in words(pack, "nonsense")


def test_another_organizations_checkpoint_is_refused(tmp_path: Path) -> None:
    made, chain = lines(2)
    with PackWriter(tmp_path / "pack", org="acme") as pack:
        pack.write(b"".join(line + b"\n" for line in made))
        pack.finish(SIGNER.checkpoint(GLOBEX, 2, chain.tree.root()), str(SIGNER.key(GLOBEX)), 1)
    assert "is not the log of organization 'acme'" in words(tmp_path / "pack", str(SIGNER.key(GLOBEX)))


def test_an_origin_that_is_not_the_keys_is_refused(tmp_path: Path) -> None:
    from gateway.audit.note import Checkpoint, sign

    made, chain = lines(1)
    private = Ed25519PrivateKey.generate()
    key = Signer("h", private).key(ACME)
    with PackWriter(tmp_path / "pack", org="acme") as pack:
        pack.write(made[0] + b"\n")
        note = sign(Checkpoint("x/audit/acme", 1, chain.tree.root()).text(), key.name, private)
        pack.finish(note, str(key), 1)
    assert "its origin is 'x/audit/acme', but the key is that of 'h/audit/acme'" in words(
        tmp_path / "pack", str(key)
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "not a manifest of format 1"),
        ({"format": True}, "not a manifest of format 1"),
        ({"made_at": "today"}, "does not say when it was made"),
        ({"more": 1}, "not a manifest of format 1"),
        ({"org": 1}, "does not name its organization"),
        ({"sha256": {"entries.jsonl": "x"}}, "exactly the files"),
        ({"sha256": {"..": "x", "key": "x", "checkpoint": "x"}}, "exactly the files"),
        ({"start": -1}, "no range"),
        ({"start": True}, "no range"),
        ({"end": "12"}, "no range"),
        ({"start": 13}, "no range"),
        ({"count": 11}, "counts 11 entries, but its range [0, 12) has 12"),
    ],
)
def test_a_manifest_that_is_none_is_refused(pack: Path, change: dict[str, object], says: str) -> None:
    mend_manifest(pack, **change)
    assert says in words(pack)


def test_a_manifest_that_was_touched_is_refused(pack: Path) -> None:
    spoil(pack / "manifest.json", b"1763690001", b"1763690002")
    assert "its digest does not fit" in words(pack)
    (pack / "manifest.json").write_bytes(b"{}")
    assert "cut off" in words(pack)
    (pack / "manifest.json").write_bytes(b"{ }\n")
    assert "canonical" in words(pack)


@pytest.mark.parametrize("name", ["checkpoint", "key", "manifest.json"])
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
    assert "cannot be read as a folder" in words(tmp_path / "nowhere")
    assert "cannot be read as a folder" in words(tmp_path / "key")


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


# -- writing --------------------------------------------------------------------------------------------------


def test_pieces_may_end_anywhere(tmp_path: Path) -> None:
    made, chain = lines(5)
    data = b"".join(line + b"\n" for line in made)
    with PackWriter(tmp_path / "pack", org="acme") as pack:
        for at in range(0, len(data), 7):
            pack.write(data[at : at + 7])
        pack.write(b"")
        assert pack.count == 5
        pack.finish(SIGNER.checkpoint(ACME, 5, chain.tree.root()), KEY + "\n", 1)
    assert verify_pack(tmp_path / "pack", KEY).ok


def test_a_transfer_that_was_cut_off_makes_no_pack(tmp_path: Path) -> None:
    with PackWriter(tmp_path / "pack", org="acme") as pack:
        pack.write(b'{"a":1}\n{"b"')
        with pytest.raises(ValueError, match="cut off"):
            pack.finish("", KEY, 1)
    assert not (tmp_path / "pack" / "manifest.json").exists()
    with pytest.raises(FileExistsError):
        PackWriter(tmp_path / "pack", org="acme")


def test_the_verifier_needs_no_server() -> None:
    code = (
        "import sys; import gateway.audit.verify; "
        "print([m for m in ('litestar','msgspec','sqlalchemy','httpx','pydantic','tenants') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
