"""Programs that an organization lets ask for tokens: the clients of RFC 6749 section 2. Of the control process
alone: no worker reads them.

A client's `client_id` is `<org>.<name>`. An organization's id has no dot, so what stands before the first one says
whose it is; the clients that come with Orgate have none.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

from tenants.ids import InvalidIdError, OrgId, org_id
from tenants.models import State


class GrantType(StrEnum):
    AUTHORIZATION_CODE = "authorization_code"
    DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 -- the standard's word, not a secret
    CLIENT_CREDENTIALS = "client_credentials"
    TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 -- the same


class Plane(StrEnum):
    """What an access token can open: one plane each, so an editor's token opens nothing else."""

    DATA = "v1"
    ADMIN = "admin"


class AuthMethod(StrEnum):
    """How a client shows that it is the one it says it is (RFC 7591 section 2, RFC 7523): `NONE` is a public one,
    the others are confidential."""

    NONE = "none"
    CLIENT_SECRET_BASIC = "client_secret_basic"  # noqa: S105 -- the standard's word, not a secret
    CLIENT_SECRET_POST = "client_secret_post"  # noqa: S105 -- the same
    PRIVATE_KEY_JWT = "private_key_jwt"


SECRET_METHODS: Final = frozenset({AuthMethod.CLIENT_SECRET_BASIC, AuthMethod.CLIENT_SECRET_POST})

MOST_CLIENTS: Final = 100
"""Of one organization."""


class OAuthClient(Struct, frozen=True):
    """One client as registered; programs know it as `<org>.<name>`. `title` is what sign-in pages show.
    `redirect_uris` are matched exactly, loopback ones on any port. `jwks`: the public keys of `private_key_jwt`,
    JSON text (RFC 7517). `service`: the service account that its client-credentials tokens are for. `require_par`:
    authorization requests are pushed first (RFC 9126)."""

    org: OrgId
    name: str
    title: str
    auth_method: AuthMethod = AuthMethod.NONE
    grant_types: tuple[GrantType, ...] = (GrantType.AUTHORIZATION_CODE, GrantType.REFRESH_TOKEN)
    planes: tuple[Plane, ...] = (Plane.DATA,)
    redirect_uris: tuple[str, ...] = ()
    jwks: str = ""
    service: str = ""
    require_par: bool = False
    state: State = State.ACTIVE
    created_at: int = 0
    version: int = 1

    @property
    def client_id(self) -> str:
        return f"{self.org}.{self.name}"


class ClientSecret(Struct, frozen=True):
    """`digest`: hexadecimal SHA-256 of the secret, which is 256 random bits. `expires_at`: 0 for never. A client
    has two at most: the one in force, and the one before while it is being replaced."""

    org: OrgId
    client: str
    digest: str
    created_at: int = 0
    expires_at: int = 0


def org_of(client_id: str) -> OrgId:
    """Whose client it is; '' for one that comes with Orgate, or for what cannot be a client of anybody's."""
    before, dot, _ = client_id.partition(".")
    try:
        return org_id(before) if dot else OrgId("")
    except InvalidIdError:
        return OrgId("")
