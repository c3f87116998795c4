"""The offline verifier: an honest pack passes, and each kind of fault is said in words, with its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.canonical import canonical
from gateway.audit.chain import Chain
from gateway.audit.merkle import Tree, leaf_hash
from gateway.audit.note import Checkpoint, sign
from gateway.audit.pack import PackWriter, Plan, digest, whole_log
from gateway.audit.signer import Signer
from gateway.audit.verify import FAULTS_MAX, Known, verify_pack
from tests.fakes.audit import ACME, GLOBEX, SIGNER, lines, write_old_pack, write_pack

KEY = str(SIGNER.key(ACME))


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_pack(tmp_path / "pack", 12)
    return tmp_path / "pack"


@pytest.fixture(params=[1, 2])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A pack of 12 entries in each format that there has been."""
    (write_old_pack if request.param == 1 else write_pack)(tmp_path / "pack", 12)
    return tmp_path / "pack"


def words(folder: Path, known: Known | str | None = KEY) -> str:
    verdict = verify_pack(folder, known)
    assert verdict.ok is not bool(verdict.faults)
    return "\n".join(f"{fault.where}: {fault.what}" for fault in verdict.faults)


def spoil(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def mend_manifest(folder: Path, **changes: object) -> None:
    """Make the manifest fit again, as somebody who hides a change would."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    if manifest["format"] == 1:
        manifest["sha256"] = {name: part(folder / name)["sha256"] for name in manifest["sha256"]}
    else:
        manifest["files"] = {name: part(folder / name) for name in manifest["files"]}
        for level, _ in enumerate(manifest["tiles"]):
            paths = sorted(path for path in (folder / "tile" / str(level)).rglob("*") if path.is_file())
            manifest["tiles"][level] = part(*paths)
    manifest.update(changes)
    manifest["digest"] = digest(manifest)
    (folder / "manifest.json").write_bytes(canonical(manifest) + b"\n")


def part(*paths: Path) -> dict[str, object]:
    data = b"".join(path.read_bytes() for path in paths)
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}


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


# -- parts of a log -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), [(0, 5), (3, 9), (4, 12), (6, 6), (250, 270), (300, 300)])
def test_a_part_is_proved_by_the_tiles(tmp_path: Path, start: int, end: int) -> None:
    write_pack(tmp_path / "pack", 300 if end > 12 else 12, start, end)
    verdict = verify_pack(tmp_path / "pack", KEY)
    assert (verdict.faults, verdict.entries, verdict.start, verdict.end) == ([], end - start, start, end)
    path = tmp_path / "pack" / "entries.jsonl"
    if end - start > 2:
        found = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*found[:1], *found[2:]]))
        mend_manifest(tmp_path / "pack", end=end - 1, count=end - start - 1)
        assert "entries are missing or out of order before it" in words(tmp_path / "pack")


@pytest.mark.parametrize(("start", "end"), [(0, 5), (3, 9), (4, 12)])
def test_an_old_pack_of_a_part_proves_nothing(tmp_path: Path, start: int, end: int) -> None:
    write_old_pack(tmp_path / "pack", 12, start, end)
    assert words(tmp_path / "pack").startswith("checkpoint: signs ")


def test_a_filter_leaves_out_and_says_that_nothing_proves_what(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack", 300, wanted={"prompt_tokens": 7, "action": "completion.create"})
    mend_manifest(tmp_path / "pack", filter={"action": ["completion.create", "chat.create"], "model": "code"})
    verdict = verify_pack(tmp_path / "pack", KEY)
    assert (verdict.faults, verdict.entries, verdict.filtered) == ([], 1, True)
    assert "cannot show what was left out" in verdict.unproven[0]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"action": "key.write"}, "its `action` is another"),
        ({"outcome": ["refused", "cancelled_by_client"]}, "its `outcome` is another"),
        ({"nothing": ""}, "its `nothing` is another"),
        ({"index": "3"}, "its `index` is another"),
        ({"since": 1_763_690_001}, "its `since` is another"),
        ({"until": 1_763_690_000}, "its `until` is another"),
        ({"since": "1"}, "its filter says nothing with 'since'"),
        ({"until": True}, "its filter says nothing with 'until'"),
        ({"action": []}, "its filter says nothing with 'action'"),
        ({"action": [1]}, "its filter says nothing with 'action'"),
        ({"action": 1}, "its filter says nothing with 'action'"),
        ([], "its filter is no object"),
    ],
)
def test_a_filter_that_lies_is_found(tmp_path: Path, wanted: object, says: str) -> None:
    write_pack(tmp_path / "pack", 5, wanted={"model": "code"})
    assert words(tmp_path / "pack") == ""
    mend_manifest(tmp_path / "pack", filter={"since": 1_763_690_000, "until": 1_763_690_001})
    assert words(tmp_path / "pack") == ""
    mend_manifest(tmp_path / "pack", filter=wanted)
    assert says in words(tmp_path / "pack")


def filtered(folder: Path, picked: list[bytes], **changes: object) -> Path:
    """A pack with a filter that holds these lines of a log of 300."""
    write_pack(folder, 300, wanted={"model": "nothing has it"})
    (folder / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in picked))
    mend_manifest(folder, filter={"model": "code"}, count=len(picked), **changes)
    return folder


def test_entries_that_match_are_each_proved_at_their_place(tmp_path: Path) -> None:
    made, _ = lines(300)
    assert words(filtered(tmp_path / "some", [made[n] for n in (0, 1, 2, 255, 256, 299)])) == ""
    assert words(filtered(tmp_path / "none", [])) == ""
    assert "expected 5" in words(filtered(tmp_path / "back", [made[4], made[3]]))
    assert "was repeated" in words(filtered(tmp_path / "twice", [made[4], made[4]]))
    assert "its index is 20, expected 5" in words(filtered(tmp_path / "end", [made[4], made[20]], end=10))
    assert "was repeated" in words(filtered(tmp_path / "start", [made[4]], start=7))
    forged = made[20].replace(b'"status":200', b'"status":503')
    assert words(filtered(tmp_path / "forged", [made[4], forged])) == (
        "entries.jsonl line 2 (entry 20): is not what the log holds at this place: its hash is not the one in the "
        "tiles"
    )
    assert "`prev` is not the hash" in words(filtered(tmp_path / "linked", [forged, made[21]]))
    broken = words(filtered(tmp_path / "broken", [made[1], b"{}x", made[3]]))
    assert broken.startswith("entries.jsonl line 2: the line is not JSON")


def test_an_entry_without_a_time_matches_no_time(tmp_path: Path) -> None:
    """The operator can sign such a line too; the schema is not the verifier's to judge, the filter is."""
    line = Chain().seal({"org": "acme"})
    tree = Tree()
    tree.append(line)
    plan = Plan("acme", SIGNER.checkpoint(ACME, 1, tree.root()), KEY, 0, 1, {"since": 0})
    with PackWriter(tmp_path / "pack", plan) as pack:
        pack.write(line + b"\n")
        pack.write_leaves(leaf_hash(line))
        pack.finish(1)
    assert words(tmp_path / "pack").endswith("(entry 0): does not match the filter: its `since` is another")


def test_more_lines_than_the_tree_has_leaves(pack: Path) -> None:
    made, _ = lines(13)
    (pack / "entries.jsonl").write_bytes(b"".join(line + b"\n" for line in made))
    mend_manifest(pack)
    assert "line 13 (entry 12): is beyond the end of the log" in words(pack)


# -- tiles ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiled(tmp_path: Path) -> Path:
    write_pack(tmp_path / "pack", 600, 0, 2)
    return tmp_path / "pack"


def test_a_tile_that_was_changed_is_found_where_it_is(tiled: Path) -> None:
    spoiled = bytearray((tiled / "tile/0/001").read_bytes())
    spoiled[100] ^= 1
    (tiled / "tile/0/001").write_bytes(spoiled)
    found = words(tiled)
    assert "tile/1/000.p/2: does not follow from the tiles below it" in found
    assert "checkpoint: the entries are not those that were signed: the Merkle root differs" in found
    assert "tile/0: its SHA-256 is not the one in the manifest: it was changed" in found
    mend_manifest(tiled)
    assert "does not follow" in words(tiled)
    (tiled / "tile/1/000.p/2").write_bytes(bytes(64))
    assert "does not follow" in words(tiled)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "tile/0/001").unlink(), "tile/0/001: is missing"),
        (lambda f: (f / "tile/1/000.p/2").unlink(), "tile/1/000.p/2: is missing"),
        (lambda f: (f / "tile/0/002.p/88").write_bytes(bytes(32 * 87)), "has not 88 hashes"),
        (lambda f: (f / "tile/0/000").write_bytes(bytes(8193)), "has not 256 hashes"),
        (lambda f: (f / "tile/0/003").write_bytes(b""), "tile/0/003: is not part of a pack"),
        (lambda f: (f / "tile/0/002").write_bytes(b""), "tile/0/002: is not part of a pack"),
        (lambda f: (f / "tile/0/002.p/89").write_bytes(b""), "tile/0/002.p/89: is not part of a pack"),
        (lambda f: (f / "tile/0/x000").mkdir(), "tile/0/x000: is not part of a pack"),
        (lambda f: (f / "tile/2").mkdir(), "tile/2: is not part of a pack"),
        (lambda f: (f / "tile/entries").mkdir(), "tile/entries: is not part of a pack"),
        (lambda f: (f / "tile/a/b/c/d/e/f/g/h/i/j/k").mkdir(parents=True), "tile/a/b/c/d/e/f/g/h/i: is not part"),
        (lambda f: linked(f / "tile/0/000"), "tile/0/000: is not a plain file"),
        (lambda f: piped(f / "tile/0/000"), "tile/0/000: is not a plain file"),
        (lambda f: piped(f / "tile/1/000.p/2"), "tile/1/000.p/2: is not a plain file"),
        (lambda f: linked(f / "tile/1"), "tile/1: is not part of a pack"),
        (lambda f: linked(f / "tile"), "tile: is not part of a pack"),
        (lambda f: (f / "witnesses").write_text("quorum none\n"), "witnesses: is not part of a pack"),
    ],
)
def test_the_tiles_are_those_of_the_tree_and_no_others(
    tiled: Path, change: Callable[[Path], object], says: str
) -> None:
    change(tiled)
    assert says in words(tiled)


def piped(path: Path) -> None:
    """A pipe that nobody writes into: whoever opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def linked(path: Path) -> None:
    """Out of the pack, with a link in its place."""
    away = path.parent.parent.parent / "away"
    path.rename(away)
    path.symlink_to(away)


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
