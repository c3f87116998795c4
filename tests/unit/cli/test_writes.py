"""Changes: what is sent, with which version, what somebody else's change does to it, and what is asked before."""

from __future__ import annotations

import io
import json

import pytest

from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli


@pytest.fixture
def stocked(plane: ControlPlane) -> ControlPlane:
    plane.put("acme", "upstreams", "vllm", base_url="https://u.example", key_version=2)
    plane.put("acme", "models", "code", upstream="vllm", model="old", tasks=["chat"], max_tokens=9)
    plane.put("acme", "limits", "r", scope="member", unit="requests", amount=5, period_s=60, burst=0, subject="")
    plane.put("acme", "members", "mem_1", email="ann@acme.example", name="Ann", roles=["member"], state="active")
    plane.put("acme", "teams", "ops", title="Ops")
    plane.put("acme", "rules", "r1", effect="allow", roles=["member"], actions=["chat"], models=["*"])
    plane.put("", "orgs", "acme", name="Acme", state="active", hosts=[])
    return plane


WRITES: list[tuple[str, ...]] = [
    ("org", "create", "beta", "--name", "Beta"),
    ("org", "set", "acme", "--name", "New"),
    ("org", "set", "--supersede", "--deadline-ms", "900", "--hold", "vim/*=3"),
    ("org", "set", "--durability", "strict"),
    ("org", "suspend", "acme", "--yes"),
    ("org", "resume", "acme"),
    ("org", "delete", "acme", "--yes"),
    ("member", "create", "bob@acme.example", "--role", "auditor"),
    ("member", "set", "ann@acme.example", "--role", "admin"),
    ("member", "suspend", "mem_1", "--yes"),
    ("member", "resume", "mem_1"),
    ("member", "offboard", "mem_1", "--yes"),
    ("member", "invite", "mem_1"),
    ("member", "revoke", "mem_1", "--yes"),
    ("team", "create", "core", "--title", "The Core"),
    ("team", "set", "ops", "--title", "Operations"),
    ("team", "add", "ops", "ann@acme.example"),
    ("team", "add", "ops", "ann@acme.example", "--lead"),
    ("team", "lead", "set", "ops", "mem_1"),
    ("team", "lead", "unset", "ops", "mem_1"),
    ("team", "remove", "ops", "mem_1"),
    ("personal-token", "create", "ci", "--days", "30", "--action", "chat", "--model", "code"),
    ("personal-token", "create", "ci", "--member", "ann@acme.example"),
    ("personal-token", "create", "ci", "--service", "svc_00000000000000000000"),
    ("personal-token", "revoke", "pt_1"),
    ("personal-token", "revoke", "pt_1", "--any"),
    ("session", "revoke", "0123456789abcdef0123456789abcdef"),
    ("session", "revoke", "0123456789abcdef0123456789abcdef", "--any"),
    ("org", "set", "--personal-tokens"),
    ("team", "delete", "ops", "--yes"),
    ("upstream", "create", "two", "--url", "https://two.example/"),
    ("upstream", "set", "vllm", "--connections", "8", "--total-timeout-ms", "30000"),
    ("upstream", "delete", "vllm", "--yes"),
    ("key", "set", "vllm"),
    ("key", "rotate", "vllm"),
    ("key", "rotate", "vllm"),
    ("key", "delete", "vllm", "--yes"),
    ("model", "create", "chat", "--upstream", "vllm", "--model", "m"),
    ("model", "set", "code", "--model", "new"),
    ("model", "delete", "code", "--yes"),
    ("limit", "set", "r", "--amount", "7"),
    ("limit", "set", "new", "--scope", "org", "--unit", "tokens", "--amount", "7", "--per", "day"),
    ("limit", "delete", "r", "--yes"),
    ("limit", "reset", "r", "--yes"),
    ("org", "set", "--timezone", "Europe/Berlin", "--weight", "4"),
    ("policy", "apply", "rules.yaml", "--yes"),
    ("upstream", "cert", "set", "vllm", "--cert", "gw.pem", "--key", "gw.key"),
    ("upstream", "cert", "remove", "vllm", "--yes"),
    ("key", "rotate", "vllm", "--overlap", "2h"),
    ("key", "schedule", "vllm", "--every", "90d", "--command", "/etc/orgate/mint"),
    ("key", "schedule", "vllm", "--off"),
]


def _rules(cli: Cli) -> None:
    (cli.folder.parent / "rules.yaml").write_text(
        "- {name: r2, effect: deny, roles: [member], actions: [chat], models: ['gpt-*']}\n"
    )
    (cli.folder.parent / "gw.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (cli.folder.parent / "gw.key").write_text("-----BEGIN PRIVATE KEY-----\nPLANTED\n")


@pytest.mark.parametrize("argv", WRITES, ids=lambda argv: " ".join(argv[:3]))
def test_each_write_is_sent_and_with_dry_run_only_shown(
    signed_in: Cli, stocked: ControlPlane, argv: tuple[str, ...]
) -> None:
    _rules(signed_in)
    dry = signed_in(*argv, "--dry-run", stdin="sk-1\n")
    assert dry.code == 0, dry.err
    assert stocked.writes == []
    assert "nothing was sent" in dry.err
    planned = json.loads(signed_in(*argv, "--dry-run", "-o", "json", stdin="sk-1\n").out)
    done = signed_in(*argv, stdin="sk-1\n")
    assert done.code == 0, done.err
    assert [(p["method"], p["url"]) for p in planned] == [
        (w.method, stocked.origin + w.path) for w in stocked.writes
    ]
    assert [p["if_match"] for p in planned] == [w.headers.get("if-match", "") for w in stocked.writes]
    for plan, write in zip(planned, stocked.writes, strict=True):
        sent = json.loads(write.body) if write.body else None
        assert plan["body"] == (sent if sent is None or "key" not in sent else {**sent, "key": "***"})


@pytest.mark.parametrize("argv", [w for w in WRITES if "--yes" in w], ids=lambda argv: " ".join(argv[:3]))
def test_what_cannot_be_taken_back_is_not_done_unasked(
    signed_in: Cli, stocked: ControlPlane, argv: tuple[str, ...]
) -> None:
    _rules(signed_in)
    said = signed_in(*[word for word in argv if word != "--yes"])
    assert said.code == 2
    assert "--yes" in said.err
    assert stocked.writes == []


@pytest.mark.parametrize("form", ["json", "yaml", "csv", "table"])
@pytest.mark.parametrize("argv", [WRITES[6], WRITES[26]], ids=["member create", "model set"])
def test_dry_run_in_each_format(signed_in: Cli, stocked: ControlPlane, argv: tuple[str, ...], form: str) -> None:
    said = signed_in(*argv, "--dry-run", "-o", form)
    assert said.code == 0
    assert stocked.origin in said.out
    assert stocked.writes == []


def test_somebody_elses_change_of_another_field_is_shown_and_kept(signed_in: Cli, stocked: ControlPlane) -> None:
    path = "/admin/v1/orgs/acme/models/code"
    stale = {**stocked.items["acme", "models"]["code"]}
    stocked.put("acme", "models", "code", upstream="vllm", model="old", tasks=["chat"], max_tokens=99)
    stocked.items["acme", "models"]["code"]["version"] = 2
    stocked.script("GET", path, (200, stale, {"etag": '"1"'}))
    said = signed_in("model", "set", "code", "--model", "new")
    assert said.code == 0
    assert "max_tokens: 9 → 99" in said.err
    now = stocked.items["acme", "models"]["code"]
    assert (now["model"], now["max_tokens"], now["version"]) == ("new", 99, 3)


def test_two_changes_of_the_same_field_change_nothing(signed_in: Cli, stocked: ControlPlane) -> None:
    path = "/admin/v1/orgs/acme/models/code"
    stale = {**stocked.items["acme", "models"]["code"]}
    stocked.put("acme", "models", "code", upstream="vllm", model="theirs", tasks=["chat"], max_tokens=9)
    stocked.items["acme", "models"]["code"]["version"] = 2
    stocked.script("GET", path, (200, stale, {"etag": '"1"'}))
    said = signed_in("model", "set", "code", "--model", "mine")
    assert said.code == 1
    assert "old → theirs" in said.err
    assert stocked.items["acme", "models"]["code"]["model"] == "theirs"


def test_what_an_organizations_requests_are_subject_to(signed_in: Cli, stocked: ControlPlane) -> None:
    def now() -> tuple[bool, int, list[str]]:
        item = stocked.items["", "orgs"]["acme"]
        return item["supersede"], item["deadline_ms"], item["holds"]

    holds = ("--hold", "copilot.vim/1.4.*=3", "--hold", "*=1")
    assert signed_in("org", "set", "--supersede", "--deadline-ms", "900", *holds).code == 0
    assert now() == (True, 900, ["copilot.vim/1.4.*=3", "*=1"])
    shown = [line.split() for line in signed_in("org", "show").out.splitlines()]
    for line in ("supersede yes", "deadline ms 900", "holds copilot.vim/1.4.*=3, *=1"):
        assert line.split() in shown
    assert signed_in("org", "set", "--name", "New").code == 0
    assert now() == (True, 900, ["copilot.vim/1.4.*=3", "*=1"])
    assert signed_in("org", "set", "--hold", "emacs/*=2").code == 0
    assert now() == (True, 900, ["emacs/*=2"])
    assert signed_in("org", "set", "--no-supersede", "--deadline-ms", "0", "--no-holds").code == 0
    assert now() == (False, 0, [])
    assert signed_in("org", "set", "--durability", "strict").code == 0
    assert signed_in("org", "set", "--name", "Newer").code == 0
    assert stocked.items["", "orgs"]["acme"]["durability"] == "strict"
    assert signed_in("org", "set", "--durability", "eventually").code == 2
    before = len(stocked.writes)
    both = signed_in("org", "set", "--hold", "emacs/*=2", "--no-holds")
    assert (both.code, signed_in("org", "set").code) == (2, 2)
    assert "--no-holds" in both.err
    assert len(stocked.writes) == before


def test_a_limit_needs_what_makes_it_one(signed_in: Cli, stocked: ControlPlane) -> None:
    said = signed_in("limit", "set", "fresh", "--amount", "5")
    assert said.code == 2
    assert "--scope, --unit" in said.err
    assert signed_in("limit", "set", "c", "--unit", "concurrency", "--per", "day", "--amount", "1").code == 2
    assert signed_in("limit", "set", "c", "--unit", "concurrency", "--scope", "org", "--amount", "1").code == 0
    assert stocked.items["acme", "limits"]["c"]["period_s"] == 0
    assert signed_in("limit", "set", "c", "--unit", "tokens").code == 0
    assert stocked.items["acme", "limits"]["c"]["period_s"] == 60


@pytest.mark.parametrize("noun", ["model", "upstream", "limit", "member", "org"])
def test_set_without_anything_to_set(signed_in: Cli, stocked: ControlPlane, noun: str) -> None:
    assert signed_in(noun, "set", "x").code == 2
    assert stocked.writes == []


def test_a_member_is_found_by_address_and_an_unknown_one_is_not(signed_in: Cli, stocked: ControlPlane) -> None:
    said = signed_in("member", "show", "ann@acme.example", "-o", "json")
    assert json.loads(said.out)["id"] == "mem_1"
    assert signed_in("member", "show", "nobody@acme.example").code == 1
    del stocked


def test_an_invitation_is_the_result_and_the_rest_is_said(signed_in: Cli, stocked: ControlPlane) -> None:
    said = signed_in("member", "create", "bob@acme.example")
    assert said.out.splitlines()[-1].split() == ["invitation", "inv-2"]
    assert "orgate login" in said.err
    assert json.loads(signed_in("member", "invite", "mem_1", "-o", "json").out)["code"] == "inv-2"
    del stocked


def test_an_upstream_that_fails_its_test_is_exit_code_1(signed_in: Cli, stocked: ControlPlane) -> None:
    assert signed_in("upstream", "test", "vllm").code == 0
    failed = {"ok": False, "status": 401, "ms": 3.0, "detail": "the key was refused"}
    stocked.script("POST", "/admin/v1/orgs/acme/upstreams/vllm/test", (200, failed, {}))
    said = signed_in("upstream", "test", "vllm", "-o", "json")
    assert said.code == 1
    assert json.loads(said.out)["status"] == 401
    assert "the key was refused" in said.err


class _Typing(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 1), ("\n", 1, 1), ("", 1, 1)])
def test_at_a_terminal_it_asks(
    signed_in: Cli, stocked: ControlPlane, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, left: int
) -> None:
    monkeypatch.setattr("sys.stdin", _Typing(typed))
    said = signed_in.run("model", "delete", "code")
    assert said.code == code
    assert "Delete model 'code'? [y/N]" in said.err
    assert len(stocked.items["acme", "models"]) == left


def test_a_key_that_does_not_pass_is_told(signed_in: Cli, stocked: ControlPlane) -> None:
    said = signed_in("key", "rotate", "vllm", stdin="sk-bad\n")
    assert (said.code, "did not pass" in said.err) == (1, True)
    assert "sk-bad" not in said.out + said.err
    said = signed_in("key", "rotate", "vllm", stdin="sk-good\n")
    assert (said.code, "tried and set on every worker" in said.err) == (0, True)


def test_a_client_certificate_is_shown_without_its_key(signed_in: Cli, stocked: ControlPlane) -> None:
    _rules(signed_in)
    assert signed_in("upstream", "cert", "set", "vllm", "--cert", "gw.pem", "--key", "gw.key").code == 0
    shown = signed_in("upstream", "cert", "show", "vllm")
    assert "CN=gw" in shown.out
    assert "1970-01-02T00:00:00Z" in shown.out
    assert "PLANTED" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), (b"\x30\x82\xff", "is no PEM file"), (b"x" * 70_000, "more than 64 KiB")],
)
def test_a_file_that_is_no_pem_is_said_before_anything_is_sent(
    signed_in: Cli, stocked: ControlPlane, content: bytes | None, says: str
) -> None:
    _rules(signed_in)
    path = signed_in.folder.parent / "gw.pem"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    said = signed_in("upstream", "cert", "set", "vllm", "--cert", "gw.pem", "--key", "gw.key")
    assert said.code == 2
    assert says in said.err
    assert stocked.writes == []
