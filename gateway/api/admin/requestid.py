"""An id for each request: in its response, its problem, its audit entries and the log."""

from __future__ import annotations

import re
import secrets
from typing import Final

from litestar.types import Scope

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{8,64}")


def request_id(scope: Scope) -> str:
    """The request's id: the caller's own `x-request-id` when it is harmless to log, else a new one."""
    state = scope.setdefault("state", {})
    found = state.get("request_id")
    if found is None:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        found = given.decode() if _REQUEST_ID.fullmatch(given) else "req_" + secrets.token_hex(12)
        state["request_id"] = found
    return str(found)
