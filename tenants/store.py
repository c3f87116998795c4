"""The control store's Protocols. Beside their consumers' domain; backends live in `tenants/sql/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from tenants.budgets import BudgetUse, Notice, Webhook
from tenants.clients import ClientSecret, OAuthClient
from tenants.idp import IdentityProvider
from tenants.ids import MemberId, OrgId
from tenants.models import (
    Limit,
    Member,
    ModelAlias,
    Org,
    OrgRule,
    Price,
    Revocation,
    Service,
    Team,
    TeamMember,
    Upstream,
    UpstreamKey,
)
from tenants.prices import PriceImport, PriceTable
from tenants.scim import ScimBook
from tenants.snapshot import TenantRecord
from tenants.statickeys import StaticKey
from tenants.streams import AuditStream, StreamBook
from tenants.trust import ServiceTrust

T = TypeVar("T")


class StoreError(Exception):
    """Base of what a store says no with."""


class NotFoundError(StoreError):
    """Nothing by that key in this organization. Says the same whether it never existed or is another's."""


class AlreadyExistsError(StoreError):
    """The key (or the e-mail address) is taken in this organization; a deleted org's id stays taken."""


class VersionMismatchError(StoreError):
    """Somebody wrote in between. `current` is the version that stands now."""

    def __init__(self, current: int) -> None:
        super().__init__(f"the current version is {current}")
        self.current = current


class InUseError(StoreError):
    """Something still refers to it (an upstream that an alias names), or the platform needs it."""


class TooManyError(StoreError):
    """An organization has as many of a kind as it may. The message says how many, and what to do."""


class InvalidReferenceError(StoreError):
    """It names something that does not exist in this organization (an alias's upstream)."""


class InvalidItemError(StoreError):
    """It breaks a rule of `tenants.validate`. `faults` are `(field, message)`, safe to show."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in faults))
        self.faults = tuple(faults)


class InvalidQueryError(StoreError, ValueError):
    """A filter by a field that does not exist, a value that field cannot have, or a page size out of range.

    `field` is the filter's name, or `limit`. The message is safe to show.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class KeysOffError(StoreError):
    """The organization has not turned personal tokens on. Nothing was changed."""


class StoreUnavailableError(StoreError):
    """The database cannot be read or written now (locked, disk full, not a database). Nothing was changed."""


class ServerAwayError(StoreUnavailableError):
    """The database's server does not answer. It may come back by itself."""


class NewerSchemaError(StoreUnavailableError):
    """The database was written by a newer Orgate; this one would misread it."""


class Actor(Struct, frozen=True):
    """Who changes something: written into the audit entry of the change. `org` is the actor's own org."""

    org: OrgId
    member: str
    client: str = ""
    request_id: str = ""


class Change(Struct, frozen=True):
    """One audited write, queued in the same transaction as the write itself (a transactional outbox).

    If the process dies after the commit, the change is still in the outbox and is sequenced at the next
    start; if it dies before, neither the write nor the entry exists. `action` is `noun.verb`.
    `detail` never holds a secret.
    """

    seq: int
    at: int
    org: OrgId
    action: str
    target: str
    actor: Actor
    detail: Mapping[str, str | int | bool | Sequence[str]]


class Repository(Protocol[T]):
    """Things of one kind in one organization.

    Durable when the call returns. Serializable per key: a write with a stale `expected` version changes
    nothing and raises `VersionMismatchError`. Every write adds a `Change` in the same transaction and, where
    the data plane should see it, raises the store's version. Never retried inside; safe to call from many
    tasks. A write whose caller is cancelled comes to its end all the same, before the cancellation is felt.

    `version` and `created_at` are set here, whatever the item says. An item that breaks a rule of
    `tenants.validate` raises `InvalidItemError`.

    `page` is ordered by key: (items, the key to continue after, or '' at the end). An item that stays is seen
    exactly once, whatever is created or deleted meanwhile. `filters` compare a field for equality, a tuple
    field for membership. Errors: `InvalidQueryError`.
    """

    async def get(self, key: str) -> T: ...
    async def page(
        self, *, after: str = "", limit: int = 100, filters: Mapping[str, str] | None = None
    ) -> tuple[tuple[T, ...], str]: ...
    async def create(self, item: T, by: Actor) -> T: ...
    async def replace(self, item: T, expected: int, by: Actor) -> T: ...
    async def delete(self, key: str, expected: int, by: Actor) -> None: ...


class MemberRepository(Repository[Member], Protocol):
    """A write that takes something away (a role, the active state, the member) also sets `not_before` and
    revokes the member's access tokens, in the same transaction."""

    async def by_email(self, email: str) -> Member: ...

    async def names(self, members: Sequence[MemberId]) -> Mapping[MemberId, str]:
        """What those of `members` are called who are there."""


class TeamRepository(Repository[Team], Protocol):
    """Teams, and who is in them. Deleting one that a limit names raises `InUseError`; a member who is deleted
    leaves all of theirs."""

    async def members(self, team: str, *, after: str = "", limit: int = 100) -> tuple[tuple[TeamMember, ...], str]:
        """One page by member id, as `page`. Errors: `NotFoundError`, `InvalidQueryError`."""

    async def of(self, member: MemberId) -> tuple[str, ...]:
        """The teams a member is in, by name."""

    async def add(self, team: str, member: MemberId, by: Actor) -> TeamMember:
        """Harmless when repeated; a lead stays one. Errors: `NotFoundError` for the team, `InvalidReferenceError`
        for the member, or when they are in 32 already."""

    async def set_lead(self, team: str, member: MemberId, by: Actor, *, lead: bool) -> TeamMember:
        """Harmless when repeated. Errors: `NotFoundError` for the team, or who is not in it."""

    async def membership(self, team: str, member: MemberId) -> TeamMember | None:
        """That of `member`, if they are in `team`."""

    async def memberships(self, member: MemberId) -> tuple[TeamMember, ...]:
        """All of `member`, by team."""

    async def remove(self, team: str, member: MemberId, by: Actor) -> None:
        """Errors: `NotFoundError`."""


class ClientRepository(Repository[OAuthClient], Protocol):
    """The clients an organization has registered, with the digests of their secrets. A client that does not use a
    secret any more loses those it had, and one that may do less than before the access tokens that were issued to
    it, in the same transaction. Deleting one that a limit names raises `InUseError`."""

    async def secrets(self, name: str) -> tuple[ClientSecret, ...]:
        """Those that have not expired, the newest first. Errors: `NotFoundError`."""

    async def add_secret(self, name: str, digest: str, overlap_s: int, by: Actor) -> ClientSecret:
        """Another one from now on; the one in force is good for `overlap_s` more, any older one is gone.
        Errors: `NotFoundError`; `InvalidItemError` for a client that has no secret."""

    async def drop_secrets(self, name: str, by: Actor) -> int:
        """End an overlap now: only the newest stays. Returns how many went. Errors: `NotFoundError`."""


class PriceBook(Protocol):
    """The price tables of one organization. A version is never changed and never deleted but with it.

    Durable when a call returns. Errors: `NotFoundError` for a version that does not exist.
    """

    async def table(self, version: int = 0) -> PriceTable:
        """That version; 0: the one in force, an empty one of version 0 before the first import."""

    async def versions(self, *, before: int = 0, limit: int = 100) -> tuple[PriceImport, ...]:
        """Imports, the newest first, from below `before` on (0: from the newest)."""

    async def put(self, prices: Sequence[Price], expected: int, by: Actor) -> PriceImport:
        """Make `prices` the whole table, in one transaction with its audit entry. `version` of each is set here.

        A table that says what the one in force says is no new version: that one's import is returned.
        Errors: `VersionMismatchError` unless `expected` is in force; `InvalidItemError`, a fault for each price.
        """


class StaticKeyRepository(Protocol):
    """The personal tokens of one organization. Durable when a call returns. Every write adds a `Change`; each but
    `used` raises the store's version."""

    async def get(self, key: str) -> StaticKey:
        """Errors: `NotFoundError`."""

    async def page(
        self, *, after: str = "", limit: int = 100, filters: Mapping[str, str] | None = None
    ) -> tuple[tuple[StaticKey, ...], str]:
        """By id; one that has expired is shown until the next is made. Errors: `InvalidQueryError`."""

    async def create(self, item: StaticKey, digest: str, by: Actor) -> StaticKey:
        """Errors: `KeysOffError`, `InvalidItemError`, `InvalidReferenceError` for an owner who is not there or not
        active, `InUseError` when there are too many."""

    async def revoke(self, key: str, by: Actor) -> None:
        """It is gone. Errors: `NotFoundError`."""

    async def revoke_all(self, subject: str, by: Actor) -> int:
        """Every one of `subject`; how many there were."""

    async def used(self, times: Mapping[str, int]) -> None:
        """Raise `used_at` of each key by id. Keys that are gone are left out. No entry, no new version."""


class OrgStore(Protocol):
    """One organization's part of the store: there is no way from here to another's."""

    @property
    def org(self) -> OrgId: ...
    @property
    def members(self) -> MemberRepository: ...
    @property
    def teams(self) -> TeamRepository: ...
    @property
    def upstreams(self) -> Repository[Upstream]: ...
    @property
    def models(self) -> Repository[ModelAlias]: ...
    @property
    def limits(self) -> Repository[Limit]: ...
    @property
    def rules(self) -> Repository[OrgRule]: ...
    @property
    def prices(self) -> PriceBook: ...
    @property
    def audit_streams(self) -> Repository[AuditStream]: ...
    @property
    def idp(self) -> IdentityProviderBook: ...
    @property
    def clients(self) -> ClientRepository: ...
    @property
    def services(self) -> Repository[Service]:
        """As with members, a write that takes something away revokes the account's access tokens too. Deleting one
        that a client or a limit names raises `InUseError`."""

    @property
    def trusts(self) -> Repository[ServiceTrust]: ...

    @property
    def static_keys(self) -> StaticKeyRepository: ...

    @property
    def scim(self) -> ScimBook: ...

    async def record(self) -> TenantRecord: ...
    async def revoke(self, revocation: Revocation, by: Actor) -> None:
        """Refuse the access tokens it describes. One of a member also raises that member's `not_before`."""

    async def note(
        self, action: str, target: str, by: Actor, detail: Mapping[str, str | int | bool | Sequence[str]]
    ) -> None:
        """Audit something that changes no row here (a key was set, a sign-in failed, an export was made)."""


class IdentityProviderBook(Protocol):
    """The provider of one organization, and who its members are there. Durable when a call returns."""

    async def get(self) -> IdentityProvider | None: ...

    async def put(self, item: IdentityProvider, expected: int, by: Actor) -> IdentityProvider:
        """Set it, where version `expected` stands (0: none). `version` and `set_at` are set here.

        Errors: `InvalidItemError`; `VersionMismatchError`; `InvalidReferenceError` for a team that does not exist,
        or a `break_glass` who is no active owner.
        """

    async def delete(self, expected: int, by: Actor) -> None:
        """Who is linked is forgotten too. Errors: `NotFoundError`, `VersionMismatchError`."""

    async def linked(self, issuer: str, subject: str) -> MemberId | None:
        """The member that `subject` of `issuer` is."""

    async def link(self, issuer: str, subject: str, member: MemberId, by: Actor) -> bool:
        """For good, until it is taken away: False when either is linked already. Errors: `NotFoundError` for a
        member that does not exist."""

    async def unlink(self, member: MemberId, by: Actor) -> None:
        """They are found by e-mail again. Errors: `NotFoundError` where nothing is linked."""

    async def is_linked(self, member: MemberId) -> bool: ...


class KeyBook(Protocol):
    """What is known of upstreams' keys, without them. For the control process alone: no worker is told of it.

    Durable when a call returns. One writer (the control process) is assumed: nothing is compared before a write.
    """

    async def get(self, org: OrgId, name: str) -> UpstreamKey:
        """As it stands; an empty one where nothing was ever written."""

    async def put(
        self,
        item: UpstreamKey,
        *notes: tuple[str, Mapping[str, str | int | bool | Sequence[str]]],
        by: Actor,
    ) -> None:
        """Write it, and the audit entries `(action, detail)` about it in the same transaction. Nothing is written,
        entries included, once the upstream is gone: `NotFoundError`."""

    async def used(self, times: Mapping[tuple[OrgId, str], int]) -> None:
        """Raise `used_at` of each. Upstreams that are gone are left out."""

    async def forget(self, org: OrgId, name: str) -> None: ...
    async def due(self, now: int) -> tuple[UpstreamKey, ...]:
        """Those PENDING, in an OVERLAP that has ended at `now`, or whose rotation is due; the earliest first."""

    async def all(self, org: OrgId) -> tuple[UpstreamKey, ...]: ...


class BudgetBook(Protocol):
    """Durable when a call returns; one writer, the control process, is assumed. A crash between two writes loses
    what was used in between, and no more: whoever still knows better, a worker or Redis, is believed."""

    async def current(self, now: int) -> tuple[BudgetUse, ...]:
        """Those whose window has not ended at `now`, of every organization."""

    async def write(self, used: Sequence[BudgetUse], crossed: Sequence[Notice]) -> tuple[Notice, ...]:
        """Both in one transaction, with an audit entry `limit.threshold` for each notice that is new; returns
        these, PENDING where the organization has a webhook. What belongs to an organization that is gone is left
        out."""

    async def forget(self, org: OrgId, limit: str, subject: str | None = None) -> None:
        """The budget was reset: of one subject, or of all. Who has been told stays told."""

    async def prune(self, before: int) -> int:
        """Delete windows that ended before then, and their notices; returns how many windows."""

    async def due(self, now: int, limit: int = 100) -> tuple[Notice, ...]:
        """PENDING ones whose `next_at` has come, the earliest of each organization: none waits for another's."""

    async def settle(self, notice: Notice, failure: str = "") -> None:
        """Write `state`, `attempts` and `next_at` of a notice, and on the webhook how the attempt went."""


class WebhookBook(Protocol):
    """The webhook of each organization. Durable when a call returns. Errors: `NotFoundError`."""

    async def get(self, org: OrgId) -> Webhook | None: ...

    async def put(self, item: Webhook, by: Actor) -> Webhook:
        """Set or replace it; `version` and `set_at` are set here. Nothing of the one before is known any more."""

    async def delete(self, org: OrgId, by: Actor) -> None:
        """What was still to be told is not told any more."""


class ControlStore(Protocol):
    """The control plane's database. Trusted: whoever can write it decides who may do what in every org."""

    def for_org(self, org: OrgId) -> OrgStore: ...
    @property
    def orgs(self) -> Repository[Org]:
        """Creating one writes `policies.rules.starting_rules`. Suspending or deleting one revokes its tokens.

        Deleting one deletes all it has except its queued changes; its id stays taken. No host name may belong
        to two. The platform's own can be neither suspended nor deleted (`InvalidItemError`, `InUseError`).
        """

    async def version(self) -> int:
        """Rises with every committed write that the data plane should see."""

    async def changed_since(self, version: int) -> tuple[int, tuple[OrgId, ...], tuple[OrgId, ...]]:
        """(version now, orgs changed since, orgs removed since)."""

    async def revocations(self, now: int) -> tuple[Revocation, ...]: ...
    async def outbox(self, limit: int = 500) -> tuple[Change, ...]: ...
    async def outbox_done(self, upto: int) -> None:
        """Forget changes with `seq <= upto`: their audit entries are durable now."""

    @property
    def keys(self) -> KeyBook: ...
    @property
    def budgets(self) -> BudgetBook: ...
    @property
    def webhooks(self) -> WebhookBook: ...
    @property
    def streams(self) -> StreamBook: ...

    async def close(self) -> None: ...
