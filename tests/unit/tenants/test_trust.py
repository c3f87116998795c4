"""Patterns of claims, and which rules of trust are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tenants.ids import OrgId
from tenants.trust import ServiceTrust, claim_fault, holds, matches
from tenants.validate import validate

GITHUB = "https://token.actions.githubusercontent.com"
GOOD = ServiceTrust(
    OrgId("acme"), "main", "svc_1", GITHUB, "https://gateway.example", ("repository=acme/app", "ref=refs/heads/*")
)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("acme/app", "acme/app"),
        ("repo:acme/app:ref:refs/heads/main", "repo:acme/app:ref:refs/heads/main"),
        ("repo:acme/app:ref:refs/heads/*", "repo:acme/app:ref:refs/heads/main"),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/app:ref:refs/heads/main"),
        ("repo:acme/**", "repo:acme/app:environment:prod"),
        ("repo:acme/**", "repo:acme/app"),
        ("true", "true"),
    ],
)
def test_what_a_pattern_stands_for(pattern: str, value: str) -> None:
    assert matches(pattern, value)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("acme/app", "acme/app2"),
        ("acme/app", "Acme/app"),
        ("acme/app", "acme:app"),
        ("acme/app", "evil/acme/app"),
        ("repo:acme/app:ref:refs/heads/*", "repo:acme/app:ref:refs/heads/"),
        ("repo:acme/app:ref:refs/heads/*", "repo:acme/app:ref:refs/heads/release/1"),
        ("repo:acme/app:ref:refs/heads/*", "repo:acme/app:ref:refs/heads:main"),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/a:ref:refs/heads/x:ref:refs/heads/main"),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme//:ref:refs/heads/main"),
        ("repo:acme/**", "repo:acme/"),
        ("repo:acme/**", "repo:acme"),
        ("repo:acme/**", "repo:acme-evil/app"),
        ("repo:acme/**", "repo:acme:app"),
        ("repo:acme/**", "repo:acme/app/"),
        ("repo:acme/**", "repo:acme/app::x"),
        ("a", ""),
    ],
)
def test_what_it_does_not_stand_for(pattern: str, value: str) -> None:
    assert not matches(pattern, value)


letters = st.text("ab:/*", max_size=12)


@given(letters, letters)
def test_a_pattern_without_stars_stands_for_itself_alone(pattern: str, value: str) -> None:
    plain = pattern.replace("*", "c")
    assert matches(plain, value) == (plain == value)


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=2, max_size=6), st.integers(1, 5))
def test_a_star_stands_for_one_part_and_nothing_for_a_separator(parts: list[str], place: int) -> None:
    place = min(place, len(parts) - 1)
    value = "/".join(parts)
    pattern = "/".join([*parts[:place], "*", *parts[place + 1 :]])
    assert matches(pattern, value)
    assert not matches(pattern, value.replace("/", ":"))
    assert not matches(pattern, value + "/a")
    assert matches("/".join([*parts[:place], "**"]), value)
    assert not matches("/".join([*parts[:place], "**"]), "x" + value)


@pytest.mark.parametrize(
    ("said", "there"),
    [
        ({"repository": "acme/app", "ref": "refs/heads/main"}, True),
        ({"repository": "acme/app"}, False),
        ({"repository": "acme/app", "ref": None}, False),
        ({"repository": "acme/app", "ref": ["refs/heads/main"]}, False),
        ({"repository": {"acme/app": 1}, "ref": "refs/heads/main"}, False),
        ({}, False),
    ],
)
def test_every_claim_has_to_hold(said: dict[str, Any], there: bool) -> None:
    assert holds(GOOD.claims, said) is there
    assert not holds((), said)


def test_numbers_and_truth_are_spelled_as_json_spells_them() -> None:
    assert holds(("id=7", "protected=true"), {"id": 7, "protected": True})
    assert not holds(("id=1",), {"id": True})
    assert not holds(("id=7",), {"id": 7.0})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Main"}, "name"),
        ({"service": "mem_1"}, "service"),
        ({"issuer": "http://token.actions.githubusercontent.com"}, "issuer"),
        ({"issuer": GITHUB + "?x"}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"audience": "x" * 513}, "audience"),
        ({"claims": ()}, "claims"),
        ({"claims": ("ref=refs/heads/main",)}, "claims"),  # anybody's main branch
        ({"claims": ("environment=prod",)}, "claims"),
        ({"claims": ("sub=*",)}, "claims"),
        ({"claims": ("sub=**",)}, "claims"),
        ({"claims": ("sub=*/app",)}, "claims"),
        ({"claims": ("sub=repo:acme*",)}, "claims"),
        ({"claims": ("sub=repo:**:x",)}, "claims"),
        ({"claims": ("sub=",)}, "claims"),
        ({"claims": ("sub=repo:**",)}, "claims"),
        ({"claims": ("sub=repo:*/*:ref:refs/heads/main",)}, "claims"),
        ({"claims": ("sub",)}, "claims"),
        ({"claims": ("=x",)}, "claims"),
        ({"claims": ("sub=a", "sub=b")}, "claims"),
        ({"claims": ("sub=a", "aud=b")}, "claims"),
        ({"claims": ("sub=a", "iss=b")}, "claims"),
        ({"claims": tuple(f"c{n}=x" for n in range(17))}, "claims"),
        ({"planes": ()}, "planes"),
        ({"ca_pem": "x"}, "ca_pem"),
        ({"org": OrgId("platform")}, "org"),
    ],
)
def test_what_is_no_rule_of_trust(changes: dict[str, Any], field: str) -> None:
    assert validate(GOOD) == []
    assert {name for name, _ in validate(replace(GOOD, **changes))} == {field}


def test_an_issuer_of_one_s_own_needs_one_claim_and_any_does() -> None:
    assert validate(replace(GOOD, issuer="https://ci.acme.example", claims=("ref=refs/heads/main",))) == []
    assert claim_fault("kubernetes.io/serviceaccount/namespace=build") == ""
