"""What every refusal has: the status, OpenAI's error object, and nothing in it that is not the caller's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.integration.gateway.world import KEY

SECRETS = (KEY, "globex", "def fib(n):", "Traceback", "/work", "127.0.0.1:")
"""Never in an answer: the key, the other organization, the prompt, our own insides, the upstream's address."""


def refused(
    status: int, headers: Mapping[str, str], body: bytes, *, expect: int, code: str, param: str | None = None
) -> dict[str, Any]:
    """Check one refusal; returns its error object."""
    assert status == expect, (status, body)
    assert headers["content-type"] == "application/json"
    found: dict[str, Any] = json.loads(body)
    assert found.keys() == {"error"}
    error: dict[str, Any] = found["error"]
    assert error.keys() >= {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param), error
    assert isinstance(error["message"], str)
    assert error["message"]
    assert ("www-authenticate" in headers) == (status == 401)
    shown = body.decode() + repr(dict(headers))
    assert not [secret for secret in SECRETS if secret in shown], shown
    return error
