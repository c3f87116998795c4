"""Single sign-on as the control process runs it: providers, secrets, and who is shut out by what a group lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.backends import open_oauth
from gateway.bus.streams import LiveStreams
from gateway.clock import Clock
from gateway.identity import IdentityProviders
from gateway.oauth.provider import Providers
from gateway.oauth.service import OAuthService
from gateway.oauth.sso import Federation
from gateway.oauth.throttle import Counter
from gateway.oauth.tokens import TokenSigner
from gateway.outside import Outside
from gateway.secrets.sealed import SealedFile, SealedIdps
from gateway.secrets.store import SystemSecrets
from gateway.settings import Settings
from tenants.ids import MemberId, OrgId
from tenants.sql.store import SqlControlStore


@dataclass
class IdentityParts:
    """`turn`: whoever takes an owner away takes it (`tenants.lastone.keep_one`). `streams`: set before anybody is
    served."""

    admin: IdentityProviders
    turn: asyncio.Lock
    streams: LiveStreams | None = None

    def reaching(self, streams: LiveStreams) -> LiveStreams:
        self.streams = streams
        return streams


async def identity_parts(
    settings: Settings,
    store: SqlControlStore,
    sealed: SealedFile,
    secrets: SystemSecrets,
    *,
    signing: TokenSigner,
    clock: Clock,
    counter: Counter | None,
) -> tuple[IdentityParts, OAuthService]:
    """And the token service, which signs people in with them."""
    providers = Providers(Outside(allowed=settings.upstreams.networks()), clock)
    admin = IdentityProviders(store, SealedIdps(sealed), providers, settings.server.url)
    turn = asyncio.Lock()

    async def shut_out(org: OrgId, member: MemberId) -> None:
        """As `gateway.api.admin.caller.Caller.shut_out`: at once, and again when every worker has refused them."""
        if parts.streams is None:
            return
        parts.streams.reset(org, member)
        await parts.streams.live(await store.version())
        parts.streams.reset(org, member)

    federation = Federation(providers, admin.secret, turn, shut_out)
    parts = IdentityParts(admin, turn)
    oauth = await open_oauth(settings, store, secrets, signing, clock, counter=counter, federation=federation)
    return parts, oauth
