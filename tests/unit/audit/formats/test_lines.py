"""Syslog, CEF, OCSF and JSON Lines, each read back by a strict reader written from its specification."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings

from gateway.audit.canonical import canonical
from gateway.audit.formats import cef, jsonl, ocsf, rfc5424
from gateway.audit.formats.context import Context, moment, spelt, visible
from gateway.exchange import Outcome
from tenants.roles import Operation
from tests.unit.audit.formats.made import CTX, UNSEEN, Entry, change, entries, request

# -- RFC 5424 section 6 -----------------------------------------------------------------------------------------

SYSLOG = re.compile(
    r"<(?P<pri>0|[1-9]\d{0,2})>1 "
    r"(?P<time>-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) "
    r"(?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<proc>[!-~]{1,128}) (?P<id>[!-~]{1,32}) "
    r'\[(?P<sd>[!#-<>-\\^-~]{1,32})(?P<data>( [!#-<>-\\^-~]{1,32}="([^"\\\]]|\\["\\\]])*")+)\]'
    r"(?: (?P<msg>[ -~]*))?"
)
PARAM = re.compile(r' ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"')


def message(entry: Entry, ctx: Context = CTX) -> tuple[dict[str, str], dict[str, str]]:
    """Header fields, and the parameters of the structured data."""
    found = SYSLOG.fullmatch(rfc5424.convert(entry, ctx=ctx).decode())
    assert found is not None
    pairs = PARAM.findall(found["data"])
    assert len(pairs) == len({name for name, _ in pairs}), "a parameter twice"
    return found.groupdict(), {name: re.sub(r"\\(.)", r"\1", value) for name, value in pairs}


@settings(max_examples=40, deadline=None)
@given(entries)
def test_syslog_is_one_line_with_every_member(entry: Entry) -> None:
    assert not UNSEEN & set(rfc5424.convert(entry, ctx=CTX).decode())
    head, data = message(entry)
    assert data == {name: visible(spelt(value)) for name, value in entry.items()}
    assert data["_document_id"] == entry["_document_id"]
    assert head["app"] == "orgate"


def test_syslogs_header() -> None:
    served, refused = request(outcome=Outcome.SERVED), request(outcome=Outcome.REFUSED)
    failed = request(outcome=Outcome.UPSTREAM_ERROR)
    assert [message(entry)[0]["pri"] for entry in (served, refused, failed)] == ["110", "109", "108"]
    assert message(change("admin.refuse"))[0]["pri"] == "108"
    head, _ = message(served, Context(host="gw.example", enterprise=4711, facility=4))
    assert (head["pri"], head["host"], head["sd"], head["id"]) == (
        "38",
        "gw.example",
        "orgate@4711",
        "completion.create",
    )
    assert head["time"] == "2025-11-21T01:53:20.000Z"
    assert head["msg"] == f"acme {served['actor']} completion.create code served"


def test_syslogs_header_holds_whatever_comes() -> None:
    entry = {**change("a b.\x00" + "é" * 50), "@timestamp": "soon", "x" * 33: 1, "more": "mine", "index": -1}
    head, data = message(entry, Context(host="ho st"))
    assert (head["time"], head["host"], head["id"]) == ("-", "ho?st", "a?b." + "?" * 28)
    assert json.loads(data["more"]) == {"x" * 33: 1, "more": "mine"}
    assert message(change(), Context(host=""))[0]["host"] == "-"


# -- CEF:0 --------------------------------------------------------------------------------------------------------

PAIRS = re.compile(r"(?:^| )([A-Za-z0-9]+)=((?:[^=\\]|\\[=\\nr])*?)(?=$| [A-Za-z0-9]+=)")


def event(entry: Entry, ctx: Context = CTX) -> tuple[list[str], dict[str, str]]:
    """The fields of the head, and the extension."""
    line = cef.convert(entry, ctx=ctx).decode()
    head = re.match(r"((?:[^|\\]|\\[|\\])*\|){7}", line)
    assert head is not None
    fields = re.findall(r"((?:[^|\\]|\\[|\\])*)\|", head[0])
    rest = line[head.end() :]
    pairs = PAIRS.findall(rest)
    assert "".join(f" {key}={value}" for key, value in pairs) == f" {rest}", "nothing between the pairs"
    unescaped = {"n": "\n", "r": "\r"}
    found = {key: re.sub(r"\\(.)", lambda match: unescaped.get(match[1], match[1]), value) for key, value in pairs}
    assert len(found) == len(pairs), "a key twice"
    return [re.sub(r"\\(.)", r"\1", field) for field in fields], found


def shown(text: str) -> str:
    """As it comes out of CEF: line ends are kept, other control characters are visible."""
    return "".join(c if c in "\r\n" else visible(c) for c in text)


@settings(max_examples=40, deadline=None)
@given(entries)
def test_cef_is_one_line_that_reads_back(entry: Entry) -> None:
    assert not UNSEEN & set(cef.convert(entry, ctx=CTX).decode())
    head, found = event(entry)
    assert (head[0], head[1], head[2], head[4]) == ("CEF:0", "Orgate", "Orgate", visible(entry["action"]))
    assert found["externalId"] == entry["_document_id"]
    assert found["rt"] == str(entry["@timestamp"])
    for key, member in (
        ("cs1", "model"),
        ("cs2", "client"),
        ("cs4", "target"),
        ("reason", "error"),
        ("suid", "actor"),
    ):
        assert found.get(key, "") == shown(entry.get(member, "")), member
        if key.startswith("cs") and key in found:
            assert found[f"{key}Label"] == member
    assert len(found["msg"]) <= 1023


def test_cefs_fields_and_severities() -> None:
    head, found = event(request(outcome=Outcome.REFUSED, status=429, limit="fair", client_version="vim/9"))
    assert head[5:] == ["completion create", "3"]
    assert (found["outcome"], found["request"], found["cn1"], found["cn1Label"]) == (
        "refused", "/v1/completions", "429", "status",
    )  # fmt: skip
    assert (found["flexString1"], found["requestClientApplication"], found["dvchost"]) == (
        "fair", "vim/9", "gateway.example",
    )  # fmt: skip
    assert [event(entry)[0][6] for entry in (request(), request(outcome=Outcome.FAILED), change())] == [
        "1",
        "6",
        "1",
    ]
    assert "dvchost" not in event(change(), Context())[1]


def test_cef_cuts_what_a_key_cannot_hold_and_says_so() -> None:
    _, found = event({**change(why="x" * 500, more=["y" * 500, "z" * 500]), "target": "t" * 5_000})
    assert len(found["msg"]) == 1023
    assert found["msg"].endswith("…")
    assert (len(found["cs4"]), found["cs4"][-1]) == (4000, "…")


# -- OCSF 1.8.0 ---------------------------------------------------------------------------------------------------


def normalized(entry: Entry, ctx: Context = CTX) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ocsf.convert(entry, ctx=ctx))
    return found


@settings(max_examples=40, deadline=None)
@given(entries)
def test_ocsf_has_what_its_base_event_requires(entry: Entry) -> None:
    raw = ocsf.convert(entry, ctx=CTX)
    assert raw.isascii()
    assert not UNSEEN & set(raw.decode())
    found = normalized(entry)
    assert found["class_uid"] // 1000 == found["category_uid"]
    assert found["type_uid"] == found["class_uid"] * 100 + found["activity_id"]
    assert found["time"] == entry["@timestamp"]
    assert found["severity_id"] in (1, 2, 3)
    assert found["metadata"]["uid"] == found["metadata"]["original_event_uid"] == entry["_document_id"]
    assert (found["metadata"]["version"], found["metadata"]["sequence"]) == ("1.8.0", entry["index"])
    assert found["metadata"]["product"]["name"] == "Orgate"
    assert found["src_endpoint"]["name"]
    assert found["actor"]["user"].get("uid") or found["actor"]["user"]["name"]
    required = {6003: "api", 3002: "user", 3001: "user", 3004: "entity"}[found["class_uid"]]
    assert found[required]


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("session.create", "Authentication: Logon Success"),
        ("session.refuse", "Authentication: Logon Failure"),
        ("session.revoke", "Authentication: Logoff Success"),
        ("member.create", "Account Change: Create Success"),
        ("member.suspend", "Account Change: Disable Success"),
        ("member.invite", "Account Change: Other Success"),
        ("person.erase", "Account Change: Delete Success"),
        ("org.suspend", "Entity Management: Suspend Success"),
        ("key.write", "Entity Management: Update Success"),
        ("limit.delete", "Entity Management: Delete Success"),
        ("audit.export", "API Activity: Read Success"),
        ("admin.refuse", "API Activity: Other Failure"),
        ("operator.access", "API Activity: Other Success"),
    ],
)
def test_which_class_an_action_is(action: str, kind: str) -> None:
    found = normalized(change(action))
    assert f"{found['type_name']} {found['status']}" == kind


def test_every_operation_has_a_class() -> None:
    for operation in Operation:
        found = normalized(change(str(operation)))
        assert found["class_uid"] in (6003, 3001, 3002, 3004), operation
        assert found["activity_id"] != 0, operation


def test_a_request_as_ocsf_says_who_served_it() -> None:
    found = normalized(
        request(
            outcome=Outcome.SERVED, upstream="vllm", upstream_model="q", trace_id="ab", prompt_tokens=3,
            completion_tokens=4, client="vim", limit="fair",
        )
    )  # fmt: skip
    assert found["metadata"]["profiles"] == ["trace", "ai_operation"]
    assert found["ai_model"] == {"ai_provider": "vllm", "name": "q"}
    assert found["message_context"]["total_tokens"] == 7
    assert found["trace"] == {"uid": "ab"}
    assert found["actor"]["app_name"] == found["src_endpoint"]["name"] == "vim"
    assert found["unmapped"]["limit"] == "fair"
    assert "upstream" not in found["unmapped"]
    assert (found["status_id"], found["status_code"]) == (1, "200")


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("served", (1, "Success")),
        ("refused", (2, "Failure")),
        ("cancelled_by_client", (99, "cancelled_by_client")),
    ],
)
def test_how_outcomes_are_told(outcome: str, status: tuple[int, str]) -> None:
    found = normalized({**request(), "outcome": outcome})
    assert (found["status_id"], found["status"]) == status
    unknown = normalized({**request(), "outcome": "unknown"})
    assert (unknown["status_id"], unknown["severity"]) == (0, "Medium")


def test_nobody_and_the_gateway_itself_are_users_too() -> None:
    assert normalized({**request(), "actor": ""})["actor"]["user"]["name"] == "anonymous"
    assert normalized(change(actor="system"))["actor"]["user"]["type"] == "System"
    assert normalized(change("session.refuse", target="anonymous", actor=""))["user"]["name"] == "anonymous"


def test_a_refusal_is_about_the_operation_that_was_refused() -> None:
    found = normalized(change("admin.refuse", target="limit.list"))
    assert found["api"]["operation"] == "limit.list"
    assert "resources" not in found


# -- JSON Lines, and what all share -------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(entries)
def test_jsonl_is_the_stored_line(entry: Entry) -> None:
    assert jsonl.convert(entry, ctx=CTX) == canonical(entry)


@settings(max_examples=40, deadline=None)
@given(entries)
def test_nothing_an_entry_might_become_breaks_a_format(entry: Entry) -> None:
    """Members of another kind than today's: a newer gateway's log is read by an older exporter."""
    odd = {
        **entry,
        "actor": ["x"],
        "action": 5,
        "model": {"a": True},
        "@timestamp": -1,
        "outcome": 3,
        "client": False,
    }
    for form in (cef, ocsf, rfc5424):
        assert entry["_document_id"] in form.convert(odd, ctx=CTX).decode()


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("gateway.example/audit/acme", "gateway.example"),
        ("gateway.example:8443/audit/acme", "gateway.example"),
        ("[::1]:8443/audit/acme", "::1"),
        ("::1/audit/acme", "::1"),
        ("", ""),
    ],
)
def test_the_host_of_an_origin(origin: str, host: str) -> None:
    assert Context.host_of(origin) == host


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_763_690_000_007, "2025-11-21T01:53:20.007Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, ""),
        (-1, ""),
        ("1", ""),
        (True, ""),
    ],
)
def test_moments(at: object, told: str) -> None:
    assert moment(at) == told
