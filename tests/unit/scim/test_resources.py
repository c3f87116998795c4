"""Members as users, teams as groups: what is shown, what is meant, and what an id is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.scim.problems import scim_error
from gateway.api.scim.search import lookup_of
from gateway.errors import UnavailableError
from gateway.oauth.offboard import BusyError
from gateway.scim.errors import ScimError
from gateway.scim.filter import parse_filter
from gateway.scim.groups import described_group, group_id, parse_group_id, team_name
from gateway.scim.schemas import KINDS, SCHEMAS, USER
from gateway.scim.users import described, user_document, user_etag, writable
from policies.facts import Role
from tenants.ids import MemberId, OrgId, resource_name
from tenants.lastone import LastOneError
from tenants.models import Member, State, Team
from tenants.scim import ScimUser, UserFacts, UserLookup
from tenants.store import (
    AlreadyExistsError,
    InUseError,
    InvalidReferenceError,
    NotFoundError,
    StoreUnavailableError,
    VersionMismatchError,
)

ACME = OrgId("acme")
ANN = Member(ACME, MemberId("mem_ann"), "ann@x.example", "Ann", (Role.MEMBER,), created_at=1_800_000_000)


def test_a_member_whom_no_provider_has_written_of() -> None:
    document = user_document(ScimUser(ANN, modified_at=ANN.created_at), "https://g.example/scim/v2/acme")
    assert document["userName"] == "ann@x.example"
    assert document["emails"] == [{"value": "ann@x.example", "type": "work", "primary": True}]
    assert document["meta"] == {
        "resourceType": "User",
        "created": "2027-01-15T08:00:00Z",
        "lastModified": "2027-01-15T08:00:00Z",
        "location": "https://g.example/scim/v2/acme/Users/mem_ann",
        "version": 'W/"1"',
    }


def test_what_was_changed_elsewhere_counts() -> None:
    facts = UserFacts("ann", profile={"emails": [{"value": "old@x.example"}], "displayName": "Old"})
    told = writable(ScimUser(ANN, facts))
    assert (told["emails"], told["displayName"]) == ([{"value": "ann@x.example"}], "Ann")
    bare = writable(ScimUser(ANN, UserFacts("ann@y.example", profile={"displayName": "Ann"})))
    assert bare["emails"] == [{"type": "work", "primary": True, "value": "ann@x.example"}]


@pytest.mark.parametrize(
    ("document", "email", "name"),
    [
        ({"userName": "a@x.example"}, "a@x.example", ""),
        ({"userName": "a", "emails": [{"value": "w@x.example", "type": "Work"}]}, "w@x.example", ""),
        ({"userName": "a", "emails": [{"value": "1@x.example"}, {"value": "2@x.example"}]}, "1@x.example", ""),
        ({"userName": "a@x.example", "name": {"formatted": " Ann  Lee "}}, "a@x.example", "Ann Lee"),
        ({"userName": "a@x.example", "displayName": "A", "name": {"formatted": "B"}}, "a@x.example", "A"),
        ({"userName": "a@x.example", "name": {"familyName": "Lee"}}, "a@x.example", "Lee"),
    ],
)
def test_what_a_user_says_of_the_member(document: dict[str, Any], email: str, name: str) -> None:
    told = described(document)
    assert (told.email, told.name, told.state) == (email, name, State.ACTIVE)


@pytest.mark.parametrize("document", [{}, {"userName": " a@x.example"}, {"userName": "a"}, {"displayName": "A"}])
def test_no_user(document: dict[str, Any]) -> None:
    with pytest.raises(ScimError) as caught:
        described(document)
    assert caught.value.scim_type == "invalidValue"


def test_whoever_was_shut_out_stays_so_unless_it_is_said() -> None:
    assert described({"userName": "a@x.example"}, State.SUSPENDED).state is State.SUSPENDED
    assert described({"userName": "a@x.example", "active": True}, State.SUSPENDED).state is State.ACTIVE


def test_a_tag_follows_the_groups() -> None:
    team = Team(ACME, "core", "Core", 5)
    tags = {user_etag(ScimUser(ANN, teams=teams)) for teams in ((), (team,), (team, Team(ACME, "b", "", 6)))}
    assert len(tags) == 3


@settings(max_examples=60)
@given(st.text(max_size=80), st.sets(st.sampled_from(["group", "group-2", "a"])))
def test_every_name_of_a_team_is_one(display: str, taken: set[str]) -> None:
    name = team_name(display, taken)
    assert resource_name(name) == name
    assert name not in taken
    team = Team(ACME, name, created_at=1_800_000_000)
    assert parse_group_id(group_id(team)) == (name, 1_800_000_000)


@pytest.mark.parametrize(
    "text", ["", ".", "core", "core.", ".5", "core.xyz", "Core.5", "a/b.5", "core.5 ", "core.-5"]
)
def test_no_id_of_a_group(text: str) -> None:
    assert parse_group_id(text) is None


def test_members_are_users_once_each() -> None:
    told = described_group(
        {"displayName": "A", "members": [{"value": "mem_a"}, {"value": "mem_a", "type": "user"}]}
    )
    assert told.members == ("mem_a",)


def test_schemas_say_what_is_kept() -> None:
    assert [one.id for one in SCHEMAS] == [schema.id for kind in KINDS.values() for schema in kind.schemas]
    for schema in SCHEMAS:
        for told in schema.told()["attributes"]:
            assert {"name", "type", "multiValued", "required", "mutability", "returned"} <= told.keys()


@pytest.mark.parametrize(
    ("text", "lookup"),
    [
        ('userName eq "a"', UserLookup(user_name="a")),
        ('id eq "a" and active eq "False"', UserLookup(id="a", active=False)),
        (
            'externalId eq "a" and (userName eq "b" and displayName eq "c")',
            UserLookup(external_id="a", user_name="b"),
        ),
        ('emails[type eq "work" and value eq "a"]', UserLookup(email="a")),
        ('emails.value eq "a"', UserLookup(email="a")),
        ('userName eq "a" or userName eq "b"', UserLookup()),
        ('not (userName eq "a")', UserLookup()),
        ('userName ne "a"', UserLookup()),
        ('userName co "a"', UserLookup()),
        ('externalId eq ""', UserLookup()),
        ("externalId eq null", UserLookup()),
        ('emails[type eq "work" or value eq "a"]', UserLookup()),
        ('name.givenName eq "a"', UserLookup()),
    ],
)
def test_what_of_a_filter_the_database_finds(text: str, lookup: UserLookup) -> None:
    """Never less than what is meant: what is left out is held against the filter."""
    assert lookup_of(parse_filter(text, USER)) == lookup


@pytest.mark.parametrize(
    ("error", "status", "scim_type"),
    [
        (NotFoundError("no member 'x'"), 404, ""),
        (AlreadyExistsError("taken"), 409, "uniqueness"),
        (VersionMismatchError(3), 412, ""),
        (InUseError("a limit"), 409, ""),
        (LastOneError("the last"), 403, ""),
        (InvalidReferenceError("no member"), 400, "invalidValue"),
        (BusyError("changed"), 503, ""),
        (StoreUnavailableError("/var/lib/secret.db is locked"), 503, ""),
        (UnavailableError("Redis at 10.0.0.1"), 503, ""),
        (TimeoutError(), 503, ""),
        (RuntimeError("secret"), 500, ""),
    ],
)
def test_how_errors_are_told(error: Exception, status: int, scim_type: str) -> None:
    told = scim_error(error)
    assert (told.status, told.scim_type) == (status, scim_type)
    assert "secret" not in told.detail
    assert "10.0.0.1" not in told.detail
    assert (told.retry_after_s > 0) == (status == 503)
