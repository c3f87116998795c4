"""PATCH: the RFC's cases, and what Entra ID and Okta send."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.scim.errors import ScimError
from gateway.scim.patch import MAX_OPERATIONS, PATCH_OP, patched
from gateway.scim.schemas import CORE_GROUP, CORE_USER, ENTERPRISE_USER, GROUP, USER

WORK = {"value": "ann@acme.example", "type": "work", "primary": True}
HOME = {"value": "ann@home.example", "type": "home"}
ANN: dict[str, Any] = {
    "userName": "ann@acme.example",
    "active": True,
    "displayName": "Ann",
    "name": {"givenName": "Ann", "familyName": "Lee"},
    "emails": [WORK, HOME],
    ENTERPRISE_USER: {"department": "Engineering"},
}
TEAM: dict[str, Any] = {"displayName": "Team", "members": [{"value": "mem_a"}, {"value": "mem_b"}]}


def ann(*operations: dict[str, Any]) -> dict[str, Any]:
    before = copy.deepcopy(ANN)
    after = patched(USER, ANN, {"schemas": [PATCH_OP], "Operations": list(operations)})
    assert before == ANN, "what stands was changed"
    return after


def team(*operations: dict[str, Any]) -> list[str]:
    after = patched(GROUP, TEAM, {"schemas": [PATCH_OP], "Operations": list(operations)})
    return [one["value"] for one in after.get("members", ())]


def refused(*operations: Any, body: Any = None) -> str:
    with pytest.raises(ScimError) as caught:
        patched(USER, ANN, body if body is not None else {"schemas": [PATCH_OP], "Operations": list(operations)})
    assert caught.value.status == 400
    return caught.value.scim_type


def op(verb: str, path: str | None = None, value: Any = None) -> dict[str, Any]:
    named = {} if path is None else {"path": path}
    return {"op": verb, **named, **({} if value is None else {"value": value})}


@pytest.mark.parametrize("verb", ["replace", "Replace", "add", "ADD"])
def test_a_plain_attribute(verb: str) -> None:
    assert ann(op(verb, "displayName", "Bea"))["displayName"] == "Bea"
    assert ann(op(verb, "DISPLAYNAME", "Bea"))["displayName"] == "Bea"
    assert ann(op(verb, f"{CORE_USER}:displayName", "Bea"))["displayName"] == "Bea"
    assert ann(op(verb, "name.givenName", "Bea"))["name"] == {"givenName": "Bea", "familyName": "Lee"}
    assert ann(op(verb, "displayName", [{"$ref": None, "value": "Bea"}]))["displayName"] == "Bea"


@pytest.mark.parametrize(("value", "means"), [("False", False), ("false", False), ("True", True), (False, False)])
def test_a_boolean_as_a_string(value: object, means: bool) -> None:
    assert ann(op("Replace", "active", value))["active"] is means
    assert ann(op("replace", None, {"active": value}))["active"] is means
    assert ann(op("Replace", "active", [{"value": value}]))["active"] is means


def test_an_extension() -> None:
    path = f"{ENTERPRISE_USER}:department"
    assert ann(op("Add", path, "Sales"))[ENTERPRISE_USER] == {"department": "Sales"}
    assert ann(op("replace", None, {path: "Sales"}))[ENTERPRISE_USER] == {"department": "Sales"}
    assert ann(op("replace", None, {ENTERPRISE_USER: {"costCenter": "7"}}))[ENTERPRISE_USER]["costCenter"] == "7"
    assert ann(op("add", ENTERPRISE_USER, {"costCenter": "7"}))[ENTERPRISE_USER] == {
        "department": "Engineering",
        "costCenter": "7",
    }
    assert ann(op("replace", ENTERPRISE_USER, {"costCenter": "7"}))[ENTERPRISE_USER] == {"costCenter": "7"}
    assert ENTERPRISE_USER not in ann(op("remove", path))
    assert ENTERPRISE_USER not in ann(op("remove", ENTERPRISE_USER))


def test_without_a_path_keys_may_be_paths() -> None:
    after = ann(
        op(
            "Add",
            None,
            {"name.givenName": "Bea", "displayName": "B", 'emails[type eq "home"].value': "b@h.example"},
        )
    )
    assert after["name"]["givenName"] == "Bea"
    assert after["displayName"] == "B"
    assert after["emails"][1] == {"value": "b@h.example", "type": "home"}


def test_a_value_that_is_chosen() -> None:
    replaced = ann(op("replace", 'emails[type eq "work"].value', "b@acme.example"))
    assert replaced["emails"] == [{**WORK, "value": "b@acme.example"}, HOME]
    assert ann(op("Replace", 'emails[type eq "WORK"]', {"value": "b@acme.example"}))["emails"][0] == {
        "value": "b@acme.example"
    }
    assert ann(op("add", 'emails[type eq "home"].primary', True))["emails"] == [
        {**WORK, "primary": False},
        {**HOME, "primary": True},
    ]
    assert ann(op("remove", 'emails[type eq "home"]'))["emails"] == [WORK]
    assert ann(op("remove", 'emails[type eq "home"].value'))["emails"] == [WORK]
    assert ann(op("remove", 'emails[type eq "home"].type'))["emails"] == [WORK, {"value": "ann@home.example"}]
    assert "emails" not in ann(op("remove", "emails[value pr]"))


def test_an_add_makes_the_value_that_its_filter_describes() -> None:
    after = ann(op("Add", 'emails[type eq "other"].value', "o@acme.example"))
    assert after["emails"][2] == {"type": "other", "value": "o@acme.example"}


def test_what_is_not_there() -> None:
    assert refused(op("replace", 'emails[type eq "other"].value', "x")) == "noTarget"
    assert refused(op("add", 'emails[type ne "work" and type ne "home"].value', "x")) == "noTarget"
    assert ann(op("remove", 'emails[type eq "other"]')) == ANN
    assert ann(op("remove", "externalId")) == ANN
    assert refused(op("remove")) == "noTarget"


def test_joining_values() -> None:
    assert ann(op("add", "emails", [HOME]))["emails"] == [WORK, HOME]
    assert ann(op("add", "emails", {"value": "x@acme.example", "primary": True}))["emails"] == [
        {**WORK, "primary": False},
        HOME,
        {"value": "x@acme.example", "primary": True},
    ]
    assert ann(op("replace", "emails", [HOME]))["emails"] == [HOME]
    assert ann(op("add", "name", {"familyName": "Bo"}))["name"] == {"givenName": "Ann", "familyName": "Bo"}
    assert ann(op("replace", "name", {"familyName": "Bo"}))["name"] == {"familyName": "Bo"}
    assert "name" not in ann(op("remove", "name"))
    assert ann(op("remove", "name.familyName"))["name"] == {"givenName": "Ann"}
    assert "displayName" not in ann(op("replace", "displayName", ""))


def test_members() -> None:
    assert team(op("Add", "members", [{"value": "mem_c"}, {"value": "mem_a"}])) == ["mem_a", "mem_b", "mem_c"]
    assert team(op("Remove", 'members[value eq "mem_a"]')) == ["mem_b"]
    assert team(op("Remove", "members", [{"value": "mem_a"}, {"value": "mem_z"}])) == ["mem_b"]
    assert team(op("remove", "members")) == []
    assert team(op("replace", "members", [{"value": "mem_c"}])) == ["mem_c"]
    assert team(op("replace", None, {"id": "x", "displayName": "New"})) == ["mem_a", "mem_b"]
    assert team(op("remove", 'members[value eq "mem_a" or value eq "mem_b"]')) == []


def test_what_is_read_only() -> None:
    for path in ("id", "meta", "meta.created", "groups", "roles", 'groups[value eq "x"]', "schemas"):
        assert refused(op("replace", path, "x")) == "mutability"
    assert ann(op("replace", None, {"id": "x", "groups": [], "schemas": [CORE_USER], "meta": {}})) == ANN


@pytest.mark.parametrize(
    "path",
    [
        "title",
        "password",
        "nickName",
        "name.honorificPrefix",
        'phoneNumbers[type eq "mobile"].value',
        'addresses[type eq "work"].streetAddress',
        f"{ENTERPRISE_USER}:manager",
        f"{ENTERPRISE_USER}:manager.value",
    ],
)
def test_what_the_rfc_has_and_is_not_kept_is_accepted(path: str) -> None:
    for verb in ("Add", "Replace", "Remove"):
        assert ann(op(verb, path, "x")) == ANN


def test_wrong_paths() -> None:
    for path in (
        "nosuch",
        "name.nosuch",
        "emails.value.more",
        "emails[",
        "emails[]",
        "emails[type eq]",
        "emails[nosuch eq 1]",
        'emails[type eq "work"].nosuch',
        'emails[type eq "work"]value',
        'displayName[type eq "x"]',
        "urn:example:2.0:User:tag",
        "emails.value",
        "userName and active",
        "[",
        ".",
    ):
        assert refused(op("replace", path, "x")) == "invalidPath", path
    assert refused({"op": "replace", "path": 5, "value": 1}) == "invalidPath"


def test_wrong_values() -> None:
    assert refused(op("replace", "active", "maybe")) == "invalidValue"
    assert refused(op("replace", "displayName", 5)) == "invalidValue"
    assert refused(op("replace", "displayName", "a\0b")) == "invalidValue"
    assert refused(op("replace", "displayName", "x" * 300)) == "invalidValue"
    assert refused(op("add", "emails", [{"type": "work"}])) == "invalidValue"
    assert refused(op("add", "emails", [WORK, {**HOME, "primary": True}])) == "invalidValue"
    assert refused(op("add", "emails", [{"value": f"{n}@x.example"} for n in range(50)])) == "invalidValue"
    assert refused(op("add", 'emails[type eq "other"].primary', True)) == "invalidValue"
    assert refused(op("replace", "name", "Ann")) == "invalidSyntax"
    assert refused(op("replace", None, "Ann")) == "invalidSyntax"


@pytest.mark.parametrize(
    "body",
    [
        [],
        "x",
        None,
        {},
        {"Operations": []},
        {"Operations": {}},
        {"Operations": [5]},
        {"Operations": [{"path": "displayName", "value": "x"}]},
        {"Operations": [{"op": "move", "path": "displayName"}]},
        {"Operations": [{"op": ["add"]}]},
        {"schemas": ["urn:example"], "Operations": [{"op": "remove", "path": "displayName"}]},
    ],
)
def test_no_patch_at_all(body: Any) -> None:
    with pytest.raises(ScimError) as caught:
        patched(USER, ANN, body)
    assert caught.value.status == 400


def test_too_many_operations() -> None:
    assert refused(*[op("remove", "displayName")] * (MAX_OPERATIONS + 1)) == "tooMany"


def test_too_much_work() -> None:
    large = {"displayName": "Large", "members": [{"value": f"mem_{number}"} for number in range(2_000)]}
    by_value = [op("remove", f'members[value eq "mem_{number}"]') for number in range(300)]
    assert len(patched(GROUP, large, {"Operations": by_value})["members"]) == 1_700
    by_filter = [op("remove", 'members[value sw "mem_1" and not (type pr)]')] * 30
    with pytest.raises(ScimError) as caught:
        patched(GROUP, large, {"Operations": by_filter})
    assert caught.value.scim_type == "tooMany"
    assert len(patched(GROUP, large, {"Operations": by_filter[:2]})["members"]) == 889


def test_too_much_work_in_the_keys_of_a_value() -> None:
    large = {"displayName": "Large", "members": [{"value": f"mem_{number}"} for number in range(2_000)]}
    keys = {f'members[value co "{number}" or type pr].display': "x" for number in range(1_000)}
    with pytest.raises(ScimError) as caught:
        patched(GROUP, large, {"Operations": [{"op": "add", "value": keys}]})
    assert caught.value.scim_type == "tooMany"
    within = {CORE_GROUP: {"displayName": "B"}, "displayName": "C"}
    assert patched(GROUP, large, {"Operations": [{"op": "replace", "value": within}]})["displayName"] == "C"


def test_what_is_required_is_not_removed() -> None:
    assert refused(op("remove", "active")) == "mutability"
    assert refused(op("replace", "active", None) | {"value": None}) == "mutability"
    assert refused(op("remove", "userName")) == "mutability"
    assert "emails" not in ann(op("remove", "emails")), "where userName is an address"


def test_one_wrong_operation_changes_nothing() -> None:
    assert refused(op("replace", "displayName", "Bea"), op("replace", "id", "x")) == "mutability"


_paths = st.sampled_from(
    [
        None,
        "emails",
        "displayName",
        "name",
        "name.givenName",
        'emails[type eq "work"]',
        'emails[type eq "work"].value',
        "active",
        ENTERPRISE_USER,
        f"{ENTERPRISE_USER}:department",
        "title",
        "id",
        "nosuch",
        "emails[",
    ]
)
_names = st.sampled_from(["value", "type", "primary", "emails", "displayName", "x"])
_verbs = st.sampled_from(["add", "Remove", "REPLACE", "x"])
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(_names, inner, max_size=3),
    ),
    max_leaves=6,
)
_operations = st.lists(
    st.fixed_dictionaries({"op": _verbs, "path": _paths, "value": _values}),
    max_size=4,
)


@settings(max_examples=100)
@given(_operations)
def test_any_operations_are_applied_or_refused(operations: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(ANN)
    after: dict[str, Any] = {}
    status = 200
    try:
        after = patched(USER, ANN, {"Operations": operations})
    except ScimError as error:
        status = error.status
    assert status in {200, 400}
    assert set(after) <= {*ANN, "externalId", "name"}
    assert all("value" in one for one in after.get("emails", ()))
    assert before == ANN


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["mem_a", "mem_b", "mem_c", "mem_d"]), min_size=1, max_size=6), st.booleans())
def test_members_are_a_set(names: list[str], adds: bool) -> None:
    after = team(op("add" if adds else "remove", "members", [{"value": one} for one in names]))
    wanted = {"mem_a", "mem_b"} | set(names) if adds else {"mem_a", "mem_b"} - set(names)
    assert sorted(after) == sorted(wanted)
