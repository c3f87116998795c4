"""Requests and answers of SCIM, between the listener and the handlers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.scim.documents import Document, as_object
from gateway.scim.errors import ScimError, invalid_syntax, invalid_value
from gateway.scim.projection import Projection
from gateway.scim.schemas import ResourceKind

MEDIA_TYPE: Final = "application/scim+json"
LIST_RESPONSE: Final = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
SEARCH_REQUEST: Final = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
MAX_RESULTS: Final = 200
DEFAULT_RESULTS: Final = 100
_LARGEST: Final = 2**31


class ScimRequest(Struct, frozen=True):
    """What a handler is given. `key`: the id in the path, '' for a collection. `body`: JSON, None without
    one."""

    key: str = ""
    query: Mapping[str, str] = {}
    body: Any = None
    if_match: str = ""
    if_none_match: str = ""

    def projection(self, *kinds: ResourceKind) -> Projection:
        return Projection(kinds, self.query.get("attributes", ""), self.query.get("excludedattributes", ""))


class ScimAnswer(Struct, frozen=True):
    """`body` None: none is sent."""

    status: int
    body: Document | None = None
    headers: Mapping[str, str] = {}


class Search(Struct, frozen=True):
    """One question (RFC 7644 sections 3.4.2 and 3.4.3). `start` counts from 1."""

    filter: str
    start: int
    count: int
    projection: Projection


def search_of(request: ScimRequest, *kinds: ResourceKind) -> Search:
    """From a URL's query, whose names are in lower case."""
    query = request.query
    start = _number(query.get("startindex"), "startIndex", 1)
    count = _number(query.get("count"), "count", DEFAULT_RESULTS)
    return Search(
        query.get("filter", ""), max(start, 1), min(max(count, 0), MAX_RESULTS), request.projection(*kinds)
    )


def search_in_body(request: ScimRequest, *kinds: ResourceKind) -> Search:
    """From the body of a `/.search`."""
    told = {name.lower(): value for name, value in as_object(request.body, "The body").items()}
    schemas = told.get("schemas", [SEARCH_REQUEST])
    if not isinstance(schemas, list) or SEARCH_REQUEST.lower() not in {str(one).lower() for one in schemas}:
        raise invalid_value(f"'schemas' does not name {SEARCH_REQUEST}")
    text = told.get("filter") or ""
    if not isinstance(text, str):
        raise invalid_syntax("'filter' is a string")
    projection = Projection(kinds, _names(told, "attributes"), _names(told, "excludedAttributes"))
    start = _number(told.get("startindex"), "startIndex", 1)
    count = _number(told.get("count"), "count", DEFAULT_RESULTS)
    return Search(text, max(start, 1), min(max(count, 0), MAX_RESULTS), projection)


def listed(total: int, start: int, resources: list[Document]) -> ScimAnswer:
    """A ListResponse (section 3.4.2, figure 3)."""
    body = {
        "schemas": [LIST_RESPONSE],
        "totalResults": total,
        "startIndex": start,
        "itemsPerPage": len(resources),
        "Resources": resources,
    }
    return ScimAnswer(200, body)


def parsed(data: bytes) -> Any:
    """The body's JSON. Raises `ScimError` invalidSyntax."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid_syntax("The body is no JSON, or is nested too deeply.") from None


def precondition(request: ScimRequest, tag: str) -> None:
    """Raise 412 unless If-Match, where there is one, names `tag`. Tags are weak, and compared as they are:
    what SCIM means by them (section 3.14)."""
    if request.if_match and request.if_match.strip() != "*" and tag not in _tags(request.if_match):
        raise ScimError(412, "It was changed meanwhile: read it again, then decide.")


def unchanged(request: ScimRequest, tag: str) -> bool:
    given = request.if_none_match
    return bool(given) and (given.strip() == "*" or tag in _tags(given))


def _tags(header: str) -> set[str]:
    tags = (one.strip() for one in header.split(",")[:100])
    return {one if one.startswith("W/") else f"W/{one}" for one in tags}


def _number(value: Any, name: str, default: int) -> int:
    if value is None or value == "":
        return default
    if isinstance(value, str):
        digits = value.strip().removeprefix("-")
        if not digits.isascii() or not digits.isdecimal() or len(digits) > 10:
            raise invalid_value(f"'{name}' is a whole number")
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid_value(f"'{name}' is a whole number")
    return max(-1, min(value, _LARGEST))


def _names(told: Mapping[str, Any], name: str) -> list[str]:
    found = told.get(name.lower()) or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise invalid_syntax(f"'{name}' is a list of strings")
    return found
