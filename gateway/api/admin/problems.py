"""One table: domain error → RFC 9457 problem. Nothing else in the admin API knows a status of an error."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from litestar import Request, Response
from litestar.enums import ParamType
from litestar.exceptions import HTTPException, NotFoundException, ValidationException
from msgspec import Struct

from gateway.api.admin.requestid import request_id
from gateway.api.challenge import challenge
from gateway.api.failure import bare
from gateway.audit.log_store import StoreAwayError
from gateway.errors import ForbiddenError, GatewayError, UnauthenticatedError
from gateway.oauth.offboard import BusyError
from gateway.secrets.store import NoSuchSecretError, ReadOnlyError
from gateway.secrets.store import StoreUnavailableError as KeysUnavailableError
from tenants.ids import InvalidIdError
from tenants.lastone import LastOneError
from tenants.store import (
    AlreadyExistsError,
    InUseError,
    InvalidItemError,
    InvalidQueryError,
    InvalidReferenceError,
    KeysOffError,
    NotFoundError,
    StoreError,
    StoreUnavailableError,
    TooManyError,
    VersionMismatchError,
)

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
NOT_FOUND: Final = "There is nothing here, or it is not yours to see."
"""The one text of every 404: a path of another organization must not differ from one that never existed."""
RETRY_S: Final = 2


class FieldFault(Struct, frozen=True):
    """`field` is the name in the body or query, `roles[0]` for an element; '' for the whole."""

    field: str
    message: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """RFC 9457 section 3.1, with `errors` (one a field) and the request's id as extension members."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: tuple[FieldFault, ...] = ()


class ProblemError(Exception):
    """What the admin API itself says no with. Texts are shown: they never hold a secret."""

    def __init__(self, status: int, code: str, detail: str, *faults: tuple[str, str]) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(FieldFault(*fault) for fault in faults)


def invalid(*faults: tuple[str, str]) -> ProblemError:
    """422, naming each field."""
    detail = "; ".join(f"{field}: {message}" if field else message for field, message in faults)
    return ProblemError(422, "invalid-value", detail, *faults)


_STORE: Final[Mapping[type[StoreError], tuple[int, str]]] = {
    NotFoundError: (404, "not-found"),
    AlreadyExistsError: (409, "already-exists"),
    InUseError: (409, "in-use"),
    TooManyError: (409, "too-many"),
    LastOneError: (409, "last-one"),
    KeysOffError: (409, "personal-tokens-off"),
    VersionMismatchError: (412, "version-mismatch"),
    InvalidItemError: (422, "invalid-value"),
    InvalidQueryError: (422, "invalid-value"),
    InvalidReferenceError: (422, "invalid-reference"),
    StoreUnavailableError: (503, "unavailable"),
}
_HTTP: Final = {
    400: "malformed-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "request-too-large",
    415: "unsupported-media-type",
}

_DETAILS: Final = {
    405: "This path exists, but not with this method; see Allow.",
    413: "The body is larger than the admin API takes.",
}


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """The handler of every exception: nothing leaves the admin API that is not a problem."""
    said, headers = _describe(request, error)
    if said.status >= 500:
        # What a store says of itself holds no secret, and is what an operator needs to know.
        told = error if isinstance(error, KeysUnavailableError | StoreAwayError) else bare(error)
        log.error("request %s answered %d: %s", request_id(request.scope), said.status, told)
    title = said.code.replace("-", " ").capitalize()
    problem = Problem(
        type=f"urn:orgate:problem:{said.code}",
        title=title,
        status=said.status,
        detail=NOT_FOUND if said.status == 404 else said.detail,
        request_id=request_id(request.scope),
        errors=() if said.status == 404 else said.errors,
    )
    return Response(problem, status_code=said.status, media_type=MEDIA_TYPE, headers=headers)


def _describe(request: Request[Any, Any, Any], error: Exception) -> tuple[ProblemError, dict[str, str]]:
    match error:
        case ProblemError():
            return error, {}
        case GatewayError():
            return _of_gateway(request, error)
        case StoreError():
            return _of_store(error)
        case KeysUnavailableError():
            # The store's own words name paths on this machine: the log has its type, the caller a remedy.
            detail = "The store of upstream keys cannot be read or written now; nothing was changed."
            return ProblemError(503, "unavailable", detail), {"Retry-After": str(RETRY_S)}
        case StoreAwayError():
            detail = "The audit log cannot be read now. What was acknowledged is kept where it is."
            return ProblemError(503, "unavailable", detail), {"Retry-After": str(RETRY_S)}
        case BusyError():
            return ProblemError(409, "busy", str(error)), {}
        case ReadOnlyError():
            return ProblemError(409, "keys-read-only", f"Nothing was changed: {error}."), {}
        case NoSuchSecretError() | NotFoundException():
            return ProblemError(404, "not-found", NOT_FOUND), {}
        case InvalidIdError():
            return invalid(("", str(error))), {}
        case ValidationException():
            return _of_parameters(error), {}
        case HTTPException() if error.status_code in _HTTP:
            headers = {"Allow": (error.headers or {}).get("allow", "")} if error.status_code == 405 else {}
            detail = _DETAILS.get(error.status_code, error.detail)
            return ProblemError(error.status_code, _HTTP[error.status_code], detail), headers
        case _:
            detail = "Something unexpected went wrong. The server's log has this request's id."
            return ProblemError(500, "internal-error", detail), {}


def _of_gateway(request: Request[Any, Any, Any], error: GatewayError) -> tuple[ProblemError, dict[str, str]]:
    headers: dict[str, str] = {}
    if isinstance(error, UnauthenticatedError):
        # RFC 6750 section 3.1: a request without any credentials is told the scheme and no error code.
        given = "authorization" in request.headers
        headers["WWW-Authenticate"] = challenge(error) if given else "Bearer"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    faults = [(error.param, error.message)] if error.param else []
    if isinstance(error, ForbiddenError):
        faults = [("", f"refused by '{error.rule}'")]
    return ProblemError(error.status, error.code.replace("_", "-"), error.message, *faults), headers


def _of_store(error: StoreError) -> tuple[ProblemError, dict[str, str]]:
    status, code = next((_STORE[kind] for kind in type(error).__mro__ if kind in _STORE), (503, "unavailable"))
    match error:
        case StoreUnavailableError():
            detail = "The control store cannot be read or written now; nothing was changed."
            return ProblemError(status, code, detail), {"Retry-After": str(RETRY_S)}
        case VersionMismatchError():
            detail = (
                f"It was changed meanwhile: the current version is {error.current}. Read it again, then decide."
            )
            return ProblemError(status, code, detail), {"ETag": f'"{error.current}"'}
        case InvalidItemError():
            return invalid(*error.faults), {}
        case InvalidQueryError():
            return invalid((error.field, error.message)), {}
        case _:
            return ProblemError(status, code, str(error)), {}


def _of_parameters(error: ValidationException) -> ProblemError:
    """What Litestar says of a query parameter it cannot convert, or of a body that is not there.

    Once somebody has asked for the OpenAPI document, it also says of each part of the path that the handler itself
    does not take (the organization) that it is missing.
    """
    extra = error.extra if isinstance(error.extra, list) else []
    faults = [
        (str(item.get("key", "")), str(item.get("message", "")))
        for item in extra
        if isinstance(item, dict) and item.get("source") != ParamType.PATH
    ]
    if any(field == "data" for field, _ in faults):
        return ProblemError(400, "malformed-request", "A JSON body is needed, and there is none.")
    return invalid(*faults) if faults else ProblemError(422, "invalid-value", error.detail)
