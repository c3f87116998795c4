"""What is stored as an upstream's key, for each kind of credential: judged before it is kept, read when used.

Pure. A key is one line of printable ASCII in every store: kinds with several fields are kept as compact JSON.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Final, TypeVar, cast
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from msgspec import Struct

from gateway.exchange import Credential
from gateway.secret import Secret
from tenants.fieldrules import is_certificates
from tenants.models import CredentialKind

LONGEST: Final = 8192
"""Characters of a key, whatever its kind."""

_PART: Final = re.compile(r"[A-Za-z0-9-]{1,64}").fullmatch
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_]{1,128}").fullmatch
_SCOPES: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*").fullmatch  # RFC 6749 section 3.3
_VISIBLE: Final = re.compile(r"[ -~]+").fullmatch  # VSCHAR, RFC 6749 appendix A

CheckUrl = Callable[[str], str | None]
"""What is wrong with a URL as a place to call; None: nothing."""


class ShapeError(ValueError):
    """The key is none of its kind. `field` is '' for the whole; the message quotes nothing of the key."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(what)
        self.field = field


class SigningKey(Struct, frozen=True):
    """AWS: an access key, and what its signatures are for. `session_token`: of temporary ones (STS)."""

    access_key_id: str
    secret_access_key: Secret
    region: str
    service: str
    session_token: Secret | None = None


class Client(Struct, frozen=True):
    """A confidential client of a token endpoint (RFC 6749 section 4.4). `client_auth`: how it says its secret
    there, `basic` or `post` (section 2.3.1). `ca_pem`: the endpoint's own authority, else the system's."""

    token_url: str
    client_id: str
    client_secret: Secret
    scope: str = ""
    audience: str = ""
    client_auth: str = "basic"
    ca_pem: str = ""


T = TypeVar("T", SigningKey, Client)

STRUCTURED: Final[Mapping[CredentialKind, type[Struct]]] = {
    CredentialKind.AWS_SIGV4: SigningKey,
    CredentialKind.OAUTH_CLIENT_CREDENTIALS: Client,
}


def shape(kind: CredentialKind) -> type[Struct] | str | None:
    """What two kinds have in common when a key of one may serve as one of the other."""
    return None if kind is CredentialKind.NONE else STRUCTURED.get(kind, "text")


def judge(kind: CredentialKind, text: str, check_url: CheckUrl = lambda _: None) -> Secret:
    """The key as it is kept. `check_url` says whether a token endpoint may be there. Raises `ShapeError`."""
    if kind is CredentialKind.NONE:
        raise ShapeError("", "is not for this upstream: its auth is 'none'")
    expected = STRUCTURED.get(kind)
    if expected is None:
        if not 1 <= len(text) <= LONGEST or not text.isascii() or not text.isprintable() or text != text.strip():
            raise ShapeError("", f"has 1 to {LONGEST} printable ASCII characters, no space around them")
        return Secret(text)
    if len(text) > 2 * LONGEST:
        raise ShapeError("", f"has more than {LONGEST} characters")
    found = _fields(text, kind, expected)
    if expected is SigningKey:
        _judge_signing(found)
    else:
        _judge_client(found, check_url)
    fields = {name: found[name] for name in expected.__struct_fields__ if found.get(name)}
    kept = Secret(msgspec.json.encode(fields))
    if len(kept.reveal()) > LONGEST:
        raise ShapeError("", f"has more than {LONGEST} characters")
    return kept


def read(expected: type[T], stored: Secret) -> T:
    """A stored key of several fields. Raises `ShapeError` for one that was put there by another hand."""
    try:
        return msgspec.json.decode(stored.reveal(), type=expected, dec_hook=_secret)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # from None: a cause could quote it
        raise ShapeError("", "is not of the kind that the upstream's auth says") from None


def structured(stored: Secret) -> bool:
    """Whether a stored key is one of several fields, whatever the upstream's `auth` says."""
    if not stored.reveal().startswith(b"{"):
        return False
    for kind in STRUCTURED.values():
        with contextlib.suppress(ShapeError):
            read(cast("type[Any]", kind), stored)
            return True
    return False


def parts(kind: CredentialKind, credential: Credential) -> tuple[bytes, ...]:
    """All of a stored key that no answer may quote."""
    expected = STRUCTURED.get(kind)
    if kind is CredentialKind.NONE:
        return ()
    try:
        match read(cast("type[Any]", expected), credential.secret) if expected is not None else None:
            case SigningKey(access_key_id=key_id, secret_access_key=secret, session_token=token):
                return (key_id.encode(), secret.reveal(), *((token.reveal(),) if token is not None else ()))
            case Client(client_secret=secret):
                return (secret.reveal(),)
    except ShapeError:
        return (credential.secret.reveal(),)  # it was never used as one
    return (credential.secret.reveal(),)


def quoted(secrets: tuple[bytes, ...], text: bytes) -> bool:
    """Whether `text` holds one of `secrets`, plain or as JSON and URLs may write it."""
    texts = [text]
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        texts.append(msgspec.json.encode(msgspec.json.decode(text)))  # without escapes that need not be
    texts += [unquote_to_bytes(each) for each in texts]
    for secret in secrets:
        spellings = {secret, msgspec.json.encode(secret.decode("latin-1"))[1:-1]}
        if any(spelling in each for spelling in spellings for each in texts):
            return True
    return False


def _secret(kind: type, value: object) -> Secret:
    if kind is not Secret or not isinstance(value, str):
        raise ValueError("not text")
    return Secret(value)


def _fields(text: str, kind: CredentialKind, expected: type[Struct]) -> dict[str, str]:
    """The members of a JSON object, each of them text and known."""
    names = expected.__struct_fields__
    needed = names[: len(names) - len(expected.__struct_defaults__)]
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ShapeError("", f"of a '{kind}' upstream is a JSON object with {', '.join(needed)}")
    if set(found) - set(names):  # a name that is not known may be a secret in the wrong place: not quoted
        raise ShapeError("", f"has a field that is not known; those are {', '.join(names)}")
    for name in names:
        value = found.get(name, "")
        if not isinstance(value, str):
            raise ShapeError(name, "is text")
        if not value and name in needed:
            raise ShapeError(name, "is missing")
        if not value.isascii() or (value != value.strip() and name != "ca_pem"):
            raise ShapeError(name, "is ASCII, without spaces around it")
    return found


def _judge_signing(found: dict[str, str]) -> None:
    if not _KEY_ID(found["access_key_id"]):
        raise ShapeError("access_key_id", "is 1 to 128 letters and digits")
    for name in ("region", "service"):
        if not _PART(found[name]):
            raise ShapeError(name, "is letters, digits and '-', for example us-east-1 and bedrock")
    for name in ("secret_access_key", "session_token"):
        value = found.get(name, "")
        if value and (not value.isprintable() or " " in value):
            raise ShapeError(name, "is printable characters without spaces")


def _judge_client(found: dict[str, str], check_url: CheckUrl) -> None:
    if wrong := endpoint_fault(found["token_url"]) or check_url(found["token_url"]):
        raise ShapeError("token_url", wrong)
    for name in ("client_id", "client_secret"):
        if not _VISIBLE(found[name]):
            raise ShapeError(name, "is printable characters")
    if found.get("scope") and not _SCOPES(found["scope"]):
        raise ShapeError("scope", "is scopes with one space between them (RFC 6749 section 3.3)")
    if found.get("audience") and not _VISIBLE(found["audience"]):
        raise ShapeError("audience", "is printable characters")
    if found.get("client_auth", "basic") not in ("basic", "post"):
        raise ShapeError("client_auth", "is basic or post")
    if found.get("ca_pem") and not is_certificates(found["ca_pem"]):
        raise ShapeError("ca_pem", "is one or more certificates in PEM (BEGIN CERTIFICATE), and no key")


def endpoint_fault(text: str) -> str | None:
    """What is wrong with a token endpoint's URL. RFC 6749 section 3.2: TLS, no fragment. A secret goes there, so
    clear text stays on this machine."""
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError:
        return "is not a URL"
    if not host or url.scheme not in ("https", "http") or not _VISIBLE(text) or " " in text:
        return "is a URL that begins with https://"
    if "@" in url.netloc or "#" in text:
        return "carries no user name, no password and no fragment"
    if url.scheme == "http" and not _loopback(host):
        return "begins with https://: the client's secret is sent there"
    return None


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
