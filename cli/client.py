"""The admin API as commands call it. `AdminClient` asks the server; `cli.dryrun` has the one that only tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import Struct, json

from cli.errors import NOT_READABLE, CliError, RefusedError, UsageError, unreadable
from cli.output import printable
from cli.problems import refusal
from gateway.secret import Secret

if TYPE_CHECKING:  # the fast path of `orgate token` needs no HTTP client
    import httpx

    from cli.connection import Connection

T = TypeVar("T")


class Answer(Struct, frozen=True):
    """A successful answer. `version` is its ETag as a number, 0 without one. `remarks`: what was written stands,
    and is perhaps not what was meant."""

    body: bytes
    version: int = 0
    remarks: tuple[str, ...] = ()

    def decode(self, kind: type[T]) -> T:
        try:
            return json.decode(self.body or b"null", type=kind)
        except NOT_READABLE as error:
            raise RefusedError(
                f"the server's answer cannot be understood: {unreadable(error)}",
                "compare `orgate --version` with the server's in `orgate status`",
            ) from None


class Bearer(Protocol):
    """Where access tokens for the admin API come from."""

    def token(self, *, refused: str = "") -> str:
        """A token that is good for two minutes or more, and is not `refused`."""

    def shown(self, token: str, method: str, url: str) -> Mapping[str, str]:
        """The header fields with which one request to `url` carries `token`."""


class Client(Protocol):
    """`what` names the thing in errors (`model 'code'`). `version` becomes If-Match."""

    def read(self, path: str, *, what: str, params: Mapping[str, str | int] | None = None) -> Answer: ...

    def write(
        self, method: str, path: str, body: Any = None, *, what: str, version: int | None = None
    ) -> Answer | None:
        """Change something. None when nothing was sent because the client only tells what it would do."""

    def download(self, path: str, *, what: str, params: Mapping[str, str | int]) -> Iterator[bytes]:
        """The body of an answer, piece by piece as it comes."""

    def stream(self, method: str, path: str, body: Any, *, what: str) -> Iterator[bytes]:
        """The same of a question with a body, which changes nothing."""


class AdminClient:
    """Asks the server, as the person of `bearer`. Renews the token once when the server refuses it."""

    def __init__(self, connection: Connection, bearer: Bearer) -> None:
        self._connection = connection
        self._bearer = bearer

    @property
    def origin(self) -> str:
        return self._connection.origin

    def read(self, path: str, *, what: str, params: Mapping[str, str | int] | None = None) -> Answer:
        return self._answer("GET", path, what=what, params=params)

    def write(
        self, method: str, path: str, body: Any = None, *, what: str, version: int | None = None
    ) -> Answer | None:
        headers = {} if version is None else {"if-match": f'"{version}"'}
        content = None
        if body is not None:
            content = encoded(body, _reveal)
            headers["content-type"] = "application/json"
        return self._answer(method, path, what=what, headers=headers, content=content)

    def download(self, path: str, *, what: str, params: Mapping[str, str | int]) -> Iterator[bytes]:
        return self._pieces("GET", path, what=what, params=params)

    def stream(self, method: str, path: str, body: Any, *, what: str) -> Iterator[bytes]:
        return self._pieces(method, path, what=what, params={}, content=encoded(body))

    def _pieces(
        self, method: str, path: str, *, what: str, params: Mapping[str, str | int], content: bytes | None = None
    ) -> Iterator[bytes]:
        headers = {**self._shown(self._bearer.token(), method, path), "accept": "*/*"}
        if content is not None:
            headers["content-type"] = "application/json"
        with self._connection.stream(method, path, params=params, headers=headers, content=content) as answer:
            if answer.status_code >= 300:
                raise self._refusal(answer, answer.read(), what, path)
            yield from answer.iter_bytes()

    def _answer(
        self,
        method: str,
        path: str,
        *,
        what: str,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        def send(token: str) -> httpx.Response:
            signed = {**(headers or {}), **self._shown(token, method, path)}
            return self._connection.request(method, path, params=params, headers=signed, content=content)

        token = self._bearer.token()
        answer = send(token)
        if answer.status_code == 401:
            # The signing keys or the person's roles may have changed since this token was made: a 401 is given
            # before anything is done, so that the same request may be sent again.
            answer = send(self._bearer.token(refused=token))
        if answer.status_code >= 300:
            raise self._refusal(answer, answer.content, what, path)
        remarks = answer.headers.get("x-orgate-remark", "")
        return Answer(
            answer.content,
            _version(answer.headers.get("etag", "")),
            tuple(printable(remark) for remark in remarks.split("; ") if remark),
        )

    def _shown(self, token: str, method: str, path: str) -> Mapping[str, str]:
        return self._bearer.shown(token, method, self.origin + path)

    def _refusal(self, answer: httpx.Response, body: bytes, what: str, path: str) -> CliError:
        again = answer.headers.get("retry-after", "")
        return refusal(answer.status_code, body, what=what, origin=self.origin, path=path, retry_after=again)


def encoded(body: Any, hook: Callable[[Any], Any] | None = None) -> bytes:
    """`body` as JSON. Raises `UsageError` for a number of thousands of digits, which no server reads."""
    try:
        return json.encode(body, enc_hook=hook)
    except ValueError as error:
        raise UsageError(f"this cannot be sent: {unreadable(error)}", "write a smaller number") from None


def _reveal(value: Any) -> str:
    # The one way out for a secret that is a field of a body: into the bytes of the request.
    if isinstance(value, Secret):
        return value.reveal().decode()
    raise NotImplementedError(type(value))


def _version(etag: str) -> int:
    text = etag.removeprefix("W/").strip('"')
    return int(text) if text.isdecimal() and len(text) < 19 else 0
