"""Which attributes are answered: `attributes`, `excludedAttributes`."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.scim.errors import ScimError
from gateway.scim.projection import MAX_NAMES, Projection
from gateway.scim.schemas import CORE_USER, ENTERPRISE_USER, GROUP, USER

ANN: dict[str, Any] = {
    "schemas": [CORE_USER],
    "id": "mem_ann",
    "userName": "ann",
    "name": {"givenName": "Ann", "familyName": "Lee"},
    "emails": [{"value": "a@x.example", "type": "work"}, {"value": "b@x.example"}],
    ENTERPRISE_USER: {"department": "X", "costCenter": "7"},
    "meta": {"resourceType": "User", "version": 'W/"1"'},
}
ALWAYS = {"schemas", "id"}


def shown(only: str | list[str] = "", without: str | list[str] = "") -> dict[str, Any]:
    return Projection((USER,), only, without).of(ANN, USER)


def test_everything_unless_something_was_said() -> None:
    assert shown() is ANN
    assert not Projection((USER,), "", []).asked


def test_only_these() -> None:
    assert set(shown("userName, nosuch")) == ALWAYS | {"userName"}
    assert shown(["name.givenName"])["name"] == {"givenName": "Ann"}
    assert shown("name.givenName,name.familyName")["name"] == ANN["name"]
    assert shown("emails.value,emails.type")["emails"] == ANN["emails"]
    assert shown("emails.type")["emails"] == [{"type": "work"}, {}]
    assert shown(f"{ENTERPRISE_USER}:department")[ENTERPRISE_USER] == {"department": "X"}
    assert shown(ENTERPRISE_USER)[ENTERPRISE_USER] == ANN[ENTERPRISE_USER]
    assert set(shown("externalId")) == ALWAYS
    assert shown("meta.version")["meta"] == {"version": 'W/"1"'}


def test_all_but_these() -> None:
    assert set(ANN) - set(shown(without="userName,META,id,schemas")) == {"userName", "meta"}
    assert shown(without="name.givenName")["name"] == {"familyName": "Lee"}
    assert shown(without="emails.type")["emails"] == [{"value": "a@x.example"}, {"value": "b@x.example"}]
    assert shown(without=f"{ENTERPRISE_USER}:department")[ENTERPRISE_USER] == {"costCenter": "7"}
    assert ENTERPRISE_USER not in shown(without=ENTERPRISE_USER)
    assert shown(without="nosuch,title") == ANN
    assert "givenName" in ANN["name"], "what is stored was changed"


def test_what_need_not_be_read() -> None:
    assert not Projection((GROUP,), "", "MEMBERS").wants("members")
    assert not Projection((GROUP,), "displayName", "").wants("members")
    assert Projection((GROUP,), "members.value", "").wants("members")
    assert Projection((GROUP,), "", "members.type").wants("members")


@pytest.mark.parametrize(
    ("only", "without"), [("id", "name"), ("a b", ""), ("", "[]"), (["x"] * (MAX_NAMES + 1), "")]
)
def test_what_is_no_list_of_attributes(only: str | list[str], without: str) -> None:
    with pytest.raises(ScimError) as caught:
        shown(only, without)
    assert (caught.value.status, caught.value.scim_type) == (400, "invalidValue")
