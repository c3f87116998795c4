"""The clients an organization registers for its own programs, and their secrets."""

from __future__ import annotations

import os
from typing import Annotated

from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, RequestBody
from msgspec import Meta, Struct, structs

from gateway.api.admin.bodies import to_item
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.problems import ProblemError, invalid
from gateway.api.admin.resource import Kind, answer, collection
from gateway.api.admin.routing import operation
from gateway.oauth.client_auth import ALGORITHMS, client_keys
from tenants.clientrules import jwks_fault
from tenants.clients import AuthMethod, GrantType, OAuthClient, Plane
from tenants.models import State
from tenants.opaque import OpaqueKind, digest_of, new_key
from tenants.roles import Operation
from tenants.store import InvalidItemError, VersionMismatchError

OVERLAP_S = 86_400
MAX_OVERLAP_S = 90 * 86_400
_ATTEMPTS = 5


class ClientBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`title` is what sign-in pages show. Secrets are not here: POST to `…/secret`."""

    name: str
    title: str
    auth_method: AuthMethod = AuthMethod.NONE
    grant_types: tuple[GrantType, ...] = (GrantType.AUTHORIZATION_CODE, GrantType.REFRESH_TOKEN)
    planes: tuple[Plane, ...] = (Plane.DATA,)
    redirect_uris: tuple[str, ...] = ()
    jwks: str = ""
    service: str = ""
    require_par: bool = False
    org: str | None = None
    state: State | None = None
    created_at: int | None = None
    version: int | None = None


class NewSecretBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`overlap_s`: how long the secret in force stays good beside the new one."""

    overlap_s: Annotated[int, Meta(ge=0, le=MAX_OVERLAP_S)] = OVERLAP_S


class NewSecret(Struct, frozen=True):
    """`secret` is shown this once; nobody can read it again."""

    client_id: str
    secret: str
    created_at: int


class KnownSecret(Struct, frozen=True):
    """Unix seconds; `expires_at` is 0 for the one in force."""

    created_at: int
    expires_at: int


class KnownSecrets(Struct, frozen=True):
    """The newest first."""

    items: tuple[KnownSecret, ...]


class EndedSecrets(Struct, frozen=True):
    """`ended`: how many."""

    ended: int


@post(
    "/{key:str}/secret",
    status_code=201,
    **operation(
        Operation.CLIENT_SECRET, "createClientSecret", body=True, conflict=True, summary="Make a client's secret"
    ),
)
async def new_secret(
    caller: CallerDependency, key: FromPath[str], data: RequestBody[NewSecretBody]
) -> Response[NewSecret]:
    """The first one, or another: the one in force stays good for `overlap_s`, so that no program is cut off."""
    client = await caller.store.clients.get(key)
    secret = new_key(OpaqueKind.CLIENT, os.urandom)
    # A crash after this leaves a secret that nobody knows: make another one.
    try:
        made = await caller.store.clients.add_secret(key, digest_of(secret), data.overlap_s, caller.actor)
    except InvalidItemError:
        text = f"The client authenticates with '{client.auth_method}': it has no secret."
        raise ProblemError(409, "no-secret", text) from None
    return Response(NewSecret(client.client_id, secret, made.created_at), status_code=201)


@get(
    "/{key:str}/secret",
    **operation(Operation.CLIENT_READ, "listClientSecrets", summary="See when a client's secrets were made"),
)
async def secrets(caller: CallerDependency, key: FromPath[str]) -> KnownSecrets:
    """When, and not what: only digests are kept."""
    found = await caller.store.clients.secrets(key)
    return KnownSecrets(tuple(KnownSecret(one.created_at, one.expires_at) for one in found))


@delete(
    "/{key:str}/secret",
    status_code=200,
    **operation(Operation.CLIENT_SECRET, "endClientSecretOverlap", summary="End the overlap of two secrets"),
)
async def end_overlap(caller: CallerDependency, key: FromPath[str]) -> EndedSecrets:
    """The secret before the one in force is good for nothing from now on. Harmless when repeated."""
    return EndedSecrets(await caller.store.clients.drop_secrets(key, caller.actor))


@post(
    "/{key:str}/suspend",
    status_code=200,
    **operation(Operation.CLIENT_SUSPEND, "suspendClient", conflict=True, summary="Suspend a client"),
)
async def suspend(caller: CallerDependency, key: FromPath[str]) -> Response[OAuthClient]:
    """It is as unknown as one that was never registered; what it got stops within a second. Harmless when
    repeated."""
    made = await _set_state(caller, key, State.SUSPENDED)
    # A crash here leaves refresh tokens that are refused until it is resumed: repeating it finishes it.
    await _shut_out(caller, made)
    return answer(made)


@post(
    "/{key:str}/resume",
    status_code=200,
    **operation(Operation.CLIENT_RESUME, "resumeClient", conflict=True, summary="Resume a client"),
)
async def resume(caller: CallerDependency, key: FromPath[str]) -> Response[OAuthClient]:
    """Its people sign in again; its secrets are those of before."""
    made = await _set_state(caller, key, State.ACTIVE)
    await caller.live()
    return answer(made)


async def _set_state(caller: Caller, key: str, state: State) -> OAuthClient:
    for _ in range(_ATTEMPTS):
        current = await caller.store.clients.get(key)
        if current.state is state:
            return current
        try:
            changed = structs.replace(current, state=state)
            return await caller.store.clients.replace(changed, current.version, caller.actor)
        except VersionMismatchError:
            continue
    raise ProblemError(409, "busy", "The client keeps being changed by somebody else; try again.")


async def _shut_out(caller: Caller, client: OAuthClient) -> None:
    await caller.deps.sessions.end_client(client.client_id)
    if client.service:
        await caller.shut_out(client.service)
    else:
        await caller.live()


def _make(caller: Caller, body: ClientBody, current: OAuthClient | None) -> OAuthClient:
    return to_item(OAuthClient, body, current, org=caller.org)


async def _creating(caller: Caller, item: OAuthClient) -> None:
    """What a key is worth nobody knows without trying it."""
    if item.auth_method is not AuthMethod.PRIVATE_KEY_JWT or jwks_fault(item.jwks):
        return  # `tenants.validate` says so
    kinds: set[str] = set()
    for alg in ALGORITHMS:
        kinds.update(key.thumbprint for key in client_keys(item.jwks, alg))
    if not kinds:
        raise invalid(("jwks", f"have no key that suits any of {', '.join(ALGORITHMS)}"))


async def _replacing(caller: Caller, current: OAuthClient, item: OAuthClient) -> None:
    await _creating(caller, item)


async def _deleted(caller: Caller, key: str) -> None:
    """A crash before this leaves refresh tokens of a client that is unknown, and that one made anew under its name
    does not take."""
    await caller.deps.sessions.end_client(f"{caller.org}.{key}")


def router() -> Router:
    return collection(
        Kind(
            noun="client",
            model=OAuthClient,
            body=ClientBody,
            filters=("name", "auth_method", "grant_types", "planes", "service", "state"),
            repository=lambda store: store.clients,
            make=_make,
            creating=_creating,
            replacing=_replacing,
            deleted=_deleted,
        ),
        new_secret,
        secrets,
        end_overlap,
        suspend,
        resume,
    )
