"""What SCIM (RFC 7643, RFC 7644) keeps beside members and teams. Of the control process alone: no worker
reads it.

A user is a member and what the identity provider calls them; a group is a team and what the provider calls
it. Both exist without SCIM having touched them: then nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct

from policies.facts import Role
from tenants.ids import MemberId, OrgId
from tenants.models import Member, Team

if TYPE_CHECKING:  # which has these on its every organization
    from tenants.store import Actor

DAY_S: Final = 86_400
DEFAULT_DAYS: Final = 365
MOST_DAYS: Final = 730
MOST_TOKENS: Final = 10
"""Of one organization: more than one, so that they can be rotated."""

MOST_GROUP_ROLES: Final = 100
USED_EVERY_S: Final = 60
"""How exactly it is known when a token was last used."""

MAPPED_ROLES: Final = frozenset({Role.ADMIN, Role.AUDITOR, Role.MEMBER, Role.BILLING})
"""Roles that a group may bring. Not owner: only owners make owners."""


class ScimToken(Struct, frozen=True):
    """One token as it is shown; never the token. `created_by`: a member, or who else acted. `used_at`: to the
    minute, 0 for never. Times are Unix seconds."""

    org: OrgId
    id: str
    name: str = ""
    created_by: str = ""
    created_at: int = 0
    expires_at: int = 0
    used_at: int = 0


class GroupRole(Struct, frozen=True):
    """Who is put into the group with this displayName (case does not count) gets `role`; who is taken out
    loses it."""

    group: str
    role: Role


class ScimSettings(Struct, frozen=True):
    """How an organization's provider may act. `owners`: it may change owners too, though never take the last
    one."""

    org: OrgId
    owners: bool = False
    group_roles: tuple[GroupRole, ...] = ()
    version: int = 0

    def roles_of(self, group: str) -> frozenset[Role]:
        """What being in the group of that displayName brings."""
        wanted = group.casefold()
        return frozenset(one.role for one in self.group_roles if one.group.casefold() == wanted)


class UserFacts(Struct, frozen=True):
    """What is kept of a user beside the member. `profile`: JSON of the attributes that were given, as they
    were."""

    user_name: str
    external_id: str = ""
    profile: Mapping[str, Any] = {}


class ScimUser(Struct, frozen=True):
    """A member as SCIM sees them. `facts` is None where no provider has ever written of them. `modified_at`:
    0 where that is not known (somebody else has changed the member since)."""

    member: Member
    facts: UserFacts | None = None
    modified_at: int = 0
    teams: tuple[Team, ...] = ()

    @property
    def user_name(self) -> str:
        return self.member.email if self.facts is None else self.facts.user_name


class ScimGroup(Struct, frozen=True):
    """A team as SCIM sees it. `members` is None where they were not read."""

    team: Team
    external_id: str = ""
    modified_at: int = 0
    members: tuple[MemberId, ...] | None = None

    @property
    def display_name(self) -> str:
        return self.team.title or self.team.name


class UserLookup(Struct, frozen=True):
    """What users must be, as far as a database finds them quickly; '' and None for anything. It may find more
    than what is meant, and never less."""

    id: str = ""
    user_name: str = ""
    external_id: str = ""
    email: str = ""
    active: bool | None = None


class GroupChange(Struct, frozen=True):
    """What becomes of a group: its team, and who joins and leaves."""

    team: Team
    external_id: str
    join: tuple[MemberId, ...] = ()
    leave: tuple[MemberId, ...] = ()


class ScimBook(Protocol):
    """Users and groups of one organization, its tokens and its settings.

    Durable when a call returns; each write is one transaction with the member, the team and the audit entries
    of both. Errors: those of `tenants.store.Repository`. `AlreadyExistsError` also for a userName that
    somebody has.
    """

    async def user(self, member: MemberId) -> ScimUser: ...
    async def count_users(self) -> int: ...
    async def users(
        self, lookup: UserLookup, *, after: str = "", offset: int = 0, limit: int = 100
    ) -> tuple[ScimUser, ...]:
        """By id, from above `after` on, without the first `offset`."""

    async def create_user(self, item: Member, facts: UserFacts, by: Actor) -> ScimUser: ...
    async def replace_user(
        self, item: Member, facts: UserFacts, expected: int, changed: Sequence[str], by: Actor
    ) -> ScimUser:
        """`changed`: names of attributes, for the audit entry."""

    async def group(self, team: str) -> ScimGroup: ...
    async def groups(self) -> tuple[ScimGroup, ...]:
        """All, by name, without their members."""

    async def members_of(self, teams: Collection[str]) -> Mapping[str, tuple[MemberId, ...]]: ...
    async def create_group(self, change: GroupChange, roles: Collection[Role], by: Actor) -> ScimGroup:
        """`roles`: what being in it brings."""

    async def replace_group(
        self, change: GroupChange, expected: int, settings: ScimSettings, by: Actor
    ) -> tuple[ScimGroup, frozenset[MemberId]]:
        """Also who has lost a role by it, and must be shut out."""

    async def delete_group(self, team: Team, settings: ScimSettings, by: Actor) -> frozenset[MemberId]:
        """Who has lost a role by it."""

    async def tokens(self) -> tuple[ScimToken, ...]: ...
    async def add_token(self, token: ScimToken, digest: str, by: Actor) -> ScimToken:
        """`created_at` is set here. Errors: `InUseError` when there are MOST_TOKENS that have not expired."""

    async def token(self, digest: str) -> ScimToken | None:
        """The one with that digest, if it has not expired."""

    async def used(self, token: ScimToken) -> None: ...
    async def revoke_token(self, key: str, by: Actor) -> None: ...
    async def settings(self) -> ScimSettings: ...
    async def put_settings(self, item: ScimSettings, expected: int, by: Actor) -> ScimSettings:
        """Errors: `VersionMismatchError`, `InvalidItemError`."""


def settings_faults(item: ScimSettings) -> list[tuple[str, str]]:
    """What is wrong with them, field by field."""
    faults = []
    if len(item.group_roles) > MOST_GROUP_ROLES:
        faults.append(("group_roles", f"are at most {MOST_GROUP_ROLES}"))
    for each in item.group_roles:
        if each.role not in MAPPED_ROLES:
            faults.append(("group_roles", f"cannot bring '{each.role}': {', '.join(sorted(MAPPED_ROLES))}"))
        if not 1 <= len(each.group) <= 200 or not each.group.isprintable() or each.group != each.group.strip():
            faults.append(("group_roles", "name groups of 1 to 200 printable characters"))
    if len({(one.group.casefold(), one.role) for one in item.group_roles}) != len(item.group_roles):
        faults.append(("group_roles", "are given once each"))
    return faults
