"""Identifiers become paths, keys and host names: nothing gets in that means something there."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.ids import InvalidIdError, member_id, new_member_id, org_id, resource_name

NASTY = (
    "",
    "../x",
    "a/b",
    "a\\b",
    ".",
    "..",
    ".hidden",
    "a..b",
    "-a",
    "a-",
    "a\n",
    "a b",
    "a\x00b",
    "é",
    "ａｂ",  # full-width letters
    "а1",  # a Cyrillic letter
    "a１",  # a full-width digit
    "ſx",  # a long s, which folds to s
    "%2e%2e",
    "{org}",
    "a*",
    "A",
    "aB",
)


@pytest.mark.parametrize("text", [*NASTY, "a", "1a", "a--b", "a.b", "a_b", "xn--a", "a" * 41, "_a"])
def test_what_is_no_org_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdError, match="an organization's id is"):
        org_id(text)


@pytest.mark.parametrize("text", ["ab", "a1", "a-b", "platform", "a" * 40, "a-1-b-2"])
def test_an_org_id_is_a_dns_label(text: str) -> None:
    assert org_id(text) == text


@pytest.mark.parametrize("text", [*NASTY, "a" * 65, "_a", "a_", "a."])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdError, match="a name is"):
        resource_name(text)


@pytest.mark.parametrize("text", ["a", "1", "gpt-4.1-mini", "a_b", "a" * 64, "a--b"])
def test_names_of_models_are_names(text: str) -> None:
    assert resource_name(text) == text


@pytest.mark.parametrize("text", [*NASTY, "mem_", "mem_A", "mem_a/b", "mem_a\n", "MEM_a", "mem_" + "a" * 41])
def test_what_is_no_member_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdError, match="a member's id is"):
        member_id(text)


def test_fresh_member_ids_are_member_ids_and_differ() -> None:
    made = {new_member_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(member_id(item) == item and len(item) == 24 for item in made)


@given(st.text(max_size=70) | st.from_regex(r"[a-z0-9._-]{0,70}", fullmatch=True))
def test_whatever_is_accepted_is_safe_in_a_path_a_key_and_a_log(text: str) -> None:
    for parse in (org_id, resource_name, member_id):
        try:
            accepted = parse(text)
        except InvalidIdError:
            continue
        assert re.fullmatch(r"[a-z0-9._-]{1,64}", accepted)
        assert ".." not in accepted
        assert accepted[0].isalnum()
        assert accepted[-1].isalnum()
