"""Entries satisfy the published schema, whatever a receipt or a change holds."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.canonical import INTEGER_MAX, LINE_MAX, parse
from gateway.audit.chain import Chain
from gateway.audit.entry import CUT, TEXT_MAX, Draft, from_change, from_receipt
from gateway.exchange import Outcome, Receipt
from policies.facts import Action
from tenants.ids import PLATFORM, OrgId
from tenants.store import Actor, Change
from tests.fakes.audit import ACME, change, intent, receipt

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/reference/audit-entry.schema.json").read_text())
TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


def faults(value: object, schema: dict[str, Any], where: str = "entry") -> list[str]:
    """A small judge of the JSON Schema words that the published schema uses; an unknown word is a fault."""
    found: list[str] = []
    for word, rule in schema.items():
        match word:
            case "$ref":
                target = SCHEMA
                for part in rule.removeprefix("#/").split("/"):
                    target = target[part]
                found += faults(value, target, where)
            case "const" if value != rule or type(value) is not type(rule):
                found.append(f"{where} is not {rule}")
            case "enum" if value not in rule:
                found.append(f"{where} is none of {rule}")
            case "type":
                kinds = [TYPES[kind] for kind in ([rule] if isinstance(rule, str) else rule)]
                if type(value) not in kinds:
                    found.append(f"{where} is {type(value).__name__}, not {rule}")
            case "pattern" if not re.search(rule, str(value)):
                found.append(f"{where} does not match {rule}")
            case "minimum" if not isinstance(value, int) or value < rule:
                found.append(f"{where} is below {rule}")
            case "maximum" if not isinstance(value, int) or value > rule:
                found.append(f"{where} is above {rule}")
            case "minItems" if not isinstance(value, list) or len(value) < rule:
                found.append(f"{where} has too few items")
            case "maxItems" if not isinstance(value, list) or len(value) > rule:
                found.append(f"{where} has too many items")
            case "required":
                assert isinstance(value, dict)
                found += [f"{where} lacks {name}" for name in rule if name not in value]
            case "properties":
                assert isinstance(value, dict)
                for name in rule.keys() & value.keys():
                    found += faults(value[name], rule[name], f"{where}.{name}")
            case "additionalProperties":
                assert isinstance(value, dict)
                for name in value.keys() - schema.get("properties", {}).keys():
                    found += faults(value[name], rule, name) if rule else [f"{where}.{name} is not in the schema"]
            case "items" if isinstance(value, list):
                for item in value[len(schema.get("prefixItems", [])) :]:
                    found += faults(item, rule, f"{where}[]")
            case "prefixItems":
                assert isinstance(value, list)
                for item, item_rule in zip(value, rule, strict=False):
                    found += faults(item, item_rule, f"{where}[]")
            case "oneOf":
                each = [faults(value, option, where) for option in rule]
                if sum(not fault for fault in each) != 1:
                    found += [f"{where} is not exactly one of the alternatives", *min(each, key=len)]
            case "const" | "enum" | "pattern" | "minimum" | "maximum" | "minItems" | "maxItems" | "items":
                pass
            case "title" | "description" | "$schema" | "$defs":
                pass
            case _:
                found.append(f"the schema uses {word}, which this judge does not know")
    return found


def sealed(draft: Draft) -> dict[str, object]:
    line = Chain().seal(draft.fields)
    assert len(line) <= LINE_MAX
    return parse(line)


def test_a_request_satisfies_the_schema() -> None:
    entry = sealed(from_receipt(receipt(7, trace_id="0af7651916cd43dd8448eb211c80319c"), "boot", 3))
    assert faults(entry, SCHEMA) == []
    assert (entry["action"], entry["actor"], entry["org"]) == (
        "completion.create",
        "mem_0123456789abcdefghjk",
        "acme",
    )
    assert entry["@timestamp"] == 1_763_690_000_000
    assert entry["spool"] == ["boot", 3]
    assert "upstream" not in entry
    assert entry["prompt_tokens"] == 7


def test_a_change_satisfies_the_schema() -> None:
    entry = sealed(from_change(change(4, name="x", amount=3, dry=True)))
    assert faults(entry, SCHEMA) == []
    assert entry["detail"] == {"amount": 3, "dry": True, "name": "x"}
    assert (entry["operation_type"], entry["outbox"], entry["actor_org"]) == ("create", 4, "acme")
    assert entry["@timestamp"] == 1_763_690_000_000


def test_the_judge_of_this_file_can_say_no() -> None:
    entry = sealed(from_receipt(receipt(), "boot", 1))
    for broken in (
        {**entry, "more": 1},
        {**entry, "status": "200"},
        {**entry, "prev": "0"},
        {**entry, "spool": []},
    ):
        assert faults(broken, SCHEMA)
    del entry["outcome"]
    assert faults(entry, SCHEMA)


@pytest.mark.parametrize("action", list(Action))
def test_every_action_and_outcome_has_a_name(action: Action) -> None:
    for outcome in Outcome:
        assert faults(sealed(from_receipt(receipt(action=action, outcome=outcome), "b", 1)), SCHEMA) == []


def test_of_an_intent_only_what_was_known_is_said() -> None:
    fields = from_receipt(intent(1, key_version=3).unsettled(), "boot", 4, {}, 9).fields
    assert {"key_version", "outcome", "request_id", "client"} <= fields.keys()
    assert not {"sent", "status", "stream", "total_us", "prompt_tokens", "bytes_out"} & fields.keys()


def test_an_intent_and_its_receipt_are_one_document() -> None:
    orphan, settled = (
        from_receipt(intent().unsettled(), "boot", 4, {}, 9),
        from_receipt(receipt(), "boot", 5, {}, 9),
    )
    assert orphan.id == settled.id
    assert (orphan.orphan, settled.orphan) == (True, False)
    others = [(ACME, "boot", 8), (ACME, "toob", 9), (OrgId("globex"), "boot", 9), (ACME, "boot", 0)]
    ids = {from_receipt(receipt(org=org), boot, 9, {}, number).id for org, boot, number in others}
    assert len(ids | {orphan.id}) == 5


def test_every_field_of_a_receipt_is_in_its_entry() -> None:
    texts: dict[str, Any] = {n: "x" for n in Receipt.__struct_fields__ if Receipt.__annotations__[n] == "str"}
    later: dict[str, Any] = dict.fromkeys(
        ("held_us", "queue_us", "stream_us", "relay_us", "events", "cost_nanodollars"), 1
    )
    later["limits"] = ("everybody", "platform/all")
    entry = sealed(from_receipt(receipt(1, **texts, **later), "b", 1))
    assert not later.keys() & sealed(from_receipt(receipt(1), "b", 1)).keys()
    renamed = {"at_us": "@timestamp", "member": "actor"}
    assert {renamed.get(name, name) for name in Receipt.__struct_fields__} <= set(entry)


@pytest.mark.parametrize(
    ("verb", "operation"),
    [
        ("create", "create"),
        ("suspend", "modify"),
        ("delete", "remove"),
        ("export", "access"),
        ("login", "authentication"),
    ],
)
def test_operation_types_are_githubs(verb: str, operation: str) -> None:
    assert from_change(change(1, f"org.{verb}")).fields["operation_type"] == operation


def test_a_long_text_is_cut_at_a_character_and_says_so() -> None:
    entry = sealed(from_receipt(receipt(model="ü" * 2_000_000), "b", 1))
    model = entry["model"]
    assert isinstance(model, str)
    assert model.endswith(CUT)
    assert TEXT_MAX - 2 <= len(model.encode()) <= TEXT_MAX


def test_a_detail_too_large_for_a_line_is_left_out_and_said() -> None:
    large: dict[str, Any] = {f"k{n}": "x" * 500 for n in range(200)}
    entry = sealed(from_change(change(1, **large)))
    assert entry["detail"] == {"cut": True, "members": 200}


def test_what_names_no_organization_is_the_platforms() -> None:
    for org in ("", "../acme", "UPPER", "a/b"):
        assert from_receipt(receipt(org=OrgId(org)), "b", 1).org == PLATFORM
        assert sealed(from_change(change(1, org=OrgId(org))))["org"] == "platform"


def test_a_repeat_has_the_same_document_and_anything_else_another() -> None:
    one = from_receipt(receipt(1), "b", 1)
    assert from_receipt(receipt(1), "b", 1).id == one.id
    others = {from_receipt(receipt(1), "b", 2).id, from_receipt(receipt(1), "c", 1).id}
    others |= {from_receipt(receipt(1, OrgId("globex")), "b", 1).id, from_change(change(1)).id}
    others |= {from_change(change(1, at=9)).id, from_change(change(2)).id}
    assert len(others | {one.id}) == 7


ANY = st.text(st.characters(codec=None), max_size=700)
NUMBER = st.integers()


@settings(max_examples=200, deadline=None)
@given(text=ANY, number=NUMBER, flag=st.booleans())
def test_any_receipt_makes_an_entry(text: str, number: int, flag: bool) -> None:
    kinds = {"str": text, "int": number, "bool": flag}
    fields: dict[str, Any] = {n: kinds[k] for n, k in Receipt.__annotations__.items() if k in kinds}
    entry = sealed(from_receipt(receipt(**fields), "b", 1))
    assert faults(entry, SCHEMA) == []
    assert -INTEGER_MAX <= int(str(entry["total_us"])) <= INTEGER_MAX


@settings(max_examples=200, deadline=None)
@given(text=ANY, detail=st.dictionaries(ANY, NUMBER | ANY | st.booleans() | st.lists(ANY), max_size=5))
def test_any_change_makes_an_entry(text: str, detail: dict[str, str | int | bool | list[str]]) -> None:
    made = Change(1, 5, ACME, "a.b" + text, text, Actor(ACME, text, text, text), detail)
    assert faults(sealed(from_change(made)), SCHEMA) == []


@pytest.mark.parametrize(("boot", "seq"), [("boot", 1), ("b\u00fc", 2**53), ("", 0)])
def test_a_receipts_document_is_the_hash_of_where_it_came_from(boot: str, seq: int) -> None:
    """For ever: repeats of before an update are known by it, and entries in stores they were exported to."""
    told = sha256(f"acme\n{boot}\n{seq}".encode()).digest()
    assert from_receipt(receipt(1), boot, seq).id == urlsafe_b64encode(told)[:22].decode()
