"""What the fake control plane answers of personal tokens and sessions: one of each, as the real one would."""

from __future__ import annotations

from typing import Any

from tests.fakes.plane_answers import Answer

KEY = "orgate_pt_0123456789abcdefghijABCDEFGHIJ0123456789abcd"
TOKEN: dict[str, Any] = {
    "org": "acme",
    "id": "pt_1",
    "subject": "mem_1",
    "name": "ci",
    "actions": ["chat"],
    "models": ["code"],
    "created_by": "mem_1",
    "created_at": 1_700_000_000,
    "expires_at": 1_707_776_000,
    "used_at": 0,
}
SESSION: dict[str, Any] = {
    "id": "0123456789abcdef0123456789abcdef",
    "org": "acme",
    "member": "mem_1",
    "client": "orgate-cli",
    "created_at": 1_700_000_000,
    "last_used": 1_700_000_600,
    "expires_at": 1_700_604_800,
    "amr": "pwd",
}


def personal_tokens(method: str, body: dict[str, Any] | None) -> Answer:
    if method == "GET":
        return 200, {"items": [TOKEN], "next": ""}, {}
    made = {**TOKEN, **{name: value for name, value in (body or {}).items() if name in TOKEN}}
    return 201, {"token": made, "key": KEY}, {}


def personal_token(method: str, key: str) -> Answer | None:
    """None: there is no such token."""
    if key != TOKEN["id"]:
        return None
    return (204, None, {}) if method == "DELETE" else (200, TOKEN, {})


def sessions(key: str | None = None) -> Answer | None:
    if key is None:
        return 200, {"items": [SESSION], "next": ""}, {}
    return (204, None, {}) if key == SESSION["id"] else None
