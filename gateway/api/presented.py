"""A request's DPoP proof with what it is about, out of an ASGI scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gateway.dpop import Presented


def presented(scope: Mapping[str, Any], proof: bytes) -> Presented:
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else quote(scope["path"])
    return Presented(proof, scope["method"], path)
