"""docs/verify/verify.mjs, the verifier for auditors who check the checker: it says what the first one says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.canonical import canonical
from gateway.audit.chain import Chain
from gateway.audit.cosignature import cosign, key_of
from gateway.audit.entry import from_change
from gateway.audit.merkle import leaf_hash
from gateway.audit.pack import PackWriter, Plan
from gateway.audit.policy import PolicyError, parse_policy
from gateway.audit.tiletree import TileTree
from gateway.audit.verify import Known, verify_pack
from tests.audit.mutations import KINDS, MODES, Mode
from tests.audit.packs import (
    KEPT,
    LONG,
    POLICY,
    SHAPES,
    STRANGER,
    Files,
    Shape,
    cosigned,
    honest,
    log,
    mended,
    packed,
    whole,
)
from tests.audit.run import (
    KEYTEXT,
    SECOND,
    Report,
    Shelf,
    arguments,
    compare,
    known,
    mutations,
    second_verifier,
    verdicts,
)
from tests.fakes.audit import ACME, SIGNER, change, lines, write_old_pack, write_pack

MUTATIONS = 400
HUGE = 3 * 1024**3
"""Bytes, of holes: more than Node reads at once."""


def both(folder: Path, key: str | None = KEYTEXT, mode: Mode = "alone") -> dict[str, Any]:
    """What the second verifier says of a pack; the first one has to agree, and to have shown as much."""
    has = known(mode)
    first = verify_pack(folder, Known(key, has.witnesses, has.checkpoints))
    given = arguments(mode, folder.parent)[2:]
    given = given if key is None else ("--key", key, *given)
    (second,) = verdicts(second_verifier([folder.name], folder.parent, *given), folder.parent)
    assert second["ok"] is first.ok, (first.faults, second["faults"])
    assert second["ok"] is (not second["faults"])
    if first.ok:
        assert (second["proven"], second["unproven"]) == (first.proven, first.unproven)
        assert [second["start"], second["end"], second["filtered"]] == [first.start, first.end, first.filtered]
    return second


def put(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return put(tmp_path / "pack", honest(whole(12)))


def test_both_find_every_mutation(tmp_path: Path) -> None:
    report = Report()
    made = list(mutations(MUTATIONS))
    compare(made, tmp_path, report)
    assert report.examples == []
    assert (report.mutations, report.detected, report.verifiers_disagree) == (MUTATIONS, MUTATIONS, 0)
    assert report.resigned_accepted > 0  # an operator's own signature over another log: nothing in a pack can tell
    kinds = {one.name.partition(" ")[0] for one in made}
    assert len(kinds) == len(set(KINDS))


def test_honest_packs_of_every_shape_are_good(tmp_path: Path) -> None:
    """Every shape of a small tree, and the empty one; parts, filters, both formats, tiles of two levels."""
    for count in (*range(20), 255, 256, 257):
        write_pack(tmp_path / f"pack-{count}", count)
        write_old_pack(tmp_path / f"old-{count}", count)
    shelf = Shelf(tmp_path)
    for n, shape in enumerate({repr(shape): shape for shape in (*SHAPES, *LONG)}.values()):
        shelf.put(f"shape-{n}", honest(shape))
    names = sorted(path.name for path in tmp_path.iterdir() if path.name != "shared")
    found = verdicts(second_verifier(names, tmp_path, "--key", KEYTEXT), tmp_path)
    assert [one["faults"] for one in found] == [[]] * len(found)
    assert [verify_pack(tmp_path / name, KEYTEXT).faults for name in names] == [[]] * len(found)
    sizes = {str(one["pack"]): (one["checkpoint_size"], one["entries"]) for one in found}
    assert all(
        sizes[f"{kind}-{count}"] == (count, count) for count in (*range(20), 257) for kind in ("pack", "old")
    )
    assert {one["org"] for one in found} == {ACME}


def test_a_tree_of_three_levels(tmp_path: Path) -> None:
    """Most of its leaves are nobody's lines."""
    leaves = b"".join([*map(leaf_hash, log()[:3]), *(sha256(b"%d" % n).digest() for n in range(65_797))])
    tree = TileTree(lambda level, number, hashes: None)
    tree.add(leaves)
    note = SIGNER.checkpoint(ACME, 65_800, tree.tree().root())
    with PackWriter(tmp_path / "pack", Plan(ACME, note, KEYTEXT, 0, 3, {})) as writer:
        writer.write(b"".join(line + b"\n" for line in log()[:3]))
        writer.write_leaves(leaves)
        writer.finish(1)
    assert both(tmp_path / "pack")["entries"] == 3
    tile = tmp_path / "pack/tile/1/000"
    tile.write_bytes(tile.read_bytes()[:-1] + b"x")
    assert any("tile/1/000: does not follow" in fault for fault in both(tmp_path / "pack")["faults"])


def test_many_packs_in_one_run_each_have_a_line(pack: Path, tmp_path: Path) -> None:
    shutil.copytree(pack, tmp_path / "bad")
    (tmp_path / "bad" / "entries.jsonl").write_bytes(b"")
    found = verdicts(second_verifier(["pack", "bad", "nowhere"], tmp_path, "--key", KEYTEXT), tmp_path)
    assert [(one["pack"], one["ok"]) for one in found] == [("pack", True), ("bad", False), ("nowhere", False)]
    assert found[2]["faults"] == ["nowhere: cannot be read (ENOENT)"]


def test_without_a_key_it_says_what_is_not_proven(pack: Path, tmp_path: Path) -> None:
    found = both(pack, None)
    assert found["ok"]
    assert "compare it with the one you got" in found["unproven"][0]
    stranger = put(tmp_path / "stranger", packed(lines(3)[0], whole(3), STRANGER))
    assert both(stranger, None)["ok"]
    assert (
        "key: is not the key that was given: the pack is of another log or was signed by another"
        in (both(stranger)["faults"])
    )


def test_the_key_may_be_in_a_file(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "acme.key").write_text(f"{KEYTEXT}\n")
    (found,) = verdicts(second_verifier(["pack"], tmp_path, "--key", "acme.key"), tmp_path)
    assert found["ok"]
    assert "came with the pack" not in str(found["unproven"])
    (found,) = verdicts(second_verifier(["pack"], tmp_path, "--key", "nonsense"), tmp_path)
    assert found["faults"] == ["the key given: the key is not of the form name+id+base64"]


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
        ("checkpoint", b"\n12\n", b"\n11\n", "checkpoint: the signature of gateway.example/audit/acme is wrong"),
        ("checkpoint", "—".encode(), b"-", "a signature line is malformed"),
        ("key", b"acme", b"acne", "the key's id does not fit"),
        ("manifest.json", b"1763690001", b"1763690002", "its digest does not fit its contents"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_it_says_in_words_what_is_wrong_and_where(
    pack: Path, name: str, old: bytes, new: bytes, says: str, hidden: bool
) -> None:
    spoil(pack / name, old, new)
    if hidden and name != "manifest.json":
        files = {str(path.relative_to(pack)): path.read_bytes() for path in pack.rglob("*") if path.is_file()}
        (pack / "manifest.json").write_bytes(mended(files, whole(12))["manifest.json"])
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
            "entries.jsonl line 13 (entry 12): the line has 65537 bytes",
        ),
        (lambda pack: os.truncate(pack / "manifest.json", HUGE), "manifest.json: is longer than 65536 bytes"),
        (lambda pack: os.truncate(pack / "tile/0/000.p/12", HUGE), "tile/0/000.p/12: has not 12 hashes"),
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
def test_a_part_is_proved_by_tiles_alone(tmp_path: Path, start: int, end: int) -> None:
    write_pack(tmp_path / "pack", 12, start, end)
    assert both(tmp_path / "pack")["entries"] == end - start
    write_old_pack(tmp_path / "old", 12, start, end)
    assert both(tmp_path / "old")["faults"][0].startswith("checkpoint: signs ")


def test_what_the_operator_signs_again_is_told_by_what_others_have(tmp_path: Path) -> None:
    """As the guide for auditors says: a log that was cut off or made anew, and signed again, verifies. Witnesses
    have not cosigned it, and it does not continue the checkpoint that was kept."""
    other = Chain()
    anew = [other.seal(from_change(change(n)).fields) for n in range(15)]
    good = put(tmp_path / "good", honest(whole(12, witnessed=True)))
    assert (
        both(good, mode="witnessed")["proven"]
        == [
            "1 daily count (2026-11-10): as many requests as there are entries of them",
            "the quorum two-of is met: one at 2025-11-21T01:53:21Z, three at 2025-11-21T01:53:21Z",
        ][::-1]
    )
    assert f"the log continues kept: its {KEPT} entries are the same" in both(good, mode="kept")["proven"]
    for name, signed in (("cut", log()[: KEPT - 1]), ("other", anew)):
        later = put(tmp_path / name, packed(list(signed), whole(len(signed))))
        assert both(later)["ok"]
        assert "the quorum two-of is not met: nobody has cosigned" in both(later, mode="witnessed")["faults"][0]
        says = "the log was cut off" if name == "cut" else "the log was written anew"
        assert says in both(later, mode="kept")["faults"][0]


def test_a_signature_line_of_somebody_else_changes_nothing(tmp_path: Path) -> None:
    files = honest(whole(3))
    note = files["checkpoint"]
    theirs = STRANGER.checkpoint(ACME, 3, bytes(32)).rpartition("\n\n")[2].encode()
    cases = {
        "theirs": (note + theirs, "alone", ""),
        "before": (note.replace(b"\n\n", b"\n\n" + theirs), "alone", ""),
        "twice": (note + note.rpartition(b"\n\n")[2], "alone", "has signed twice with one key"),
        "cosigned": (cosigned(note.decode()).encode() + theirs, "witnessed", ""),
        "again": (cosigned(cosigned(note.decode())).encode(), "witnessed", "has cosigned twice with one key"),
    }
    modes = {mode: mode for mode in MODES}
    for name, (changed, mode, says) in cases.items():
        shape = whole(3)
        found = both(put(tmp_path / name, mended({**files, "checkpoint": changed}, shape)), mode=modes[mode])  # type: ignore[index]  # one of them
        assert found["ok"] is not bool(says)
        assert says in str(found["faults"])


KEYS = {line.split()[1]: line.split()[2] for line in POLICY.decode().splitlines() if line.startswith("witness ")}
ONE, TWO = f"witness one {KEYS['one']}\n", f"witness two {KEYS['two']}\n"


@pytest.mark.parametrize(
    ("policy", "good"),
    [
        ("quorum none", True),
        (f"{ONE}quorum one", True),
        (f"\t witness \t one  {KEYS['one']} https://one.example \n# that was one\n\nquorum\tone\n", True),
        (f"log {KEYTEXT}\n{ONE}group g any one\nquorum g", True),
        (f"log {KEYTEXT} https://x\n{ONE}{TWO}group a 1 one\ngroup b all a\ngroup c 1 b two\nquorum c\n", True),
        (f"{ONE}{TWO}quorum two", False),
        (f"{ONE}{TWO}group g all one two\nquorum g", False),
        (f"log {STRANGER.key(ACME)}\n{ONE}quorum one", False),
        (f"log {STRANGER.key(ACME)}\nlog {KEYTEXT}\n{ONE}quorum one", True),
        (f"witness \xfcn\xef {KEYS['one']}\nquorum \xfcn\xef", True),
    ],
)
def test_policies_are_read_alike(tmp_path: Path, policy: str, good: bool) -> None:
    note = cosigned(honest(whole(3))["checkpoint"].decode()).encode()
    made = {**honest(whole(3)), "checkpoint": note, "witnesses": policy.encode()}
    assert both(put(tmp_path / "pack", mended(made, whole(3))))["ok"] is good


BAD_POLICIES = (
    b"",
    b"\xff",
    b"\xef\xbb\xbfquorum none",
    b"quorum",
    b"quorum one",
    b"quorum none none",
    b"quorum none\nquorum none",
    b"quorums none",
    b"toString x",
    b"quorum none\r\n",
    b"quorum none\x00",
    b"# \x7f\nquorum none",
    "quorum\u00a0none".encode(),
    b"log x\nquorum none",
    b"log\nquorum none",
    f"log {KEYTEXT} a b\nquorum none".encode(),
    f"log {KEYS['one']}\nquorum none".encode(),
    f"witness one {KEYTEXT}\nquorum none".encode(),
    f"witness {KEYS['one']}\nquorum none".encode(),
    f"witness none {KEYS['one']}\nquorum none".encode(),
    f"witness one {KEYS['one']} a b\nquorum none".encode(),
    f"witness one {KEYS['one'][:-1]}\nquorum none".encode(),
    f"witness one {KEYS['one'].upper()}\nquorum none".encode(),
    f"{ONE}{ONE}quorum one".encode(),
    f"{ONE}witness two {KEYS['one']}\nquorum one".encode(),
    f"{ONE}group g\nquorum one".encode(),
    f"{ONE}group g any\nquorum one".encode(),
    f"{ONE}group one any one\nquorum one".encode(),
    f"{ONE}group g any g\nquorum one".encode(),
    f"{ONE}group g any two\n{TWO}quorum one".encode(),
    f"{ONE}group g any one one\nquorum one".encode(),
    f"{ONE}group g any one\ngroup h any one\nquorum one".encode(),
    *(
        f"{ONE}group g {need} one\nquorum g".encode()
        for need in ("0", "2", "01", "-1", "1.0", "none", "constructor")
    ),
    f"{ONE}group g 1000000 one\nquorum g".encode(),
)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (1, "1970-01-01T00:00:01Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        (253_402_300_800, "second 253402300800"),
        (2**63 - 1, "second 9223372036854775807"),
    ],
)
def test_times_that_witnesses_say_are_told_alike(tmp_path: Path, at: int, said: str) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(4, 36)))
    note = honest(whole(3))["checkpoint"].decode()
    note += cosign(note.partition("\n\n")[0] + "\n", "w.example", private, at)
    policy = f"witness w {key_of('w.example', private)}\nquorum w\n".encode()
    found = both(
        put(
            tmp_path / "pack",
            mended({**honest(whole(3)), "checkpoint": note.encode(), "witnesses": policy}, whole(3)),
        )
    )
    assert found["proven"][0] == f"the quorum w is met: w at {said}"


def test_policies_that_are_none_are_refused_alike(tmp_path: Path) -> None:
    names = []
    for n, policy in enumerate(BAD_POLICIES):
        with pytest.raises(PolicyError):
            parse_policy(policy)
        names.append(put(tmp_path / str(n), mended({**honest(whole(3)), "witnesses": policy}, whole(3))).name)
    found = verdicts(second_verifier(names, tmp_path, "--key", KEYTEXT), tmp_path)
    assert [one["ok"] for one in found] == [False] * len(names)
    assert all("witnesses: " in str(one["faults"]) for one in found)


def test_a_fault_cannot_steer_the_terminal_that_shows_it(pack: Path) -> None:
    (pack / "\x1b]0;owned\x07\u202e\x9b").touch()
    both(pack)
    shown = (pack.parent / "second.jsonl").read_bytes()
    assert shown.isascii()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", shown)


def test_a_flood_of_faults_ends(tmp_path: Path) -> None:
    made = packed([canonical({"n": n}) for n in range(300)], Shape(300, 0, 300), SIGNER)
    found = both(put(tmp_path / "pack", made))
    assert len(found["faults"]) == 101
    assert found["faults"][100] == "entries.jsonl: too many faults: the rest was not read"


@pytest.mark.parametrize("said", [[], ["--kex", "x", "pack"], ["--key"], ["--witnesses", "/nowhere", "pack"]])
def test_wrong_usage_is_neither_good_nor_bad(said: list[str]) -> None:
    node = shutil.which("node")
    assert node is not None
    ended = subprocess.run([node, str(SECOND), *said], capture_output=True, check=False)
    assert ended.returncode == 2
    assert b"usage: node verify-cli.mjs [--key KEY] [--witnesses FILE]" in ended.stderr
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
    *imports, verdict = ended.stdout.splitlines()
    modules = {"canonical", "entries", "leaves", "manifest", "note", "sha256", "tree"}
    assert {line.split()[1] for line in imports} == {f"./{name}.mjs" for name in modules}
    assert verdict.endswith(" progress 12 of 12")
    assert (
        '"ok":true,"org":"acme","entries":12,"start":0,"end":12,"filtered":false,"checkpoint_size":12' in verdict
    )


BROWSER = """
import { readFileSync, readdirSync } from "node:fs";
import { webcrypto as crypto } from "node:crypto";
import vm from "node:vm";
const [folder, pack, key] = process.argv.slice(1);
const context = vm.createContext({ crypto, TextEncoder, TextDecoder, atob, btoa });
const text = (name) => readFileSync(`${folder}/${name}`, "utf8");
const load = (name) => new vm.SourceTextModule(text(name), { context, identifier: name });
const core = load("verify.mjs");
const loaded = new Map();
const once = (name) => {
  if (!loaded.has(name)) loaded.set(name, (console.log(`import ${name}`), load(name)));
  return loaded.get(name);
};
await core.link(once);
await core.evaluate();
const names = readdirSync(pack, { recursive: true, withFileTypes: true }).filter((item) => item.isFile());
const paths = names.map((item) => `${item.parentPath ?? item.path}/${item.name}`);
const files = new Map(paths.map((path) => [path.slice(pack.length + 1), new Uint8Array(readFileSync(path))]));
let seen = "";
const verdict = await core.namespace.verifyPack(files, key, (done, of) => (seen = `progress ${done} of ${of}`));
console.log(JSON.stringify(verdict), seen);
"""
