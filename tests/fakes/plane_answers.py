"""Requests to the fake control plane as they arrive, and its answers."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

Answer = tuple[int, Any, dict[str, str]]
"""The status, the body (JSON, or text or bytes as they are), headers."""


class Seen(Struct, frozen=True):
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    def __init__(self, status: int, detail: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {
            "type": "about:blank",
            "title": detail,
            "status": status,
            "detail": detail,
            "request_id": "req_1",
        }
        if errors:
            self.body["errors"] = errors


class Place:
    """Whatever is served somewhere: `origin` is set by what serves it."""

    origin = ""
