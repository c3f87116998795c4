"""The identity provider of an organization. Its client secret is never shown.

Only owners set it: whoever says where people sign in can be anybody, owners among them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from litestar import Response, Router, delete, get, post, put
from litestar.params import FromPath, RequestBody
from msgspec import Struct, structs

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.preconditions import IfMatch, etag, expected_version
from gateway.api.admin.problems import ProblemError, invalid
from gateway.api.admin.request import SecretBody
from gateway.api.admin.routing import operation
from gateway.identity import IdentityProviders, IdpTest
from gateway.secret import Secret
from policies.facts import Role
from tenants.idp import SCOPES, Demand, GroupRole, GroupTeam, IdentityProvider, RequiredClaim
from tenants.ids import MemberId
from tenants.roles import Operation

SECRET_MAX: Final = 4_096


class IdpBody(Struct, frozen=True, forbid_unknown_fields=True):
    """As in `IdentityProvider`. The client secret is not here: PUT it to `…/secret`. The last three are read-only:
    a PUT may send back what a GET gave."""

    issuer: str
    client_id: str
    ca_pem: str = ""
    scopes: tuple[str, ...] = SCOPES
    email_claim: str = "email"
    name_claim: str = "name"
    groups_claim: str = ""
    emails_verified: bool = False
    domains: tuple[str, ...] = ()
    claims: tuple[RequiredClaim, ...] = ()
    jit: bool = False
    default_roles: tuple[Role, ...] = (Role.MEMBER,)
    group_roles: tuple[GroupRole, ...] = ()
    group_teams: tuple[GroupTeam, ...] = ()
    demands: tuple[Demand, ...] = ()
    only: bool = False
    break_glass: tuple[MemberId, ...] = ()
    org: str | None = None
    set_at: int | None = None
    version: int | None = None


class IdpSecretBody(SecretBody, frozen=True, forbid_unknown_fields=True):
    """What this gateway shows to the provider; '' for a public client. Never shown again."""

    RULE: ClassVar[str] = 'the body is {"client_secret": "…"}'

    client_secret: str


class IdpFacts(Struct, frozen=True):
    """`provider`: null where none is set. `secret`: whether one is kept for it. `redirect_uri`: what is
    registered at the provider."""

    redirect_uri: str
    secret: bool
    provider: IdentityProvider | None


def _identity(caller: Caller) -> IdentityProviders:
    found = caller.deps.identity
    if found is None:
        raise ProblemError(503, "unavailable", "There is no single sign-on in this process.")
    return found


@get("/", **operation(Operation.IDP_READ, "getIdp", summary="See the identity provider"))
async def read(caller: CallerDependency) -> Response[IdpFacts]:
    """Where the organization's people sign in, and what their groups mean here. Never the secret."""
    return await _facts(caller, await _identity(caller).get(caller.org))


@put(
    "/",
    **operation(Operation.IDP_WRITE, "putIdp", body=True, conditional=True, summary="Set the identity provider"),
)
async def replace(
    caller: CallerDependency, data: RequestBody[IdpBody], if_match: IfMatch = ""
) -> Response[IdpFacts]:
    """Sign-ins go there from now on. If-Match where one is set already. A client secret that was given for another
    issuer or client is not used any more."""
    identity = _identity(caller)
    current = await identity.get(caller.org)
    expected = 0 if current is None else expected_version(if_match, current.version)
    if wrong := caller.deps.check_url(data.issuer):
        raise invalid(("issuer", wrong))
    given = structs.asdict(data)
    for name in ("org", "set_at", "version"):
        value = given.pop(name)
        stands = caller.org if name == "org" else getattr(current, name, None)
        if value is not None and value != stands:
            raise invalid((name, "is not changed this way: leave it out, or send it as it is"))
    made = await identity.put(IdentityProvider(org=caller.org, **given), expected, caller.actor)
    return await _facts(caller, made)


@delete("/", **operation(Operation.IDP_DELETE, "deleteIdp", conditional=True, summary="Take the provider away"))
async def remove(caller: CallerDependency, if_match: IfMatch = "") -> None:
    """Its secret and who is linked there are forgotten; members stay, and sign in with passwords."""
    identity = _identity(caller)
    current = await identity.get(caller.org)
    if current is None:
        raise ProblemError(404, "not-found", "")
    await identity.delete(caller.org, expected_version(if_match, current.version), caller.actor)


@put("/secret", **operation(Operation.IDP_WRITE, "putIdpSecret", body=True, summary="Set the client secret"))
async def put_secret(caller: CallerDependency, data: RequestBody[IdpSecretBody]) -> Response[IdpFacts]:
    """The next sign-in is with it."""
    text = data.client_secret
    if len(text) > SECRET_MAX or not text.isascii() or not text.isprintable():
        raise invalid(("client_secret", f"is at most {SECRET_MAX} printable ASCII characters"))
    identity = _identity(caller)
    await identity.put_secret(caller.org, Secret(text), caller.actor)
    return await _facts(caller, await identity.get(caller.org))


@post("/test", status_code=200, **operation(Operation.IDP_TEST, "testIdp", summary="Try the identity provider"))
async def test(caller: CallerDependency) -> IdpTest:
    """Reads its discovery document and keys anew, and shows it the client's credential. Says what it met."""
    result = await _identity(caller).test(caller.org)
    await caller.store.note("idp.test", caller.org, caller.actor, {"ok": result.ok})
    return result


@delete("/links/{key:str}", **operation(Operation.IDP_WRITE, "deleteIdpLink", summary="Unlink a member"))
async def unlink(caller: CallerDependency, key: FromPath[str]) -> None:
    """At their next sign-in they are found by e-mail address again: for who was made anew at the provider."""
    await caller.store.idp.unlink(MemberId(key), caller.actor)


async def _facts(caller: Caller, provider: IdentityProvider | None) -> Response[IdpFacts]:
    identity = _identity(caller)
    secret = provider is not None and await identity.has_secret(provider)
    facts = IdpFacts(identity.redirect_uri(caller.org), secret, provider)
    return Response(facts, headers={} if provider is None else {"ETag": etag(provider.version)})


def router() -> Router:
    handlers: list[Any] = [read, replace, remove, put_secret, test, unlink]
    return Router(path="/orgs/{org:str}/idp", tags=["Identity provider"], route_handlers=handlers)
