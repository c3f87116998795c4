"""What may be stored: each rule refuses what breaks it, by the field's name, and lets the rest through."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, structs

from policies.facts import Action, Role
from tenants.fieldrules import is_dns_name
from tenants.ids import MemberId
from tenants.models import LimitScope, LimitUnit, Revocation, State, WireProtocol
from tenants.validate import validate
from tests.contract.control_store import limit, member, model, org, rule, upstream

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"


def faulty(item: Struct) -> list[str]:
    return [field for field, _ in validate(item)]


def test_the_plain_ones_have_no_fault() -> None:
    for make in (org, member, upstream, model, limit, rule):
        assert validate(make("acme")) == []


def test_what_is_not_stored_is_no_item() -> None:
    with pytest.raises(TypeError, match="Revocation"):
        validate(Revocation(org=org("acme").id, not_before=0, expires_at=0))


@pytest.mark.parametrize(
    ("item", "fields"),
    [
        (org("acme", hosts=("code.acme.example", "a-1.example")), []),
        (org("Acme"), ["id"]),
        (org("acme", hosts=("localhost",)), ["hosts"]),
        (org("acme", hosts=("Code.example",)), ["hosts"]),
        (org("acme", hosts=("https://a.example",)), ["hosts"]),
        (org("acme", hosts=("a.example:8443",)), ["hosts"]),
        (org("acme", hosts=("*.example",)), ["hosts"]),
        (org("acme", hosts=("a.example.",)), ["hosts"]),
        (org("acme", hosts=("10.0.0.1",)), ["hosts"]),
        (org("acme", hosts=("a_b.example", "")), ["hosts", "hosts"]),
        (org("acme", hosts=("a.example", "a.example")), ["hosts"]),
        (org("acme", hosts=tuple(f"h{n}.example" for n in range(101))), ["hosts"]),
        (org("platform"), []),
        (org("platform", state=State.SUSPENDED, hosts=("a.example",)), ["state", "hosts"]),
    ],
)
def test_orgs(item: Struct, fields: list[str]) -> None:
    assert faulty(item) == fields


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "a\x1b[31m", "x" * 201, "a\u202eb"])
def test_a_name_is_a_line_of_text(name: str) -> None:
    assert faulty(structs.replace(org("acme"), name=name)) == ["name"]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"name": ""}, []),
        ({"name": "a\nb"}, ["name"]),
        ({"roles": ()}, ["roles"]),
        ({"roles": (Role.MEMBER, Role.MEMBER)}, ["roles"]),
        ({"roles": (Role.OPERATOR,)}, ["roles"]),
        ({"roles": tuple(role for role in Role if role is not Role.OPERATOR)}, []),
        ({"not_before": -1}, ["not_before"]),
    ],
)
def test_members(changes: dict[str, Any], fields: list[str]) -> None:
    assert faulty(member("acme", **changes)) == fields


@pytest.mark.parametrize("key", ["", "ann", "mem_", "mem_../x", "mem_A"])
def test_a_member_has_a_member_id(key: str) -> None:
    assert faulty(structs.replace(member("acme"), id=MemberId(key))) == ["id"]


@pytest.mark.parametrize(
    ("roles", "fields"),
    [
        ((Role.OPERATOR,), []),
        ((Role.AUDITOR,), []),
        ((Role.OPERATOR, Role.AUDITOR), []),
        ((Role.OWNER,), ["roles"]),
        ((Role.OPERATOR, Role.ADMIN, Role.MEMBER), ["roles", "roles"]),
    ],
)
def test_the_platform_has_operators_and_auditors_only(roles: tuple[Role, ...], fields: list[str]) -> None:
    assert faulty(member("platform", roles=roles)) == fields


@pytest.mark.parametrize(
    "email",
    ["a@b", "Ann.Lee+x@sub.example.com", "o'neil@example.com", "zoë@bücher.example", "a" * 64 + "@b.example"],
)
def test_an_email_address_is_accepted(email: str) -> None:
    assert faulty(member("acme", email=email)) == []


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ann",
        "@b.example",
        "ann@",
        "a@b@c.example",
        "a b@c.example",
        "a@b c.example",
        "a@b..c",
        "a@-b.example",
        "a@b.example\n",
        "<a@b.example>",
        "a@b.example,c@d.example",
        "a" * 65 + "@b.example",
        "a@" + "b" * 64 + ".example",
        "a@" + ".".join(["b" * 60] * 5),
        "a\u202e@b.example",
        "\ud800@b.example",
    ],
)
def test_what_is_no_email_address_is_refused(email: str) -> None:
    assert faulty(member("acme", email=email)) == ["email"]


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com",
        "http://127.0.0.1:9000",
        "http://[::1]:9000",
        "https://model-free.example.com",
        "https://localhost:1/openai/deployments/x-1.2",
        "https://example.com/~a/b_c",
    ],
)
def test_a_base_url_is_accepted(url: str) -> None:
    assert faulty(upstream("acme", base_url=url)) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "unix:/run/x.sock",
        "https://",
        "https:///path",
        "https://user@example.com",
        "https://user:secret@example.com",
        "https://@example.com",
        "https://example.com?x=1",
        "https://example.com?",
        "https://example.com/a#b",
        "https://example.com#",
        "https://example.com/",
        "https://example.com/v1",
        "https://example.com/openai/v1",
        "https://example.com/../x",
        "https://example.com/a/./b",
        "https://example.com/a//b",
        "https://example.com/%2e%2e/x",
        "https://example.com/a\\b",
        "https://example.com/a b",
        "https://exa mple.com",
        "https://example.com\n",
        "https://exämple.com",
        "https://example.com:0",
        "https://example.com:99999",
        "https://example.com:x",
        "https://[::1",
        "https://[v1.x]",
        "https://-a.example",
        "https://1.2.3",
        "https://0x7f.1",
        "https://0x7f000001",
        "https://a_b.example",
        "https://example.com/" + "a" * 2048,
        " https://example.com",
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    assert faulty(upstream("acme", base_url=url)) == ["base_url"]


def test_a_refused_url_is_not_quoted() -> None:
    for _, message in validate(upstream("acme", base_url="https://user:canary@example.com")):
        assert "canary" not in message


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"connections": 1, "connect_timeout_ms": 1, "idle_timeout_ms": 600_000}, []),
        ({"connections": 64, "first_byte_timeout_ms": 600_000}, []),
        ({"connections": 0, "connect_timeout_ms": 0}, ["connections", "connect_timeout_ms"]),
        (
            {"connections": 65, "first_byte_timeout_ms": 600_001, "idle_timeout_ms": -1},
            ["connections", "first_byte_timeout_ms", "idle_timeout_ms"],
        ),
        ({"key_version": -1}, ["key_version"]),
        ({"ca_pem": PEM + PEM}, []),
        ({"ca_pem": "no certificate"}, ["ca_pem"]),
        ({"ca_pem": KEY}, ["ca_pem"]),
        ({"ca_pem": PEM + KEY}, ["ca_pem"]),
        ({"ca_pem": PEM * 6000}, ["ca_pem"]),
        # Tried in every way that spaces can be divided up, this would take minutes.
        ({"ca_pem": "-----BEGIN CERTIFICATE-----" + " " * 200_000}, ["ca_pem"]),
        ({"ca_pem": PEM + (" " * 200_000) + "x"}, ["ca_pem"]),
        ({"protocol": WireProtocol.H2C}, ["protocol"]),
        ({"protocol": WireProtocol.H2C, "base_url": "http://a.example"}, []),
        ({"protocol": WireProtocol.H2, "base_url": "http://a.example"}, ["protocol"]),
        ({"protocol": WireProtocol.HTTP_1_1, "base_url": "http://a.example"}, []),
    ],
)
def test_upstreams(changes: dict[str, Any], fields: list[str]) -> None:
    assert faulty(upstream("acme", **changes)) == fields


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"upstream": "../x"}, ["upstream"]),
        ({"model": ""}, ["model"]),
        ({"model": "Qwen/Qwen2.5-Coder-7B:free"}, []),
        ({"tasks": ()}, ["tasks"]),
        ({"tasks": (Action.CHAT, Action.CHAT)}, ["tasks"]),
        ({"tasks": (Action.LIST_MODELS,)}, ["tasks"]),
        ({"max_tokens": 0}, ["max_tokens"]),
        ({"max_tokens": 10_000_001}, ["max_tokens"]),
    ],
)
def test_models(changes: dict[str, Any], fields: list[str]) -> None:
    assert faulty(model("acme", **changes)) == fields


CONCURRENCY = {"unit": LimitUnit.CONCURRENCY, "period_s": 0}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"amount": 10**12, "period_s": 31 * 86_400, "burst": 10**12}, []),
        ({"amount": 0}, ["amount"]),
        ({"amount": -5}, ["amount"]),
        ({"amount": 10**12 + 1}, ["amount"]),
        ({"period_s": 0}, ["period_s"]),
        ({"period_s": 31 * 86_400 + 1}, ["period_s"]),
        ({"burst": 61}, ["burst"]),
        ({"burst": -1}, ["burst"]),
        (CONCURRENCY, []),
        ({**CONCURRENCY, "period_s": 1}, ["period_s"]),
        ({"scope": LimitScope.ORG, "subject": "mem_1"}, ["subject"]),
        ({"scope": LimitScope.ORG}, []),
        ({"scope": LimitScope.MEMBER, "subject": "mem_1"}, []),
        ({"scope": LimitScope.MEMBER, "subject": "ann@example.com"}, ["subject"]),
        ({"scope": LimitScope.MODEL, "subject": "code"}, []),
        ({"scope": LimitScope.MODEL, "subject": "../x"}, ["subject"]),
        ({"scope": LimitScope.MODEL}, []),
        ({"scope": LimitScope.CLIENT, "subject": "orgate-cli"}, []),
        ({"scope": LimitScope.CLIENT, "subject": "a\nb"}, ["subject"]),
    ],
)
def test_limits(changes: dict[str, Any], fields: list[str]) -> None:
    assert faulty(limit("acme", **changes)) == fields


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"roles": (), "actions": (), "models": ()}, ["roles", "actions", "models"]),
        ({"roles": (Role.OPERATOR,)}, ["roles"]),
        ({"models": ("*", "code-?", "[abc]-x", "[!a-z]*", "gpt-4.1")}, []),
        ({"models": ("Code",)}, ["models"]),
        ({"models": ("",)}, ["models"]),
        ({"models": ("a/b", "[a", "]", "a b")}, ["models"] * 4),
        ({"models": ("*" * 65,)}, ["models"]),
        ({"models": ("*", "*")}, ["models"]),
    ],
)
def test_rules(changes: dict[str, Any], fields: list[str]) -> None:
    assert faulty(rule("acme", **changes)) == fields


@pytest.mark.parametrize("make", [upstream, model, limit, rule])
def test_names_are_names_and_the_platform_serves_nothing(make: Any) -> None:
    assert faulty(make("acme", "../x")) == ["name"]
    assert faulty(make("platform")) == (["scope"] if make is limit else ["org"])


@given(st.text(max_size=80))
def test_no_text_makes_a_rule_fail_or_speak_unprintably(text: str) -> None:
    for item in (
        org("acme", hosts=(text,)),
        member("acme", email=text, name=text),
        upstream("acme", text, base_url=text, ca_pem=text),
        upstream("acme", base_url=f"https://{text}"),
        model("acme", upstream=text, model=text),
        limit("acme", subject=text),
        rule("acme", models=(text,)),
    ):
        for field, message in validate(item):
            assert field.isidentifier()
            assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "is_name"),
    [("a", True), ("a.b", True), ("a" * 63, True), ("a" * 64, False), ("a.1", False), ("1.a", True), ("", False)],
)
def test_dns_names(text: str, is_name: bool) -> None:
    assert is_dns_name(text) is is_name


def test_a_dns_name_has_253_characters_at_most() -> None:
    assert is_dns_name(".".join(["a" * 49] * 5))
    assert not is_dns_name(".".join(["a" * 50] * 5))
