"""What the authorization server says no with: the codes of RFC 6749 sections 4.1.2.1 and 5.2, RFC 8628
section 3.5 and RFC 8707 section 2.

Descriptions are shown to callers: they never hold a secret, and never tell whether an account exists.
"""

from __future__ import annotations

from typing import ClassVar


class OAuthError(Exception):
    """`code` is the `error` of the answer, `status` its HTTP status, `retry_after_s` its `Retry-After`."""

    code: ClassVar[str] = "server_error"
    status: ClassVar[int] = 400

    def __init__(self, description: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(description)
        self.description = description
        self.retry_after_s = retry_after_s


class RotatedElsewhereError(Exception):
    """The signing key is kept by somebody else, who makes its versions."""


class RotatedLatelyError(Exception):
    """The next signing key was made so lately that a verifier may not have read it: wait `wait_s` seconds."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"the next key is not known everywhere yet; try again in {wait_s} s")
        self.wait_s = wait_s


class InvalidRequestError(OAuthError):
    """A parameter is missing, repeated or malformed."""

    code = "invalid_request"


class InvalidRequestUriError(OAuthError):
    """`request_uri` stands for nothing (any more), or is another client's (RFC 9101 section 7)."""

    code = "invalid_request_uri"


class InvalidClientError(OAuthError):
    """No such client, or it tried to authenticate in a way that it has not."""

    code = "invalid_client"
    status = 401


class InvalidGrantError(OAuthError):
    """The code or refresh token is unknown, used, expired, revoked or another client's."""

    code = "invalid_grant"


class UnauthorizedClientError(OAuthError):
    """The client is not registered for what it asks."""

    code = "unauthorized_client"


class UnsupportedGrantTypeError(OAuthError):
    code = "unsupported_grant_type"


class UnsupportedResponseTypeError(OAuthError):
    """RFC 6749 section 4.1.2.1."""

    code = "unsupported_response_type"


class InvalidScopeError(OAuthError):
    code = "invalid_scope"


class InvalidTargetError(OAuthError):
    """`resource` names nothing this client may have a token for (RFC 8707)."""

    code = "invalid_target"


class AuthorizationPendingError(OAuthError):
    code = "authorization_pending"


class InvalidDpopProofError(OAuthError):
    """The DPoP proof is malformed or not one of this request, or there is none where there has to be (RFC 9449
    section 5)."""

    code = "invalid_dpop_proof"


class UseDpopNonceError(InvalidDpopProofError):
    """The proof lacks the server's nonce, or has an old one (RFC 9449 section 8): the answer has a fresh one."""

    code = "use_dpop_nonce"

    def __init__(self, nonce: str) -> None:
        super().__init__("put the nonce of the header DPoP-Nonce into the proof")
        self.nonce = nonce


class SlowDownError(OAuthError):
    """Polled too soon: five seconds more from now on (RFC 8628 section 3.5)."""

    code = "slow_down"


class ExpiredTokenError(OAuthError):
    """The device code's time is over."""

    code = "expired_token"


class AccessDeniedError(OAuthError):
    """The person said no."""

    code = "access_denied"


class SignInRefusedError(AccessDeniedError):
    """Organization, e-mail and password do not go together, or the account may not sign in."""

    status = 403


class SecondFactorError(OAuthError):
    """The password is right, and a second factor is due that a program cannot show (RFC 9470 section 3)."""

    code = "insufficient_user_authentication"
    status = 403


class SecondFactorRefusedError(AccessDeniedError):
    """The code or the passkey's answer is not right, or it was used before."""

    status = 403


class TooManyAttemptsError(OAuthError):
    """Tried too often: `retry_after_s` says when again. Said of accounts that do not exist all the same."""

    code = "slow_down"
    status = 429


class TemporarilyUnavailableError(OAuthError):
    """More sign-ins at once than there is memory to hash passwords for, or the store is down."""

    code = "temporarily_unavailable"
    status = 503
