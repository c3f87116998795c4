"""A collection of the admin API: pages read to the end, writes with the version they saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from msgspec import Struct, convert, structs, to_builtins

from cli.client import Answer, Client
from cli.errors import StaleVersionError, UsageError
from cli.output import Printer, cell

T = TypeVar("T", bound=Struct)

SERVER_SET = frozenset(
    {"org", "version", "created_at", "key_version", "client_cert_version", "secret_version", "not_before"}
)
"""Fields the server sets; a body does not carry them."""

PAGE = 500
ATTEMPTS = 3


_NO_NAMES = frozenset({"", ".", ".."})
"""In a path they are another one (RFC 3986 section 5.2.4): that of everything, or of the organization."""


class Page(Struct, frozen=True):
    items: list[Any]
    next: str = ""


def body_of(item: Struct, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """`item` as a request's body."""
    fields: dict[str, Any] = to_builtins(item)
    return {key: value for key, value in fields.items() if key not in SERVER_SET | without}


class Resource(Generic[T]):
    """Things of one kind at `path`. `noun` names one in messages."""

    def __init__(self, client: Client, path: str, kind: type[T], noun: str, out: Printer) -> None:
        self._client = client
        self._kind = kind
        self._noun = noun
        self._out = out
        self.path = path

    def what(self, key: str) -> str:
        return f"{self._noun} '{key}'"

    def at(self, key: str, *rest: str) -> str:
        if key in _NO_NAMES or not _NO_NAMES.isdisjoint(rest):
            raise UsageError(f"'{key}' names no {self._noun}" if key else f"which {self._noun}?", "give its name")
        return "/".join([self.path, quote(key, safe=""), *rest])

    def list(self, **filters: str) -> list[T]:
        """Everything, page after page, that matches each of `filters` that is not empty."""
        wanted: dict[str, str | int] = {key: value for key, value in filters.items() if value}
        found: list[T] = []
        after = ""
        while True:
            params = {**wanted, "limit": PAGE, **({"after": after} if after else {})}
            page = self._client.read(self.path, what=f"the list of {self._noun}s", params=params).decode(Page)
            found += convert(page.items, list[self._kind])  # type: ignore[name-defined]
            after = page.next
            if not after:
                return found

    def get(self, key: str) -> tuple[T, int]:
        """(the thing, the version to send back with a change of it)."""
        answer = self._client.read(self.at(key), what=self.what(key))
        return answer.decode(self._kind), answer.version

    def create(self, body: Mapping[str, Any], key: str) -> T | None:
        return self._made(self._client.write("POST", self.path, body, what=self.what(key)))

    def change(self, key: str, edit: Callable[[T], T]) -> T | None:
        """GET, `edit`, PUT with If-Match. When somebody else wrote in between, what they changed is shown and
        `edit` is applied to their version, unless both changed the same field: then nothing is written."""
        before, version = self.get(key)
        for _ in range(ATTEMPTS):
            mine = edit(before)
            try:
                return self.replace(key, mine, version)
            except StaleVersionError:
                now, version = self.get(key)
            theirs = differences(before, now)
            self._out.say(f"{self.what(key)} was changed by somebody else meanwhile:")
            for line in describe(theirs):
                self._out.say(f"  {line}")
            if theirs.keys() & differences(before, mine).keys() and differences(now, edit(now)):
                raise StaleVersionError(
                    f"both of you changed {', '.join(sorted(theirs))} of {self.what(key)}; nothing was written",
                    "run the command again if your change should stand",
                )
            before = now
        raise StaleVersionError(f"{self.what(key)} keeps changing; nothing was written", "try again")

    def replace(self, key: str, item: T, version: int) -> T | None:
        body = body_of(item)
        return self._made(self._client.write("PUT", self.at(key), body, what=self.what(key), version=version))

    def _made(self, answer: Answer | None) -> T | None:
        if answer is None:
            return None
        for remark in answer.remarks:
            self._out.say(f"note: {remark}")
        return answer.decode(self._kind)

    def delete(self, key: str) -> bool:
        """Delete the version that is there now. False when nothing was sent."""
        _, version = self.get(key)
        return self._client.write("DELETE", self.at(key), what=self.what(key), version=version) is not None

    def act(self, key: str, verb: str, kind: type[Any]) -> Any:
        """`POST <path>/<key>/<verb>`; None when nothing was sent or nothing came back."""
        answer = self._client.write("POST", self.at(key, verb), what=self.what(key))
        return None if answer is None or not answer.body else answer.decode(kind)


def differences(before: Struct, after: Struct) -> dict[str, tuple[Any, Any]]:
    """Field → (before, after), for the fields a person can change."""
    old, new = structs.asdict(before), structs.asdict(after)
    return {key: (old[key], new[key]) for key in old if old[key] != new[key] and key not in SERVER_SET}


def describe(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [f"{key}: {cell(old) or 'nothing'} → {cell(new) or 'nothing'}" for key, (old, new) in changes.items()]
