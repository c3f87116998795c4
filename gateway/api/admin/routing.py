"""What every handler says of itself: the operation it needs, its operation id, the problems it answers with."""

from __future__ import annotations

from typing import Any, Final

from litestar.openapi.datastructures import ResponseSpec

from gateway.api.admin.caller import OPERATION, PUBLIC
from gateway.api.admin.problems import MEDIA_TYPE, Problem
from gateway.api.admin.reads import NOTED
from tenants.roles import Operation, needed

_ALWAYS: Final = {
    401: "No token, or one that is expired, revoked or for another audience. Nothing was done.",
    403: "The caller's roles do not allow it, or their organization is suspended.",
    404: "Nothing there, or it belongs to another organization: the same answer.",
    503: "A store cannot be reached now; see Retry-After.",
}
_QUERY: Final = {422: "A value is out of range or a field is not known; `errors` names each."}
_BODY: Final = {
    **_QUERY,
    400: "The body is not JSON.",
    413: "The body is too large.",
    415: "The body is not application/json.",
}
_CONFLICT: Final = {409: "It exists already, something still needs it, or there are as many as there may be."}
_CONDITIONAL: Final = {**_CONFLICT, 412: "It was changed meanwhile.", 428: "If-Match is missing."}


def operation(
    needs: Operation,
    operation_id: str,
    *,
    query: bool = False,
    body: bool = False,
    conflict: bool = False,
    conditional: bool = False,
    noted: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Arguments for Litestar's route decorators. The guard and the documentation come from the same `needs`.
    `noted`: see `gateway.api.admin.reads`."""
    problems = dict(_ALWAYS)
    for wanted, group in ((query, _QUERY), (body, _BODY), (conflict, _CONFLICT), (conditional, _CONDITIONAL)):
        if wanted:
            problems |= group
    return {
        "operation_id": operation_id,
        "opt": {OPERATION: needs, NOTED: noted},
        "security": [{"bearer": []}],
        "response_description": f"Roles: {', '.join(needed(needs))}.",
        "responses": problem_responses(problems),
        **more,
    }


def public(operation_id: str, **more: Any) -> dict[str, Any]:
    """The same for what anyone may ask."""
    return {"operation_id": operation_id, "opt": {PUBLIC: True}, **more}


def problem_responses(problems: dict[int, str]) -> dict[int, ResponseSpec]:
    return {
        status: ResponseSpec(Problem, generate_examples=False, description=text, media_type=MEDIA_TYPE)
        for status, text in sorted(problems.items())
    }
