"""Deny-by-default rules: role × action × model. A `deny` that matches beats every `allow`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

from msgspec import Struct

from policies.facts import Action, Allowed, Decision, Facts, Refused, Role

DEFAULT_DENY = "default-deny"


class Effect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Rule(Struct, frozen=True):
    """One line of an organization's policy. An empty tuple of roles or actions matches nothing.

    `models` are shell globs over alias names (`*`, `code-*`), compared with case.
    """

    id: str
    effect: Effect
    roles: tuple[Role, ...]
    actions: tuple[Action, ...]
    models: tuple[str, ...]

    def matches(self, facts: Facts) -> bool:
        return (
            facts.action in self.actions
            and not facts.roles.isdisjoint(self.roles)
            and any(fnmatchcase(facts.model, pattern) for pattern in self.models)
        )


class RulesPolicy:
    """The `Policy` over a list of rules. Order among rules of one effect decides only whose id is named."""

    __slots__ = ("_allow", "_deny")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._deny = tuple(rule for rule in rules if rule.effect is Effect.DENY)
        self._allow = tuple(rule for rule in rules if rule.effect is Effect.ALLOW)

    def decide(self, facts: Facts) -> Decision:
        for rule in self._deny:
            if rule.matches(facts):
                return Refused(rule.id, f"rule '{rule.id}' denies {facts.action} on model '{facts.model}'")
        for rule in self._allow:
            if rule.matches(facts):
                return Allowed(rule.id)
        return Refused(DEFAULT_DENY, f"no rule allows {facts.action} on model '{facts.model}'")


def starting_rules() -> tuple[Rule, ...]:
    """What a new organization begins with: those who write code may use every model it has configured."""
    return (
        Rule(
            id="members-use-every-model",
            effect=Effect.ALLOW,
            roles=(Role.MEMBER, Role.ADMIN, Role.OWNER),
            actions=(Action.COMPLETE, Action.CHAT, Action.EMBED, Action.LIST_MODELS),
            models=("*",),
        ),
    )
