"""Who may do what on the control plane: one table, operation × role. The guards are made from it.

Pure. Deny by default: what is not in the table is not allowed, and an operation without a row fails a test.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from policies.facts import Role


class Operation(StrEnum):
    """`noun.verb`, the same words as an audit entry's action.

    `ORG_HOSTS`: changing the host names that lead to an organization. They are shared by the whole
    platform (a host taken by one organization is closed to every other), so an owner cannot take one.
    `MEMBER_NAME_LIST`: ids and names alone, for whoever reads what is used by whom.
    `OWN_…`: what is the caller's own, and of nobody else.
    `OWNER_WRITE`: whatever touches an owner, gives or takes the role: asked beside `member.*`.
    """

    ME_READ = "me.read"
    STATUS_READ = "status.read"
    METRICS_READ = "metrics.read"
    SIGNING_KEY_LIST = "signing_key.list"
    SIGNING_KEY_ROTATE = "signing_key.rotate"

    ORG_LIST = "org.list"
    ORG_CREATE = "org.create"
    ORG_READ = "org.read"
    ORG_UPDATE = "org.update"
    ORG_HOSTS = "org.hosts"
    ORG_SUSPEND = "org.suspend"
    ORG_RESUME = "org.resume"
    ORG_DELETE = "org.delete"

    MEMBER_LIST = "member.list"
    MEMBER_NAME_LIST = "member_name.list"
    MEMBER_CREATE = "member.create"
    MEMBER_READ = "member.read"
    MEMBER_UPDATE = "member.update"
    MEMBER_DELETE = "member.delete"
    MEMBER_INVITE = "member.invite"
    MEMBER_SUSPEND = "member.suspend"
    MEMBER_RESUME = "member.resume"
    MEMBER_OFFBOARD = "member.offboard"
    MEMBER_REVOKE = "member.revoke"
    FACTOR_LIST = "factor.list"
    FACTOR_RESET = "factor.reset"
    OWNER_WRITE = "owner.write"

    TEAM_LIST = "team.list"
    TEAM_CREATE = "team.create"
    TEAM_READ = "team.read"
    TEAM_UPDATE = "team.update"
    TEAM_DELETE = "team.delete"
    TEAM_ADD_MEMBER = "team.add_member"
    TEAM_REMOVE_MEMBER = "team.remove_member"
    TEAM_SET_LEAD = "team.set_lead"
    TEAM_USAGE_READ = "team_usage.read"

    PERSONAL_TOKEN_LIST = "personal_token.list"
    PERSONAL_TOKEN_READ = "personal_token.read"
    PERSONAL_TOKEN_CREATE = "personal_token.create"
    PERSONAL_TOKEN_REVOKE = "personal_token.revoke"
    OWN_PERSONAL_TOKEN_LIST = "own_personal_token.list"
    OWN_PERSONAL_TOKEN_READ = "own_personal_token.read"
    OWN_PERSONAL_TOKEN_CREATE = "own_personal_token.create"
    OWN_PERSONAL_TOKEN_REVOKE = "own_personal_token.revoke"
    SESSION_LIST = "session.list"
    SESSION_REVOKE = "session.revoke"
    OWN_SESSION_LIST = "own_session.list"
    OWN_SESSION_REVOKE = "own_session.revoke"

    UPSTREAM_LIST = "upstream.list"
    UPSTREAM_CREATE = "upstream.create"
    UPSTREAM_READ = "upstream.read"
    UPSTREAM_UPDATE = "upstream.update"
    UPSTREAM_DELETE = "upstream.delete"
    UPSTREAM_TEST = "upstream.test"
    KEY_READ = "key.read"
    KEY_WRITE = "key.write"
    KEY_DELETE = "key.delete"
    CERT_READ = "cert.read"
    CERT_WRITE = "cert.write"
    CERT_DELETE = "cert.delete"

    MODEL_LIST = "model.list"
    MODEL_CREATE = "model.create"
    MODEL_READ = "model.read"
    MODEL_UPDATE = "model.update"
    MODEL_DELETE = "model.delete"

    LIMIT_LIST = "limit.list"
    LIMIT_CREATE = "limit.create"
    LIMIT_READ = "limit.read"
    LIMIT_UPDATE = "limit.update"
    LIMIT_DELETE = "limit.delete"
    LIMIT_RESET = "limit.reset"
    LIMIT_SIMULATE = "limit.simulate"

    PRICE_LIST = "price.list"
    PRICE_READ = "price.read"
    PRICE_IMPORT = "price.import"

    WEBHOOK_READ = "webhook.read"
    WEBHOOK_WRITE = "webhook.write"
    WEBHOOK_DELETE = "webhook.delete"
    WEBHOOK_TEST = "webhook.test"

    IDP_READ = "idp.read"
    IDP_WRITE = "idp.write"
    IDP_DELETE = "idp.delete"
    IDP_TEST = "idp.test"

    RULE_LIST = "rule.list"
    RULE_CREATE = "rule.create"
    RULE_READ = "rule.read"
    RULE_UPDATE = "rule.update"
    RULE_DELETE = "rule.delete"

    CLIENT_LIST = "client.list"
    CLIENT_CREATE = "client.create"
    CLIENT_READ = "client.read"
    CLIENT_UPDATE = "client.update"
    CLIENT_DELETE = "client.delete"
    CLIENT_SECRET = "client.secret"
    CLIENT_SUSPEND = "client.suspend"
    CLIENT_RESUME = "client.resume"

    SERVICE_LIST = "service.list"
    SERVICE_CREATE = "service.create"
    SERVICE_READ = "service.read"
    SERVICE_UPDATE = "service.update"
    SERVICE_DELETE = "service.delete"
    SERVICE_SUSPEND = "service.suspend"
    SERVICE_RESUME = "service.resume"
    SERVICE_REVOKE = "service.revoke"
    TRUST_LIST = "trust.list"
    TRUST_CREATE = "trust.create"
    TRUST_READ = "trust.read"
    TRUST_UPDATE = "trust.update"
    TRUST_DELETE = "trust.delete"

    SCIM_READ = "scim.read"
    SCIM_UPDATE = "scim.update"
    SCIM_TOKEN_LIST = "scim_token.list"
    SCIM_TOKEN_CREATE = "scim_token.create"
    SCIM_TOKEN_DELETE = "scim_token.delete"

    AUDIT_READ = "audit.read"
    AUDIT_EXPORT = "audit.export"
    AUDIT_ERASE = "audit.erase"

    AUDIT_STREAM_LIST = "audit_stream.list"
    AUDIT_STREAM_CREATE = "audit_stream.create"
    AUDIT_STREAM_READ = "audit_stream.read"
    AUDIT_STREAM_UPDATE = "audit_stream.update"
    AUDIT_STREAM_DELETE = "audit_stream.delete"
    AUDIT_STREAM_TEST = "audit_stream.test"
    AUDIT_HOLD = "audit.hold"
    AUDIT_PROMPT_READ = "audit_prompt.read"


_EVERYONE: Final = frozenset(Role)
_PLATFORM: Final = frozenset({Role.OPERATOR})
_OWNERS: Final = frozenset({Role.OPERATOR, Role.OWNER})
_ADMINS: Final = _OWNERS | {Role.ADMIN}
_READERS: Final = _ADMINS | {Role.AUDITOR}
_ACCOUNTS: Final = _READERS | {Role.BILLING}

_VERBS: Final[Mapping[str, frozenset[Role]]] = {"list": _READERS, "read": _READERS}

_EXCEPTIONS: Final[Mapping[Operation, frozenset[Role]]] = {
    Operation.ME_READ: _EVERYONE,
    Operation.OWN_PERSONAL_TOKEN_LIST: _EVERYONE,
    Operation.OWN_PERSONAL_TOKEN_READ: _EVERYONE,
    Operation.OWN_PERSONAL_TOKEN_CREATE: _EVERYONE,
    Operation.OWN_PERSONAL_TOKEN_REVOKE: _EVERYONE,
    Operation.OWN_SESSION_LIST: _EVERYONE,
    Operation.OWN_SESSION_REVOKE: _EVERYONE,
    Operation.MODEL_LIST: _EVERYONE,
    Operation.MODEL_READ: _EVERYONE,
    Operation.STATUS_READ: _PLATFORM,
    Operation.METRICS_READ: _PLATFORM,
    Operation.SIGNING_KEY_LIST: _PLATFORM,
    Operation.SIGNING_KEY_ROTATE: _PLATFORM,
    Operation.ORG_LIST: _PLATFORM,
    Operation.ORG_CREATE: _PLATFORM,
    Operation.ORG_HOSTS: _PLATFORM,
    Operation.ORG_SUSPEND: _PLATFORM,
    Operation.ORG_RESUME: _PLATFORM,
    Operation.ORG_DELETE: _OWNERS,
    Operation.OWNER_WRITE: _OWNERS,
    Operation.IDP_WRITE: _OWNERS,
    Operation.IDP_DELETE: _OWNERS,
    Operation.MEMBER_NAME_LIST: _ACCOUNTS,
    Operation.TEAM_LIST: _ACCOUNTS,
    Operation.TEAM_USAGE_READ: _ACCOUNTS,
    Operation.LIMIT_LIST: _ACCOUNTS,
    Operation.LIMIT_READ: _ACCOUNTS,
    Operation.PRICE_LIST: _ACCOUNTS,
    Operation.PRICE_READ: _ACCOUNTS,
    Operation.AUDIT_EXPORT: _READERS,
    Operation.AUDIT_HOLD: _OWNERS,
}

ALLOWED: Final[Mapping[Operation, frozenset[Role]]] = MappingProxyType(
    {
        operation: _EXCEPTIONS.get(operation, _VERBS.get(operation.partition(".")[2], _ADMINS))
        for operation in Operation
    }
)
"""The table. Readers list and read; admins do the rest; the exceptions above say where it differs."""


LEADS: Final = frozenset(
    {
        Operation.TEAM_READ,
        Operation.TEAM_ADD_MEMBER,
        Operation.TEAM_REMOVE_MEMBER,
        Operation.TEAM_USAGE_READ,
    }
)
"""What a team's lead may do with that team, whatever their roles: the table's last column. They belong to no
other team, and a team's lead is made by an admin (`TEAM_SET_LEAD`)."""

LEAD: Final = "team lead"

SCIM: Final = frozenset(
    {
        Operation.SCIM_READ,
        Operation.MEMBER_LIST,
        Operation.MEMBER_READ,
        Operation.MEMBER_CREATE,
        Operation.MEMBER_UPDATE,
        Operation.MEMBER_DELETE,
        Operation.MEMBER_OFFBOARD,
        Operation.MEMBER_RESUME,
        Operation.TEAM_LIST,
        Operation.TEAM_READ,
        Operation.TEAM_CREATE,
        Operation.TEAM_UPDATE,
        Operation.TEAM_DELETE,
        Operation.TEAM_ADD_MEMBER,
        Operation.TEAM_REMOVE_MEMBER,
    }
)
"""What a SCIM token may do, under `/scim/v2` of its own organization and nowhere else: a column of the table
that is nobody's role. Owners are not its to touch, unless the organization says so (`SCIM_UPDATE`)."""


def may(roles: Collection[Role], operation: Operation, own_org: bool) -> bool:
    """Whether someone with `roles` may do `operation` on an organization, their own or (`own_org` false)
    another.

    Only an operator acts on another organization; every other role ends at its own.
    """
    held = ALLOWED[operation].intersection(roles)
    return bool(held) if own_org else Role.OPERATOR in held


def needed(operation: Operation) -> tuple[str, ...]:
    """The roles that allow `operation`, in the order of `Role`, and LEAD: a refusal says what to ask for."""
    roles = tuple(role for role in Role if role in ALLOWED[operation])
    return (*roles, LEAD) if operation in LEADS else roles


def may_manage(roles: Collection[Role], before: Collection[Role], after: Collection[Role], own_org: bool) -> bool:
    """Whether `roles` may turn a member with roles `before` (none: a new one) into one with `after` (none:
    gone).

    An admin may not touch an owner nor make one. It is asked beside the `member.*` operation. An invitation
    code sets a password, so inviting an owner counts as touching one.
    """
    return (Role.OWNER not in before and Role.OWNER not in after) or may(roles, Operation.OWNER_WRITE, own_org)
