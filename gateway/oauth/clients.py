"""The programs that may ask for tokens (RFC 6749 section 2.1): built-in ones, and organizations' own.

The built-in ones are public, so no secret is ever asked of them or accepted. An organization's own are in the
control store as `<org>.<name>`, and let in nobody but its people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from gateway.oauth.errors import (
    InvalidClientError,
    InvalidScopeError,
    InvalidTargetError,
    UnauthorizedClientError,
)
from tenants.clients import SECRET_METHODS, AuthMethod, ClientSecret, GrantType, OAuthClient, Plane, org_of
from tenants.ids import OrgId, is_service_id
from tenants.models import State
from tenants.store import ControlStore, NotFoundError

__all__ = [
    "ACCOUNT",
    "BUILT_IN",
    "SCOPES",
    "WEB",
    "Audiences",
    "AuthMethod",
    "Client",
    "ClientRegistry",
    "GrantType",
    "Plane",
    "scope_of",
]

SCOPES: Final[Mapping[Plane, str]] = {Plane.DATA: "inference", Plane.ADMIN: "admin"}
"""One scope a plane: what a member may do within it is decided by roles and rules, not by scopes."""

UNKNOWN: Final = "client_id is missing or not registered"
"""Said of a client that does not exist, is suspended, or is another organization's."""


class Client(Struct, frozen=True):
    """`name` is what the pages show. `redirect_uris` are matched exactly, loopback ones on any port; one that
    begins with a slash is beneath the admin URL. `own`: part of this server; nobody else may speak for it. `org`:
    whose it is, '' for everybody's. The rest is as in `tenants.clients.OAuthClient`."""

    id: str
    name: str
    planes: tuple[Plane, ...]
    redirect_uris: tuple[str, ...] = ()
    own: bool = False
    org: OrgId = OrgId("")
    grant_types: tuple[GrantType, ...] = (
        GrantType.AUTHORIZATION_CODE,
        GrantType.DEVICE_CODE,
        GrantType.REFRESH_TOKEN,
    )
    auth_method: AuthMethod = AuthMethod.NONE
    secrets: tuple[ClientSecret, ...] = ()
    jwks: str = ""
    service: str = ""
    require_par: bool = False
    since: int = 0
    """When it was registered: what was begun with one of the same name before that is not its."""

    @property
    def confidential(self) -> bool:
        return self.auth_method is not AuthMethod.NONE

    def lets_in(self, org: OrgId) -> bool:
        """Whether people of `org` may sign in with it."""
        return self.org in ("", org)

    def binds(self, jkt: str) -> str:
        """What its refresh tokens are bound to: those of a confidential client to itself (RFC 9449 section 5)."""
        return "" if self.confidential else jkt

    def require(self, grant: GrantType) -> None:
        """Raises `UnauthorizedClientError` when it is not registered for `grant`."""
        if grant not in self.grant_types:
            raise UnauthorizedClientError(f"this client is not registered for the grant {grant}")


LOOPBACK: Final = ("http://127.0.0.1/callback", "http://[::1]/callback")
"""RFC 8252 section 7.3. Not `localhost`, which may be resolved to somebody else (section 8.3)."""

EDITORS: Final[Mapping[str, str]] = {
    "orgate-editor": "an editor",
    "orgate-emacs": "Emacs",
    "orgate-jetbrains": "a JetBrains IDE",
    "orgate-neovim": "Neovim",
    "orgate-visual-studio": "Visual Studio",
    "orgate-vscode": "Visual Studio Code",
    "orgate-zed": "Zed",
}
"""Public clients that need nobody's leave: people read the name when they sign in, and auditors and limits tell
them apart by the id. As with any public client, nothing proves that it is what it says."""

WEB: Final = Client("orgate-web", "the audit log's page", (Plane.ADMIN,), ("/sign-in/callback",), own=True)
"""The pages of the admin listener: `gateway.oauth.web`."""

ACCOUNT: Final = Client("orgate-account", "your account page", (), own=True)
"""The page of `gateway.oauth.account`: it has sessions, and never a token."""


BUILT_IN: Final[Mapping[str, Client]] = {
    client.id: client
    for client in (
        Client("orgate-cli", "the Orgate command line", (Plane.DATA, Plane.ADMIN), LOOPBACK),
        *(Client(name, title, (Plane.DATA,), LOOPBACK) for name, title in EDITORS.items()),
        WEB,
        ACCOUNT,
    )
}


class ClientRegistry:
    """Reads the control store at each call: a client suspended now is unknown from the next request on. Errors of
    all methods: `tenants.store.StoreUnavailableError`."""

    def __init__(self, control: ControlStore) -> None:
        self._control = control

    async def find(self, client_id: str) -> Client | None:
        """The client of that id. None when there is none, or it or its organization is suspended."""
        if (built_in := BUILT_IN.get(client_id)) is not None:
            return built_in
        org = org_of(client_id)
        if not org:
            return None
        if (service := service_client(client_id, org)) is not None:
            return service
        store = self._control.for_org(org)
        try:
            found = await store.clients.get(client_id.removeprefix(f"{org}."))
            if found.state is not State.ACTIVE or (await self._control.orgs.get(org)).state is not State.ACTIVE:
                return None
            secrets = await store.clients.secrets(found.name) if found.auth_method in SECRET_METHODS else ()
        except NotFoundError:
            return None
        return _registered(found, secrets)

    async def get(self, client_id: str) -> Client:
        """As `find`; raises `InvalidClientError` where that returns None."""
        found = await self.find(client_id)
        if found is None:
            raise InvalidClientError(UNKNOWN)
        return found


def service_client(client_id: str, org: OrgId) -> Client | None:
    """The client that a service account is, by itself, for the exchange of outside tokens: `<org>.<its id>`.
    Whether there is one is not looked at, and so not to be learned by asking."""
    name = client_id.removeprefix(f"{org}.")
    if not is_service_id(name):
        return None
    return Client(client_id, name, tuple(Plane), org=org, grant_types=(GrantType.TOKEN_EXCHANGE,), service=name)


def _registered(found: OAuthClient, secrets: tuple[ClientSecret, ...]) -> Client:
    return Client(
        id=found.client_id,
        name=f"{found.title} ({found.org})",  # who calls it so: a page must not lend the gateway's name to anybody
        planes=tuple(plane for plane in Plane if plane in found.planes),  # who names none gets the data plane's
        redirect_uris=found.redirect_uris,
        org=found.org,
        grant_types=found.grant_types,
        auth_method=found.auth_method,
        secrets=secrets,
        jwks=found.jwks,
        service=found.service,
        require_par=found.require_par,
        since=found.created_at,
    )


class Audiences:
    """The resources tokens are made for, RFC 8707: `<issuer>/v1` and `<issuer>/admin`."""

    def __init__(self, issuer: str) -> None:
        self._base = issuer.rstrip("/")

    def of(self, plane: Plane) -> str:
        return f"{self._base}/{plane}"

    def plane(self, client: Client, resource: str) -> Plane:
        """The plane that `resource` names ('' is the data plane). Raises `InvalidTargetError`."""
        for plane in client.planes:
            if resource in {"", self.of(plane)}:
                return plane
        known = " or ".join(self.of(plane) for plane in client.planes)
        raise InvalidTargetError(f"resource is {known} for this client")


def scope_of(plane: Plane, requested: str) -> str:
    """The scope a token for `plane` gets. Raises `InvalidScopeError` when something else was asked for."""
    asked = requested.split()
    if not set(asked) <= set(SCOPES.values()) or (asked and SCOPES[plane] not in asked):
        raise InvalidScopeError(f"the scope for this resource is {SCOPES[plane]}")
    return SCOPES[plane]
