"""Requests as the admin API reads them: bodies decoded strictly, straight into their structs."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

import msgspec
from litestar import Request
from litestar.datastructures import State
from msgspec import Struct

from gateway.api.admin.problems import ProblemError, invalid

MAX_BODY: Final = 512 * 1024
"""Bytes. The largest honest body is an upstream with its own CA bundle (256 KiB of PEM)."""

_PATH: Final = re.compile(r"^(?P<message>.*) - at `(?P<path>[^`]*)`$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"^Object missing required field `(?P<name>.*?)`")


class SecretBody(Struct, frozen=True):
    """A body that holds a secret: what is wrong with it is said without quoting any of it."""

    RULE: ClassVar[str]


class AdminRequest(Request[Any, Any, State]):
    """Decodes the body straight into the struct that the handler's `data` names: nothing lax, nothing unknown."""

    async def json(self) -> Any:
        media, _ = self.content_type
        if media != "application/json":
            raise ProblemError(415, "unsupported-media-type", "The body's content-type must be application/json.")
        if self.headers.get("content-encoding", "identity") != "identity":
            raise ProblemError(
                415, "unsupported-media-type", "A body is taken as it is, without content-encoding."
            )
        field = self.route_handler.parsed_data_field
        kind: Any = field.annotation if field is not None else Any
        body = await self.body()
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if issubclass(kind, SecretBody):
                raise invalid(("", kind.RULE)) from None
            if isinstance(error, msgspec.ValidationError):
                raise invalid(_fault(str(error))) from None
            detail = str(error) if type(error) is msgspec.DecodeError else "JSON is malformed"
            raise ProblemError(400, "malformed-request", f"The body cannot be read: {detail}.") from None


def _fault(text: str) -> tuple[str, str]:
    """(field, message) of msgspec's "what - at `$.path`"."""
    found = _PATH.match(text)
    message, path = (found["message"], found["path"].removeprefix("$").lstrip(".")) if found else (text, "")
    for pattern, said in ((_UNKNOWN, "is not known here"), (_MISSING, "is missing")):
        if named := pattern.match(message):
            return f"{path}.{named['name']}".lstrip("."), said
    return path, message[:1].lower() + message[1:]
