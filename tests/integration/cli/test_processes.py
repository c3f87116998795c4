"""The CLI as processes: eight at once that need a token, a pipe that closes, arguments that hold no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.credentials import CredentialStore, Login
from cli.profiles import Profile, ProfileStore
from tests.fakes.control_plane import ControlPlane, serving

ORGATE = [sys.executable, "-m", "cli.main"]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with serving() as running:
        yield running


@pytest.fixture
def environment(plane: ControlPlane, tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "config"
    ProfileStore(folder).save("default", Profile(plane.origin, plane.origin, org="acme"))
    CredentialStore(folder).save("default", Login(refresh_token=plane.sign_in(), org="acme"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORGATE_")}
    return {**kept, "ORGATE_CONFIG_DIR": str(folder), "PYTHONPATH": str(ROOT)}


def _start(argv: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ORGATE, *argv],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_eight_processes_that_need_a_token_refresh_once(plane: ControlPlane, environment: dict[str, str]) -> None:
    running = [_start(["token"], environment) for _ in range(8)]
    said = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * 8, said
    assert len({out for out, _ in said}) == 1
    assert plane.refreshes == 1
    assert plane.misuses == 0


def test_killed_while_holding_the_lock_leaves_the_next_one_free(
    plane: ControlPlane, environment: dict[str, str]
) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from cli.credentials import CredentialStore\n"
            "with CredentialStore(Path(sys.argv[1])).lock('default'):\n"
            "    print('held', flush=True); sys.stdin.read()",
            environment["ORGATE_CONFIG_DIR"],
        ],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiting = _start(["token"], environment)
    holder.kill()
    holder.communicate()
    waiting.communicate()
    assert waiting.returncode == 0
    assert plane.refreshes == 1


def test_a_pipe_that_closes_early_is_no_traceback(plane: ControlPlane, environment: dict[str, str]) -> None:
    for number in range(50):
        plane.put("acme", "models", f"m{number}", upstream="u", model="x" * 4000, tasks=[])
    process = _start(["model", "list", "-o", "json"], environment)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdout = None
    said = process.stderr.read()
    process.communicate()
    assert "Traceback" not in said
    assert "Exception ignored" not in said


def test_a_key_is_in_no_argument_and_no_output(plane: ControlPlane, environment: dict[str, str]) -> None:
    plane.put("acme", "upstreams", "u", base_url="https://u.example")
    process = _start(["--verbose", "key", "set", "u"], environment)
    arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    out, err = process.communicate("sk-planted\n")
    assert process.returncode == 0, err
    assert b"sk-planted" not in arguments
    assert "sk-planted" not in out + err
    assert plane.keys["acme", "u"] == (1, "sk-planted")


def test_the_exit_code_of_the_process_is_the_commands(environment: dict[str, str]) -> None:
    for argv, code in ((["--help"], 0), (["model"], 2), (["model", "show", "none"], 1), (["nonsense"], 2)):
        process = _start(argv, environment)
        _, err = process.communicate()
        assert (process.returncode, "Traceback" in err) == (code, False)


def test_json_in_a_pipe_is_one_document(environment: dict[str, str]) -> None:
    process = _start(["whoami", "--output", "json"], environment)
    out, _ = process.communicate()
    assert json.loads(out)["org"] == "acme"


def test_without_a_terminal_a_password_is_not_read_aloud(plane: ControlPlane, environment: dict[str, str]) -> None:
    login = ["login", "--server", plane.origin, "--org", "acme", "--email", "ann@acme.example"]
    ran = subprocess.run(
        [*ORGATE, *login],
        env=environment,
        input="secret\n",
        capture_output=True,
        text=True,
        start_new_session=True,  # no controlling terminal, wherever the tests run
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == ("orgate: there is no terminal to type a password at\n  → add `--password-stdin`\n")
