"""One table: domain error → SCIM's error. Nothing else here knows a status of a store's."""

from __future__ import annotations

from gateway.errors import GatewayError
from gateway.oauth.offboard import BusyError
from gateway.scim.errors import ScimError, invalid_value, not_found, uniqueness
from tenants.lastone import LastOneError
from tenants.store import (
    AlreadyExistsError,
    InUseError,
    InvalidItemError,
    InvalidQueryError,
    InvalidReferenceError,
    NotFoundError,
    StoreError,
    VersionMismatchError,
)

RETRY_S = 2


def scim_error(error: BaseException) -> ScimError:
    """What the caller is told of `error`."""
    match error:
        case ScimError():
            return error
        case NotFoundError():
            return not_found()
        case AlreadyExistsError():
            return uniqueness(f"It is taken: {error}.")
        case VersionMismatchError():
            return ScimError(412, "It was changed meanwhile: read it again, then decide.")
        case InUseError():
            return ScimError(409, f"Something needs it: {error}.")
        case LastOneError():
            return ScimError(403, str(error))
        case InvalidItemError() | InvalidReferenceError() | InvalidQueryError():
            return invalid_value(f"{error}")
        case BusyError():
            return ScimError(503, str(error), retry_after_s=1)
        case StoreError():
            return ScimError(503, "The control store cannot be read or written now.", retry_after_s=RETRY_S)
        case GatewayError():
            return ScimError(503, "A part of the gateway cannot be asked now.", retry_after_s=RETRY_S)
        case TimeoutError():
            return ScimError(503, "It took too long; what was done is done.", retry_after_s=RETRY_S)
    return ScimError(500, "Something unexpected went wrong. The server's log has this request's id.")
