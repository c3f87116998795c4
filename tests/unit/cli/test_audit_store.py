"""`orgate audit hold` and `orgate audit copy`."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.files import FileLogs
from gateway.audit.orglog import OrgLog
from gateway.audit.signer import Signer, load_signer
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.sealed import SealedFile
from tests.fakes.audit import ACME
from tests.fakes.control_plane import ControlPlane
from tests.fakes.s3 import KEY_ID, SECRET, fake_s3
from tests.kit.postgres import empty_database
from tests.unit.audit.test_files import drafts
from tests.unit.cli.conftest import Cli


def asked(plane: ControlPlane) -> list[tuple[str, str]]:
    return [(seen.method, seen.path) for seen in plane.seen if seen.path.endswith("/audit/hold")]


def test_a_hold_is_set_and_cleared(signed_in: Cli, plane: ControlPlane) -> None:
    said = signed_in("audit", "hold", "set", "--reason", "case 2026-114", "--org", "acme")
    assert said.code == 0, said.err
    assert "is held: case 2026-114" in said.err + said.out
    said = signed_in("audit", "hold", "clear", "--yes", "--org", "acme")
    assert said.code == 0, said.err
    path = "/admin/v1/orgs/acme/audit/hold"
    assert asked(plane) == [("PUT", path), ("DELETE", path)]


def test_what_is_kept_is_shown(signed_in: Cli, plane: ControlPlane) -> None:
    said = signed_in("audit", "hold", "show", "--org", "acme", "--output", "json")
    assert {"hold", "retention_days", "begin", "size"} <= set(json.loads(said.out))


def test_a_dry_run_sets_nothing(signed_in: Cli, plane: ControlPlane) -> None:
    said = signed_in("audit", "hold", "set", "--reason", "x", "--org", "acme", "--dry-run")
    assert said.code == 0, said.err
    assert asked(plane) == []


# -- copy -----------------------------------------------------------------------------------------------------


@pytest.fixture
def home(installed: Path, tmp_path: Path) -> Iterator[Path]:
    folder = shutil.copytree(installed, tmp_path / "home")
    with fake_s3() as s3:
        for name, text in (("pg.dsn", empty_database().dsn), ("s3.key", f"{KEY_ID}:{SECRET}")):
            (folder / name).write_text(text)
            (folder / name).chmod(0o600)
        settings = folder / "orgate.toml"
        more = f'[audit]\ndsn = "pg.dsn"\nbucket = "audit"\nendpoint = "{s3.url}"\ns3_key = "s3.key"\n'
        settings.write_text(settings.read_text().replace("[audit]\n", more))
        yield folder


def signer(home: Path) -> Signer:
    sealed = SealedFile(home / "secrets.sealed", read_master_key("master.key", home))
    return asyncio.run(load_signer("127.0.0.1:8443", sealed))


def fill(home: Path, count: int = 50, *, sign: bool = True) -> str:
    stores = FileLogs(home / "audit")
    log = OrgLog(stores.open(ACME), ACME, signer(home))
    log.append(drafts(*range(1, count + 1)))
    note = log.save_checkpoint() if sign else ""
    log.close()
    stores.close()
    return note


def copy(cli: Cli, home: Path, source: str, target: str, *more: str) -> Any:
    settings = str(home / "orgate.toml")
    return cli("audit", "copy", "--from", source, "--to", target, "--settings", settings, "-o", "json", *more)


def test_logs_go_over_and_back(cli: Cli, home: Path) -> None:
    note = fill(home)
    said = copy(cli, home, "files", "postgres+s3")
    assert said.code == 0, said.err
    assert json.loads(said.out) == [{"org": "acme", "entries": 50, "copied": 50}]
    assert 'next: store = "postgres+s3" under [audit]' in said.err
    assert json.loads(copy(cli, home, "files", "postgres+s3").out)[0]["copied"] == 0
    (home / "audit").rename(home / "old")
    said = copy(cli, home, "postgres+s3", "files", "--org", "acme")
    assert said.code == 0, said.err
    assert (home / "audit/orgs/acme/checkpoint").read_text() == note
    assert SECRET not in said.out + said.err


def test_another_organization_is_left_out(cli: Cli, home: Path) -> None:
    fill(home)
    assert json.loads(copy(cli, home, "files", "postgres+s3", "--org", "globex").out) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda home: fill(home, 60, sign=False), "60 entries, and 50 are signed"),
        (lambda home: (home / "pg.dsn").chmod(0o644), "chmod 600"),
        (lambda home: (home / "pg.dsn").unlink(), "there is no file"),
        (lambda home: (home / "pg.dsn").write_text("host=/nowhere user=x password=hunter2"), "PostgreSQL"),
        (lambda home: (home / "s3.key").write_text("WRONG:hunter2"), "InvalidAccessKeyId"),
        (lambda home: (home / "audit/orgs/acme/log-00000000.jsonl").write_bytes(b"x\n"), "damaged"),
    ],
)
def test_what_stands_in_the_way_is_said(cli: Cli, home: Path, change: Any, says: str) -> None:
    fill(home)
    change(home)
    said = copy(cli, home, "files", "postgres+s3")
    assert said.code == 1, said.out
    assert says in said.err
    assert "hunter2" not in said.err
    assert "Traceback" not in said.err


def test_a_key_that_is_not_the_logs_is_refused(cli: Cli, home: Path) -> None:
    fill(home)
    assert copy(cli, home, "files", "postgres+s3", "--key", "nonsense").code == 2
    said = copy(cli, home, "files", "postgres+s3", "--key", str(signer(home).key(ACME)))
    assert said.code == 0, said.err


def test_from_and_to_are_two_stores(cli: Cli, home: Path) -> None:
    assert copy(cli, home, "files", "files").code == 2
    assert copy(cli, home, "files", "tape").code == 2


# -- doctor ---------------------------------------------------------------------------------------------------


def test_doctor_looks_at_both_halves(cli: Cli, home: Path) -> None:
    settings = home / "orgate.toml"
    settings.write_text(settings.read_text().replace("[audit]\n", '[audit]\nstore = "postgres+s3"\n'))

    def found() -> dict[str, tuple[str, str]]:
        rows = json.loads(cli("doctor", "--settings", str(settings), "-o", "json").out)
        return {row["check"]: (row["result"], row["seen"]) for row in rows if row["check"].startswith("audit ")}

    assert found()["audit head"] == ("ok", "PostgreSQL answers (pg.dsn)")
    assert found()["audit objects"] == ("ok", "bucket audit locks")
    (home / "s3.key").write_text("WRONG:hunter2")
    (home / "pg.dsn").write_text("host=db.example password=hunter2")
    assert found()["audit head"][0] == found()["audit objects"][0] == "failed"
    assert "hunter2" not in repr(found())
