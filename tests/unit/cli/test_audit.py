"""The audit log at the command line: the last entries, a whole export, and a verdict in words."""

from __future__ import annotations

import csv
import io
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cli.audit_log import moment
from cli.errors import UsageError
from cli.session import Session
from gateway.audit.entry import from_change
from gateway.audit.signer import Signer
from tenants.ids import OrgId
from tenants.store import Actor, Change
from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

ACME = OrgId("acme")
COUNT = 1_203  # more than two pages


@pytest.fixture
def logged(plane: ControlPlane) -> ControlPlane:
    signer = Signer("gateway.example:8443", Ed25519PrivateKey.generate())
    for number in range(COUNT):
        action = "key.write" if number % 100 == 0 else "model.update"
        change = Change(
            seq=number + 1, at=1_700_000_000 + number, org=ACME, action=action, target=f"t{number}",
            actor=Actor(ACME, "mem_1"), detail={},
        )  # fmt: skip
        plane.lines.append(plane.chain.seal(from_change(change).fields))
    plane.checkpoint = signer.checkpoint(ACME, COUNT, plane.chain.tree.root())
    plane.key = str(signer.key(ACME))
    return plane


@pytest.mark.usefixtures("logged")
def test_tail_shows_the_last_entries_in_each_format(signed_in: Cli) -> None:
    found = json.loads(signed_in("audit", "tail", "-n", "3", "-o", "json").out)
    assert [entry["target"] for entry in found] == ["t1200", "t1201", "t1202"]
    rows = list(csv.DictReader(io.StringIO(signed_in("audit", "tail", "-o", "csv").out)))
    assert len(rows) == 10
    table = signed_in("audit", "tail", "-n", "2").out.splitlines()
    assert "2023-11-14T22:33:22Z" in table[2]


@pytest.mark.usefixtures("logged")
def test_tail_with_a_filter_looks_at_the_whole_log(signed_in: Cli) -> None:
    found = json.loads(signed_in("audit", "tail", "-n", "4", "--action", "key.write", "-o", "json").out)
    assert [entry["index"] for entry in found] == [900, 1000, 1100, 1200]


@pytest.mark.usefixtures("logged")
def test_query_shows_the_oldest_first_up_to_a_limit_and_says_when_there_are_more(signed_in: Cli) -> None:
    all_of_them = signed_in("audit", "query", "--action", "key.write", "-o", "json")
    assert [entry["index"] for entry in json.loads(all_of_them.out)] == list(range(0, COUNT, 100))
    assert (all_of_them.code, all_of_them.err) == (0, "")
    cut = signed_in("audit", "query", "--action", "key.write", "--limit", "12", "-o", "csv")
    assert [row["index"] for row in csv.DictReader(io.StringIO(cut.out))] == [str(n) for n in range(0, 1200, 100)]
    assert "more than 12" in cut.err
    exactly = signed_in("audit", "query", "--action", "key.write", "--limit", "13", "-o", "json")
    assert (len(json.loads(exactly.out)), exactly.err) == (13, "")


def test_query_sends_every_filter(signed_in: Cli, logged: ControlPlane) -> None:
    asked = {
        "actor": "mem_1", "action": "chat.create", "outcome": "refused", "model": "code", "client": "continue"
    }  # fmt: skip
    options = [text for name, value in asked.items() for text in (f"--{name}", value)]
    said = signed_in("audit", "query", *options, "--since", "2026-01-01", "--until", "2026-02-01")
    assert (said.code, said.out) == (0, "")
    sent = logged.seen[-1].query
    assert {name: sent[name] for name in asked} == asked
    assert (sent["since"], sent["until"]) == ("1767225600", "1769904000")


@pytest.mark.parametrize("times", [("--since", "soon"), ("--since", "2026-02-01", "--until", "2026-01-01")])
def test_query_refuses_times_that_make_no_sense(signed_in: Cli, times: tuple[str, ...]) -> None:
    said = signed_in("audit", "query", *times)
    assert said.code == 2
    assert "soon" in said.err or "--until is not after --since" in said.err


def test_tail_follows_until_interrupted(
    signed_in: Cli, logged: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/admin/v1/orgs/acme/audit/entries"
    entry = json.loads(logged.lines[-1])
    logged.script(
        "GET", path, (200, {"items": [], "next": COUNT}, {}), (200, {"items": [entry], "next": COUNT + 1}, {})
    )
    from cli import audit

    real = audit._line

    def line_then_interrupt(session: Session, shown: dict[str, object]) -> None:
        real(session, shown)
        raise KeyboardInterrupt

    monkeypatch.setattr(audit, "_line", line_then_interrupt)
    said = signed_in("audit", "tail", "-f", "-n", "0", "-o", "json")
    assert said.code == 0
    assert json.loads(said.out)["target"] == "t1202"
    polled = [seen.query for seen in logged.seen if seen.query.get("wait_s")]
    assert [query["after"] for query in polled] == [str(COUNT)]
    assert signed_in("audit", "tail", "-f", "-o", "csv").code == 2


def test_an_empty_log_has_no_last_entries(signed_in: Cli, plane: ControlPlane) -> None:
    signer = Signer("gateway.example", Ed25519PrivateKey.generate())
    plane.checkpoint = signer.checkpoint(ACME, 0, plane.chain.tree.root())
    said = signed_in("audit", "tail")
    assert (said.code, said.out) == (0, "")


def test_moments() -> None:
    assert moment("90m", 10_000) == 10_000 - 5_400
    assert moment("2026-01-31", 0) == 1_769_817_600
    assert moment("2026-01-31T01:00:00+01:00", 0) == 1_769_817_600
    assert moment("9999d", 100) == 0
    for text in ("yesterday", "-1h", "3w", ""):
        with pytest.raises(UsageError):
            moment(text, 0)


def test_what_is_no_day_is_wrong_usage(signed_in: Cli) -> None:
    for day in ("yesterday", "2026-02-30", "20260131"):
        said = signed_in("audit", "reconcile", "--day", day)
        assert said.code == 2
        assert f"--day {day} is no day" in said.err
