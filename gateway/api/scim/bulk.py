"""`/Bulk` (RFC 7644 section 3.7): many operations in one request, which may name what earlier ones create."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any, Final

from msgspec import Struct

from gateway.api.scim.messages import ScimAnswer, ScimRequest
from gateway.scim.documents import Document, as_object
from gateway.scim.errors import ScimError, invalid_syntax, invalid_value, shown

MAX_OPERATIONS: Final = 100
MAX_DEPTH: Final = 32
"""Of an operation's data. A PATCH that adds a user's extension has six."""

BULK_REQUEST: Final = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
BULK_RESPONSE: Final = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_REFERENCE: Final = re.compile(r"bulkId:([A-Za-z0-9._~+=-]{1,100})")

Run = Callable[[str, str, ScimRequest], Awaitable[ScimAnswer]]
"""(method, path beneath the organization's, request) → its answer, errors too."""


class Operation(Struct, frozen=True):
    """`names`: the bulkIds that it refers to."""

    method: str
    path: str
    bulk_id: str
    version: str
    data: Any
    names: frozenset[str]


async def run_bulk(request: ScimRequest, run: Run) -> ScimAnswer:
    """Every operation, in order; one that names what a later one creates waits for it (section 3.7.1). What
    names each other in a circle, or something that failed, is refused by itself."""
    told = {name.lower(): value for name, value in as_object(request.body, "The body").items()}
    operations = _operations(told)
    most = _fail_on_errors(told.get("failonerrors"))
    made: dict[str, str] = {}  # bulkId → id
    answers: list[Document] = []
    waiting = list(operations)
    errors = 0
    while waiting and (not most or errors < most):
        ready = next((one for one in waiting if one.names <= made.keys()), None)
        one = ready or waiting[0]
        waiting.remove(one)
        if ready is None:
            named = ", ".join(sorted(one.names - made.keys()))
            refused = ScimError(409, f"It refers to what was not created here: {shown(named)}.", "invalidValue")
            answer = ScimAnswer(refused.status, refused.body())
        else:
            answer = await run(one.method, _resolved(one.path, made), _request(one, made))
        errors += answer.status >= 400
        if one.bulk_id and answer.status == 201 and answer.body is not None:
            made[one.bulk_id] = str(answer.body["id"])
        answers.append(_told(one, answer))
    return ScimAnswer(200, {"schemas": [BULK_RESPONSE], "Operations": answers})


def _operations(told: dict[str, Any]) -> list[Operation]:
    schemas = told.get("schemas", [BULK_REQUEST])
    if not isinstance(schemas, list) or BULK_REQUEST.lower() not in {str(one).lower() for one in schemas}:
        raise invalid_value(f"'schemas' does not name {BULK_REQUEST}")
    listed = told.get("operations")
    if not isinstance(listed, list) or not listed:
        raise invalid_syntax("'Operations' is a list of at least one operation")
    if len(listed) > MAX_OPERATIONS:
        raise ScimError(413, f"A bulk request has {MAX_OPERATIONS} operations at most.", "tooMany")
    found = [_operation(each) for each in listed]
    named = [one.bulk_id for one in found if one.bulk_id]
    if len(set(named)) != len(named):
        raise invalid_value("A 'bulkId' is given twice")
    return found


def _operation(value: Any) -> Operation:
    told = {name.lower(): each for name, each in as_object(value, "An operation").items()}
    method, path, bulk_id, version = (told.get(name) or "" for name in ("method", "path", "bulkid", "version"))
    if not all(isinstance(one, str) for one in (method, path, bulk_id, version)):
        raise invalid_syntax("'method', 'path', 'bulkId' and 'version' are strings")
    if method.upper() not in _METHODS:
        raise invalid_syntax("'method' is POST, PUT, PATCH or DELETE")
    if method.upper() == "POST" and not bulk_id:
        raise invalid_value("A POST has a 'bulkId'")
    if not re.fullmatch(r"/(Users|Groups)(/[^/?#]{1,200})?", path, re.IGNORECASE):
        raise invalid_value(f"'{shown(path)}' is no path of a bulk operation")
    data = told.get("data")
    # Found once: whoever waits is looked at after each of the others, and everybody waits for this loop.
    names = frozenset(_REFERENCE.findall(path)) | _references(data)
    return Operation(method.upper(), path, bulk_id, version, data, names)


def _fail_on_errors(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise invalid_value("'failOnErrors' is a whole number from 1 on")
    return value


def _references(value: Any) -> frozenset[str]:
    """Raises `ScimError` for what is nested deeper than any resource: JSON may be nested deeper than calls."""
    found: set[str] = set()
    level = [value]
    for _ in range(MAX_DEPTH):
        found |= {named[1] for each in level if isinstance(each, str) and (named := _REFERENCE.fullmatch(each))}
        holders = (each for each in level if isinstance(each, dict | list))
        inner = [each.values() if isinstance(each, dict) else each for each in holders]
        if not inner:
            return frozenset(found)
        level = list(chain.from_iterable(inner))
    raise invalid_syntax(f"The data of an operation is nested more than {MAX_DEPTH} deep")


def _resolved(text: str, made: dict[str, str]) -> str:
    return _REFERENCE.sub(lambda found: made[found[1]], text)


def _filled(value: Any, made: dict[str, str]) -> Any:
    match value:
        case str():
            found = _REFERENCE.fullmatch(value)
            return made[found[1]] if found else value
        case dict():
            return {name: _filled(each, made) for name, each in value.items()}
        case list():
            return [_filled(each, made) for each in value]
    return value


def _request(one: Operation, made: dict[str, str]) -> ScimRequest:
    return ScimRequest(body=_filled(one.data, made), if_match=one.version)


def _told(one: Operation, answer: ScimAnswer) -> Document:
    """Section 3.7.3: the error where there is one, else where it is and which version."""
    told: Document = {"method": one.method, "status": str(answer.status)}
    if one.bulk_id:
        told["bulkId"] = one.bulk_id
    if "location" in answer.headers:
        told["location"] = answer.headers["location"]
    if "etag" in answer.headers:
        told["version"] = answer.headers["etag"]
    if answer.status >= 400:
        told["response"] = answer.body
    return told
