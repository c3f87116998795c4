"""The commands against a real gateway: an owner's first day, from the invitation to a verified export."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.kit.gateway import PASSWORD, REPOSITORY, RunningGateway
from tests.kit.orgate import Orgate
from tests.kit.wait import until

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def orgate(gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs `orgate`, signed in as the owner of acme and, with `--profile platform`, as the operator."""
    folder = tmp_path_factory.mktemp("cli")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORGATE_")}
    environment = {**kept, "ORGATE_CONFIG_DIR": str(folder / "config"), "PYTHONPATH": str(REPOSITORY)}

    def run(*argv: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", *argv]
        ran = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            cwd=folder,
            timeout=60,
            check=False,
        )
        assert ran.returncode == code, f"{argv}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stderr
        return ran

    for person in gateway.installed.people:
        profile = () if person.org == "acme" else ("--profile", "platform")
        where = ("--server", gateway.url, "--admin-url", gateway.admin_url, "--ca", str(gateway.ca), *profile)
        who = ("--org", person.org, "--email", person.email, "--invitation", person.invitation, "--password-stdin")
        run("login", *where, *who, stdin=PASSWORD + "\n")
    return run


def test_who_is_who_and_who_may_what(orgate: Run) -> None:
    assert json.loads(orgate("whoami", "-o", "json").stdout)["roles"] == ["owner"]
    assert json.loads(orgate("status", "--profile", "platform", "-o", "json").stdout)["workers"]
    orgate("org", "list", code=3)
    orgate("org", "create", "beta", "--profile", "platform")
    orgate("org", "show", "beta", code=1)
    orgate("org", "delete", "beta", "--yes", "--profile", "platform")


def test_an_organization_is_set_up_changed_and_taken_down(orgate: Run) -> None:
    orgate("upstream", "create", "local", "--url", "http://127.0.0.1:9")
    orgate("key", "set", "local", stdin="sk-planted\n")
    assert json.loads(orgate("key", "show", "local", "-o", "json").stdout) == {"version": 1, "set": True}
    orgate("upstream", "test", "local", code=1)
    orgate("upstream", "set", "local", "--connections", "2")
    orgate("model", "create", "code", "--upstream", "local", "--model", "m")
    orgate("model", "set", "code", "--max-tokens", "9")
    assert "local" in orgate("upstream", "delete", "local", "--yes", code=1).stderr
    orgate("limit", "set", "r", "--scope", "member", "--unit", "requests", "--amount", "5", "--per", "minute")
    orgate("limit", "set", "r", "--unit", "concurrency")
    assert json.loads(orgate("limit", "show", "r", "-o", "json").stdout)["period_s"] == 0
    orgate("limit", "delete", "r", "--yes")
    _limits_are_used_tried_and_set_back(orgate)
    orgate("model", "delete", "code", "--yes")
    orgate("key", "delete", "local", "--yes")
    orgate("upstream", "delete", "local", "--yes")


def _limits_are_used_tried_and_set_back(orgate: Run) -> None:
    orgate("limit", "set", "day", "--scope", "org", "--unit", "tokens", "--amount", "2M", "--window", "day")
    assert "2,000,000 tokens a calendar day" in orgate("limit", "list").stdout
    never = orgate(
        "limit", "set", "more", "--scope", "org", "--unit", "tokens", "--amount", "3M", "--window", "day"
    )
    assert "limit 'more' never decides" in never.stderr
    assert "unknown model 'coed'" in orgate("limit", "set", "x", "--scope", "model", "--subject", "coed", "--unit",
                                           "requests", "--amount", "5", code=1).stderr  # fmt: skip
    assert "nothing is used" in orgate("limit", "usage").stderr
    assert json.loads(orgate("limit", "usage", "day", "-o", "json").stdout) == []
    assert json.loads(orgate("limit", "top", "-o", "json").stdout) == []
    assert json.loads(orgate("limit", "reset", "day", "--yes", "-o", "json").stdout) == {"buckets": 0}
    tried = json.loads(orgate("limit", "simulate", "--name", "day", "--amount", "5k", "-o", "json").stdout)
    assert (tried["limit"]["amount"], tried["requests"], tried["rows"]) == (5_000, 0, [])
    for name in ("day", "more"):
        orgate("limit", "delete", name, "--yes")


def test_a_member_is_invited_signs_in_and_is_shut_out(orgate: Run, gateway: RunningGateway) -> None:
    bob = ("--org", "acme", "--email", "bob@acme.test", "--password-stdin", "--profile", "bob")
    made = json.loads(orgate("member", "create", "bob@acme.test", "-o", "json").stdout)
    where = ("--server", gateway.url, "--admin-url", gateway.admin_url, "--ca", str(gateway.ca))
    orgate("login", *where, *bob, "--invitation", made["invitation"]["code"], stdin=PASSWORD + "\n")
    assert json.loads(orgate("whoami", "--profile", "bob", "-o", "json").stdout)["roles"] == ["member"]
    orgate("member", "list", "--profile", "bob", code=3)
    orgate("member", "suspend", "bob@acme.test", "--yes")
    assert "orgate login" in orgate("whoami", "--profile", "bob", code=3).stderr
    orgate("login", *where, *bob, stdin=PASSWORD + "\n", code=3)
    orgate("member", "resume", "bob@acme.test")
    orgate("login", *where, *bob, stdin=PASSWORD + "\n")
    orgate("member", "revoke", "bob@acme.test", "--yes")
    orgate("token", "--admin", "--profile", "bob", code=3)


def test_a_personal_token_is_made_used_and_taken_back(orgate: Run, gateway: RunningGateway) -> None:
    orgate("org", "set", "--personal-tokens")
    key = orgate("personal-token", "create", "aider", "--days", "7", "--action", "models").stdout.strip()
    (listed,) = json.loads(orgate("personal-token", "list", "-o", "json").stdout)
    assert (listed["name"], listed["actions"]) == ("aider", ["models"])
    assert key not in str(listed)

    def asked(url: str, **headers: str) -> int:
        return gateway.http.get(url, headers=headers).status_code

    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        assert asked(gateway.url + "/v1/models", **headers) == 200
        assert asked(gateway.admin_url + "/admin/v1/me", **headers) == 401
    orgate("personal-token", "revoke", listed["id"])
    assert asked(gateway.url + "/v1/models", authorization=f"Bearer {key}") == 401


def test_sessions_are_seen_and_ended(orgate: Run, gateway: RunningGateway) -> None:
    where = ("--server", gateway.url, "--admin-url", gateway.admin_url, "--ca", str(gateway.ca))
    owner = ("--org", "acme", "--email", "owner@acme.test", "--password-stdin", "--profile", "laptop")
    orgate("login", *where, *owner, stdin=PASSWORD + "\n")
    laptop = max(json.loads(orgate("session", "list", "-o", "json").stdout), key=lambda one: one["created_at"])
    assert (laptop["client"], laptop["expires_at"] > laptop["created_at"]) == ("orgate-cli", True)
    orgate("session", "revoke", laptop["id"])
    assert "orgate login" in orgate("whoami", "--profile", "laptop", code=3).stderr
    assert json.loads(orgate("whoami", "-o", "json").stdout)["roles"] == ["owner"]


def test_a_token_opens_the_data_plane_and_not_the_admin_api(orgate: Run, gateway: RunningGateway) -> None:
    orgate("token", "--renew")  # whoever ends a session of theirs takes back every access token
    header = orgate("token", "--header").stdout.strip().partition(": ")
    headers = {header[0]: header[2]}
    assert gateway.http.get(gateway.url + "/v1/models", headers=headers).status_code == 200
    refused: httpx.Response = gateway.http.get(gateway.admin_url + "/admin/v1/me", headers=headers)
    assert refused.status_code == 401


BROWSER = """
import re, sys, httpx
form = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')
with httpx.Client(verify=False, trust_env=False) as browser:
    page = browser.get(sys.argv[1])
    fields = dict(form.findall(page.text))
    fields |= {"org": "acme", "email": sys.argv[2], "password": sys.argv[3], "action": "approve"}
    sent = browser.post(page.url.copy_with(query=None), data=fields, headers={"sec-fetch-site": "same-origin"})
    assert sent.status_code == 303, sent.text
    print(browser.get(sent.headers["location"]).text)
"""


@pytest.mark.usefixtures("orgate")
def test_a_browser_signs_in_for_the_command_line(gateway: RunningGateway, tmp_path: Path) -> None:
    (tmp_path / "browser.py").write_text(BROWSER)
    (owner,) = [person for person in gateway.installed.people if person.org == "acme"]
    browser = f"{sys.executable} {tmp_path / 'browser.py'} %s {owner.email} '{PASSWORD}' &"
    person = Orgate(tmp_path / "config", {"DISPLAY": ":0", "BROWSER": browser})
    where = ("--server", gateway.url, "--admin-url", gateway.admin_url, "--ca", str(gateway.ca))
    person("login", *where, "--org", "acme")
    assert person.json("whoami")["roles"] == ["owner"]


def test_rules_round_trip(orgate: Run, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        orgate("policy", "list", "-o", "yaml").stdout
        + "- {name: no-gpt, effect: deny, roles: [member], actions: [chat], models: ['gpt-*']}\n"
    )
    assert "+ no-gpt" in orgate("policy", "apply", str(file), "--yes").stderr
    assert "already" in orgate("policy", "apply", str(file), "--yes").stderr


def test_an_entry_is_proved_and_the_log_only_grew(orgate: Run, tmp_path: Path) -> None:
    orgate("audit", "export", str(tmp_path / "pack"))
    key = ("--key", str(tmp_path / "pack" / "key"))
    entry = json.loads(orgate("audit", "tail", "-n", "1", "-o", "json").stdout)[0]
    proof = str(tmp_path / "p.tlog-proof")
    written = json.loads(orgate("audit", "prove", entry["request_id"], "--to", proof, "-o", "json").stdout)
    assert written["index"] >= entry["index"]  # one request may have several; the newest is proved
    assert f"entry {written['index']} of" in orgate("audit", "prove", "--check", proof, *key).stdout
    orgate("audit", "prove", "--check", proof, "--key", "gateway.example+00000000+AAAA", code=2)
    orgate("audit", "consistency", str(tmp_path / "pack"), *key, "--keep", str(tmp_path / "kept"))
    assert "those of" in orgate("audit", "consistency", str(tmp_path / "kept"), *key).stdout


def test_the_audit_log_is_exported_and_verified(orgate: Run, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    orgate("audit", "export", str(pack))
    orgate("audit", "verify", str(pack), "--key", str(pack / "key"))
    entries = json.loads(orgate("audit", "tail", "-n", "500", "-o", "json").stdout)
    assert [entry["index"] for entry in entries] == list(range(len(entries)))
    assert entries
    assert "sk-planted" not in (pack / "entries.jsonl").read_text()


def test_a_part_of_the_log_is_exported_as_evidence_and_for_other_programs(orgate: Run, tmp_path: Path) -> None:
    owner = json.loads(orgate("whoami", "-o", "json").stdout)["id"]
    asked = ("--actor", owner, "--action", "audit.export")
    orgate("audit", "export", str(tmp_path / "whole"))

    def found() -> list[str]:
        return [
            entry["_document_id"] for entry in json.loads(orgate("audit", "query", *asked, "-o", "json").stdout)
        ]

    until(lambda: bool(found()), "the export is an entry")
    before = found()
    part = tmp_path / "part"
    orgate("audit", "export", str(part), *asked)
    orgate("audit", "verify", str(part), "--key", str(tmp_path / "whole" / "key"))
    lines = (part / "entries.jsonl").read_text().splitlines()
    assert [json.loads(line)["_document_id"] for line in lines][: len(before)] == before
    assert owner not in (part / "manifest.json").read_text() + "".join(lines)
    orgate("audit", "export", str(tmp_path / "part.csv"), *asked, "--format", "csv")
    with (tmp_path / "part.csv").open(encoding="utf-8", newline="") as file:
        rows = [row["_document_id"].removeprefix("'") for row in csv.DictReader(file)]
    assert rows[: len(before)] == before


def test_doctor_of_a_running_server(orgate: Run, gateway: RunningGateway) -> None:
    orgate("doctor", "--settings", str(gateway.installed.settings))


def test_a_former_member_is_erased_from_the_log(orgate: Run) -> None:
    made = json.loads(orgate("member", "create", "gone@acme.test", "--name", "Gone", "-o", "json").stdout)
    who = made["member"]["id"]
    erase = ("audit", "erase", "--person", who)
    assert f"orgate member delete {who}" in orgate(*erase, "--yes", code=1).stderr
    assert "mem_" in orgate("audit", "erase", "--person", "gone@acme.test", "--yes", code=2).stderr
    orgate("member", "delete", who, "--yes")
    planned = json.loads(orgate(*erase, "--dry-run", "-o", "json").stdout)
    assert [(write["method"], write["url"].rpartition("/persons/")[2]) for write in planned] == [
        ("POST", f"{who}/erase")
    ]
    people = json.loads(orgate("audit", "persons", "-o", "json").stdout)
    (person,) = [one["person"] for one in people if one["member"] == who]
    assert "--yes" in orgate(*erase, code=2).stderr
    erased = json.loads(orgate(*erase, "--yes", "-o", "json").stdout)
    assert erased["person"] == person
    assert "erased before" in orgate(*erase, "--yes").stderr
    assert who not in orgate("audit", "persons").stdout
    shown = json.loads(orgate("audit", "tail", "-n", "500", "-o", "json").stdout)
    assert [entry["target"] for entry in shown if entry["action"] == "member.delete"][-1] == "erased"
    orgate("audit", "erase", "--person", "mem_0nobody", "--yes", code=1)
