"""The CLI in this process, against a control plane on loopback."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from msgspec import Struct

from cli.credentials import CredentialStore, Login
from cli.main import _load, main
from cli.profiles import Profile, ProfileStore
from gateway.install import initialize
from tests.fakes.control_plane import ControlPlane, serving


@pytest.fixture(scope="package", autouse=True)
def commands_are_made_once() -> Iterator[None]:
    """A run of `orgate` makes the commands of one group. Here thousands run in one process: of a group made once,
    as nothing of a run is kept in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cli.main._load", cache(_load))
        yield


@pytest.fixture(scope="package")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `orgate init` leaves, made once: to be copied, never changed."""
    folder = tmp_path_factory.mktemp("installed") / "home"
    initialize(folder, operator_email="ops@orgate.test", org="acme", owner_email="ann@acme.test")
    return folder


class Outcome(Struct, frozen=True):
    code: int
    out: str
    err: str


class Cli:
    """Runs commands as `orgate` would; `folder` is its configuration."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._capsys = capsys
        self._patch = patch
        self.credentials = CredentialStore(folder)
        self.profiles = ProfileStore(folder)

    def __call__(self, *argv: str, stdin: str = "") -> Outcome:
        source = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
        self._patch.setattr("sys.stdin", source)
        return self.run(*argv)

    def run(self, *argv: str) -> Outcome:
        """The same with the stdin that the test made."""
        self._capsys.readouterr()
        code = main(list(argv))
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err
        return Outcome(code, said.out, said.err)

    def sign_in(self, plane: ControlPlane, *, org: str = "acme") -> None:
        """A profile and a login at `plane`, as `orgate login` leaves them."""
        self.profiles.save("default", Profile(plane.origin, plane.origin, org=org, resource=plane.origin))
        self.credentials.save("default", Login(refresh_token=plane.sign_in(org), org=org))


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    folder = tmp_path / "config"
    for name in ("ORGATE_ORG", "ORGATE_PROFILE", "ORGATE_OUTPUT", "ORGATE_SETTINGS", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORGATE_CONFIG_DIR", str(folder))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return Cli(folder, capsys, monkeypatch)


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with serving() as running:
        yield running


@pytest.fixture
def signed_in(cli: Cli, plane: ControlPlane) -> Cli:
    cli.sign_in(plane)
    return cli


@pytest.fixture
def now() -> float:
    return time.time()
