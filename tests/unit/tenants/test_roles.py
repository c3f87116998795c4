"""The operation × role table: every cell that matters, written out, not derived from the table itself."""

from __future__ import annotations

import pytest

from policies.facts import Role
from tenants.roles import ALLOWED, LEAD, LEADS, Operation, may, may_manage, needed

PLATFORM_ONLY = {
    Operation.STATUS_READ,
    Operation.METRICS_READ,
    Operation.SIGNING_KEY_LIST,
    Operation.SIGNING_KEY_ROTATE,
    Operation.ORG_LIST,
    Operation.ORG_CREATE,
    Operation.ORG_HOSTS,
    Operation.ORG_SUSPEND,
    Operation.ORG_RESUME,
}
READS = {op for op in Operation if op.value.split(".")[1] in {"list", "read", "export"}} - PLATFORM_ONLY
OWN_THINGS = {
    Operation.OWN_PERSONAL_TOKEN_LIST,
    Operation.OWN_PERSONAL_TOKEN_READ,
    Operation.OWN_PERSONAL_TOKEN_CREATE,
    Operation.OWN_PERSONAL_TOKEN_REVOKE,
    Operation.OWN_SESSION_LIST,
    Operation.OWN_SESSION_REVOKE,
}
MEMBER = {Operation.ME_READ, Operation.MODEL_LIST, Operation.MODEL_READ} | OWN_THINGS
ACCOUNTS = {
    Operation.MEMBER_NAME_LIST,
    Operation.TEAM_LIST,
    Operation.TEAM_USAGE_READ,
    Operation.LIMIT_LIST,
    Operation.LIMIT_READ,
    Operation.PRICE_LIST,
    Operation.PRICE_READ,
}
OWN = {
    Role.OPERATOR: set(Operation),
    Role.OWNER: set(Operation) - PLATFORM_ONLY,
    Role.ADMIN: set(Operation)
    - PLATFORM_ONLY
    - {Operation.ORG_DELETE, Operation.OWNER_WRITE, Operation.AUDIT_HOLD}
    - {Operation.IDP_WRITE, Operation.IDP_DELETE},
    Role.AUDITOR: READS | OWN_THINGS,
    Role.MEMBER: MEMBER,
    Role.BILLING: MEMBER | ACCOUNTS,
}


def test_every_operation_has_a_row() -> None:
    assert set(ALLOWED) == set(Operation)


@pytest.mark.parametrize("role", list(Role))
def test_what_a_role_may_do_in_its_own_organization(role: Role) -> None:
    assert {op for op in Operation if may({role}, op, own_org=True)} == OWN[role]


@pytest.mark.parametrize("role", list(Role))
def test_only_an_operator_reaches_another_organization(role: Role) -> None:
    allowed = {op for op in Operation if may({role}, op, own_org=False)}
    assert allowed == (set(Operation) if role is Role.OPERATOR else set())


def test_an_owner_with_every_other_role_still_ends_at_their_own_organization() -> None:
    roles = set(Role) - {Role.OPERATOR}
    assert not any(may(roles, op, own_org=False) for op in Operation)


def test_no_role_may_do_nothing() -> None:
    assert not any(may((), op, own_org=own) for op in Operation for own in (True, False))


def test_roles_add_up() -> None:
    assert may({Role.MEMBER, Role.AUDITOR}, Operation.AUDIT_READ, own_org=True)
    assert not may({Role.MEMBER, Role.AUDITOR}, Operation.KEY_WRITE, own_org=True)


def test_an_auditor_changes_nothing() -> None:
    for op in Operation:
        if may({Role.AUDITOR}, op, own_org=True) and op not in OWN_THINGS:
            assert op.value.split(".")[1] in {"list", "read", "export"}


def test_billing_sees_no_key_no_member_and_no_audit_log() -> None:
    for op in Operation:
        if op.value.split(".")[0] in {
            "key",
            "cert",
            "upstream",
            "member",
            "audit",
            "session",
            "personal_token",
            "rule",
        }:
            assert not may({Role.BILLING}, op, own_org=True), op


def test_a_lead_may_only_what_is_about_their_team_and_makes_no_lead() -> None:
    assert {
        Operation.TEAM_READ,
        Operation.TEAM_ADD_MEMBER,
        Operation.TEAM_REMOVE_MEMBER,
        Operation.TEAM_USAGE_READ,
    } == LEADS
    assert needed(Operation.TEAM_ADD_MEMBER) == (Role.OPERATOR, Role.OWNER, Role.ADMIN, LEAD)
    assert not may({Role.MEMBER}, Operation.TEAM_ADD_MEMBER, own_org=True)


def test_a_refusal_can_say_which_roles_would_do() -> None:
    assert needed(Operation.OWNER_WRITE) == (Role.OPERATOR, Role.OWNER)
    assert needed(Operation.AUDIT_READ) == (Role.OPERATOR, Role.OWNER, Role.ADMIN, Role.AUDITOR)


@pytest.mark.parametrize(
    ("actor", "before", "after", "allowed"),
    [
        (Role.ADMIN, (), (Role.MEMBER,), True),
        (Role.ADMIN, (Role.MEMBER,), (Role.ADMIN,), True),
        (Role.ADMIN, (), (Role.OWNER,), False),
        (Role.ADMIN, (Role.MEMBER,), (Role.MEMBER, Role.OWNER), False),
        (Role.ADMIN, (Role.OWNER,), (Role.MEMBER,), False),
        (Role.ADMIN, (Role.OWNER, Role.MEMBER), (), False),
        (Role.OWNER, (Role.OWNER,), (), True),
        (Role.OWNER, (), (Role.OWNER,), True),
    ],
)
def test_owners_are_touched_by_owners_only(
    actor: Role, before: tuple[Role, ...], after: tuple[Role, ...], allowed: bool
) -> None:
    assert may_manage({actor}, before, after, own_org=True) is allowed


def test_an_operator_manages_owners_elsewhere_and_an_owner_does_not() -> None:
    assert may_manage({Role.OPERATOR}, (Role.OWNER,), (), own_org=False)
    assert not may_manage({Role.OWNER}, (Role.OWNER,), (), own_org=False)
