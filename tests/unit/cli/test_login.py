"""Signing in and out, what it leaves on disk, and who may read that."""

from __future__ import annotations

import json
import stat
import webbrowser
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from cli.credentials import AccessToken, Login
from cli.errors import CliError, NotAllowedError
from cli.oauth import AuthorizationServer, DeviceAuthorization, OAuthError, ServerMetadata, Tokens
from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

ANN = ("--org", "acme", "--email", "ann@acme.example", "--password-stdin")


def _login(cli: Cli, plane: ControlPlane, *more: str, stdin: str = "correct horse\n") -> int:
    return cli("login", "--server", plane.origin, "--admin-url", plane.origin, *ANN, *more, stdin=stdin).code


def test_login_with_a_password_then_a_command_then_logout(cli: Cli, plane: ControlPlane) -> None:
    assert _login(cli, plane) == 0
    assert json.loads(cli("whoami", "-o", "json").out)["email"] == "ann@acme.example"
    assert cli("logout").code == 0
    assert [family.alive for family in plane.families] == [False]
    assert cli("whoami").code == 3
    assert "nobody is signed in" in cli("logout").err


def test_the_files_are_private(cli: Cli, plane: ControlPlane) -> None:
    cli.folder.mkdir(mode=0o755)
    assert _login(cli, plane) == 0
    file = cli.credentials.path("default")
    modes = {
        path: stat.S_IMODE(path.stat().st_mode) for path in (cli.folder, file.parent, file, cli.profiles.path)
    }
    assert list(modes.values()) == [0o700, 0o700, 0o600, 0o600]
    assert [path.name for path in file.parent.iterdir() if path.suffix == ".new"] == []
    token = json.loads(file.read_bytes())["refresh_token"]
    assert token not in cli.profiles.path.read_text()


def test_a_file_that_others_can_read_is_refused_and_logout_ends_it(signed_in: Cli, plane: ControlPlane) -> None:
    path = signed_in.credentials.path("default")
    path.chmod(0o644)
    said = signed_in("whoami")
    assert said.code == 3
    assert "0644" in said.err
    assert plane.refreshes == 0
    assert signed_in("logout").code == 0
    assert not plane.families[0].alive
    assert not path.exists()


def test_a_wrong_password_says_no_more_than_the_server(cli: Cli, plane: ControlPlane) -> None:
    said = cli("login", "--server", plane.origin, *ANN, stdin="wrong\n")
    assert said.code == 3
    assert "wrong" in said.err
    assert not cli.credentials.path("default").exists()


def test_an_invitation_sets_the_password_first(cli: Cli, plane: ControlPlane) -> None:
    argv = ("login", "--server", plane.origin, "--org", "acme", "--email", "new@acme.example", "--password-stdin")
    assert cli(*argv, "--invitation", "inv-1", stdin="a long password\n").code == 0
    assert plane.passwords["acme", "new@acme.example"] == "a long password"
    assert cli(*argv, "--invitation", "inv-1", stdin="another password\n").code == 3
    short = cli(*argv, "--invitation", "inv-1", stdin="short\n")
    assert short.code == 1
    assert "12 characters" in short.err
    assert "the invitation was not used" in short.err
    assert "member invite" not in short.err


def test_login_shows_address_and_code_and_polls(cli: Cli, plane: ControlPlane) -> None:
    tokens = {"access_token": "at_x", "expires_in": 900, "refresh_token": "rt_x"}
    plane.script(
        "POST",
        "/oauth/token",
        (400, {"error": "authorization_pending"}, {}),
        (200, {**tokens, "token_type": "Bearer"}, {}),
    )
    said = cli("login", "--server", plane.origin, "--org", "acme")
    assert said.code == 0
    assert "BCDF-GHJK" in said.err
    assert plane.origin + "/oauth/device" in said.err
    assert said.out == ""


def test_a_password_that_is_not_enough_goes_on_in_a_browser(cli: Cli, plane: ControlPlane) -> None:
    due = {"error": "insufficient_user_authentication", "error_description": "use the page in a browser"}
    plane.script("POST", "/oauth/device", (403, due, {}))
    tokens = {"access_token": "at_x", "expires_in": 900, "refresh_token": "rt_x", "token_type": "Bearer"}
    plane.script("POST", "/oauth/token", (200, tokens, {}))
    said = cli("login", "--server", plane.origin, *ANN, stdin="correct horse\n")
    assert said.code == 0, said.err
    assert "signs in with a second factor" in said.err
    assert "BCDF-GHJK" in said.err


def test_a_password_where_passwords_are_closed_is_told_of_the_page(cli: Cli, plane: ControlPlane) -> None:
    closed = {"error": "access_denied", "error_description": "your organization signs in with single sign-on only"}
    plane.script("POST", "/oauth/device", (403, closed, {}))
    said = cli("login", "--server", plane.origin, *ANN, stdin="correct horse\n")
    assert said.code == 3
    assert "without --email" in said.err
    assert "check organization" not in said.err


def test_a_server_that_starts_is_not_called_another_kind_of_server(cli: Cli, plane: ControlPlane) -> None:
    plane.script("GET", "/.well-known/oauth-authorization-server", (503, {}, {}))
    said = cli("login", "--server", plane.origin, *ANN, stdin="correct horse\n")
    assert said.code == 4
    assert "try again in a moment" in said.err


def test_a_browser_is_opened_only_where_there_is_a_display(
    cli: Cli, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    for display, argv, expected in (("", (), 0), (":0", ("--no-browser",), 0), (":0", (), 1)):
        monkeypatch.setenv("DISPLAY", display)
        plane.script("POST", "/oauth/token", (400, {"error": "access_denied"}, {}))
        assert cli("login", "--server", plane.origin, "--org", "acme", *argv).code == 3
        assert len(opened) == expected


class _Polled(AuthorizationServer):
    """Answers `_tokens` from a list; `waits` is what the client slept."""

    def __init__(self, answers: list[Tokens | Exception]) -> None:
        self.answers = answers
        self.waits: list[float] = []
        self.clock = 0.0
        self._metadata = _METADATA

    def _tokens(self, form: object, key: object) -> Tokens:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock += seconds

    def run(self, device: DeviceAuthorization) -> Tokens:
        return self.poll(device, "https://g.example/v1", now=lambda: self.clock, sleep=self.sleep)


_METADATA = ServerMetadata(
    "https://g.example", "https://g.example/t", "https://g.example/d", "https://g.example/r"
)
_DEVICE = DeviceAuthorization("d", "U", "https://g.example/oauth/device", expires_in=60, interval=5)


def test_rfc8628_interval_slow_down_and_expiry() -> None:
    pending = OAuthError("authorization_pending", "")
    slow = _Polled([pending, OAuthError("slow_down", ""), pending, Tokens("a", 1, "r")])
    assert slow.run(_DEVICE).refresh_token == "r"
    assert slow.waits == [5, 10, 10]
    late = _Polled([OAuthError("authorization_pending", "")] * 100)
    with pytest.raises(NotAllowedError, match="in time"):
        late.run(_DEVICE)
    assert sum(late.waits) == 60
    busy = _Polled([OAuthError("temporarily_unavailable", ""), Tokens("a", 1, "r")])
    assert busy.run(_DEVICE).access_token == "a"
    for code in ("access_denied", "expired_token", "invalid_client"):
        with pytest.raises(CliError) as refused:
            _Polled([OAuthError(code, "no")]).run(_DEVICE)
        assert refused.value.code == 3


@pytest.mark.parametrize(
    "argv",
    [("--invitation", "x"), ("--password-stdin",), ("--email", "a@b.example", "--password-stdin")],
)
def test_wrong_usage_of_login(cli: Cli, plane: ControlPlane, argv: tuple[str, ...]) -> None:
    assert cli("login", "--server", plane.origin, *argv).code == 2


def test_a_new_profile_needs_a_server_and_a_name_that_can_be_a_file(cli: Cli, plane: ControlPlane) -> None:
    assert cli("login", "--profile", "stage", "--org", "acme").code == 2
    assert cli("login", "--profile", "../x", "--server", plane.origin, "--org", "acme").code == 2
    assert plane.seen == []


def test_the_only_profile_is_used_but_a_login_never_replaces_one_unasked(cli: Cli, plane: ControlPlane) -> None:
    assert _login(cli, plane, "--profile", "stage") == 0
    assert json.loads(cli("whoami", "-o", "json").out)["profile"] == "stage"
    assert _login(cli, plane) == 0
    assert json.loads(cli("whoami", "-o", "json").out)["profile"] == "default"
    assert json.loads(cli("whoami", "--profile", "stage", "-o", "json").out)["profile"] == "stage"
    assert [family.alive for family in plane.families] == [True, True]


def test_token_prints_the_token_alone_and_keeps_it(signed_in: Cli, plane: ControlPlane) -> None:
    first = signed_in("token")
    assert (first.code, first.err) == (0, "")
    assert plane.access[first.out.strip()] == plane.origin + "/v1"
    assert signed_in("token", "--header").out == f"Authorization: Bearer {first.out}"
    admin = signed_in("token", "--admin").out.strip()
    assert plane.access[admin] == plane.origin + "/admin"
    assert plane.refreshes == 2
    assert plane.misuses == 0


def test_a_token_near_its_end_is_renewed(signed_in: Cli, plane: ControlPlane) -> None:
    plane.expires_in = 110
    assert signed_in("token").out != signed_in("token").out
    plane.expires_in = 200
    assert signed_in("token").out == signed_in("token").out


def test_a_token_that_was_refused_is_replaced_when_asked_for(signed_in: Cli, plane: ControlPlane) -> None:
    first = signed_in("token").out
    second = signed_in("token", "--renew").out
    assert second != first
    assert signed_in("token").out == second
    assert plane.misuses == 0


def test_logout_takes_back_every_token_that_was_handed_out(signed_in: Cli, plane: ControlPlane) -> None:
    handed_out = [signed_in("token").out.strip(), signed_in("token", "--admin").out.strip()]
    assert signed_in("logout").code == 0
    revoked = [parse_qs(seen.body) for seen in plane.seen if seen.path == "/oauth/revoke"]
    assert revoked[0]["token_type_hint"] == ["refresh_token"]
    assert {form["token"][0] for form in revoked[1:]} == set(handed_out)


def test_logout_that_cannot_reach_the_server_forgets_and_says_so(signed_in: Cli, plane: ControlPlane) -> None:
    plane.script("POST", "/oauth/revoke", (503, "", {}))
    said = signed_in("logout")
    assert said.code == 1
    assert "forgotten here" in said.err
    assert not signed_in.credentials.path("default").exists()


def test_secrets_do_not_show_in_repr() -> None:
    login = Login("rt_secret", "acme", {"a": AccessToken("at_secret", 1)})
    assert "secret" not in repr(login) + repr(login.access)


def test_no_secret_is_ever_printed(cli: Cli, plane: ControlPlane, tmp_path: Path) -> None:
    said = cli(
        "--verbose", "login", "--server", plane.origin, "--admin-url", plane.origin, *ANN, stdin="correct horse\n"
    )
    plane.put("acme", "upstreams", "u", base_url="https://u.example", key_version=0)
    (tmp_path / "key").write_text("sk-planted-1")
    runs = [
        said,
        cli("--verbose", "key", "set", "u", stdin="sk-planted-0\n"),
        cli("--verbose", "key", "set", "u", "--from-file", str(tmp_path / "key")),
        cli("--verbose", "key", "set", "u", "--dry-run", stdin="sk-planted-0\n"),
        cli("--verbose", "key", "show", "u"),
        cli("--verbose", "whoami"),
        cli("--verbose", "key", "set", "none", stdin="sk-planted-0\n"),
    ]
    secrets = ["correct horse", "sk-planted", plane.families[0].current, *plane.access, *plane.families[0].used]
    for run in runs:
        for secret in secrets:
            assert secret not in run.out + run.err
    assert plane.keys["acme", "u"] == (2, "sk-planted-1")


@pytest.mark.parametrize("text", ["", "a\nb", "café", "x" * 9000])
def test_keys_that_are_none(signed_in: Cli, plane: ControlPlane, text: str) -> None:
    plane.put("acme", "upstreams", "u", base_url="https://u.example")
    said = signed_in("key", "set", "u", stdin=text)
    assert said.code == 2
    assert plane.writes == []
