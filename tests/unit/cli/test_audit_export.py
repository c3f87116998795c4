"""`orgate audit export`: packs and files, whole or of a part, cut off at any point and gone on with."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cli import audit_export, audit_part, audit_transfer
from gateway.audit.chain import Chain
from gateway.audit.cosignature import key_of
from gateway.audit.entry import from_change, from_receipt
from gateway.audit.formats import cef, ocsf, rfc4180, rfc5424
from gateway.audit.formats.context import Context
from gateway.audit.pack import PLAN, PackWriter
from gateway.audit.signer import Signer
from gateway.audit.verify import verify_pack
from gateway.exchange import Outcome
from tenants.ids import OrgId
from tenants.store import Actor, Change
from tests.fakes.audit import receipt
from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli
from tests.unit.cli.conftest import Outcome as Said

ACME = OrgId("acme")
COUNT = 600  # more than two hash tiles
PSEUDONYM = "per_7x0zagmFyNKuzwJK_re35R0i7cc"
MEMBER = "mem_0123456789abcdefghjk"
WITNESS = str(key_of("w.example/w", Ed25519PrivateKey.from_private_bytes(bytes(range(32)))))
LOG = "/admin/v1/orgs/acme/audit/log"
EXPORT = "/admin/v1/orgs/acme/audit/export"


@pytest.fixture(scope="module")
def log() -> tuple[list[bytes], Chain]:
    """Requests, a refused one of them every tenth, and a change every hundredth."""
    chain, made = Chain(), []
    for number in range(COUNT):
        if number % 100 == 0:
            change = Change(
                seq=number + 1, at=1_700_000_000 + number, org=ACME, action="key.write", target=f"=t{number}",
                actor=Actor(ACME, PSEUDONYM), detail={"why": "=1\n+2"},
            )  # fmt: skip
            fields = from_change(change).fields
        else:
            outcome = Outcome.REFUSED if number % 10 == 0 else Outcome.SERVED
            request = receipt(number, outcome=outcome, at_us=(1_700_000_000 + number) * 1_000_000)
            fields = from_receipt(request, "boot", number + 1).fields
        made.append(chain.seal(fields))
    return made, chain


@pytest.fixture
def logged(plane: ControlPlane, log: tuple[list[bytes], Chain]) -> ControlPlane:
    signer = Signer("gateway.example:8443", Ed25519PrivateKey.generate())
    plane.lines, plane.chain = [*log[0]], log[1].copy()
    plane.checkpoint = signer.checkpoint(ACME, COUNT, plane.chain.tree.root())
    plane.key = str(signer.key(ACME))
    plane.actors = {MEMBER: [PSEUDONYM], "system": ["system"]}
    return plane


def lines(logged: ControlPlane, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> list[bytes]:
    return [line + b"\n" for line in logged.lines if wanted(json.loads(line))]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "config")


def whole_file(folder: Path, name: str) -> bytes:
    """What is in it, after its sum was checked by another program and nothing else was found beside it."""
    assert left(folder) == [name, f"{name}.sha256"]
    subprocess.run(["sha256sum", "--check", "--strict", f"{name}.sha256"], cwd=folder, check=True)
    assert (folder / name).stat().st_mode & 0o777 == 0o600
    return (folder / name).read_bytes()


# -- files ------------------------------------------------------------------------------------------------------


def test_jsonl_is_the_log_byte_for_byte(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    said = signed_in("audit", "export", "log.jsonl", "--format", "jsonl", "-o", "json")
    content = whole_file(tmp_path, "log.jsonl")
    assert content == b"".join(lines(logged))
    assert json.loads(said.out) == {
        "path": "log.jsonl", "org": "acme", "format": "jsonl", "entries": COUNT,
        "sha256": sha256(content).hexdigest(),
    }  # fmt: skip
    assert "next: `sha256sum --check log.jsonl.sha256`" in said.err


@pytest.mark.parametrize(("form", "module"), [("ocsf", ocsf), ("cef", cef), ("syslog", rfc5424)])
def test_a_format_is_a_line_an_entry(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, form: str, module: Any
) -> None:
    more = ["--enterprise", "4711"] if form == "syslog" else []
    assert signed_in("audit", "export", "out", "--format", form, *more).code == 0
    ctx = Context(host="gateway.example", enterprise=4711)
    expected = [module.convert(json.loads(line), ctx=ctx) for line in logged.lines]
    assert whole_file(tmp_path, "out").split(b"\n") == [*expected, b""]


def test_csv_has_a_head_and_no_formulas(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    assert signed_in("audit", "export", "out.csv", "--format", "csv").code == 0
    content = whole_file(tmp_path, "out.csv")
    assert content.startswith(rfc4180.HEADER)
    rows = list(csv.DictReader(content.decode().splitlines(keepends=True)))
    assert [int(row["index"]) for row in rows] == list(range(COUNT))
    assert rows[0]["target"] == "'=t0"


def test_parquet_is_read_by_another_implementation(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    assert signed_in("audit", "export", "out.parquet", "--format", "parquet", "--outcome", "refused").code == 0
    whole_file(tmp_path, "out.parquet")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    refused = [json.loads(line) for line in lines(logged, lambda entry: entry.get("outcome") == "refused")]
    assert [row["_document_id"] for row in rows] == [entry["_document_id"] for entry in refused]
    assert [row["time"].timestamp() for row in rows] == [entry["@timestamp"] / 1000 for entry in refused]


def test_filters_and_times_narrow_it_down(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    times = ("--since", "2023-11-14T22:15:00Z", "--until", "2023-11-14T22:18:20Z")  # entries 100 to 299
    chosen = (
        "--outcome",
        "refused",
        "--action",
        "completion.create",
        "--model",
        "code",
        "--client",
        "orgate-editor",
    )
    assert signed_in("audit", "export", "out", "--format", "jsonl", *times, *chosen).code == 0
    found = [json.loads(line)["index"] for line in whole_file(tmp_path, "out").splitlines()]
    assert found == [n for n in range(100, 300) if n % 10 == 0 and n % 100 != 0]
    asked = logged.seen[-1].query
    assert (asked["after"], asked["end"], asked["since"]) == ("0", str(COUNT), "1700000100")


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "pack"])
def test_an_empty_log_is_exported_too(signed_in: Cli, plane: ControlPlane, tmp_path: Path, form: str) -> None:
    signer = Signer("gateway.example", Ed25519PrivateKey.generate())
    plane.checkpoint, plane.key = signer.checkpoint(ACME, 0, plane.chain.tree.root()), str(signer.key(ACME))
    said = signed_in("audit", "export", "empty", "--format", form, "-o", "json")
    assert (said.code, json.loads(said.out)["entries"]) == (0, 0)
    if form == "pack":
        assert verify_pack(tmp_path / "empty", plane.key).ok
    elif form == "parquet":
        assert pq.read_table(tmp_path / "empty").num_rows == 0
    else:
        assert whole_file(tmp_path, "empty") == (rfc4180.HEADER if form == "csv" else b"")


def test_a_log_that_grows_meanwhile_is_exported_as_it_was(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def growing(*given: Any) -> Any:
        more = from_receipt(receipt(COUNT), "boot", len(logged.lines) + 1).fields
        logged.lines.append(logged.chain.seal(more))
        return audit_transfer.entries(*given)

    monkeypatch.setattr("cli.audit_export.entries", growing)
    assert signed_in("audit", "export", "out", "--format", "jsonl").code == 0
    assert whole_file(tmp_path, "out") == b"".join(lines(logged)[:COUNT])
    assert signed_in("audit", "export", "pack").code == 0
    assert verify_pack(tmp_path / "pack", logged.key).ok


# -- packs ------------------------------------------------------------------------------------------------------


def test_a_pack_of_a_part_verifies_and_names_nobody(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    said = signed_in("audit", "export", "part", "--actor", MEMBER, "--since", "2023-11-14T22:13:21Z", "-o", "json")
    assert (said.code, json.loads(said.out)["entries"]) == (0, 5)
    assert "next: `orgate audit verify part`" in said.err
    assert verify_pack(tmp_path / "part", logged.key).ok
    manifest = (tmp_path / "part" / "manifest.json").read_bytes()
    assert json.loads(manifest)["filter"] == {"actor": PSEUDONYM, "since": 1_700_000_001}
    assert MEMBER.encode() not in manifest


def test_a_pack_of_nobody_is_refused(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    said = signed_in("audit", "export", "part", "--actor", "mem_zzzzzzzzzzzzzzzzzzzz")
    assert said.code == 1
    assert "nothing in the log of 'acme' is by mem_zzzzzzzzzzzzzzzzzzzz" in said.err
    assert left(tmp_path) == []


def test_a_witness_policy_goes_into_the_pack(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    assert signed_in("audit", "export", "without").code == 0
    assert not (tmp_path / "without" / "witnesses").exists()
    logged.policy = f"witness w {WITNESS}\nquorum w\n"
    assert signed_in("audit", "export", "servers").code == 0
    assert (tmp_path / "servers" / "witnesses").read_text() == logged.policy
    (tmp_path / "policy").write_text("quorum none\n")
    assert signed_in("audit", "export", "own", "--witnesses", "policy").code == 0
    assert (tmp_path / "own" / "witnesses").read_text() == "quorum none\n"
    (tmp_path / "policy").write_text("quorum everybody\n")
    said = signed_in("audit", "export", "another", "--witnesses", "policy")
    assert said.code == 2
    assert "--witnesses policy: line 1" in said.err
    assert signed_in("audit", "export", "another", "--witnesses", "absent").code == 2
    logged.policy = "quorum everybody\n"
    said = signed_in("audit", "export", "another")
    assert (said.code, "the server's policy of witnesses: line 1" in said.err) == (1, True)
    assert left(tmp_path) == ["own", "policy", "servers", "without"]


def test_what_is_past_its_retention_is_left_out(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    logged.begin = 400
    assert signed_in("audit", "export", "out", "--format", "jsonl").code == 0
    assert (tmp_path / "out").read_bytes() == b"".join(lines(logged)[400:])
    said = signed_in("audit", "export", "pack", "-o", "json")
    assert json.loads(said.out)["entries"] == COUNT - 400
    verdict = verify_pack(tmp_path / "pack", logged.key)
    assert (verdict.ok, verdict.start, verdict.end) == (True, 400, COUNT)


# -- what is there already ----------------------------------------------------------------------------------------


def test_nothing_is_ever_written_over(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "sum.sha256").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = left(tmp_path)
    for argv in (
        ("folder",), ("file",), ("dangling",), ("folder", "--format", "csv"), ("file", "--format", "csv"),
        ("sum", "--format", "csv"), ("dangling", "--format", "csv"),
    ):  # fmt: skip
        said = signed_in("audit", "export", *argv)
        assert said.code == 2, argv
        assert "exists" in said.err
    assert left(tmp_path) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("x", "--format", "xml"), "is none of pack, jsonl"),
        (("/",), "is no name"),
        (("..",), "exists"),
        (("a\nb", "--format", "csv"), "is no name"),
        (("no/where", "--format", "csv"), "no is no folder"),
        (("x", "--format", "csv", "--witnesses", "p"), "--witnesses is for a pack"),
        (("x", "--enterprise", "5"), "--enterprise is for syslog"),
        (("x", "--since", "2026-02-01", "--until", "2026-01-01"), "--until is not after --since"),
        (("x", "--resume"), "no pack in x that was cut off"),
        (("x", "--resume", "--format", "csv"), "no export to x that was cut off"),
    ],
)
def test_a_call_that_makes_no_sense_leaves_nothing(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, argv: tuple[str, ...], told: str
) -> None:
    said = signed_in("audit", "export", *argv)
    assert said.code == 2
    assert told in said.err
    assert left(tmp_path) == []


# -- cut off ------------------------------------------------------------------------------------------------------

EVERY = [(), ("--format", "csv"), ("--format", "parquet")]
FILTERED = [(), ("--format", "csv"), ("--outcome", "served"), ("--outcome", "served", "--format", "parquet")]


def same(folder: Path, one: str, other: str) -> bool:
    """Whether two exports hold the same, but for the time at which a pack was made."""
    if (folder / one).is_file():
        return (folder / one).read_bytes() == (folder / other).read_bytes()
    names = sorted(str(path.relative_to(folder / one)) for path in (folder / one).rglob("*"))
    assert names == sorted(str(path.relative_to(folder / other)) for path in (folder / other).rglob("*"))
    made = [json.loads((folder / name / "manifest.json").read_bytes()) for name in (one, other)]
    for manifest in made:
        del manifest["made_at"], manifest["digest"]
    return bool(made[0] == made[1])


@pytest.mark.parametrize("argv", FILTERED)
def test_a_connection_that_breaks_is_gone_on_with_by_itself(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    assert signed_in("audit", "export", "whole", *argv).code == 0
    logged.cuts = [40_000, 90_001, 700]
    said = signed_in("audit", "export", "broken", *argv)
    assert (said.code, logged.cuts) == (0, [])
    assert same(tmp_path, "whole", "broken")


@pytest.mark.parametrize("argv", FILTERED)
def test_what_was_cut_off_is_gone_on_with_when_asked(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    assert signed_in("audit", "export", "whole", *argv).code == 0
    logged.cuts = [100_000, 0]
    said = signed_in("audit", "export", "out", *argv)
    assert said.code == 4
    assert "go on with `orgate audit export out --resume`" in said.err
    assert not (tmp_path / "out").is_file()
    assert not (tmp_path / "out" / "manifest.json").exists()
    again = signed_in("audit", "export", "out", *argv)
    assert again.code == 2
    assert "--resume" in again.err
    read = len(logged.seen)
    assert signed_in("audit", "export", "out", *argv, "--resume").code == 0
    asked = [seen.query for seen in logged.seen[read:] if seen.path in (LOG, EXPORT)]
    assert int(asked[0].get("start", asked[0].get("after", 0))) > 50, "not from the beginning"
    assert same(tmp_path, "whole", "out")
    over = signed_in("audit", "export", "out", "--resume")
    assert over.code == 2
    assert "out is there, and whole" in over.err


def test_hashes_that_were_cut_off_are_gone_on_with(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    assert signed_in("audit", "export", "whole", "--outcome", "refused").code == 0
    everything = 10**9
    logged.cuts = [everything, 32 * 300 + 5, 0]
    assert signed_in("audit", "export", "out", "--outcome", "refused").code == 4
    assert signed_in("audit", "export", "out", "--resume").code == 0
    starts = [seen.query["start"] for seen in logged.seen if seen.path.endswith("/leaves")]
    assert starts[-1] == "256", "whole tiles are kept"
    assert same(tmp_path, "whole", "out")


def test_an_answer_that_ends_too_early_without_a_word_is_not_taken_for_whole(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path
) -> None:
    short = b"".join(lines(logged)[:5])
    for argv, place in (((), LOG), (("--outcome", "served"), EXPORT)):
        found = b"".join(lines(logged, lambda entry: entry.get("outcome") == "served")[:5]) if argv else short
        # Twice nothing: the first answer is gone on with, as it brought something.
        logged.script("GET", place, (200, found, {}), (200, b"", {}))
        for form in ("pack", "csv"):
            logged.script("GET", place, (200, found, {}), (200, b" \n" if argv else b"", {}))
            said = signed_in("audit", "export", f"out-{form}-{len(argv)}", "--format", form, *argv)
            assert said.code == 1
            assert "the server's answer ends before entry" in said.err
            logged.scripted.clear()
    assert not any(
        path.is_file() for path in tmp_path.glob("out-*") if path.suffix != ".part" and ".json" not in path.name
    )


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda found: [found[0], found[2]], "where 1 of 'acme' was due"),
        (lambda found: [found[0], found[0]], "where 1 of 'acme' was due"),
        (lambda found: [found[0].replace(b'"org":"acme"', b'"org":"evil"')], "of 'evil' where 0"),
        (lambda _: [b"<html>\n"], "is no entry"),
        (lambda _: [b'["index"]\n'], "is no entry"),
        (lambda _: [b'{"index":"../../etc/passwd","org":"acme"}\n'], "is no entry"),
        (lambda _: [b'{"index":0,"org":"' + b"a" * 70_000], "more than 65536 bytes"),
    ],
)
def test_what_is_not_the_log_is_not_written(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, spoil: Callable[[list[bytes]], list[bytes]], told: str
) -> None:
    logged.script("GET", LOG, (200, b"".join(spoil(lines(logged))), {}))
    said = signed_in("audit", "export", "out", "--format", "csv")
    assert said.code == 1
    assert told in said.err
    assert "out" not in left(tmp_path)


def test_who_may_not_is_told_and_nothing_is_left(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    for form in ("pack", "jsonl", "parquet"):
        logged.script("GET", LOG, (403, {"detail": "auditors only", "status": 403}, {}))
        assert signed_in("audit", "export", "out", "--format", form).code == 3
        assert left(tmp_path) == []


# -- interrupted, no room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", FILTERED)
def test_an_interrupt_says_how_to_go_on(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    assert signed_in("audit", "export", "whole", *argv).code == 0

    def interrupted(*given: Any) -> Any:
        for found in audit_transfer.entries(*given):
            yield found
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cli.audit_export.entries", interrupted)
        said = signed_in("audit", "export", "it's out", *argv)
    assert said.code == 130
    assert "interrupted after " in said.err
    assert """go on with `orgate audit export 'it'"'"'s out' --resume`""" in said.err
    assert signed_in("audit", "export", "it's out", "--resume").code == 0
    assert same(tmp_path, "whole", "it's out")


def test_an_interrupt_before_anything_came_leaves_nothing(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.audit_export.entries", interrupted)
    for form in ("pack", "csv"):
        said = signed_in("audit", "export", "out", "--format", form)
        assert (said.code, "export again" in said.err) == (130, True)
        assert left(tmp_path) == []


@pytest.mark.parametrize("argv", EVERY)
def test_a_full_disk_is_named_and_gone_on_from(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    assert signed_in("audit", "export", "whole", *argv).code == 0
    room = 100_000
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        nonlocal room
        if len(data) < 10_000:  # not the lines
            return real(descriptor, data)
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(descriptor, bytes(data)[:room])
        room -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        said = signed_in("audit", "export", "out", *argv)
    assert said.code == 1
    assert "no room is left on the disk" in said.err
    assert "go on with `orgate audit export out --resume`" in said.err
    assert signed_in("audit", "export", "out", "--resume").code == 0
    assert same(tmp_path, "whole", "out")


def test_a_disk_that_is_full_while_parquet_is_made_keeps_what_came(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.audit.formats import parquet

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write", full)
        assert signed_in("audit", "export", "out", "--format", "parquet").code == 1
    assert left(tmp_path) == ["out.part", "out.part.json"]
    asked = len(logged.seen)
    assert signed_in("audit", "export", "out", "--resume").code == 0
    assert not any(seen.path == LOG for seen in logged.seen[asked:]), "all of it had come"
    whole_file(tmp_path, "out")


# -- resumed otherwise --------------------------------------------------------------------------------------------


@pytest.fixture
def cut(signed_in: Cli, logged: ControlPlane) -> Callable[..., Said]:
    def begin(*argv: str) -> Said:
        logged.cuts = [100_000, 0]
        said = signed_in("audit", "export", "out", *argv)
        assert said.code == 4
        return said

    return begin


def test_a_killed_writer_loses_what_was_not_saved_and_no_more(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, cut: Callable[..., Said]
) -> None:
    """kill -9 leaves a part that is longer than its state says, and ends within a line."""
    cut("--format", "csv")
    with (tmp_path / "out.part").open("ab") as file:
        file.write(b"7,2023-11-14T22:13:27.000Z,half a li")
    assert signed_in("audit", "export", "out", "--resume").code == 0
    assert signed_in("audit", "export", "whole", "--format", "csv").code == 0
    assert same(tmp_path, "out", "whole")


def test_a_pack_that_was_killed_within_a_line_is_gone_on_with(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, cut: Callable[..., Said]
) -> None:
    cut()
    with (tmp_path / "out" / "entries.jsonl").open("ab") as file:
        file.write(b'{"half')
    assert signed_in("audit", "export", "out", "--resume").code == 0
    assert verify_pack(tmp_path / "out", logged.key).ok


def test_a_pack_whose_plan_is_lost_is_begun_anew(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, cut: Callable[..., Said]
) -> None:
    cut()
    (tmp_path / "out" / PLAN).write_bytes(b'{"org":"acme"}')
    said = signed_in("audit", "export", "out", "--resume")
    assert (said.code, "remove out, and export again" in said.err) == (1, True)
    assert "go on with" not in said.err


def test_a_place_that_cannot_be_written_to_is_named(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = signed_in("audit", "export", "file/pack")
    assert said.code == 1
    assert "file/pack: Not a directory" in said.err
    assert left(tmp_path) == ["file"]


def test_another_filter_organization_or_format_is_not_mixed_in(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, cut: Callable[..., Said]
) -> None:
    cut("--format", "csv", "--outcome", "served", "--since", "9999d")
    part = (tmp_path / "out.part").read_bytes()
    for argv in (
        ("--outcome", "refused"), ("--model", "code"), ("--format", "cef"), ("--org", "globex"),
        ("--since", "2020-01-01"), ("--until", "2030-01-01"),
    ):  # fmt: skip
        said = signed_in("audit", "export", "out", "--resume", *argv)
        assert said.code == 2, argv
    assert (tmp_path / "out.part").read_bytes() == part
    # The same words again, a time that was told from now with them: it stays what it was.
    said = signed_in(
        "audit", "export", "out", "--resume", "--format", "csv", "--outcome", "served", "--since", "2d"
    )
    assert said.code == 0


def test_a_packs_filter_is_not_mixed_either(signed_in: Cli, logged: ControlPlane, tmp_path: Path) -> None:
    logged.cuts = [3_000, 0]
    assert signed_in("audit", "export", "out", "--actor", MEMBER).code == 4
    assert signed_in("audit", "export", "out", "--resume", "--actor", "system").code == 2
    assert signed_in("audit", "export", "out", "--resume", "--action", "key.write").code == 2
    assert signed_in("audit", "export", "out", "--resume", "--actor", MEMBER).code == 0
    assert verify_pack(tmp_path / "out", logged.key).ok


def test_two_do_not_write_one_file(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, cut: Callable[..., Said]
) -> None:
    cut("--format", "csv")
    with audit_part.Part.resume(tmp_path / "out"):
        said = signed_in("audit", "export", "out", "--resume")
    assert said.code == 2
    assert "another export is writing" in said.err


@pytest.mark.parametrize("state", [b"", b'{"org": 1}', None])
def test_a_part_whose_state_is_lost_is_begun_anew(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, cut: Callable[..., Said], state: bytes | None
) -> None:
    cut("--format", "csv")
    if state is None:
        (tmp_path / "out.part.json").unlink()
    else:
        (tmp_path / "out.part.json").write_bytes(state)
    said = signed_in("audit", "export", "out", "--resume")
    assert (said.code, "remove out.part" in said.err) == (1, True)
    assert "go on with" not in said.err


def test_a_part_that_lost_bytes_is_begun_anew(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, cut: Callable[..., Said]
) -> None:
    cut("--format", "csv")
    os.truncate(tmp_path / "out.part", 10)
    said = signed_in("audit", "export", "out", "--resume")
    assert said.code == 1
    assert "is shorter than it was" in said.err


# -- what leads elsewhere -----------------------------------------------------------------------------------------


def test_links_are_not_followed(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, cut: Callable[..., Said]
) -> None:
    """Somebody who may write in the folder puts a link where the export goes on: nothing behind it changes."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    cut("--format", "csv")
    (tmp_path / "out.part").unlink()
    (tmp_path / "out.part").symlink_to(elsewhere)
    assert signed_in("audit", "export", "out", "--resume").code == 1
    (tmp_path / "out.part").unlink()
    (tmp_path / "out.part.json").unlink()
    cut()
    (tmp_path / "out" / "entries.jsonl").unlink()
    (tmp_path / "out" / "entries.jsonl").symlink_to(elsewhere)
    said = signed_in("audit", "export", "out", "--resume")
    assert said.code == 1
    assert "is a link" in said.err
    (tmp_path / "out" / "entries.jsonl").unlink()
    (tmp_path / "out" / "tile").symlink_to(tmp_path)
    assert signed_in("audit", "export", "out", "--resume").code == 1
    assert elsewhere.read_bytes() == b"precious"
    assert left(tmp_path) == ["elsewhere", "out"]


def test_a_folder_that_is_a_link_is_not_written_into(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, cut: Callable[..., Said]
) -> None:
    cut()
    (tmp_path / "out").rename(tmp_path / "real")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    assert signed_in("audit", "export", "out", "--resume").code == 1
    assert PackWriter.unfinished(tmp_path / "real")
    assert (tmp_path / "real" / PLAN).is_file()


def test_a_format_without_its_library_says_so_before_anything_is_downloaded(
    signed_in: Cli, logged: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError("No module named 'arro3'", name="arro3.core")

    monkeypatch.setattr(audit_export, "import_module", absent)
    said = signed_in("audit", "export", "out", "--format", "parquet")
    assert said.code == 1
    assert "parquet needs a library that is not installed: arro3.core" in said.err
    assert logged.seen == []
    assert left(tmp_path) == []
