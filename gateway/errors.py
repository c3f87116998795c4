"""Domain errors of the request path. Raised anywhere, turned into a caller's dialect once, in `gateway.api`.

Messages are shown to callers: they never hold a secret, a prompt, an answer or another organization's data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class GatewayError(Exception):
    """`code` is machine-readable and stable; `status` the HTTP status; `retry_after_s` fills `Retry-After`."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class UnauthenticatedError(GatewayError):
    """No token, or one that is expired, forged, revoked or meant for somebody else (RFC 6750 section 3.1)."""

    status = 401
    code = "invalid_token"
    scheme: ClassVar[str] = "Bearer"
    """How the client is to show its token, by the words of `WWW-Authenticate`."""


class ProofNeededError(UnauthenticatedError):
    """The token is bound to a key, or has to be: it comes with a DPoP proof or not at all (RFC 9449 section 7)."""

    scheme = "DPoP"


class InvalidProofError(ProofNeededError):
    """The DPoP proof is malformed, used up, or not one of this request (RFC 9449 section 7.1)."""

    code = "invalid_dpop_proof"


class ForbiddenError(GatewayError):
    """Authenticated, and the answer is no. `rule` names what said so."""

    status = 403
    code = "forbidden"

    def __init__(self, message: str, *, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


class SuspendedError(ForbiddenError):
    """The token is good; its organization has been suspended."""

    code = "organization_suspended"


class BadRequestError(GatewayError):
    """The body is not JSON, lacks a field, or asks a model for a task that it does not do."""

    status = 400
    code = "invalid_request"


class NotFoundError(GatewayError):
    """There is no such path."""

    status = 404
    code = "not_found"


class UnknownModelError(NotFoundError):
    """No model of that name in the caller's organization; one of another organization answers the same."""

    code = "model_not_found"


class MethodNotAllowedError(GatewayError):
    """The path takes another method; `allow` says which (RFC 9110 section 15.5.6)."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, allow: str) -> None:
        super().__init__(f"this path takes {allow} only")
        self.allow = allow


class RequestTimeoutError(GatewayError):
    """The body was not there within `server.body_timeout_s` (RFC 9110 section 15.5.9)."""

    status = 408
    code = "request_timeout"


class SupersededError(GatewayError):
    """A newer completion of the same member, client and document took its place. Not to be sent again."""

    status = 409
    code = "superseded"


class TooLargeError(GatewayError):
    """The body is longer than `server.max_body_bytes`."""

    status = 413
    code = "request_too_large"


class UnsupportedMediaError(GatewayError):
    """A `content-encoding` the gateway does not undo: what it cannot measure it does not accept."""

    status = 415
    code = "unsupported_media_type"


class UnprocessableError(GatewayError):
    """Well-formed, but a field has the wrong type or a value out of range; `param` says which."""

    status = 422
    code = "invalid_value"


class LimitExceededError(GatewayError):
    """A limit said no; nothing was spent. `limit` is its name, `scope` whose bucket it is.

    `owner` set it: `organization` or `platform`. `retry_after_s` is None when waiting is of no use. `resets_at`
    (RFC 3339) is when a budget begins anew. `headers` say what is left.
    """

    status = 429
    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        limit: str,
        scope: str,
        retry_after_s: int | None,
        owner: str = "organization",
        resets_at: str = "",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit
        self.scope = scope
        self.owner = owner
        self.resets_at = resets_at
        self.headers = headers


class QuotaExceededError(LimitExceededError):
    """A budget of a calendar day, week or month is used up. As the last event of a stream: it ended in the middle
    of the answer, and what came before it was charged."""

    code = "insufficient_quota"


class UnavailableError(GatewayError):
    """The gateway itself cannot take the request now (draining, fenced, disk reserve low, no key)."""

    status = 503
    code = "unavailable"


class LimitUnavailableError(UnavailableError):
    """A limit cannot be asked now, and lets nothing pass until it can (`on_outage: deny`). `limit`, `scope` and
    `owner` as of one that said no."""

    def __init__(
        self, message: str, *, limit: str, scope: str, retry_after_s: int | None, owner: str = "organization"
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit
        self.scope = scope
        self.owner = owner


class PriceUnknownError(UnavailableError):
    """A limit counts money, and the model has no price: an admin must set one, if need be of 0."""

    code = "price_unknown"


class UpstreamBusyError(UnavailableError):
    """The model answered 429 or 503: its quota is the organization's, not the caller's, so 503 and not 429."""

    code = "upstream_busy"


class UpstreamSaturatedError(UnavailableError):
    """Too many of the organization's requests wait for the upstream already. Nothing was sent or charged.

    `retry_after_s`: about how long the line takes, by how fast it moves now.
    """

    code = "upstream_saturated"


class UpstreamError(GatewayError):
    """The model refused the connection, broke off, or answered what cannot be understood."""

    status = 502
    code = "upstream_error"


class KeyRefusedError(UpstreamError):
    """The model does not take the organization's key (401, 403): it was revoked or changed there."""


class UpstreamTimeoutError(GatewayError):
    """The model did not connect, begin or go on in time, or the request's whole time is over."""

    status = 504
    code = "upstream_timeout"
