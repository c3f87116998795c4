"""docs/verify/verify.mjs, the verifier for auditors who check the checker: it says what the first one says."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.canonical import canonical
from gateway.audit.chain import Chain
from gateway.audit.entry import from_change
from gateway.audit.verify import verify_pack
from tests.audit.mutations import KINDS, STRANGER, Files, honest, mended, packed
from tests.audit.run import KEYTEXT, SECOND, Report, compare, mutations, second_verifier, verdicts
from tests.fakes.audit import ACME, SIGNER, change, lines, write_pack

MUTATIONS = 1_500


def both(folder: Path, key: str | None = KEYTEXT) -> dict[str, Any]:
    """What the second verifier says of a pack; the first one has to agree."""
    first = verify_pack(folder, key)
    (second,) = verdicts(second_verifier([folder.name], folder.parent, key), folder.parent)
    assert second["ok"] is first.ok, (first.faults, second["faults"])
    assert second["ok"] is (not second["faults"])
    return second


def put(folder: Path, files: Files) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return put(tmp_path / "pack", honest(12))


def test_both_find_every_mutation(tmp_path: Path) -> None:
    report = Report()
    made = list(mutations(MUTATIONS))
    compare(made, tmp_path, report)
    assert report.examples == []
    assert (report.mutations, report.detected, report.verifiers_disagree) == (MUTATIONS, MUTATIONS, 0)
    assert report.resigned_accepted > 0  # an operator's own signature over another log: nothing in a pack can tell
    kinds = {one.name.partition(" ")[0] for one in made}
    assert len(kinds) == len(set(KINDS))


def test_honest_packs_of_every_size_are_good(tmp_path: Path) -> None:
    """Every shape of a small tree, and the empty one."""
    names = [f"pack-{count}" for count in (*range(20), 257)]
    for name in names:
        write_pack(tmp_path / name, int(name.removeprefix("pack-")))
    put(tmp_path / "odd", honest(12))
    found = verdicts(second_verifier([*names, "odd"], tmp_path), tmp_path)
    assert [one["faults"] for one in found] == [[]] * len(found)
    assert [one["checkpoint_size"] for one in found] == [*range(20), 257, 12]
    assert [one["entries"] for one in found] == [*range(20), 257, 12]
    assert {one["org"] for one in found} == {ACME}


def test_many_packs_in_one_run_each_have_a_line(pack: Path, tmp_path: Path) -> None:
    shutil.copytree(pack, tmp_path / "bad")
    (tmp_path / "bad" / "entries.jsonl").write_bytes(b"")
    found = verdicts(second_verifier(["pack", "bad", "nowhere"], tmp_path), tmp_path)
    assert [(one["pack"], one["ok"]) for one in found] == [("pack", True), ("bad", False), ("nowhere", False)]
    assert found[2]["faults"] == ["nowhere: cannot be read (ENOENT)"]


def test_without_a_key_it_says_what_is_not_proven(pack: Path, tmp_path: Path) -> None:
    found = both(pack, None)
    assert found["ok"]
    assert "compare it with the one you got" in found["unproven"][0]
    stranger = put(tmp_path / "stranger", packed(lines(3)[0], STRANGER))
    assert both(stranger, None)["ok"]
    assert (
        "key: is not the key that was given: the pack is of another log or was signed by another"
        in (both(stranger)["faults"])
    )


def test_the_key_may_be_in_a_file(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "acme.key").write_text(f"{KEYTEXT}\n")
    (found,) = verdicts(second_verifier(["pack"], tmp_path, str(tmp_path / "acme.key")), tmp_path)
    assert found["ok"]
    assert not found["unproven"]
    (found,) = verdicts(second_verifier(["pack"], tmp_path, "nonsense"), tmp_path)
    assert found["faults"] == ["the key given: is not of the form name+id+base64"]


def spoil(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("entries.jsonl", b'"status":200', b'"status":201', "line 2 (entry 1): its `prev` is not the hash"),
        ("entries.jsonl", b'"status":200', b'"status":2e2', "line 1 (entry 0): JSON, but not in its canonical"),
        ("entries.jsonl", b'"org":"acme"', b'"org":"acme","org":"acme"', "a name that appears twice"),
        ("entries.jsonl", b'"org":"acme"', b'"org":"\\u0061cme"', "a string in its one spelling"),
        ("entries.jsonl", b'"org":"acme"', b'"org":"evil"', 'belongs to another organization than "acme"'),
        ("entries.jsonl", b'"index":3,', b'"index":4,', "entries are missing or out of order before it"),
        ("entries.jsonl", b'"index":3,', b'"index":2,', "an entry was repeated, inserted or moved"),
        ("entries.jsonl", b'["boot",2]', b'["boot",1]', "its receipt is an entry already"),
        ("entries.jsonl", b'["boot",2]', b'["boot",true]', "its `spool` is not a boot and a number"),
        ("entries.jsonl", b'"schema":1', b'"schema":2', "its schema is not 1"),
        ("checkpoint", b"\n12\n", b"\n11\n", "checkpoint: the signature is wrong"),
        ("checkpoint", "—".encode(), b"-", "a signature line is malformed"),
        ("key", b"acme", b"acne", "its id does not fit"),
        ("manifest.json", b"1763690001", b"1763690002", "its digest does not fit its contents"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_it_says_in_words_what_is_wrong_and_where(
    pack: Path, name: str, old: bytes, new: bytes, says: str, hidden: bool
) -> None:
    spoil(pack / name, old, new)
    if hidden and name != "manifest.json":
        put_back = mended({path.name: path.read_bytes() for path in pack.iterdir()})
        (pack / "manifest.json").write_bytes(put_back["manifest.json"])
    found = "\n".join(both(pack)["faults"])
    assert says in found
    assert ("SHA-256" in found) is (not hidden and name != "manifest.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda pack: (pack / "notes.txt").touch(), '"notes.txt": is not part of a pack: it was added'),
        (lambda pack: (pack / "key").unlink(), "key: is missing: the pack is not complete"),
        (lambda pack: (pack / "key").rename(pack / "KEY"), "key: is missing: the pack is not complete"),
        (lambda pack: _linked(pack / "key"), "key: is not a plain file"),
        (lambda pack: _linked(pack / "entries.jsonl"), "entries.jsonl: is not a plain file"),
        (lambda pack: _longer(pack / "checkpoint"), "checkpoint: is longer than 65536 bytes"),
        (
            lambda pack: _longer(pack / "entries.jsonl"),
            "entries.jsonl line 13 (entry 12): the line has 70000 bytes",
        ),
    ],
)
def test_a_folder_that_is_no_pack_is_refused(pack: Path, change: Callable[[Path], object], says: str) -> None:
    change(pack)
    assert any(fault.startswith(says) for fault in both(pack)["faults"])


def _linked(path: Path) -> None:
    path.rename(path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x" * 70_000)


@pytest.mark.parametrize(("start", "end"), [(0, 5), (3, 9), (4, 12), (6, 6)])
def test_a_part_of_a_log_proves_nothing(tmp_path: Path, start: int, end: int) -> None:
    write_pack(tmp_path / "pack", 12, start, end)
    (fault,) = both(tmp_path / "pack")["faults"]
    assert fault.startswith(f"checkpoint: signs entries [0, 12), and the pack claims [{start}, {end})")


def test_what_the_operator_signs_again_is_told_by_a_pack_that_was_kept(tmp_path: Path) -> None:
    """As the guide for auditors says: a log that was cut off or made anew, and signed again, verifies. It does
    not begin with the lines of the one before."""
    made, _ = lines(12)
    chain = Chain()
    other = [chain.seal(from_change(change(n)).fields) for n in range(15)]
    before = put(tmp_path / "before", packed(made, SIGNER))
    for name, signed in (("cut", made[:7]), ("other", other)):
        later = put(tmp_path / name, packed(signed, SIGNER))
        assert both(later)["ok"]
        kept = (before / "entries.jsonl").read_bytes()
        assert not (later / "entries.jsonl").read_bytes().startswith(kept)


def test_a_signature_line_of_somebody_else_changes_nothing(tmp_path: Path) -> None:
    files = honest(3)
    theirs = STRANGER.checkpoint(ACME, 3, bytes(32)).rpartition("\n\n")[2].encode()
    assert both(put(tmp_path / "theirs", mended({**files, "checkpoint": files["checkpoint"] + theirs})))["ok"]
    twice = mended({**files, "checkpoint": files["checkpoint"] + files["checkpoint"].rpartition(b"\n\n")[2]})
    assert (
        "checkpoint: the key has signed twice: a line was repeated"
        in (both(put(tmp_path / "twice", twice))["faults"])
    )


def test_a_fault_cannot_steer_the_terminal_that_shows_it(pack: Path) -> None:
    (pack / "\x1b]0;owned\x07\u202e\x9b").touch()
    both(pack)
    shown = (pack.parent / "second.jsonl").read_bytes()
    assert shown.isascii()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", shown)


def test_a_flood_of_faults_ends(tmp_path: Path) -> None:
    made = packed([canonical({"n": n}) for n in range(300)], SIGNER)
    found = both(put(tmp_path / "pack", made))
    assert len(found["faults"]) == 101
    assert found["faults"][100] == "entries.jsonl: too many faults: the rest was not read"


@pytest.mark.parametrize("arguments", [[], ["--kex", "x", "pack"], ["--key"]])
def test_wrong_usage_is_neither_good_nor_bad(arguments: list[str]) -> None:
    node = shutil.which("node")
    assert node is not None
    ended = subprocess.run([node, str(SECOND), *arguments], capture_output=True, check=False)
    assert ended.returncode == 2
    assert b"usage: node verify-cli.mjs [--key KEY] PACK..." in ended.stderr
    assert ended.stdout == b""


def test_its_core_needs_nothing_but_a_browser(pack: Path) -> None:
    """Run where there is the language and what browsers have of WebCrypto and texts: no `process`, no `Buffer`, no
    package, none of the first verifier's code."""
    node = shutil.which("node")
    assert node is not None
    browser = [node, "--no-warnings", "--experimental-vm-modules", "--input-type=module", "-e", BROWSER]
    ended = subprocess.run(
        [*browser, str(SECOND.parent), str(pack), KEYTEXT], capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "import ./canonical.mjs from verify.mjs",
        '{"ok":true,"org":"acme","entries":12,"checkpoint_size":12,"faults":[],"unproven":[]} progress 12 of 12',
    ]


BROWSER = """
import { readFileSync, readdirSync } from "node:fs";
import { webcrypto as crypto } from "node:crypto";
import vm from "node:vm";
const [folder, pack, key] = process.argv.slice(1);
const context = vm.createContext({ crypto, TextEncoder, TextDecoder, atob, btoa });
const text = (name) => readFileSync(`${folder}/${name}`, "utf8");
const load = (name) => new vm.SourceTextModule(text(name), { context, identifier: name });
const core = load("verify.mjs");
await core.link((name, from) => (console.log(`import ${name} from ${from.identifier}`), load(name)));
await core.evaluate();
const files = new Map(readdirSync(pack).map((name) => [name, new Uint8Array(readFileSync(`${pack}/${name}`))]));
let seen = "";
const verdict = await core.namespace.verifyPack(files, key, (done, of) => (seen = `progress ${done} of ${of}`));
console.log(JSON.stringify(verdict), seen);
"""
