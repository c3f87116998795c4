"""The rules that a registered client keeps: redirect URIs, grants and keys that go together. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tenants.clients import AuthMethod, GrantType, OAuthClient
from tenants.ids import PLATFORM, InvalidIdError, is_service_id, resource_name, service_id

Fault = tuple[str, str]

MAX_TITLE: Final = 80
MAX_REDIRECTS: Final = 20
MAX_URI: Final = 2_000
MAX_JWKS: Final = 16 * 1024
MAX_KEYS: Final = 8

LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1"})
_PRIVATE_USE: Final = re.compile(r"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\]")
_ANSWER: Final = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_KINDS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


def client_faults(item: OAuthClient) -> Iterator[Fault]:
    """Every fault of `item`, as `tenants.validate` says them."""
    if item.org == PLATFORM:
        yield "org", "is the platform's own: its people sign in with the clients that come with Orgate"
    try:
        resource_name(item.name)
    except InvalidIdError as error:
        yield "name", str(error)
    if is_service_id(item.name):
        yield "name", "is not one that a service account has"
    if not 1 <= len(item.title) <= MAX_TITLE or not item.title.isprintable() or item.title != item.title.strip():
        yield "title", f"is 1 to {MAX_TITLE} printable characters without spaces around them"
    for field, values in (("grant_types", item.grant_types), ("planes", item.planes)):
        if not values:
            yield field, "are at least one"
        if len(set(values)) != len(values):
            yield field, "are given once each"
    yield from _redirects(item)
    yield from _grants(item)
    yield from _keys(item)


def _redirects(item: OAuthClient) -> Iterator[Fault]:
    field = "redirect_uris"
    browser = GrantType.AUTHORIZATION_CODE in item.grant_types
    if browser and not item.redirect_uris:
        yield field, "are at least one for the authorization_code grant"
    if item.redirect_uris and not browser:
        yield field, "are of the authorization_code grant, which this client has not"
    if len(item.redirect_uris) > MAX_REDIRECTS:
        yield field, f"are at most {MAX_REDIRECTS}"
    if len(set(item.redirect_uris)) != len(item.redirect_uris):
        yield field, "are given once each"
    for uri in item.redirect_uris:
        if fault := redirect_fault(uri):
            yield field, f"'{uri[:64].encode('unicode_escape').decode()}' {fault}"
    if item.require_par and not browser:
        yield "require_par", "is about the authorization_code grant, which this client has not"


def redirect_fault(uri: str) -> str:
    """What is wrong with a redirect URI, '' for nothing (RFC 6749 section 3.1.2, RFC 8252 section 7)."""
    if len(uri) > MAX_URI or not uri.isascii() or not uri.isprintable() or " " in uri or "\\" in uri:
        return f"is not a URI of at most {MAX_URI} printable ASCII characters, no spaces, no backslashes"
    if "#" in uri:
        return "has a fragment: leave it out"
    if "*" in uri:
        return "has a wildcard: name each address, they are matched exactly"
    try:
        parts = urlsplit(uri)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        return "is not a URI"
    if any(name in _ANSWER for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return "has a parameter that the answer has too"
    if parts.scheme in {"http", "https"}:
        return _web_fault(parts.scheme, parts.netloc, host, port)
    if not _PRIVATE_USE.fullmatch(parts.scheme):
        return "begins with https://, http://127.0.0.1, http://[::1], or a scheme like com.example.app:/"
    if parts.netloc or not parts.path.startswith("/"):
        return f"is {parts.scheme}:/path, with one slash (RFC 8252 section 7.1)"
    return ""


def _web_fault(scheme: str, netloc: str, host: str, port: int | None) -> str:
    if "@" in netloc:
        return "carries a user name"
    name = netloc.removesuffix(f":{port}") if port is not None else netloc
    if not _HOST.fullmatch(name) or port == 0:
        return "has no host name in lower case"
    if scheme == "http" and host not in LOOPBACK_HOSTS:
        return "is http:// and not to 127.0.0.1 or [::1] (not localhost: RFC 8252 section 8.3): use https://"
    return ""


def _grants(item: OAuthClient) -> Iterator[Fault]:
    signs_in = {GrantType.AUTHORIZATION_CODE, GrantType.DEVICE_CODE} & set(item.grant_types)
    if GrantType.REFRESH_TOKEN in item.grant_types and not signs_in:
        yield "grant_types", "with refresh_token have one that begins a session: authorization_code or device_code"
    if GrantType.CLIENT_CREDENTIALS in item.grant_types:
        if item.auth_method is AuthMethod.NONE:
            yield "auth_method", "cannot be none for client_credentials: that needs a confidential client"
        if not item.service:
            yield "service", "is needed for client_credentials: the service account that its tokens are for"
    if GrantType.TOKEN_EXCHANGE in item.grant_types:
        yield "grant_types", "cannot have token-exchange: a service account itself has it (`orgate service trust`)"
    if item.service:
        try:
            service_id(item.service)
        except InvalidIdError as error:
            yield "service", str(error)


def _keys(item: OAuthClient) -> Iterator[Fault]:
    if item.auth_method is not AuthMethod.PRIVATE_KEY_JWT:
        if item.jwks:
            yield "jwks", "are of private_key_jwt, which this client does not use"
        return
    if not item.jwks:
        yield "jwks", "are needed for private_key_jwt: the client's public keys (RFC 7517)"
    elif fault := jwks_fault(item.jwks):
        yield "jwks", fault


def jwks_fault(text: str) -> str:
    """What is wrong with a set of public keys, '' for nothing. What a key is worth, who uses it finds out."""
    if len(text) > MAX_JWKS:
        return f"are at most {MAX_JWKS} characters"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return "are not JSON"
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_KEYS:
        return f"are an object with 'keys', a list of 1 to {MAX_KEYS} (RFC 7517 section 5)"
    return next((fault for key in keys if (fault := _key_fault(key))), "")


def _key_fault(key: Any) -> str:
    if not isinstance(key, dict):
        return "have a key that is no object"
    if _PRIVATE_MEMBERS & key.keys():
        return "have a private or symmetric key: send the public ones only, and make a new key pair"
    needed = _KINDS.get(str(key.get("kty")))
    if needed is None or not all(isinstance(key.get(name), str) for name in needed):
        return "have a key that is neither RSA, EC nor OKP, or lacks a member (RFC 7518 section 6)"
    return ""
