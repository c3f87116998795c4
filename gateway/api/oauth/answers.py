"""Answers for programs: JSON that nobody keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from litestar import Response

from gateway.api.oauth.forms import HttpRequest
from gateway.oauth.caller import Caller
from gateway.oauth.service import OAuthService

JSON: Final = "application/json"
NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache", "x-content-type-options": "nosniff"}


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response[bytes]:
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON, headers=dict(headers))


def with_nonce(answer: Response[bytes], service: OAuthService, caller: Caller) -> Response[bytes]:
    """`answer` to a request that showed a DPoP proof: with a nonce for the next one, since the one it had may be
    about to end (RFC 9449 section 8.2)."""
    if caller.presented is not None:
        answer.set_header("dpop-nonce", service.possession.nonce())
    return answer


def wants_json(request: HttpRequest) -> bool:
    """Whether a program asks. A browser's form never names JSON."""
    return JSON in request.headers.get("accept", "")
