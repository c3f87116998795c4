"""`orgate limit`: what is given becomes a limit, what is used is readable, and who would be refused is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from cli.errors import NotAllowedError, RefusedError, UnreachableError
from cli.limit_use import SHOWN, Bucket, rows, watch
from tenants.models import LimitUnit
from tests.fakes.control_plane import ControlPlane
from tests.unit.cli.conftest import Cli

NEW = ("limit", "set", "new", "--scope", "org")
ANN = "mem_0123456789abcdefghjk"


@pytest.fixture
def stocked(plane: ControlPlane) -> ControlPlane:
    plane.put("acme", "limits", "r", scope="member", unit="requests", amount=60, period_s=60, burst=0, subject="")
    month = {"scope": "org", "unit": "spend", "amount": 200 * 10**9, "period_s": 0, "burst": 0, "subject": ""}
    plane.put("acme", "limits", "money", **month, window="month", notify_at=[80, 100], on_end="cut")
    plane.put("acme", "members", ANN, email="ann@acme.example", name="Ann", roles=["member"], state="active")
    plane.buckets = [
        bucket("r", ANN, left=10, used=45, lent=5, open=2, resets_at=1_795_000_060),
        bucket("r", "mem_gone", left=59, used=1),
        bucket("money", "", unit="spend", amount=200 * 10**9, left=-5 * 10**8, used=2005 * 10**8, period_s=0),
    ]
    return plane


def bucket(limit: str, subject: str, **changes: Any) -> dict[str, Any]:
    values = {"unit": "requests", "amount": 60, "burst": 60, "period_s": 60, "left": 0, "used": 0, "lent": 0}
    more = {"open": 0, "workers": 2, "starts_at": 0, "resets_at": 0, "platform": False}
    return {"limit": limit, "subject": subject, **values, **more, **changes}


def sent(plane: ControlPlane) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(plane.writes[-1].body)
    return body


@pytest.mark.parametrize(
    ("argv", "fields"),
    [
        (("--unit", "requests", "--amount", "1000"), {"amount": 1_000, "period_s": 60, "window": ""}),
        (("--unit", "tokens", "--amount", "2M", "--per", "day"), {"amount": 2_000_000, "period_s": 86_400}),
        (
            ("--unit", "spend", "--amount", "200", "--window", "month", "--notify-at", "50,80,100"),
            {"amount": 200 * 10**9, "period_s": 0, "window": "month", "notify_at": [50, 80, 100]},
        ),
        (("--unit", "spend", "--amount", "$0.5", "--per", "hour"), {"amount": 5 * 10**8, "period_s": 3_600}),
        (("--unit", "bytes", "--amount", "64MiB", "--burst", "1MiB"), {"amount": 2**26, "burst": 2**20}),
        (("--unit", "concurrency", "--amount", "4"), {"amount": 4, "period_s": 0}),
        (
            ("--unit", "output_tokens", "--amount", "5k", "--on-end", "cut", "--on-outage", "deny"),
            {"unit": "output_tokens", "on_end": "cut", "on_outage": "deny"},
        ),
    ],
)
def test_what_is_given_becomes_a_limit(
    signed_in: Cli, stocked: ControlPlane, argv: tuple[str, ...], fields: dict[str, Any]
) -> None:
    said = signed_in(*NEW, *argv)
    assert said.code == 0, said.err
    assert sent(stocked).items() >= {"scope": "org", **fields}.items()


@pytest.mark.parametrize(
    ("argv", "fields"),
    [
        (("r", "--amount", "2k"), {"amount": 2_000, "period_s": 60}),
        (("r", "--per", "hour"), {"amount": 60, "period_s": 3_600}),
        (("r", "--window", "week", "--notify-at", "90"), {"period_s": 0, "window": "week", "notify_at": [90]}),
        (("r", "--unit", "concurrency"), {"amount": 60, "period_s": 0}),
        (("r", "--scope", "team", "--subject", "blue"), {"scope": "team", "subject": "blue"}),
        (("r", "--subject", "ann@acme.example"), {"subject": ANN}),
        (("money", "--amount", "250.25"), {"amount": 250_250_000_000, "window": "month", "notify_at": [80, 100]}),
        (("money", "--per", "day"), {"period_s": 86_400, "window": "", "notify_at": []}),
        (("money", "--notify-at", ""), {"notify_at": [], "window": "month"}),
        (("money", "--unit", "tokens", "--amount", "5M"), {"unit": "tokens", "amount": 5_000_000}),
    ],
)
def test_only_what_is_given_changes(
    signed_in: Cli, stocked: ControlPlane, argv: tuple[str, ...], fields: dict[str, Any]
) -> None:
    said = signed_in("limit", "set", *argv)
    assert said.code == 0, said.err
    assert sent(stocked).items() >= fields.items()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((*NEW, "--unit", "tokens", "--amount", "many"), "'many' is no amount"),
        ((*NEW, "--unit", "tokens", "--amount", "0.5"), "'0.5' is not whole"),
        ((*NEW, "--unit", "tokens", "--amount", "-5"), "no amount"),
        ((*NEW, "--unit", "tokens", "--amount", "64KiB"), "no suffix of tokens"),
        ((*NEW, "--unit", "spend", "--amount", "0.0000000001"), "finer than a nanodollar"),
        ((*NEW, "--unit", "tokens", "--amount", "0"), "0 lets nothing pass"),
        ((*NEW, "--unit", "tokens", "--amount", "5", "--per", "day", "--window", "day"), "--per and --window"),
        ((*NEW, "--unit", "concurrency", "--amount", "5", "--window", "day"), "leave out --window"),
        ((*NEW, "--unit", "tokens", "--amount", "5", "--window", "day", "--burst", "2"), "a budget has no burst"),
        (
            (*NEW, "--unit", "tokens", "--amount", "5", "--window", "day", "--notify-at", "0,50"),
            "percents from 1 to",
        ),
        ((*NEW, "--amount", "5"), "add --unit"),
        (("limit", "set", "r"), "nothing to set"),
        (("limit", "set", "r", "--scope", "memb"), "Invalid value for '--scope': 'memb' is not one of 'org', "),
        (("limit", "top", "--by", "euros"), "Invalid value for '--by': 'euros' is not one of"),
        (("limit", "set", "r", "--unit", "spend"), "add --amount"),
        (("limit", "set", "money", "--unit", "requests"), "add --amount"),
        (("limit", "simulate", "--amount", "5"), "--scope, --unit not given"),
        (("limit", "simulate", "--name", "r", "--since", "noon"), "is no time"),
        (("limit", "simulate", "--name", "r", "--per", "day", "--window", "day"), "--per and --window"),
    ],
)
def test_what_makes_no_limit_is_said_and_not_sent(
    signed_in: Cli, stocked: ControlPlane, argv: tuple[str, ...], words: str
) -> None:
    said = signed_in(*argv)
    assert said.code == 2
    assert words in said.err
    assert stocked.writes == []


def test_the_list_and_one_limit_are_for_people_and_documents_for_programs(
    signed_in: Cli, stocked: ControlPlane
) -> None:
    lines = signed_in("limit", "list").out.splitlines()
    assert lines[0] == "NAME   SCOPE   SUBJECT  ALLOWS                 BURST  ON END  ON OUTAGE  NOTIFY AT"
    assert "60 requests a minute" in lines[1]
    assert "$200 a calendar month" in lines[2]
    assert lines[2].endswith("80 %, 100 %")
    assert "allows     $200 a calendar month" in signed_in("limit", "show", "money").out
    assert json.loads(signed_in("limit", "show", "money", "-o", "json").out)["amount"] == 200 * 10**9
    assert (
        signed_in("limit", "list", "-o", "csv").out.splitlines()[2].startswith("money,org,spend,200000000000,0,")
    )


def test_a_member_is_an_address_for_people_and_an_id_for_programs(signed_in: Cli, stocked: ControlPlane) -> None:
    limit = {"scope": "member", "unit": "requests", "amount": 60, "period_s": 60, "burst": 0}
    stocked.put("acme", "limits", "ann", **limit, subject=ANN)
    stocked.put("acme", "limits", "gone", **limit, subject="mem_gone")
    subjects = {line.split()[0]: line.split()[2] for line in signed_in("limit", "list").out.splitlines()}
    assert subjects == {
        "NAME": "SUBJECT",
        "ann": "ann@acme.example",
        "gone": "mem_gone",
        "money": "$200",
        "r": "each",
    }
    assert "subject    ann@acme.example" in signed_in("limit", "show", "ann").out
    assert "subject    ann@acme.example" in signed_in("limit", "set", "ann", "--amount", "9").out
    assert json.loads(signed_in("limit", "show", "ann", "-o", "json").out)["subject"] == ANN


def test_notices_that_go_with_a_window_are_told(signed_in: Cli, stocked: ControlPlane) -> None:
    """Told to whoever makes a rate of a budget, and not to whoever keeps them or takes them away."""
    said = signed_in("limit", "set", "money", "--amount", "100")
    assert "nobody is told" not in said.err
    said = signed_in("limit", "set", "money", "--per", "hour")
    assert "note: nobody is told at 80 %, 100 % any more" in said.err
    assert sent(stocked)["notify_at"] == []
    assert signed_in("limit", "set", "money", "--window", "month", "--notify-at", "50").code == 0
    assert "nobody is told" not in signed_in("limit", "set", "money", "--notify-at", "").err


def test_what_the_server_remarks_is_passed_on(signed_in: Cli, stocked: ControlPlane) -> None:
    remark = "limit 'r' never decides: 'x' allows no more; no price is known"
    item = stocked.items["acme", "limits"]["r"]
    stocked.script("PUT", "/admin/v1/orgs/acme/limits/r", (200, item, {"x-orgate-remark": remark}))
    said = signed_in("limit", "set", "r", "--amount", "9")
    assert "note: limit 'r' never decides: 'x' allows no more\nnote: no price is known\n" in said.err


def test_usage_shows_whose_bucket_how_much_is_used_and_when_it_resets(
    signed_in: Cli, stocked: ControlPlane
) -> None:
    said = signed_in("limit", "usage")
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[1] == "r ann@acme.example 60 requests 45 78 % 10 5 2 2026-11-18T11:07:40Z"
    assert lines[2] == "r mem_gone 60 requests 1 2 % 59"
    assert lines[3] == "money all $200 $200.5 100 % -$0.5"
    (row,) = json.loads(signed_in("limit", "usage", "money", "-o", "json").out)
    assert row == stocked.buckets[2]
    assert signed_in("limit", "usage", "r", "--subject", "ann@acme.example").out.count("\n") == 2
    assert signed_in("limit", "usage", "r", "-o", "csv").out.startswith("limit,subject,unit,amount,")
    gone = signed_in("limit", "usage", "none")
    assert (gone.code, "limit 'none' does not exist" in gone.err) == (1, True)
    stocked.buckets = []
    assert "nothing is used" in signed_in("limit", "usage").err


def test_more_buckets_than_are_shown_are_counted(signed_in: Cli, stocked: ControlPlane) -> None:
    said = signed_in("limit", "top", "-n", "1")
    assert said.out.count("\n") == 2
    assert "2 more buckets are in use" in said.err


def test_top_by_a_unit_has_who_used_most_of_it_first(signed_in: Cli, stocked: ControlPlane) -> None:
    stocked.buckets += [bucket("wide", "mem_gone", amount=10**6, burst=10**6, left=10**6 - 500, used=500)]
    lines = signed_in("limit", "top", "--by", "requests", "--once").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["wide", "r", "r"]
    assert all(seen.query["unit"] == "requests" for seen in stocked.seen if seen.path.endswith("limits-usage"))


def test_a_reset_names_whose_bucket_and_is_confirmed(signed_in: Cli, stocked: ControlPlane) -> None:
    assert "--yes" in signed_in("limit", "reset", "r").err
    assert stocked.writes == []
    said = signed_in("limit", "reset", "r", "--subject", "ann@acme.example", "--yes")
    assert (said.code, stocked.writes[-1].query) == (0, {"subject": ANN})
    assert "limit 'r' of 'ann@acme.example' set back" in said.err
    stocked.script("POST", "/admin/v1/orgs/acme/limits/r/reset", (200, {"buckets": 0}, {}))
    said = signed_in("limit", "reset", "r", "--yes")
    assert (said.code, "limit 'r' had no bucket in use" in said.err) == (0, True)


def test_top_on_a_terminal_goes_on_until_it_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn anew after each pause; Ctrl-C in a pause ends it without a word."""
    one = Bucket(**{**bucket("r", "x", left=10, used=50), "unit": LimitUnit.REQUESTS})
    looks: Iterator[list[Bucket]] = iter([[one], [], [one]])
    pauses = [0]

    def pause(seconds: float) -> None:
        pauses[0] += 1
        if pauses[0] == 3:
            raise KeyboardInterrupt

    console = Console(force_terminal=True, width=120, record=True)
    monkeypatch.setattr("rich._console", console)
    watch(lambda: rows(next(looks), str), 2.0, pause)
    shown = console.export_text()
    assert "60 requests" in shown
    assert "no bucket is in use" in shown
    assert all(column.head in shown for column in SHOWN)
    assert pauses == [3]


def test_top_goes_on_while_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last answer stays, and why there is no newer one; what will not pass by itself ends it."""
    one = rows([Bucket(**{**bucket("r", "x", left=10, used=50), "unit": LimitUnit.REQUESTS})], str)
    looks: Iterator[Any] = iter(
        [one, RefusedError("the store cannot be asked"), UnreachableError("no connection"), one]
    )
    drawn: list[str] = []
    console = Console(force_terminal=True, width=120, record=True)
    monkeypatch.setattr("rich._console", console)

    def look() -> list[dict[str, str]]:
        found = next(looks, NotAllowedError("signed out"))
        if isinstance(found, Exception):
            raise found
        return list(found)

    with pytest.raises(NotAllowedError):
        watch(look, 2.0, lambda _: drawn.append(console.export_text()))
    assert [("60 requests" in text, "as it was before" in text) for text in drawn] == [
        (True, False), (True, True), (True, True), (True, False),
    ]  # fmt: skip
    assert "the store cannot be asked" in drawn[1]
    assert "no connection" in drawn[2]


REPORT = {
    "entries": 41,
    "requests": 40,
    "refused": 20,
    "refused_then": 0,
    "callers": 2,
    "rows": [
        {"member": ANN, "model": "code", "requests": 30, "refused": 20, "first_refused_ms": 1_795_000_005_678}
    ],
    "notes": ["Prices are today's."],
}
TRY = ("limit", "simulate", "--scope", "member", "--unit", "requests", "--amount", "10", "--per", "hour")


def test_a_simulation_tells_whom_it_would_have_refused(signed_in: Cli, stocked: ControlPlane) -> None:
    stocked.report = REPORT
    said = signed_in(*TRY, "--since", "7d", "--until", "2026-11-20")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].startswith("10 requests an hour for each member, from 2026-11-18T")
    assert lines[1] == "20 of 40 requests would have been refused (50.0 %), in 1 of 2 pairs of member and model"
    assert lines[4].split() == ["ann@acme.example", "code", "30", "20", "66.7", "%", "2026-11-18T11:06:45Z"]
    assert "note: Prices are today's." in said.err
    body = json.loads(next(seen.body for seen in stocked.seen if seen.path.endswith("limits-simulation")))
    assert body["limit"].items() >= {"name": "simulated", "amount": 10, "period_s": 3_600}.items()
    assert body["until"] == "1795132800"
    assert "org" not in body["limit"]


def test_a_simulation_of_a_limit_that_exists_begins_with_it(signed_in: Cli, stocked: ControlPlane) -> None:
    stocked.report = {**REPORT, "requests": 0, "refused": 0, "rows": [], "notes": []}
    said = signed_in("limit", "simulate", "--name", "r", "--amount", "90")
    assert "90 requests a minute for each member" in said.out
    assert "no requests that it is about" in said.out
    assert stocked.items["acme", "limits"]["r"]["amount"] == 60


def test_a_simulation_for_programs(signed_in: Cli, stocked: ControlPlane) -> None:
    stocked.report = REPORT
    assert json.loads(signed_in(*TRY, "-o", "json").out)["rows"] == REPORT["rows"]
    assert signed_in(*TRY, "-o", "csv").out.splitlines()[1] == f"{ANN},code,30,20,1795000005678"


def test_a_simulation_that_breaks_off_is_no_result(signed_in: Cli, stocked: ControlPlane) -> None:
    said = signed_in(*TRY)
    assert (said.code, said.out) == (1, "")
    assert "broke off before its end" in said.err
    stocked.script("POST", "/admin/v1/orgs/acme/limits-simulation", (200, "nonsense\n", {}))
    assert "cannot be understood" in signed_in(*TRY).err
    busy = {"type": "urn:orgate:problem:busy", "detail": "Another simulation is running; try again."}
    stocked.script("POST", "/admin/v1/orgs/acme/limits-simulation", (409, busy, {}))
    assert "Another simulation is running" in signed_in(*TRY).err


def test_where_days_begin_and_how_much_weight(signed_in: Cli, plane: ControlPlane) -> None:
    plane.put("", "orgs", "acme", name="Acme", state="active", hosts=[])
    assert signed_in("org", "set", "--timezone", "Europe/Berlin").code == 0
    assert sent(plane).items() >= {"timezone": "Europe/Berlin", "weight": 1}.items()
    assert signed_in("org", "set", "--weight", "4").code == 0
    assert sent(plane).items() >= {"timezone": "Europe/Berlin", "weight": 4}.items()


def test_top_goes_on_only_where_somebody_looks(
    signed_in: Cli, stocked: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[dict[str, str]], float]] = []
    monkeypatch.setattr("cli.output.Printer.interactive", True)
    monkeypatch.setattr("cli.limit_use.watch", lambda look, every: seen.append((look(), every)))
    assert signed_in("limit", "top", "-n", "2", "--every", "5").out == ""
    ((shown, every),) = seen
    assert ([row["subject"] for row in shown], every) == (["ann@acme.example", "mem_gone"], 5.0)
    assert signed_in("limit", "top", "--once").out.strip()
    assert json.loads(signed_in("limit", "top", "-o", "json").out)
    assert len(seen) == 1


def test_a_simulation_about_one_of_them_says_which(signed_in: Cli, stocked: ControlPlane) -> None:
    stocked.report = {**REPORT, "rows": []}
    said = signed_in(*TRY, "--subject", "ann@acme.example")
    assert "10 requests an hour for member ann@acme.example, from" in said.out
