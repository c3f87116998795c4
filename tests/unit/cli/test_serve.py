"""Which settings file is meant, and what `doctor` finds in installations that are broken in one place each."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.doctor import FAILED, OK, WARNING, examine
from cli.serve import settings_file
from gateway.pki import write_development_tls
from gateway.secret import Secret
from gateway.secrets.masterkey import create_master_key, read_master_key
from gateway.secrets.sealed import SealedFile
from tests.unit.cli.conftest import Cli


@pytest.fixture
def home(tmp_path: Path, unused_ports: tuple[int, int]) -> Path:
    folder = tmp_path / "server"
    folder.mkdir()
    write_development_tls(folder / "tls", ["127.0.0.1"])
    create_master_key(folder / "master.key")
    sealed = SealedFile(folder / "secrets.sealed", read_master_key("master.key", folder))
    asyncio.run(sealed.store("signing/current", Secret("x")))
    with sqlite3.connect(folder / "control.db") as database:
        database.execute("CREATE TABLE orgs (id TEXT)")
    database.close()
    public, admin = unused_ports
    (folder / "orgate.toml").write_text(
        f'[server]\nurl = "https://127.0.0.1:{public}"\nadmin_url = "https://127.0.0.1:{admin}"\n'
        f"[public]\nport = {public}\n[admin]\nport = {admin}\n"
    )
    return folder


@pytest.fixture
def unused_ports() -> tuple[int, int]:
    import socket

    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def test_a_sound_installation_passes(cli: Cli, home: Path) -> None:
    said = cli("doctor", "--settings", str(home / "orgate.toml"), "-o", "json")
    assert said.code == 0, said.out
    assert {row["result"] for row in json.loads(said.out)} == {OK}


def _open_key(home: Path) -> None:
    (home / "master.key").chmod(0o640)


def _other_key(home: Path) -> None:
    (home / "master.key").unlink()
    create_master_key(home / "master.key")


def _no_database(home: Path) -> None:
    (home / "control.db").unlink()


def _damaged_database(home: Path) -> None:
    (home / "control.db").write_bytes(b"not a database" * 100)


def _open_tls_key(home: Path) -> None:
    (home / "tls/server.key").chmod(0o644)


def _foreign_tls_key(home: Path) -> None:
    (home / "tls/server.key").write_bytes((home / "tls/ca.key").read_bytes())


def _no_certificate(home: Path) -> None:
    (home / "tls/server.pem").unlink()


@pytest.mark.parametrize(
    ("break_it", "check", "says"),
    [
        (_open_key, "master key", "0640"),
        (_other_key, "secret store", "does not fit"),
        (_no_database, "database", "does not exist"),
        (_damaged_database, "database", "not a database"),
        (_open_tls_key, "public certificate", "others"),
        (_foreign_tls_key, "admin certificate", "another certificate"),
        (_no_certificate, "public certificate", "No such file"),
    ],
)
def test_each_fault_is_found_named_and_given_a_remedy(
    cli: Cli, home: Path, break_it: Callable[[Path], None], check: str, says: str
) -> None:
    break_it(home)
    said = cli("doctor", "--settings", str(home / "orgate.toml"), "-o", "json")
    assert said.code == 1
    row = next(row for row in json.loads(said.out) if row["check"] == check)
    assert row["result"] == FAILED
    assert says in row["seen"]
    assert row["fix"]


def test_certificates_that_end_soon_or_have_ended(home: Path) -> None:
    def at(days: float) -> set[str]:
        moment = datetime.now(UTC) + timedelta(days=days)
        return {f.result for f in examine(home / "orgate.toml", now=lambda: moment) if "certificate" in f.check}

    assert at(0) == {OK}
    lifetime = bisect_left(range(4_000), True, key=lambda days: FAILED in at(days))
    assert 1 < lifetime < 4_000
    assert at(lifetime - 1) == at(lifetime - 10) == {WARNING}


def test_a_port_that_somebody_else_holds(cli: Cli, home: Path, unused_ports: tuple[int, int]) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", unused_ports[0]))
        said = cli("doctor", "--settings", str(home / "orgate.toml"), "-o", "json")
    row = next(row for row in json.loads(said.out) if row["check"] == "public port")
    assert (said.code, row["result"]) == (1, FAILED)


def test_which_settings_file(cli: Cli, tmp_path: Path) -> None:
    assert settings_file(Path("x.toml")) == Path("x.toml")
    assert settings_file(None) == cli.folder / "server" / "orgate.toml"
    (tmp_path / "orgate.toml").touch()
    assert settings_file(None) == Path("orgate.toml")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--operator-email", "x", "--owner-email", "a@b.example", "--org", "acme"), "--operator-email"),
        (("--operator-email", "o@b.example", "--owner-email", "a@b.example"), "--org"),
        (("--operator-email", "o@b.example", "--owner-email", "a@b.example", "--org", "A B"), "lower-case"),
        (("--operator-email", "o@b.example", "--owner-email", "a@b.example", "--org", "platform"), "operators"),
        (("--operator-email", "o@b.example", "--owner-email", "a@b.example", "--org", "acme",
          "--public-port", "9000", "--admin-port", "9000"), "same"),
        (("--owner-email", "a@b.example"), "--operator-email"),
    ],
)  # fmt: skip
def test_wrong_usage_of_init_writes_nothing(cli: Cli, tmp_path: Path, argv: tuple[str, ...], says: str) -> None:
    said = cli("init", "--home", str(tmp_path / "new"), *argv)
    assert said.code == 2
    assert says in said.err
    assert not (tmp_path / "new").exists()


def test_init_writes_what_doctor_accepts_and_refuses_to_do_it_twice(cli: Cli, tmp_path: Path) -> None:
    argv = ["init", "--home", str(tmp_path / "new"), "--operator-email", "o@b.example"]
    argv += ["--org", "acme", "--owner-email", "a@b.example", "--public-port", "18643", "--admin-port", "18644"]
    made = json.loads(cli(*argv, "-o", "json").out)
    assert [(person["org"], person["role"]) for person in made["people"]] == [
        ("platform", "operator"),
        ("acme", "owner"),
    ]
    assert all(finding.result == OK for finding in examine(Path(made["settings"])) if "port" not in finding.check)
    again = cli(*argv)
    assert again.code == 1
    assert "--force" in again.err
