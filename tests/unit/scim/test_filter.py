"""Filters: the RFC's own examples, what providers send, what is no filter, and that nothing takes long."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.scim.errors import ScimError
from gateway.scim.filter import MAX_DEPTH, MAX_LENGTH, MAX_TERMS, parse_filter
from gateway.scim.matching import matches
from gateway.scim.schemas import ENTERPRISE_USER, GROUP, USER

ANN: dict[str, Any] = {
    "id": "mem_ann",
    "userName": "Ann@acme.example",
    "externalId": "Ext-1",
    "active": True,
    "displayName": "Ann Lee",
    "name": {"familyName": "O'Malley", "givenName": "Ann"},
    "emails": [
        {"value": "ann@acme.example", "type": "work", "primary": True},
        {"value": "ann@home.example", "type": "home"},
    ],
    "meta": {"resourceType": "User", "created": "2026-11-21T10:00:00Z", "lastModified": "2026-11-21T12:00:00Z"},
    ENTERPRISE_USER: {"department": "Engineering"},
}


def holds(text: str) -> bool:
    return matches(parse_filter(text, USER), ANN, USER)


@pytest.mark.parametrize(
    "text",
    [
        'userName eq "ann@ACME.example"',
        'USERNAME EQ "ann@acme.example"',
        'urn:ietf:params:scim:schemas:core:2.0:User:userName sw "ann"',
        'name.familyName co "O\'Malley"',
        'displayName ew "lee"',
        'externalId eq "Ext-1"',
        "externalId pr",
        "active eq true",
        'active eq "True"',
        'not (active eq "False")',
        'meta.lastModified gt "2026-11-21T11:00:00Z"',
        'meta.lastModified ge "2026-11-21T13:00:00+01:00"',
        'meta.created lt "2026-11-21T10:00:01Z"',
        'emails eq "ANN@home.example"',
        'emails.value eq "ann@home.example"',
        'emails[type eq "work"].value eq "ann@acme.example"',
        'emails[type eq "home" and value co "home"]',
        'emails.type eq "work"',
        f'{ENTERPRISE_USER}:department eq "engineering"',
        "title pr or userName pr",
        'userName eq "nobody" or userName sw "ann" and active eq true',
        '(userName eq "nobody" or userName sw "ann") and not (title pr)',
        'title ne "Boss"',
        "title eq null",
        'externalId ne null and userName ne "bob"',
        'userName gt "a" and userName le "b"',
        r'displayName ne "quote \" and \\ and ü"',
    ],
)
def test_matches(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        'userName eq "bob"',
        'externalId eq "ext-1"',  # case counts there
        'emails[type eq "home" and value co "acme"]',  # of one and the same value
        'emails[type eq "home"].value eq "ann@acme.example"',
        "active eq false",
        "title pr",
        'not (userName sw "ann")',
        'userName eq "ann@acme.example" and active eq false',
        'meta.lastModified gt "2026-11-21T12:00:00Z"',
        'displayName eq ""',
        f"{ENTERPRISE_USER}:costCenter pr",
    ],
)
def test_does_not_match(text: str) -> None:
    assert not holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "userName",
        "userName eq",
        "userName eq bob",
        "userName eq 'bob'",
        'userName is "bob"',
        'userName eq "bob',
        'userName eq "bob" garbage',
        'userName eq "bob" and',
        '"bob" eq userName',
        "(userName pr",
        "userName pr)",
        "emails[type pr",
        'emails["work"]',
        'emails[nosuch eq "x"]',
        "emails[emails[type pr]]",
        'emails[type eq "work"].nosuch eq "x"',
        'userName[type eq "work"]',
        'name[givenName eq "Ann"]',
        "nosuch pr",
        "urn:example:User:userName pr",
        "members pr",
        "active gt true",
        "active eq 1",
        'active eq "maybe"',
        "userName eq 5",
        "userName gt null",
        'meta eq "x"',
        'meta.created gt "yesterday"',
        "userName eq 1e999",
        "userName eq --1",
        "userName..x pr",
        "userName. pr",
        '\0 eq "x"',
        'userName eq "\ud800"',
        'userName eq "\\ud800"',
    ],
)
def test_is_no_filter(text: str) -> None:
    with pytest.raises(ScimError) as caught:
        parse_filter(text, USER)
    assert (caught.value.status, caught.value.scim_type) == (400, "invalidFilter")


def test_an_attribute_that_only_the_other_kind_has_may_be_asked_of_both() -> None:
    wanted = parse_filter('displayName eq "ann lee" or members pr', USER, GROUP)
    assert matches(wanted, ANN, USER)
    assert not matches(wanted, {"displayName": "x"}, GROUP)
    assert matches(wanted, {"displayName": "x", "members": [{"value": "mem_a"}]}, GROUP)


@pytest.mark.parametrize(
    "text",
    [
        "(" * (MAX_DEPTH + 1) + "id pr" + ")" * (MAX_DEPTH + 1),
        "not (" * (MAX_DEPTH + 1) + "id pr" + ")" * (MAX_DEPTH + 1),
        " or ".join(["id pr"] * (MAX_TERMS + 1)),
        'id eq "' + "x" * MAX_LENGTH + '"',
        "(" * MAX_LENGTH,
        'id eq "' + "\\" * (MAX_LENGTH - 10),
        "a" * MAX_LENGTH,
        "urn:" * (MAX_LENGTH // 4),
        "1" * MAX_LENGTH,
    ],
)
def test_what_is_too_long_or_too_deep_is_refused(text: str) -> None:
    with pytest.raises(ScimError) as caught:
        parse_filter(text, USER)
    assert caught.value.scim_type == "invalidFilter"


def test_as_deep_as_it_may_be() -> None:
    assert holds("(" * MAX_DEPTH + "id pr" + ")" * MAX_DEPTH)


_atoms = st.sampled_from(
    ["userName", "emails", "[", "]", "(", ")", "and", "or", "not", "eq", "pr", "co", '"x"', '"', ".value", "true"]
)


@settings(max_examples=60)
@given(st.one_of(st.text(max_size=200), st.lists(_atoms, max_size=30).map(" ".join)))
def test_any_text_is_a_filter_or_is_refused(text: str) -> None:
    outcome: object
    try:
        outcome = matches(parse_filter(text, USER), ANN, USER)
    except ScimError as error:
        outcome = error.scim_type
    assert outcome in {True, False, "invalidFilter"}


@given(st.text(max_size=60).filter(lambda text: "\0" not in text))
def test_a_value_is_read_as_json_has_it(value: str) -> None:
    try:
        quoted = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return  # half a surrogate pair has no JSON
    assert matches(parse_filter(f"externalId eq {quoted}", USER), {"externalId": value}, USER) or value == ""


_leaves = st.sampled_from(["active eq true", 'userName eq "bob"', "title pr", "externalId pr"])
_trees = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda one: f"({one[0]} {one[1]} {one[2]})"),
    ),
    max_leaves=8,
)
_TRUTH = {"active eq true": True, 'userName eq "bob"': False, "title pr": False, "externalId pr": True}


@given(_trees)
def test_and_or_and_not_mean_what_they_mean(text: str) -> None:
    spelled = text
    for leaf, truth in _TRUTH.items():
        spelled = spelled.replace(leaf, str(truth))
    assert holds(text) is eval(spelled)
