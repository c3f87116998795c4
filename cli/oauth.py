"""The OAuth client: authorization code with PKCE (RFC 7636), device authorization (RFC 8628), refresh (RFC 6749),
revocation (RFC 7009).

`orgate-cli` is a public client: it has no secret, and proves nothing but what the person does at the
verification page. A resource (RFC 8707) is named on every token request: a token opens one audience.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

from msgspec import Struct, json

from cli.errors import (
    NOT_READABLE,
    CliError,
    ExitCode,
    NotAllowedError,
    RefusedError,
    UnreachableError,
    unreadable,
)
from cli.output import printable
from cli.proof import HEADER, ProofKey

if TYPE_CHECKING:  # the fast path of `orgate token` needs no HTTP client
    import httpx

    from cli.connection import Connection

CLIENT_ID = "orgate-cli"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
PASSING = frozenset({"slow_down", "temporarily_unavailable", "server_error"})
T = TypeVar("T")


class ServerMetadata(Struct, frozen=True):
    """RFC 8414, what this client uses of it."""

    issuer: str
    token_endpoint: str
    device_authorization_endpoint: str
    revocation_endpoint: str
    authorization_endpoint: str = ""
    """'' = it knows the device flow alone."""
    orgate_admin_url: str = ""
    """Where the admin API is, as the server says; '' = it does not say."""


class DeviceAuthorization(Struct, frozen=True):
    """RFC 8628 section 3.2. `interval` and `expires_in` in seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: int
    verification_uri_complete: str = ""
    interval: int = 5


class Tokens(Struct, frozen=True):
    """RFC 6749 section 5.1. `expires_in` in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str = ""
    token_type: str = "Bearer"  # noqa: S105  # the standard's word, not a secret


class OAuthError(CliError):
    """RFC 6749 section 5.2. `error` is its code: what ends with time ends by itself, the rest needs a sign-in."""

    def __init__(self, error: str, description: str) -> None:
        passing = error in PASSING
        again = "run `orgate login --dpop`" if error == "invalid_dpop_proof" else "run `orgate login`"
        super().__init__(description or error, "wait a moment, then try again" if passing else again)
        self.code = ExitCode.REFUSED if passing else ExitCode.NOT_ALLOWED
        self.error = error


class _ErrorBody(Struct, frozen=True):
    error: str = ""
    error_description: str = ""


class AuthorizationServer:
    """The server behind `connection`. Its metadata is read once, at first need."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._metadata: ServerMetadata | None = None
        self._nonce = ""

    @property
    def metadata(self) -> ServerMetadata:
        if self._metadata is None:
            self._metadata = self._discover()
        return self._metadata

    def authorization_url(
        self,
        *,
        redirect_uri: str,
        state: str,
        challenge: str,
        resource: str,
        key: ProofKey | None = None,
        org: str = "",
    ) -> str:
        """What the browser opens (RFC 6749 section 4.1.1). `challenge` is of RFC 7636, S256. `key`: what the code
        is for (RFC 9449 section 10). `org`: filled in there, or gone on with at once where it has no passwords."""
        query = {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": redirect_uri,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "resource": resource,
            **({"dpop_jkt": key.thumbprint} if key is not None else {}),
            **({"org": org} if org else {}),
        }
        return f"{self._connection.origin}{self._path(self.metadata.authorization_endpoint)}?{urlencode(query)}"

    def redeem(
        self, code: str, *, verifier: str, redirect_uri: str, resource: str, key: ProofKey | None = None
    ) -> Tokens:
        """RFC 6749 section 4.1.3. `key`, here and below: what the tokens are to be bound to."""
        form = {
            "grant_type": "authorization_code",
            "client_id": CLIENT_ID,
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
            "resource": resource,
        }
        return self._tokens(form, key)

    def authorize_device(self, resource: str) -> DeviceAuthorization:
        form = {"client_id": CLIENT_ID, "resource": resource}
        return self._post(self.metadata.device_authorization_endpoint, form, DeviceAuthorization)

    def poll(
        self,
        device: DeviceAuthorization,
        resource: str,
        *,
        now: Callable[[], float],
        sleep: Callable[[float], None],
        key: ProofKey | None = None,
    ) -> Tokens:
        """Ask until the person decided. Honours `interval` and `slow_down` (RFC 8628 section 3.5)."""
        deadline = now() + device.expires_in
        interval = max(device.interval, 0)
        form = {"grant_type": DEVICE_GRANT, "device_code": device.device_code}
        while now() < deadline:
            try:
                return self._tokens({**form, "client_id": CLIENT_ID, "resource": resource}, key)
            except OAuthError as error:
                if error.error in PASSING:
                    interval += 5
                elif error.error == "access_denied":
                    raise NotAllowedError("the sign-in was refused at the verification page") from None
                elif error.error == "expired_token":
                    break
                elif error.error != "authorization_pending":
                    raise
            except UnreachableError:
                # RFC 8628 section 3.5: on a connection timeout, back off and go on.
                interval = max(interval * 2, 1)
            sleep(interval)
        raise NotAllowedError("nobody confirmed the code in time", "run `orgate login` again")

    def refresh(self, refresh_token: str, resource: str, key: ProofKey | None = None) -> Tokens:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "resource": resource}
        return self._tokens({**form, "client_id": CLIENT_ID}, key)

    def revoke(self, token: str, hint: str = "refresh_token") -> None:
        """RFC 7009. `hint` is `refresh_token`, whose sign-in ends, or `access_token`."""
        form = {"token": token, "token_type_hint": hint, "client_id": CLIENT_ID}
        answer = self._connection.request("POST", self._path(self.metadata.revocation_endpoint), form=form)
        if answer.status_code != 200:
            raise oauth_error(answer)

    def _discover(self) -> ServerMetadata:
        origin = self._connection.origin
        answer = self._connection.request("GET", "/.well-known/oauth-authorization-server")
        if answer.status_code == 503:
            raise UnreachableError(
                f"{origin} cannot serve now (HTTP 503)", "it may be starting or stopping: try again in a moment"
            )
        if answer.status_code != 200:
            raise UnreachableError(
                f"{origin} does not answer as a gateway (HTTP {answer.status_code})", "check `--server`"
            )
        metadata = _decode(answer.content, ServerMetadata)
        if metadata.issuer.rstrip("/") != origin:
            # RFC 8414 section 3.3: a server that names another issuer must not be used.
            raise RefusedError(
                f"the server at {origin} calls itself {printable(metadata.issuer)}",
                f"use that address: `orgate login --server {printable(metadata.issuer)}`",
            )
        return metadata

    def _tokens(self, form: Mapping[str, str], key: ProofKey | None) -> Tokens:
        """With a `key` the request shows a proof of it, once more where the server wants its nonce in it (RFC 9449
        section 8)."""
        path = self._path(self.metadata.token_endpoint)
        answer = self._connection.request("POST", path, form=form, headers=self._proof(path, key))
        if (nonce := answer.headers.get("dpop-nonce", "")) and nonce != self._nonce:
            self._nonce = nonce
            if answer.status_code == 400 and _error_of(answer) == "use_dpop_nonce":
                answer = self._connection.request("POST", path, form=form, headers=self._proof(path, key))
        if answer.status_code != 200:
            raise oauth_error(answer)
        return _decode(answer.content, Tokens)

    def _proof(self, path: str, key: ProofKey | None) -> dict[str, str]:
        if key is None:
            return {}
        return {HEADER: key.proof("POST", self._connection.origin + path, nonce=self._nonce)}

    def _post(self, endpoint: str, form: Mapping[str, str], kind: type[T]) -> T:
        answer = self._connection.request("POST", self._path(endpoint), form=form)
        if answer.status_code != 200:
            raise oauth_error(answer)
        return _decode(answer.content, kind)

    def _path(self, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if f"{parts.scheme}://{parts.netloc}" != self._connection.origin:
            raise RefusedError(f"the server names an endpoint elsewhere: {printable(endpoint)}")
        return parts.path


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return json.decode(body, type=kind)
    except NOT_READABLE as error:
        raise RefusedError(f"the server's answer cannot be understood: {unreadable(error)}") from None


def _error_of(answer: httpx.Response) -> str:
    try:
        return json.decode(answer.content, type=_ErrorBody).error
    except NOT_READABLE:
        return ""


def oauth_error(answer: httpx.Response) -> CliError:
    """What an answer that is no success says."""
    try:
        said: Any = json.decode(answer.content, type=_ErrorBody)
    except NOT_READABLE:
        said = _ErrorBody()
    if not said.error:
        return RefusedError(
            f"the server failed (HTTP {answer.status_code})", "try again; look at the server's log"
        )
    return OAuthError(said.error, printable(said.error_description))
