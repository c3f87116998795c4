"""The keys that sign access tokens: the platform's, so for operators."""

from __future__ import annotations

from litestar import Response, Router, get, post
from msgspec import Struct

from gateway.api.admin.caller import CallerDependency
from gateway.api.admin.problems import ProblemError
from gateway.api.admin.routing import operation
from gateway.oauth.errors import RotatedElsewhereError, RotatedLatelyError
from gateway.oauth.published import SigningKey
from tenants.roles import Operation


class SigningKeysBody(Struct, frozen=True):
    """The current one first."""

    items: tuple[SigningKey, ...]


@get("/", **operation(Operation.SIGNING_KEY_LIST, "listSigningKeys", summary="List the keys that sign tokens"))
async def index(caller: CallerDependency) -> SigningKeysBody:
    """Their public halves are in the JWKS."""
    return SigningKeysBody(caller.deps.sessions.signing_keys())


@post(
    "/rotate",
    status_code=200,
    **operation(
        Operation.SIGNING_KEY_ROTATE,
        "rotateSigningKey",
        conflict=True,
        summary="Rotate the key that signs tokens",
    ),
)
async def rotate(caller: CallerDependency) -> Response[SigningKeysBody]:
    """The next one signs from now on. No token that was issued stops working. Refused while the next key is so
    new that a verifier may not have it."""
    try:
        return Response(SigningKeysBody(await caller.deps.sessions.rotate_signing(caller.actor)))
    except RotatedLatelyError as error:
        text = f"The next key is not known everywhere yet: try again in {error.wait_s} s."
        raise ProblemError(409, "rotated-lately", text) from None
    except RotatedElsewhereError:
        text = "The signing key is kept in Vault's Transit, which makes its versions: rotate it there."
        raise ProblemError(409, "kept-elsewhere", text) from None


def router() -> Router:
    return Router(path="/signing-keys", tags=["Platform"], route_handlers=[index, rotate])
