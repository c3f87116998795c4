"""Form bodies, read strictly: RFC 6749 section 3.1 and 3.2, `application/x-www-form-urlencoded` in UTF-8."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Any, Final
from urllib.parse import parse_qsl

from litestar import Request

from gateway.api.presented import presented
from gateway.dpop import HEADER, Presented
from gateway.oauth.caller import Caller
from gateway.oauth.errors import InvalidDpopProofError, InvalidRequestError

HttpRequest = Request[Any, Any, Any]

MAX_BODY_BYTES: Final = 16 * 1024
MAX_PARAMETERS: Final = 32
CLIENT_ADDRESS: Final = "x-orgate-client"
"""Set by the relaying worker, which removes whatever the client sent under that name."""


class TooLongError(InvalidRequestError):
    status = 413


async def read_form(request: HttpRequest) -> dict[str, str]:
    """The parameters, each once; those without a value count as absent. Raises `InvalidRequestError`."""
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    charset = rest.strip().lower().replace(" ", "").replace('"', "")
    if kind.strip().lower() != "application/x-www-form-urlencoded" or charset not in {"", "charset=utf-8"}:
        raise InvalidRequestError("the body must be application/x-www-form-urlencoded")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise TooLongError(f"the body is longer than {MAX_BODY_BYTES} bytes")
    return parse_form(body)


def parse_form(body: bytes) -> dict[str, str]:
    """`body` → parameters. Raises `InvalidRequestError` for a repeated name or bytes that are not UTF-8."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise InvalidRequestError("the body is malformed, or has too many parameters") from None
    form: dict[str, str] = {}
    for name, value in pairs:
        if name in form:
            raise InvalidRequestError("a parameter is repeated")
        form[name] = value
    return {name: value for name, value in form.items() if value}


def query_of(request: HttpRequest) -> dict[str, str]:
    """What a link to a page fills in. A malformed one fills in nothing: the page is there all the same."""
    try:
        return parse_form(request.scope["query_string"])
    except InvalidRequestError:
        return {}


def authorization_of(request: HttpRequest) -> tuple[str, ...]:
    """The values of the Authorization header, with which a client may authenticate."""
    return tuple(value.decode("latin-1") for name, value in request.scope["headers"] if name == b"authorization")


def caller_of(request: HttpRequest) -> Caller:
    return Caller(
        address=source(request.headers.get(CLIENT_ADDRESS, "")),
        request_id=request.headers.get("x-request-id", "")[:64],
        presented=_presented(request),
    )


def _presented(request: HttpRequest) -> Presented | None:
    """The DPoP proof. Raises `InvalidDpopProofError` for more than one (RFC 9449 section 4.3)."""
    found = [value for name, value in request.scope["headers"] if name == HEADER]
    if len(found) > 1:
        raise InvalidDpopProofError("one request has one DPoP proof")
    return presented(dict(request.scope), found[0]) if found else None


def source(address: str) -> str:
    """Who is throttled as one: an IPv4 address, or the /64 of an IPv6 one, of which anybody has 2^64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed), 64), strict=False))
