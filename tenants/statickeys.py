"""Personal tokens: static keys for tools that can hold nothing else, of a member or a service account.

A key has no roles and no teams of its own: it does what its owner may do now, narrowed by what it was made for. So
what is taken from its owner is taken from it with the next snapshot. It dies for good with what it hangs on: its
owner suspended, deleted or made an owner of the organization (somebody lesser may have made it), its organization
suspended or turning personal tokens off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from policies.facts import Action, Role
from tenants.ids import OrgId

DAY_S: Final = 86_400
DEFAULT_DAYS: Final = 90
MOST_DAYS: Final = 366
MOST_OF_ONE: Final = 10
MOST_OF_ORG: Final = 1_000
"""Living keys: each travels in its organization's snapshot to every worker."""

MOST_MODELS: Final = 100
EVERY_ACTION: Final = tuple(Action)


class StaticKey(Struct, frozen=True):
    """One key as it is shown; never the key. `subject`: whose it is (`mem_…`, `svc_…`), `created_by` who made it.

    `actions`: what it may ask models for. `models`: aliases it may name, none for every one. `used_at`: to the
    minute, 0 for never. Times are Unix seconds.
    """

    org: OrgId
    id: str
    subject: str
    name: str
    actions: tuple[Action, ...] = EVERY_ACTION
    models: tuple[str, ...] = ()
    created_by: str = ""
    created_at: int = 0
    expires_at: int = 0
    used_at: int = 0


class KeyScope(Struct, frozen=True):
    """What a credential is narrowed to, whatever the roles of its owner. No `models`: every one."""

    actions: tuple[Action, ...]
    models: tuple[str, ...] = ()

    def covers(self, action: Action, model: str) -> bool:
        return action in self.actions and (not self.models or model in self.models)


class ServedKey(Struct, frozen=True):
    """A key as workers have it: `digest` is what it is found by, `roles` and `teams` are its owner's as of now."""

    digest: str
    id: str
    subject: str
    roles: tuple[Role, ...]
    teams: tuple[str, ...]
    scope: KeyScope
    created_at: int
    expires_at: int


class Owner(Struct, frozen=True):
    """Whom a key speaks for. `active`: whether they may do anything at all."""

    roles: tuple[Role, ...]
    active: bool
    teams: tuple[str, ...] = ()


def served(
    keys: Iterable[tuple[str, StaticKey]], owners: Mapping[str, Owner], now: float
) -> tuple[ServedKey, ...]:
    """What workers are told: of each `(digest, key)` that lives and whose owner is active."""
    found = []
    for digest, key in keys:
        owner = owners.get(key.subject)
        if owner is None or not owner.active or key.expires_at <= now:
            continue
        scope = KeyScope(key.actions, key.models)
        found.append(
            ServedKey(digest, key.id, key.subject, owner.roles, owner.teams, scope, key.created_at, key.expires_at)
        )
    return tuple(found)


def faults_of(item: StaticKey) -> Sequence[tuple[str, str]]:
    """What is wrong with a new key, field by field."""
    faults = []
    if not 1 <= len(item.name) <= 100 or not item.name.isprintable():
        faults.append(("name", "is 1 to 100 printable characters"))
    if not item.actions or len(set(item.actions)) != len(item.actions):
        faults.append(("actions", f"are at least one of {', '.join(Action)}, each once"))
    if len(item.models) > MOST_MODELS or len(set(item.models)) != len(item.models):
        faults.append(("models", f"are at most {MOST_MODELS}, each once"))
    if not item.created_at < item.expires_at <= item.created_at + MOST_DAYS * DAY_S:
        faults.append(("days", f"are 1 to {MOST_DAYS}"))
    return faults
