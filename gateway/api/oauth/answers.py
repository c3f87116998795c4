"""Answers for programs: JSON that nobody keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from litestar import Response

from gateway.api.oauth.forms import HttpRequest

JSON: Final = "application/json"
NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache", "x-content-type-options": "nosniff"}


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response[bytes]:
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON, headers=dict(headers))


def wants_json(request: HttpRequest) -> bool:
    """Whether a program asks. A browser's form never names JSON."""
    return JSON in request.headers.get("accept", "")
