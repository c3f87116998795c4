"""Who speaks SCIM to which organization: the guard in front of every operation.

A token is looked for within the organization that the path names, and nowhere else. So one of another
organization, one that was revoked and one that never was are the same; and so are an organization that exists
and one that does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from gateway.api.admin.dependencies import AdminDependencies
from gateway.oauth.errors import TemporarilyUnavailableError, TooManyAttemptsError
from gateway.oauth.throttle import Throttle, Throttles
from gateway.scim.errors import ScimError
from policies.facts import Role
from tenants.ids import InvalidIdError, OrgId, org_id
from tenants.models import Member, State
from tenants.opaque import OpaqueKind, digest_of, kind_of
from tenants.roles import SCIM, Operation
from tenants.scim import ScimSettings, ScimToken
from tenants.store import Actor, NotFoundError, OrgStore

REQUESTS_PER_MINUTE: Final = 3_000
"""Of one token: twice what Entra ID sends at its fastest."""
REFUSALS_PER_MINUTE: Final = 120
"""Wrong tokens of one address at one organization."""
UNAUTHENTICATED: Final = "No SCIM token of this organization: send it as 'Authorization: Bearer <token>'."


@dataclass(frozen=True)
class ScimCaller:
    """A provisioning client acting on `org`. `base`: the URL of that organization's SCIM."""

    deps: AdminDependencies
    org: OrgId
    token: ScimToken
    actor: Actor
    store: OrgStore
    base: str
    settings: ScimSettings
    naming: asyncio.Lock
    """As `ScimGate.naming`."""

    def require(self, operation: Operation) -> None:
        """The same table as everybody's: `tenants.roles.SCIM`."""
        if operation not in SCIM:
            raise ScimError(403, f"SCIM may not do this ({operation}).")

    def require_manage(self, member: Member) -> None:
        """Owners are nobody's to touch but owners', unless the organization lets its provider."""
        if Role.OWNER in member.roles and not self.settings.owners:
            raise ScimError(
                403,
                "This user is an owner of the organization. SCIM changes no owners here: take the role away "
                "first, or allow it with `orgate scim set --owners`.",
            )

    async def shut_out(self, members: Collection[str]) -> None:
        """End what they have in flight, now that a commit took something from them; and again when every
        worker refuses them. A crash in here leaves streams that go on until they end."""
        if not members:
            return
        for member in members:
            self.deps.streams.reset(self.org, member)
        await self.deps.streams.live(await self.deps.store.version())
        for member in members:
            self.deps.streams.reset(self.org, member)


@dataclass(frozen=True)
class ScimGate:
    """What lets a provisioning client in. `url`: the admin listener's, as clients call it."""

    deps: AdminDependencies
    url: str
    requests: Throttle
    refusals: Throttle
    naming: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a group gets its displayName, so that two cannot take the same."""

    async def admit(self, org_text: str, headers: dict[str, str], address: str, request_id: str) -> ScimCaller:
        """The caller. Raises `ScimError` 401, 403 for a suspended organization, 429."""
        given = headers.get("authorization", "")
        key = given[7:].strip() if given[:7].lower() == "bearer " else ""
        # The checksum is judged before anything is asked: what is no token costs nobody anything.
        if kind_of(key) is not OpaqueKind.SCIM:
            raise ScimError(401, UNAUTHENTICATED)
        place = f"{address}/{org_text}"
        await self._throttled(self.refusals, place, charge=False)
        try:
            org = org_id(org_text)
        except InvalidIdError:
            raise ScimError(401, UNAUTHENTICATED) from None
        store = self.deps.store.for_org(org)
        token = await store.scim.token(digest_of(key))
        if token is None or not self._hosted(org, headers.get("host", "")):
            await self._throttled(self.refusals, place, charge=True)
            raise ScimError(401, UNAUTHENTICATED)
        await self._throttled(self.requests, f"{org}/{token.id}", charge=True)
        try:
            if (await self.deps.store.orgs.get(org)).state is not State.ACTIVE:
                raise ScimError(403, "The organization is suspended.")
        except NotFoundError:
            raise ScimError(401, UNAUTHENTICATED) from None
        await store.scim.used(token)
        return ScimCaller(
            deps=self.deps,
            org=org,
            token=token,
            actor=Actor(org, f"scim:{token.id}", "scim", request_id),
            store=store,
            base=f"{self.url}/scim/v2/{org}",
            settings=await store.scim.settings(),
            naming=self.naming,
        )

    def _hosted(self, org: OrgId, host: str) -> bool:
        """A host name of another organization's is not this one's door."""
        name = host.rpartition(":")[0] or host
        owner = self.deps.streams.snapshot.hosts.get(name.rstrip(".").lower())
        return owner is None or owner == org

    @staticmethod
    async def _throttled(throttle: Throttle, key: str, *, charge: bool) -> None:
        """What cannot be counted passes: the token is 214 random bits, and taking access away does not
        wait."""
        try:
            await throttle.check(key)
            if charge:
                await throttle.charge(key)
        except TooManyAttemptsError as error:
            wait = error.retry_after_s or 1
            raise ScimError(429, f"Too many requests; try again in {wait} s.", retry_after_s=wait) from None
        except TemporarilyUnavailableError:
            return


def gate_of(deps: AdminDependencies, url: str, throttle: Throttles) -> ScimGate:
    return ScimGate(
        deps,
        url.rstrip("/"),
        throttle("scim-requests", REQUESTS_PER_MINUTE, 60.0),
        throttle("scim-refusals", REFUSALS_PER_MINUTE, 60.0),
    )
