"""What a fake engine answers, dressed as Vault dresses it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class Reply(Struct, frozen=True):
    """`body` None: none at all."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Any, status: int = 200) -> Reply:
        """As Vault dresses what it found."""
        return cls(status, {"request_id": "1", "data": data, "wrap_info": None, "warnings": None, "auth": None})


def failed(status: int, *errors: str) -> Reply:
    return Reply(status, {"errors": list(errors)})
