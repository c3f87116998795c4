"""What SCIM says no with: a status, and where the RFC has one, a `scimType` (RFC 7644 section 3.12, table
9)."""

from __future__ import annotations

from typing import Any, Final

ERROR_SCHEMA: Final = "urn:ietf:params:scim:api:messages:2.0:Error"


class ScimError(Exception):
    """`detail` is shown: it quotes nothing but what the caller sent, and never a secret."""

    def __init__(self, status: int, detail: str, scim_type: str = "", *, retry_after_s: int = 0) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.scim_type = scim_type
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The error's own resource. `status` is a string there (section 3.12)."""
        named = {"scimType": self.scim_type} if self.scim_type else {}
        return {"schemas": [ERROR_SCHEMA], "status": str(self.status), **named, "detail": self.detail}


NOT_FOUND: Final = "There is nothing here, or it is not yours to see."


def not_found() -> ScimError:
    return ScimError(404, NOT_FOUND)


def invalid_filter(detail: str) -> ScimError:
    return ScimError(400, f"The filter cannot be used: {detail}.", "invalidFilter")


def invalid_path(detail: str) -> ScimError:
    return ScimError(400, f"The path cannot be used: {detail}.", "invalidPath")


def invalid_syntax(detail: str) -> ScimError:
    return ScimError(400, detail, "invalidSyntax")


def invalid_value(detail: str) -> ScimError:
    return ScimError(400, detail, "invalidValue")


def mutability(detail: str) -> ScimError:
    return ScimError(400, detail, "mutability")


def no_target(detail: str) -> ScimError:
    return ScimError(400, detail, "noTarget")


def too_many(detail: str) -> ScimError:
    return ScimError(400, detail, "tooMany")


def uniqueness(detail: str) -> ScimError:
    return ScimError(409, detail, "uniqueness")


def shown(text: str, most: int = 80) -> str:
    """What a caller sent, as an error may quote it."""
    return text if len(text) <= most else text[:most] + "…"
