"""The `orgate` command from `init` to `suspend`, as the operator, the owner and a member type it."""

from __future__ import annotations

import csv
import io
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration.clients.conftest import DEMO_KEY
from tests.kit.certs import Pki
from tests.kit.gateway import PASSWORD
from tests.kit.marker import MARKER
from tests.kit.orgate import COMMAND, REPOSITORY, Orgate
from tests.kit.ports import free_port
from tests.kit.programs import listening
from tests.kit.wait import until


@dataclass(frozen=True)
class Installation:
    """A server made by `orgate init` and run by `orgate serve`, and the people at their command lines."""

    folder: Path
    settings: Path
    ca: Path
    url: str
    admin_url: str
    model_url: str
    operator: Orgate
    owner: Orgate
    member: Orgate

    def complete(self, token: str, **body: object) -> httpx.Response:
        context = ssl.create_default_context(cafile=str(self.ca))
        asked = {"model": "code", "prompt": f"# {MARKER}\n", "max_tokens": 4, **body}
        with httpx.Client(verify=context, timeout=20) as client:
            return client.post(
                self.url + "/v1/completions", json=asked, headers={"authorization": f"Bearer {token}"}
            )


@pytest.fixture(scope="module")
def installed(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("cli")
    ports = free_port(), free_port()
    here = Orgate(folder / "operator")
    made = here.json(
        "init", "--home", str(folder / "server"), "--org", "acme",
        "--operator-email", "ops@platform.test", "--owner-email", "ann@acme.test",
        "--public-port", str(ports[0]), "--admin-port", str(ports[1]),
    )  # fmt: skip
    url, admin_url = (f"https://127.0.0.1:{port}" for port in ports)
    codes = {person["org"]: person["invitation"] for person in made["people"]}
    (folder / "key").write_text(DEMO_KEY + "\n")
    tls = ("--certificate", str(pki.files.certificate), "--key", str(pki.files.key))
    demo = [sys.executable, "-m", "gateway.demo_model", *tls, "--key-file", str(folder / "key")]
    with listening(demo, folder / "demo.log") as model_url, (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [*COMMAND, "serve", "--settings", made["settings"]],
            cwd=REPOSITORY, env=here.environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            context = ssl.create_default_context(cafile=made["ca"])
            with httpx.Client(verify=context, timeout=20) as client:
                until(lambda: _ready(client, url, admin_url), "both listeners are ready", 30)
            owner, member = Orgate(folder / "owner"), Orgate(folder / "member")
            found = Installation(
                folder, Path(made["settings"]), Path(made["ca"]), url, admin_url, model_url, here, owner, member
            )
            _login(found, here, "platform", "ops@platform.test", codes["platform"])
            _login(found, owner, "acme", "ann@acme.test", codes["acme"])
            _furnish(found, pki.files.ca)
            yield found
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(40)
    assert code == 0, (folder / "serve.log").read_text()


def _ready(client: httpx.Client, *urls: str) -> bool:
    try:
        return all(client.get(url + "/readyz").status_code == 200 for url in urls)
    except httpx.TransportError:
        return False


def _login(at: Installation, who: Orgate, org: str, email: str, invitation: str = "") -> None:
    who.login(
        server=at.url, admin=at.admin_url, ca=at.ca, org=org, email=email, password=PASSWORD, invitation=invitation
    )


def _furnish(at: Installation, upstream_ca: Path) -> None:
    """What an owner does on the first day."""
    owner = at.owner
    owner("upstream", "create", "demo", "--url", at.model_url, "--upstream-ca", str(upstream_ca))
    owner("key", "set", "demo", given=DEMO_KEY + "\n")
    owner("model", "create", "code", "--upstream", "demo", "--model", "demo-coder")
    owner(
        "limit", "set", "typing", "--scope", "member", "--unit", "requests", "--amount", "500", "--per", "minute"
    )
    invited = owner.json("member", "create", "ada@acme.test", "--name", "Ada")
    _login(at, at.member, "acme", "ada@acme.test", invited["invitation"]["code"])


def test_the_upstream_works(installed: Installation) -> None:
    tried = installed.owner.json("upstream", "test", "demo")
    assert (tried["ok"], tried["status"]) == (True, 200)


def test_a_completion_with_the_printed_token(installed: Installation) -> None:
    token = installed.member("token").strip()
    assert installed.member("token").strip() == token
    answer = installed.complete(token)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"]
    refused = installed.complete(installed.member("token", "--admin").strip())
    assert refused.status_code == 401


def test_whoami(installed: Installation) -> None:
    who = installed.member.json("whoami")
    assert (who["org"], who["email"], who["roles"]) == ("acme", "ada@acme.test", ["member"])
    assert who["server"] == installed.url


SHOWN = [
    ("owner", ("member", "list")), ("owner", ("member", "show", "ada@acme.test")),
    ("owner", ("upstream", "list")), ("owner", ("upstream", "show", "demo")), ("owner", ("key", "show", "demo")),
    ("owner", ("model", "list")), ("owner", ("model", "show", "code")),
    ("owner", ("limit", "list")), ("owner", ("limit", "show", "typing")), ("owner", ("policy", "list")),
    ("owner", ("org", "show")), ("owner", ("audit", "tail")), ("owner", ("whoami",)),
    ("member", ("model", "list")), ("member", ("whoami",)),
    ("operator", ("org", "list")), ("operator", ("status",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "command"), SHOWN, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_every_list_and_show_as_json(installed: Installation, who: str, command: tuple[str, ...]) -> None:
    document = getattr(installed, who).json(*command)
    assert document
    assert isinstance(document, list) == (command[-1] in ("list", "tail"))
    assert DEMO_KEY not in json.dumps(document)


@pytest.mark.parametrize("command", [("member", "list"), ("upstream", "show", "demo"), ("audit", "tail")])
def test_the_same_in_every_format(installed: Installation, command: tuple[str, ...]) -> None:
    orgate = installed.owner
    document = orgate.json(*command)
    assert type(yaml.safe_load(orgate(*command, "--output", "yaml"))) is type(document)
    rows = list(csv.reader(io.StringIO(orgate(*command, "--output", "csv"))))
    assert len(rows) > 1
    assert len({len(row) for row in rows}) == 1
    assert orgate(*command).strip()


def test_a_rule_from_a_file_refuses_and_is_lifted(installed: Installation) -> None:
    owner, token = installed.owner, installed.member("token").strip()
    was = owner("policy", "list", "--output", "yaml")
    (installed.folder / "was.yaml").write_text(was)
    rules = [
        *yaml.safe_load(was),
        {"name": "no-code", "effect": "deny", "roles": ["member"], "actions": ["completions"], "models": ["code"]},
    ]
    (installed.folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    owner("policy", "apply", str(installed.folder / "rules.yaml"), "--dry-run")
    assert installed.complete(token).status_code == 200
    owner("policy", "apply", str(installed.folder / "rules.yaml"), "--yes")
    until(lambda: installed.complete(token).status_code == 403, "the rule is live")
    assert installed.complete(token).json()["error"]["rule"] == "no-code"
    owner("policy", "apply", str(installed.folder / "was.yaml"), "--yes")
    until(lambda: installed.complete(token).status_code == 200, "the rule is lifted")


def test_a_limit_refuses_and_is_lifted(installed: Installation) -> None:
    owner, token = installed.owner, installed.member("token").strip()
    owner("limit", "set", "tiny", "--scope", "org", "--unit", "requests", "--amount", "1", "--per", "day")
    until(lambda: installed.complete(token).status_code == 429, "the limit is live")
    assert installed.complete(token).json()["error"]["limit"] == "tiny"
    owner("limit", "delete", "tiny", "--yes")
    until(lambda: installed.complete(token).status_code == 200, "the limit is gone")


def test_dry_run_changes_nothing(installed: Installation) -> None:
    before = installed.owner.json("audit", "tail", "-n", "1")
    installed.owner("model", "set", "code", "--model", "other", "--dry-run")
    installed.owner("model", "delete", "code", "--dry-run")
    installed.owner("member", "suspend", "ada@acme.test", "--dry-run")
    assert installed.owner.json("audit", "tail", "-n", "1") == before


def test_the_audit_log_from_tail_to_tampering(installed: Installation) -> None:
    owner, pack = installed.owner, installed.folder / "pack"
    assert installed.complete(installed.member("token").strip(), stream=True).status_code == 200
    until(lambda: "completion.create" in owner("audit", "tail", "-n", "1"), "the entry is in the log")
    actions = {entry["action"] for entry in owner.json("audit", "tail", "-n", "500")}
    assert {"member.create", "upstream.create", "model.create", "limit.create", "completion.create"} <= actions
    told = owner.json("audit", "export", str(pack))
    assert told["entries"] > 10
    # Anybody, anywhere: no profile, no login, no server.
    auditor = Orgate(installed.folder / "auditor")
    verdict = auditor.json("audit", "verify", str(pack))
    whole = {"start": 0, "end": told["entries"], "checkpoint_size": told["entries"], "filtered": False}
    assert verdict.items() >= {"ok": True, "org": "acme", "entries": told["entries"], "faults": []}.items()
    assert verdict.items() >= whole.items()
    assert verdict["proven"] == []  # no key from elsewhere
    auditor("audit", "verify", str(pack), "--key", str(pack / "key"))
    raw = (pack / "entries.jsonl").read_bytes()
    assert MARKER.encode() not in raw
    assert b'"actor":"per_' in raw
    (pack / "entries.jsonl").write_bytes(raw.replace(b'"actor":"per_', b'"actor":"par_', 1))
    assert "does not verify" in auditor("audit", "verify", str(pack), expect=1)


def test_audit_tail_follows(installed: Installation) -> None:
    process = subprocess.Popen(
        [*COMMAND, "audit", "tail", "-f", "-n", "1", "--action", "limit.create", "--output", "json"],
        env=installed.owner.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["action"] == "limit.create"  # the last one; now it follows
        installed.owner("limit", "set", "watched", "--scope", "org", "--unit", "requests", "--amount", "9999")
        assert json.loads(process.stdout.readline())["target"] == "watched"
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert "Traceback" not in said
    installed.owner("limit", "delete", "watched", "--yes")


def test_exit_code_3_after_logout(installed: Installation) -> None:
    leaving = Orgate(installed.folder / "leaving")
    _login(installed, leaving, "acme", "ann@acme.test")
    leaving("whoami")
    token = leaving("token").strip()
    leaving("logout")
    for command in (("whoami",), ("token",), ("model", "list")):
        assert "orgate login" in leaving(*command, expect=3)
    until(lambda: installed.complete(token).status_code == 401, "its last access token has ended too")
    installed.owner("whoami")  # another login of the same person goes on


def test_exit_codes_of_refusals(installed: Installation) -> None:
    assert "not allowed" in installed.member("member", "list", expect=3)
    installed.member("org", "suspend", "acme", "--yes", expect=3)
    installed.owner("org", "list", expect=3)
    installed.owner("model", "show", "never-was", expect=1)
    installed.owner("model", "create", "code", "--upstream", "demo", "--model", "x", expect=1)
    installed.owner("model", "create", "x", "--upstream", "never-was", "--model", "x", expect=1)
    installed.owner("upstream", "delete", "demo", "--yes", expect=1)
    installed.owner("limit", "set", "x", "--scope", "nobody", expect=2)
    installed.owner("--org", "platform", "model", "list", expect=1)
    wrong = Orgate(installed.folder / "wrong")
    ended = wrong.run(
        "login", "--server", installed.url, "--admin-url", installed.admin_url, "--ca", str(installed.ca),
        "--org", "acme", "--email", "ann@acme.test", "--password-stdin", given="not the password\n",
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr
    assert "not the password" not in ended.stdout + ended.stderr


def test_exit_code_4_with_a_dead_server(installed: Installation) -> None:
    dead = Orgate(installed.folder / "dead")
    nowhere = f"https://127.0.0.1:{free_port()}"
    ended = dead.run(
        "login", "--server", nowhere, "--ca", str(installed.ca),
        "--org", "acme", "--email", "ann@acme.test", "--password-stdin", given=PASSWORD + "\n",
    )  # fmt: skip
    assert ended.returncode == 4, ended.stderr
    assert nowhere in ended.stderr
    _login(installed, dead, "acme", "ann@acme.test")
    config = dead.config / "config.toml"
    config.write_text(config.read_text().replace(installed.admin_url, nowhere))
    for command in (("model", "list"), ("audit", "export", "pack"), ("member", "create", "x@acme.test")):
        assert nowhere in dead(*command, expect=4)


def test_doctor_is_green_on_the_running_server(installed: Installation) -> None:
    found = installed.operator.json("doctor", "--settings", str(installed.settings))
    assert {finding["result"] for finding in found} == {"ok"}, found
    assert {"public server", "admin server"} <= {finding["check"] for finding in found}


def test_a_second_server_on_the_same_folder_is_refused(installed: Installation) -> None:
    said = installed.operator("serve", "--settings", str(installed.settings), expect=1)
    assert "another `orgate serve` runs" in said


def test_init_again_is_refused_and_changes_nothing(installed: Installation) -> None:
    before = installed.settings.read_bytes()
    installed.operator(
        "init", "--home", str(installed.settings.parent), "--org", "acme",
        "--operator-email", "ops@platform.test", "--owner-email", "ann@acme.test", expect=1,
    )  # fmt: skip
    assert installed.settings.read_bytes() == before


def test_a_suspended_member_is_out(installed: Installation) -> None:
    bob = Orgate(installed.folder / "bob")
    invited = installed.owner.json("member", "create", "bob@acme.test")
    _login(installed, bob, "acme", "bob@acme.test", invited["invitation"]["code"])
    token = bob("token").strip()
    assert installed.complete(token).status_code == 200
    installed.owner("member", "suspend", "bob@acme.test", "--yes")
    until(lambda: installed.complete(token).status_code == 401, "the token is dead")
    bob("whoami", expect=3)
    installed.owner("member", "resume", "bob@acme.test")
    bob("whoami", expect=3)  # the login has ended with the suspension
    _login(installed, bob, "acme", "bob@acme.test")
    assert installed.complete(bob("token").strip()).status_code == 200


def test_a_suspended_organization_is_out_and_comes_back(installed: Installation) -> None:
    operator, token = installed.operator, installed.member("token").strip()
    operator("org", "suspend", "acme", "--yes")
    until(lambda: installed.complete(token).status_code != 200, "the organization's calls are refused")
    refused = installed.complete(token)
    assert refused.status_code in (401, 403)
    assert operator.json("org", "show", "acme")["state"] == "suspended"
    operator("org", "resume", "acme")
    # The suspension took every token back and ended every session: whoever was signed in signs in again.
    assert installed.complete(installed.member("token").strip()).status_code == 401
    assert "orgate login" in installed.member("token", "--renew", expect=3)
    _login(installed, installed.member, "acme", "ada@acme.test")
    assert installed.complete(installed.member("token").strip()).status_code == 200


def test_nothing_of_prompts_or_secrets_stays_behind(installed: Installation) -> None:
    """In no file of the server but the sealed ones, in no log, in nobody's configuration."""
    for secret in (MARKER, DEMO_KEY, PASSWORD):
        found = [
            path
            for path in installed.folder.rglob("*")
            if path.is_file() and path != installed.folder / "key" and secret.encode() in path.read_bytes()
        ]
        assert not found, secret


SETTINGS_KEYS = (
    "server.workers",
    "server.log_level",
    "public.port",
    "tokens.access_s",
    "upstreams.allow_networks.0",
    "sever",
)
MISTAKES = """\
[server]
url = "https://127.0.0.1:8443"
workers = 0
log_level = "loud"

[public]
port = 99999

[tokens]
access_s = 5

[upstreams]
allow_networks = ["10.0.0.0/99"]

[sever]
url = "x"
"""


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_every_mistake_in_the_settings_is_named_at_once(tmp_path: Path, command: str) -> None:
    (tmp_path / "orgate.toml").write_text(MISTAKES)
    ended = Orgate(tmp_path / "config").run(command, "--settings", str(tmp_path / "orgate.toml"))
    said = ended.stdout + ended.stderr
    for key in SETTINGS_KEYS:
        assert key in said
    assert "Traceback" not in said
    assert ended.returncode == {"serve": 2, "doctor": 1}[command], said
