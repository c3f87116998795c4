"""The pre-registered public clients (RFC 6749 section 2.1): no secret, so none is ever asked for or accepted."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from gateway.oauth.errors import InvalidClientError, InvalidScopeError, InvalidTargetError


class GrantType(StrEnum):
    AUTHORIZATION_CODE = "authorization_code"
    DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 -- the standard's word, not a secret


class Plane(StrEnum):
    """What an access token can open: one plane each, so an editor's token opens nothing else."""

    DATA = "v1"
    ADMIN = "admin"


SCOPES: Final[Mapping[Plane, str]] = {Plane.DATA: "inference", Plane.ADMIN: "admin"}
"""One scope a plane: what a member may do within it is decided by roles and rules, not by scopes."""


class Client(Struct, frozen=True):
    """`name` is what the pages show. `redirect_uris` are matched exactly, loopback ones on any port; one that
    begins with a slash is beneath the admin URL. `own`: part of this server; nobody else may speak for it."""

    id: str
    name: str
    planes: tuple[Plane, ...]
    redirect_uris: tuple[str, ...] = ()
    own: bool = False


LOOPBACK: Final = ("http://127.0.0.1/callback", "http://[::1]/callback")
"""RFC 8252 section 7.3. Not `localhost`, which may be resolved to somebody else (section 8.3)."""

WEB: Final = Client("orgate-web", "the audit log's page", (Plane.ADMIN,), ("/sign-in/callback",), own=True)
"""The pages of the admin listener: `gateway.oauth.web`."""


CLIENTS: Final[Mapping[str, Client]] = {
    client.id: client
    for client in (
        Client("orgate-cli", "the Orgate command line", (Plane.DATA, Plane.ADMIN), LOOPBACK),
        Client("orgate-editor", "an editor", (Plane.DATA,), LOOPBACK),
        WEB,
    )
}


def client_of(form: Mapping[str, str]) -> Client:
    """The client a request names. Raises `InvalidClientError`, also for a client that sends a secret, and for one
    of our own, whose requests come over no network."""
    if "client_secret" in form or "client_assertion" in form:
        raise InvalidClientError("this client is public: it has no secret")
    client = CLIENTS.get(form.get("client_id", ""))
    if client is None or client.own:
        raise InvalidClientError("client_id is missing or not registered")
    return client


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
