"""RFC 9457 problems, turned once into what the person reads and the exit code a script sees."""

from __future__ import annotations

import re

from msgspec import Struct, json

from cli.errors import NOT_READABLE, CliError, NotAllowedError, NotFoundError, RefusedError, StaleVersionError
from cli.output import printable


class FieldFault(Struct, frozen=True):
    field: str = ""
    message: str = ""


class Problem(Struct, frozen=True):
    """`application/problem+json`, with the extensions the admin API adds."""

    type: str = ""
    title: str = ""
    detail: str = ""
    status: int = 0
    errors: tuple[FieldFault, ...] = ()
    request_id: str = ""


def problem_of(status: int, body: bytes) -> Problem:
    """What `body` says; an answer that is no problem document (a proxy's page) becomes one of few words."""
    try:
        return json.decode(body, type=Problem)
    except NOT_READABLE:
        return Problem(title=f"HTTP {status}", detail="the answer is not Orgate's: is a proxy in between?")


_SECONDS = re.compile(r"[0-9]{1,6}")
_OF_AN_ORG = re.compile(r"/admin/v1/orgs/([^/]+)/(?:[a-z-]+|audit/[a-z]+)")
"""Paths that every organization has: 404 there is about the organization."""

_CONFLICTS = {
    "already-exists": "choose another name, or change the one that is there: `list` shows what there is",
    "in-use": "change or delete what needs it, then try again",
}
"""What to do about a 409, by the last word of the problem's type."""

_FIRST = {"the identity provider": "set one first: `orgate idp set`"}
"""What to do about a 404 of something that an organization has one of and that has no name."""

_ROLE = "`orgate whoami` shows your organization and roles; ask an owner for the role"
_SUSPENDED = "ask the gateway's operators: they suspended it, and can resume it"
"""What to do about a 403: nobody of a suspended organization has a role that would help."""


def refusal(
    status: int, body: bytes, *, what: str, origin: str, path: str = "", retry_after: str = ""
) -> CliError:
    """The error to raise for an answer of 400 or more to `what` (e.g. `model 'code'`), asked for at `path`.

    `retry_after`: the answer's `Retry-After`; a number of seconds is told (RFC 9110 section 10.2.3).
    """
    problem = problem_of(status, body)
    said = printable(problem.detail or problem.title)
    faults = "".join(
        f"\n  {printable(f'{fault.field}: ' if fault.field else '')}{printable(fault.message)}"
        for fault in problem.errors
    )
    trace = f" (request {printable(problem.request_id)})" if problem.request_id else ""
    if status == 401:
        return NotAllowedError(f"{origin} does not accept this login: {said}", "run `orgate login`")
    if status == 403:
        return NotAllowedError(f"not allowed: {said}", _SUSPENDED if said.endswith(" is suspended") else _ROLE)
    if status == 404 and (found := _OF_AN_ORG.fullmatch(path)):
        return NotFoundError(
            f"organization '{found[1]}' does not exist, or is not yours to see",
            "check `--org`; `orgate whoami` shows your own",
        )
    if status == 404:
        return NotFoundError(
            f"{what} does not exist, or is not yours to see",
            _FIRST.get(what, "check the name and `--org`; `list` shows what there is"),
        )
    if status == 412:
        return StaleVersionError(f"{what} was refused: {said}", "look at it with `show`, then try again")
    if status == 409:
        return RefusedError(f"{what} was refused: {said}", _CONFLICTS.get(problem.type.rpartition(":")[2], ""))
    again = f"try again in {int(retry_after)} s" if _SECONDS.fullmatch(retry_after) else ""
    if status == 429:
        return RefusedError(f"too many requests: {said}", again or "wait a moment, then try again")
    if status == 503 and again:
        return RefusedError(f"{origin} cannot do that now: {what}: {said}{trace}", again)
    if status >= 500:
        return RefusedError(
            f"{origin} failed on {what}: {said}{trace}", "look for the request in the server's log"
        )
    # With a fault for each field, `detail` would only say them a second time.
    because = faults or (f" {said}" if said else "")
    return RefusedError(f"{what} was refused{':' if because else ''}{because}")
