"""What a policy is asked, and what it answers. Pure values; the words are those of RFC 2753 and Cedar."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from msgspec import Struct


class Role(StrEnum):
    """What a member may be. `OPERATOR` exists only in the platform's own organization. `BILLING` sees what is used
    and what it costs, and asks no model."""

    OPERATOR = "operator"
    OWNER = "owner"
    ADMIN = "admin"
    AUDITOR = "auditor"
    MEMBER = "member"
    BILLING = "billing"


class Action(StrEnum):
    """What a member asks the data plane to do; also the name of the task in receipts."""

    COMPLETE = "completions"
    CHAT = "chat"
    EMBED = "embeddings"
    LIST_MODELS = "models"


class Facts(Struct, frozen=True):
    """Everything a rule may look at. `org` and `member` are ids; `model` is the alias the caller named."""

    org: str
    member: str
    roles: frozenset[Role]
    client: str
    action: Action
    model: str


class Allowed(Struct, frozen=True, tag=True):
    """`rule` is the id of the rule that said yes."""

    rule: str


class Refused(Struct, frozen=True, tag=True):
    """`rule` is the id of the rule that said no, or `default-deny` when none spoke."""

    rule: str
    reason: str


Decision = Allowed | Refused


class Policy(Protocol):
    """One organization's policy.

    Deterministic and pure: the same facts give the same decision, nothing is read or written, no clock.
    Nothing configured means no. Trusted: whoever can write an organization's rules decides what its
    members may ask for.
    """

    def decide(self, facts: Facts) -> Decision: ...
