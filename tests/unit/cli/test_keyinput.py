"""`orgate key set`: what is asked for is what the upstream's `auth` wants; what is typed wrong is not echoed."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

AWS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "PLANTED", "region": "us-east-1", "service": "bedrock"}
CLIENT = {"token_url": "https://idp.example/token", "client_id": "gw", "client_secret": "PLANTED"}


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def sent(plane: ControlPlane) -> Any:
    return json.loads(json.loads(plane.writes[-1].body)["key"])


def bind(plane: ControlPlane, auth: str) -> None:
    plane.put("acme", "upstreams", "up", base_url="https://u.example", auth=auth)


@pytest.mark.parametrize(("auth", "key"), [("aws-sigv4", AWS), ("oauth-client-credentials", CLIENT)])
def test_a_key_of_several_fields_comes_from_stdin(
    signed_in: Cli, plane: ControlPlane, auth: str, key: dict[str, str]
) -> None:
    bind(plane, auth)
    said = signed_in("key", "set", "up", stdin=json.dumps(key, indent=2))
    assert said.code == 0, said.err
    assert sent(plane) == key
    assert "PLANTED" not in said.out + said.err


@pytest.mark.parametrize(("auth", "key"), [("aws-sigv4", AWS), ("oauth-client-credentials", CLIENT)])
def test_at_a_terminal_each_field_is_asked_for_and_secrets_unseen(
    signed_in: Cli, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, auth: str, key: dict[str, str]
) -> None:
    bind(plane, auth)
    unseen = {"Secret access key": "PLANTED", "Client secret": "PLANTED", "Session token (empty": ""}
    monkeypatch.setattr("getpass.getpass", lambda asked: unseen[asked.partition(":")[0]])
    seen = [value for value in key.values() if value not in ("PLANTED", "bedrock")]
    answers = "\n".join([*seen, "", "", ""])
    monkeypatch.setattr("sys.stdin", _Terminal(io.BytesIO(answers.encode()), encoding="utf-8"))
    said = signed_in.run("key", "set", "up")
    assert said.code == 0, said.err
    assert sent(plane) == key
    assert "PLANTED" not in said.out + said.err


@pytest.mark.parametrize(
    ("auth", "key", "says"),
    [
        ("aws-sigv4", "PLANTED", "JSON object"),
        ("oauth-client-credentials", '["PLANTED"]', "token_url, client_id, client_secret"),
        ("aws-sigv4", '{"secret_access_key": "PLANTED"' + " " * 17_000, "JSON object"),
        ("aws-sigv4", '{"secret_access_key": "PLANTED€"}', "in ASCII"),
        ("bearer", '{\n"secret_access_key": "PLANTED"}', "on one line"),
        ("bearer", "PLANTED" * 2_000, "too long"),
        ("api-key", " ", "no key was given"),
        ("none", "PLANTED", "--auth bearer"),
    ],
)
def test_what_is_no_such_key_is_refused_without_a_word_of_it(
    signed_in: Cli, plane: ControlPlane, auth: str, key: str, says: str
) -> None:
    bind(plane, auth)
    said = signed_in("key", "set", "up", stdin=key)
    assert said.code == 2
    assert says in said.err
    assert "PLANTED" not in said.out + said.err
    assert plane.writes == []


def test_the_kind_is_given_with_the_upstream(signed_in: Cli, plane: ControlPlane) -> None:
    said = signed_in("upstream", "create", "claude", "--url", "https://u.example", "--auth", "x-api-key")
    assert (said.code, "orgate key set claude" in said.err) == (0, True)
    assert json.loads(plane.writes[-1].body)["auth"] == "x-api-key"
    said = signed_in("upstream", "create", "local", "--url", "http://127.0.0.1:9", "--auth", "none")
    assert (said.code, "orgate key set" in said.err) == (0, False)
    assert signed_in("upstream", "set", "claude", "--auth", "bearer").code == 0
    assert json.loads(plane.writes[-1].body)["auth"] == "bearer"
    assert signed_in("upstream", "set", "claude", "--auth", "sigv2").code == 2


@pytest.mark.parametrize("verb", ["set", "rotate"])
def test_a_key_given_as_an_argument_is_refused_and_not_repeated(
    signed_in: Cli, plane: ControlPlane, verb: str
) -> None:
    said = signed_in("key", verb, "up", "sk-PLANTED", "--dry-run")
    assert said.code == 2
    assert "a key is no argument" in said.err
    assert "PLANTED" not in said.out + said.err
    assert not plane.writes
