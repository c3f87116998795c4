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
    MEMBER_CREATE = "member.create"
    MEMBER_READ = "member.read"
    MEMBER_UPDATE = "member.update"
    MEMBER_DELETE = "member.delete"
    MEMBER_INVITE = "member.invite"
    MEMBER_SUSPEND = "member.suspend"
    MEMBER_RESUME = "member.resume"
    MEMBER_OFFBOARD = "member.offboard"
    MEMBER_REVOKE = "member.revoke"
    OWNER_WRITE = "owner.write"

    TEAM_LIST = "team.list"
    TEAM_CREATE = "team.create"
    TEAM_READ = "team.read"
    TEAM_UPDATE = "team.update"
    TEAM_DELETE = "team.delete"

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

    RULE_LIST = "rule.list"
    RULE_CREATE = "rule.create"
    RULE_READ = "rule.read"
    RULE_UPDATE = "rule.update"
    RULE_DELETE = "rule.delete"

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


_EVERYONE: Final = frozenset(Role)
_PLATFORM: Final = frozenset({Role.OPERATOR})
_OWNERS: Final = frozenset({Role.OPERATOR, Role.OWNER})
_ADMINS: Final = _OWNERS | {Role.ADMIN}
_READERS: Final = _ADMINS | {Role.AUDITOR}

_VERBS: Final[Mapping[str, frozenset[Role]]] = {"list": _READERS, "read": _READERS}

_EXCEPTIONS: Final[Mapping[Operation, frozenset[Role]]] = {
    Operation.ME_READ: _EVERYONE,
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


def may(roles: Collection[Role], operation: Operation, own_org: bool) -> bool:
    """Whether someone with `roles` may do `operation` on an organization, their own or (`own_org` false) another.

    Only an operator acts on another organization; every other role ends at its own.
    """
    held = ALLOWED[operation].intersection(roles)
    return bool(held) if own_org else Role.OPERATOR in held


def needed(operation: Operation) -> tuple[Role, ...]:
    """The roles that allow `operation`, in the order of `Role`: for a refusal that says what to ask for."""
    return tuple(role for role in Role if role in ALLOWED[operation])


def may_manage(roles: Collection[Role], before: Collection[Role], after: Collection[Role], own_org: bool) -> bool:
    """Whether `roles` may turn a member with roles `before` (none: a new one) into one with `after` (none: gone).

    An admin may not touch an owner nor make one. It is asked beside the `member.*` operation. An invitation
    code sets a password, so inviting an owner counts as touching one.
    """
    return (Role.OWNER not in before and Role.OWNER not in after) or may(roles, Operation.OWNER_WRITE, own_org)
