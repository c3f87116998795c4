"""Tokens of service accounts: the client credentials grant, RFC 6749 section 4.4.

What is issued is an access token, and no refresh token: whoever may ask once may ask again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from gateway.oauth.caller import Caller
from gateway.oauth.clients import Audiences, Client, GrantType, scope_of
from gateway.oauth.dpop import Possession
from gateway.oauth.errors import InvalidGrantError
from gateway.oauth.tokens import AccessTokens
from tenants.ids import OrgId
from tenants.models import Service, State
from tenants.store import Actor, ControlStore, NotFoundError

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class ServiceTokens:
    """`asked_at`: from when on a token of an organization that a client asks for now may count (Unix seconds)."""

    def __init__(
        self,
        control: ControlStore,
        access: AccessTokens,
        audiences: Audiences,
        possession: Possession,
        asked_at: Callable[[OrgId, Client], Awaitable[float]],
    ) -> None:
        self._control = control
        self._access = access
        self._audiences = audiences
        self._possession = possession
        self._asked_at = asked_at

    async def client_credentials(self, form: Mapping[str, str], client: Client, caller: Caller) -> dict[str, Any]:
        """The grant. `client` has authenticated, and is registered for it; `caller` has shown its DPoP proof."""
        grant = GrantType.CLIENT_CREDENTIALS
        return await self.issue(client.org, client.service, client, form, caller=caller, grant=grant)

    async def issue(
        self,
        org: OrgId,
        service: str,
        client: Client,
        form: Mapping[str, str],
        *,
        caller: Caller,
        grant: GrantType,
        detail: Mapping[str, str | Sequence[str]] = NOTHING,
    ) -> dict[str, Any]:
        """The answer of RFC 6749 section 5.1, for the service account `service` of `org`: what `form` asks of
        `resource` and `scope`, within what `client` may. `grant` and `detail` go into the audit entry.

        Raises `OAuthError`; `InvalidGrantError` when the account does not exist or is suspended.
        """
        plane = self._audiences.plane(client, form.get("resource", ""))
        scope = scope_of(plane, form.get("scope", ""))
        jkt = await self._possession.binding(caller, org)
        asked_at = await self._asked_at(org, client)
        account = await self.account(org, service)
        if account is None:
            raise InvalidGrantError("the service account may not ask for tokens now")
        audience = self._audiences.of(plane)
        access = await self._access.issue(account, client.id, audience, scope, asked_at=asked_at, jkt=jkt)
        # A crash here leaves a token without an entry, which nobody has ever seen.
        by = Actor(org, account.id, client.id, caller.request_id)
        await self._control.for_org(org).note("session.create", account.id, by, {"grant": grant.value, **detail})
        return {
            "access_token": access.text,
            "token_type": access.kind,
            "expires_in": access.expires_in,
            "scope": scope,
        }

    async def account(self, org: OrgId, service: str) -> Service | None:
        """The account as it stands now, if it may have tokens: it and its organization are active."""
        try:
            found = await self._control.for_org(org).services.get(service)
            active = (await self._control.orgs.get(org)).state is State.ACTIVE
        except NotFoundError:
            return None
        return found if active and found.state is State.ACTIVE else None
