"""What goes wrong: its exit code, what it says, what it tells the person to do. Never a traceback."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from cli.profiles import Profile
from gateway.pki import issue_server_certificate, make_ca
from tests.fakes.control_plane import ControlPlane, serving
from tests.fakes.plane_answers import Answer
from tests.unit.cli.conftest import Cli

PROBLEM = {"content-type": "application/problem+json"}


def _problem(status: int, **more: object) -> Answer:
    return status, {"type": "about:blank", "title": "No", "status": status, "detail": "because", **more}, PROBLEM


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (400, 1, "because"),
        (403, 3, "orgate whoami"),
        (404, 1, "does not exist"),
        (409, 1, "because"),
        (429, 1, "wait a moment"),
        (500, 1, "req_9"),
        (503, 1, "because"),
    ],
)
def test_each_status_has_its_exit_code_and_words(
    signed_in: Cli, plane: ControlPlane, status: int, code: int, says: str
) -> None:
    plane.script("GET", "/admin/v1/orgs/acme/models/code", _problem(status, request_id="req_9"))
    said = signed_in("model", "show", "code")
    assert said.code == code
    assert says in said.err
    assert said.out == ""


def test_one_too_many_is_said_in_the_servers_words(signed_in: Cli, plane: ControlPlane) -> None:
    refused = _problem(409, type="urn:orgate:problem:too-many", detail="12 are the most: delete one first")
    plane.script("POST", "/admin/v1/orgs/acme/limits", refused)
    said = signed_in("limit", "set", "x", "--scope", "org", "--unit", "requests", "--amount", "9")
    assert (said.code, said.err) == (1, "orgate: limit 'x' was refused: 12 are the most: delete one first\n")


def test_an_output_that_is_full_is_one_line_and_exit_code_1() -> None:
    with open("/dev/full", "wb") as full:
        said = subprocess.run(
            [sys.executable, "-m", "cli.main", "--version"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert said.returncode == 1
    assert said.stderr.decode() == "orgate: the output cannot be written: No space left on device\n"


def test_in_a_suspended_organization_no_role_is_asked_for(signed_in: Cli, plane: ControlPlane) -> None:
    refused = _problem(403, detail="organization 'acme' is suspended")
    plane.script("GET", "/admin/v1/orgs/acme/models/code", refused)
    said = signed_in("model", "show", "code")
    assert said.code == 3
    assert "operators" in said.err
    assert "role" not in said.err


def test_422_names_each_field(signed_in: Cli, plane: ControlPlane) -> None:
    faults = [
        {"field": "base_url", "message": "leads to a private network"},
        {"field": "name", "message": "is too long"},
        {"field": "", "message": "serves nothing"},
    ]
    plane.script("POST", "/admin/v1/orgs/acme/upstreams", _problem(422, errors=faults))
    said = signed_in("upstream", "create", "u", "--url", "https://10.0.0.1")
    assert said.code == 1
    assert "base_url: leads to a private network" in said.err
    assert "name: is too long" in said.err
    assert "\n  serves nothing" in said.err


def test_401_renews_the_token_once_and_then_asks_for_a_login(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", "/admin/v1/me", _problem(401))
    assert signed_in("whoami").code == 0
    assert plane.refreshes == 2
    plane.script("GET", "/admin/v1/me", _problem(401), _problem(401))
    said = signed_in("whoami")
    assert said.code == 3
    assert "orgate login" in said.err


def test_not_signed_in(cli: Cli, plane: ControlPlane) -> None:
    cli.profiles.save("default", Profile(plane.origin, plane.origin, org="acme"))
    said = cli("model", "list")
    assert said.code == 3
    assert "orgate login" in said.err


@pytest.mark.parametrize(
    "argv",
    [("audit", "tail"), ("audit", "export", "p"), ("model", "create", "c", "--upstream", "u", "--model", "m")],
)
def test_not_signed_in_comes_before_the_organization(cli: Cli, argv: tuple[str, ...]) -> None:
    said = cli(*argv)
    assert said.code == 3
    assert "not signed in" in said.err
    assert "orgate login" in said.err


@pytest.mark.parametrize(
    "argv",
    [("model", "list"), ("audit", "tail"), ("audit", "export", "p")],
)
def test_an_organization_that_is_not_yours_is_named(
    signed_in: Cli, plane: ControlPlane, argv: tuple[str, ...]
) -> None:
    for path in ("models", "audit/checkpoint"):
        plane.script("GET", f"/admin/v1/orgs/globex/{path}", _problem(404))
    said = signed_in("--org", "globex", *argv)
    assert said.code == 1
    assert "organization 'globex' does not exist, or is not yours to see" in said.err


@pytest.mark.parametrize(
    ("kind", "advice"),
    [("in-use", "what needs it"), ("already-exists", "another name"), ("busy", "")],
)
def test_a_conflict_says_what_to_do(signed_in: Cli, plane: ControlPlane, kind: str, advice: str) -> None:
    answer = _problem(409, type=f"urn:orgate:problem:{kind}")
    plane.script("POST", "/admin/v1/orgs/acme/models", answer)
    plane.put("acme", "models", "code", upstream="u", model="m")
    plane.script("DELETE", "/admin/v1/orgs/acme/models/code", answer)
    for argv in (
        ("model", "create", "code", "--upstream", "u", "--model", "m"),
        ("model", "delete", "code", "--yes"),
    ):
        said = signed_in(*argv)
        assert said.code == 1
        assert "model 'code' was refused: because" in said.err
        assert advice in said.err
        assert ("→" in said.err) is bool(advice)


def test_a_refusal_of_no_words_ends_without_a_colon(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", "/admin/v1/orgs/acme/models/code", _problem(400, title="", detail=""))
    assert signed_in("model", "show", "code").err == "orgate: model 'code' was refused\n"


@pytest.mark.parametrize(
    ("status", "header", "says"),
    [
        (503, "7", "try again in 7 s"),
        (429, "30", "try again in 30 s"),
        (503, "", "the server's log"),
        (503, "Fri, 31 Dec 1999 23:59:59 GMT", "the server's log"),
        (429, "-1", "wait a moment"),
        (500, "7", "the server's log"),
    ],
)
def test_when_to_try_again_is_told_as_the_server_told_it(
    signed_in: Cli, plane: ControlPlane, status: int, header: str, says: str
) -> None:
    answer, body, headers = _problem(status, request_id="req_9")
    plane.script("GET", "/admin/v1/orgs/acme/models/code", (answer, body, {**headers, "retry-after": header}))
    said = signed_in("model", "show", "code")
    assert said.code == 1
    assert says in said.err


def test_an_ended_login_is_forgotten_and_not_tried_twice(signed_in: Cli, plane: ControlPlane) -> None:
    plane.families[0].alive = False
    said = signed_in("whoami")
    assert said.code == 3
    assert "orgate login" in said.err
    assert signed_in("whoami").code == 3
    assert plane.refreshes == 1


def test_a_dead_server_says_its_address_and_asks_whether_it_runs(cli: Cli) -> None:
    address = f"https://127.0.0.1:{_free_port()}"
    said = cli("login", "--server", address, "--org", "acme")
    assert said.code == 4
    assert address in said.err
    assert "orgate serve" in said.err


def test_an_unknown_host(cli: Cli) -> None:
    assert cli("login", "--server", "https://gateway.invalid", "--org", "acme").code == 4


def test_a_server_that_hangs_up(cli: Cli) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        import threading

        def hang_up() -> None:
            peer, _ = listener.accept()
            peer.recv(65536)
            peer.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        said = cli("login", "--server", f"http://127.0.0.1:{port}", "--org", "acme")
        thread.join()
    assert said.code == 4
    assert "broke off" in said.err
    assert f"https://127.0.0.1:{port}" in said.err


def _tls(folder: Path) -> tuple[ssl.SSLContext, Path]:
    authority = make_ca()
    issued = issue_server_certificate(authority, ["127.0.0.1"])
    (folder / "ca.pem").write_bytes(authority.certificate_pem())
    (folder / "server.pem").write_bytes(issued.certificate_pem())
    (folder / "server.key").write_bytes(issued.key_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context, folder / "ca.pem"


def test_an_untrusted_certificate_points_at_ca_and_the_ca_makes_it_work(cli: Cli, tmp_path: Path) -> None:
    context, ca = _tls(tmp_path)
    with serving(context) as plane:
        argv = ("login", "--server", plane.origin, "--admin-url", plane.origin, "--org", "acme")
        who = ("--email", "ann@acme.example", "--password-stdin")
        refused = cli(*argv, *who, stdin="correct horse\n")
        assert refused.code == 4
        assert "--ca" in refused.err
        assert plane.seen == []
        assert cli(*argv, *who, "--ca", str(ca), stdin="correct horse\n").code == 0
        assert cli("whoami", "--output", "json").code == 0


def test_a_missing_or_broken_ca_file(cli: Cli, tmp_path: Path) -> None:
    said = cli("login", "--server", "https://127.0.0.1:1", "--org", "acme", "--ca", str(tmp_path / "none.pem"))
    assert said.code == 2
    assert "none.pem" in said.err
    (tmp_path / "bad.pem").write_text("not a certificate")
    assert (
        cli("login", "--server", "https://127.0.0.1:1", "--org", "acme", "--ca", str(tmp_path / "bad.pem")).code
        == 2
    )


def test_an_answer_that_is_not_orgates(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("GET", "/admin/v1/orgs/acme/models", (200, "<html>proxy</html>", {"content-type": "text/html"}))
    said = signed_in("model", "list")
    assert said.code == 1
    assert "cannot be understood" in said.err
    plane.script("GET", "/admin/v1/orgs/acme/models", (502, "<html>proxy</html>", {"content-type": "text/html"}))
    assert "proxy in between" in signed_in("model", "list").err


def test_a_server_under_another_name_is_not_trusted(cli: Cli, plane: ControlPlane) -> None:
    plane.issuer = "https://elsewhere.example"
    said = cli(
        "login",
        "--server",
        plane.origin,
        "--org",
        "acme",
        "--email",
        "a@b.example",
        "--password-stdin",
        stdin="x\n",
    )
    assert said.code == 1
    assert "https://elsewhere.example" in said.err


def test_control_characters_of_a_server_do_not_reach_the_terminal(signed_in: Cli, plane: ControlPlane) -> None:
    plane.put("acme", "models", "code", upstream="\x1b[31mred", model="m")
    said = signed_in("model", "list")
    assert "\x1b" not in said.out
    plane.script("GET", "/admin/v1/orgs/acme/models", _problem(400, detail="\x1b]0;owned\x07"))
    assert "\x1b" not in signed_in("model", "list").err


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ("http://gateway.example", "clear text"),
        ("https://user:pw@gateway.example", "not an address"),
        ("https://gateway.example/path", "has a path"),
        ("ftp://gateway.example", "not an address"),
        ("https://gateway.example:99999", "port"),
    ],
)
def test_addresses_that_are_none(cli: Cli, server: str, says: str) -> None:
    said = cli("login", "--server", server, "--org", "acme")
    assert said.code == 2
    assert says in said.err


def test_damaged_files_say_which(signed_in: Cli) -> None:
    path = signed_in.credentials.path("default")
    path.write_bytes(b"{")
    said = signed_in("whoami")
    assert (said.code, str(path) in said.err) == (1, True)
    (signed_in.folder / "config.toml").write_text("default_profile = [")
    said = signed_in("whoami")
    assert (said.code, "config.toml" in said.err) == (1, True)


def test_an_unknown_profile_and_no_organization(cli: Cli, plane: ControlPlane) -> None:
    assert cli("whoami", "--profile", "nope").code == 2
    cli.sign_in(plane, org="")
    said = cli("model", "list")
    assert said.code == 2
    assert "--org" in said.err
    assert cli("model", "list", "--org", "../platform").code == 2


def test_settings_faults_are_all_said(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "orgate.toml"
    file.write_text("[server]\nworkers = 0\nnonsense = 1\n[public]\nport = 99999\n[tokens]\naccess_s = 5\n")
    for command, code in (("serve", 2), ("doctor", 1)):
        said = cli(command, "--settings", str(file))
        assert said.code == code
        for key in ("server.workers", "server.nonsense", "public.port", "tokens.access_s"):
            assert key in said.out + said.err
    file.write_text('[store]\nurl = "postgres:x"\n[admin]\nport = 8443\n')
    either = "store.url: must be sqlite:PATH or postgresql://ROLE@HOST/DATABASE (it is 'postgres:x')"
    assert either in cli("serve", "--settings", str(file)).err
    file.write_text("[admin]\nport = 8443\n")
    said = cli("serve", "--settings", str(file))
    assert "admin.port: is the public listener's address and port too; give it another number" in said.err
    missing = cli("serve", "--settings", str(tmp_path / "none.toml"))
    assert missing.code == 2
    assert "orgate init" in missing.err
