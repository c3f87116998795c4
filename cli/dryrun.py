"""`--dry-run`: a client that reads, and for each write only records and tells what it would have sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, json

from cli.client import Answer, Client, encoded
from cli.output import Column, Format, Printer
from gateway.secret import Secret


class PlannedWrite(Struct, frozen=True):
    """One request that was not sent. Secrets in `body` are shown as ***."""

    method: str
    url: str
    if_match: str
    body: Any


class DryRunClient:
    """Reads through `reader`; a write goes nowhere but to `planned`."""

    def __init__(self, reader: Client, origin: str) -> None:
        self._reader = reader
        self._origin = origin
        self.planned: list[PlannedWrite] = []

    def read(self, path: str, *, what: str, params: Mapping[str, str | int] | None = None) -> Answer:
        return self._reader.read(path, what=what, params=params)

    def write(self, method: str, path: str, body: Any = None, *, what: str, version: int | None = None) -> None:
        shown = None if body is None else json.decode(encoded(body, _hide))
        self.planned.append(
            PlannedWrite(method, self._origin + path, "" if version is None else f'"{version}"', shown)
        )

    def download(self, path: str, *, what: str, params: Mapping[str, str | int]) -> Iterator[bytes]:
        return self._reader.download(path, what=what, params=params)

    def stream(self, method: str, path: str, body: Any, *, what: str) -> Iterator[bytes]:
        return self._reader.stream(method, path, body, what=what)

    def tell(self, out: Printer) -> None:
        """Print the plan: in order, complete, and as a document when one is asked for."""
        if out.form is Format.TABLE:
            for write in self.planned:
                out.line(
                    f"{write.method} {write.url}" + (f"  If-Match: {write.if_match}" if write.if_match else "")
                )
                if write.body is not None:
                    out.line(json.format(json.encode(write.body), indent=2).decode())
        else:
            out.items(self.planned, [Column(name, name) for name in PlannedWrite.__struct_fields__])
        out.say("dry run: nothing was sent" if self.planned else "dry run: there is nothing to change")


def _hide(value: Any) -> str:
    if isinstance(value, Secret):
        return str(value)
    raise NotImplementedError(type(value))
