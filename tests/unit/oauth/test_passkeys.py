"""Which servers have passkeys, and what browsers are told to make and to show."""

from __future__ import annotations

import json
import os

import pytest

from gateway.oauth.digests import ServerKey
from gateway.oauth.passkeys import Passkeys, credential_id
from gateway.secret import Secret
from policies.facts import Role
from tenants.ids import MemberId, OrgId
from tenants.models import Member
from tests.kit.passkey import Authenticator

ADA = Member(org=OrgId("acme"), id=MemberId("mem_ada"), email="ada@acme.example", name="Ada", roles=(Role.MEMBER,))


def passkeys(base: str) -> Passkeys:
    return Passkeys(base, ServerKey(Secret(b"k" * 32)), os.urandom)


@pytest.mark.parametrize(
    ("base", "rp_id", "available"),
    [
        ("https://gateway.example", "gateway.example", True),
        ("https://gateway.example:8443", "gateway.example", True),
        ("https://localhost:8443", "localhost", True),
        ("https://127.0.0.1:8443", "127.0.0.1", False),
        ("https://[::1]:8443", "::1", False),
    ],
)
def test_a_server_with_a_name_has_passkeys(base: str, rp_id: str, available: bool) -> None:
    made = passkeys(base)
    assert (made.rp_id, made.available) == (rp_id, available)


@pytest.mark.parametrize(
    ("base", "origin"),
    [
        ("https://gateway.example:8443", "https://gateway.example:8443"),
        ("https://gateway.example:443", "https://gateway.example"),
        ("https://gateway.example", "https://gateway.example"),
    ],
)
def test_the_origin_is_the_one_that_a_browser_says(base: str, origin: str) -> None:
    made = passkeys(base)
    challenge = made.challenge()
    answer = Authenticator(origin=origin).create(made.creation(ADA, (), challenge))
    assert made.created(answer, challenge) is not None
    assert made.created(answer, made.challenge()) is None


def test_the_user_handle_is_a_member_s_and_says_nothing_of_them() -> None:
    made = passkeys("https://gateway.example")
    options = [json.loads(made.creation(ADA, (), made.challenge())) for _ in range(2)]
    assert options[0]["user"]["id"] == options[1]["user"]["id"]
    assert options[0]["challenge"] != options[1]["challenge"]
    assert options[0]["authenticatorSelection"]["userVerification"] == "required"
    assert options[0]["attestation"] == "none"


def test_which_passkey_an_answer_names() -> None:
    key = Authenticator(id=b"\xff\xfe")
    answer = key.create(passkeys("https://gateway.example").creation(ADA, (), "AAAA"))
    assert credential_id(answer) == "__4"
    for text in ("", "[]", '{"rawId": 1}', "{}", "x" * 20_000):
        assert credential_id(text) == ""
