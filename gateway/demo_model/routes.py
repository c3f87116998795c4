"""What each path of the demo model answers, whatever version of HTTP carried the question.

`/v1/…` is the OpenAI dialect and asks for a key when there are keys. `/demo/streams` is the record and asks for
none: it holds numbers only, and the server listens on loopback unless told otherwise.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, cast
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from gateway.demo_model import dialect
from gateway.demo_model.dialect import Answer, Pace, RequestError
from gateway.demo_model.ledger import Counter, Ledger, Record

DEFAULT_MODELS: Final = ("demo-coder", "demo-embed")
MAX_BODY_BYTES: Final = 1024 * 1024
DISCARDED_BODIES: Final = 16
"""A body over the limit is read and forgotten up to this many limits: few clients listen while they send."""
MAX_WAIT_S: Final = 60.0
_GENERATING: Final = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/embeddings"})
_COUNTERS: Final = frozenset({"opened", "ended", "reset"})
_JSON: Final = b"application/json"
_EVENTS: Final = b"text/event-stream"


@dataclass(slots=True)
class Request:
    """A request as it arrives. `headers`: lower-case names, the last value of each. `target`: path and query."""

    method: str
    target: str
    headers: dict[bytes, bytes]
    max_body_bytes: int
    body: bytearray = field(default_factory=bytearray)
    received: int = 0

    @property
    def too_large(self) -> bool:
        return self.received > self.max_body_bytes

    @property
    def far_too_large(self) -> bool:
        """Longer than is worth reading to its end only so that the client, having sent it, sees the 413."""
        return self.received > DISCARDED_BODIES * self.max_body_bytes

    def add(self, data: bytes) -> None:
        """Keeps `data`, or forgets the whole body once it is longer than allowed."""
        self.received += len(data)
        if self.too_large:
            self.body.clear()
        else:
            self.body += data


class Reply(Protocol):
    """Where an answer goes: one HTTP/2 stream, or the current turn of an HTTP/1.1 connection."""

    def head(self, status: int, content_type: bytes, length: int | None) -> None:
        """Sends the header section. `length` in bytes, None for a body of unknown length."""

    async def body(self, data: bytes, *, last: bool = False) -> None:
        """Hands `data` to the socket, waiting for the client's flow control first."""


def key_digests(text: str) -> frozenset[bytes]:
    """SHA-256 of every key in the text, one key a line. Raises ValueError when there is none."""
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not keys:
        raise ValueError("the key file holds no key: write one a line")
    return frozenset(hashlib.sha256(key.encode()).digest() for key in keys)


class Routes:
    """The server's behaviour. Holds the record; keeps keys as digests only."""

    def __init__(
        self,
        *,
        models: tuple[str, ...] = DEFAULT_MODELS,
        pace: Pace | None = None,
        keys: frozenset[bytes] | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._models = models
        self._pace = pace or Pace()
        self._keys = keys
        self._wall_clock = wall_clock
        self._started = int(wall_clock())
        self.max_body_bytes: Final = max_body_bytes
        self.ledger: Final = Ledger(clock)

    def record(self, request: Request, stream: str) -> Record | None:
        """Opens a record when this request asks the model to generate something."""
        generates = request.method == "POST" and urlsplit(request.target).path in _GENERATING
        return self.ledger.open(stream) if generates else None

    async def respond(self, request: Request, reply: Reply, record: Record | None) -> None:
        """Answers in full. The connection cancels it the moment the client resets the stream."""
        url = urlsplit(request.target)
        try:
            if request.too_large:
                raise RequestError(413, f"The request body is longer than {self.max_body_bytes} bytes.")
            if url.path == "/demo/streams":
                body = await self._streams(request, parse_qs(url.query))
            else:
                self._authenticate(request)
                outcome = self._dispatch(request, unquote(url.path))
                if isinstance(outcome, tuple):
                    answer, pace, stream = outcome
                    await _send(answer, pace, reply, record, stream=stream)
                    return
                body = outcome
        except RequestError as refusal:
            await _whole(reply, refusal.status, refusal.body(), record)
            return
        await _whole(reply, 200, body, record)

    def _dispatch(self, request: Request, path: str) -> bytes | tuple[Answer, Pace, bool]:
        """A body that is ready, or an answer to be paced."""
        if path == "/v1/models" or path.startswith("/v1/models/"):
            _expect(request, "GET")
            return self._list_models(path.removeprefix("/v1/models").removeprefix("/"))
        if path not in _GENERATING:
            raise RequestError(404, f"Unknown request URL: {request.method} {path}.", code="unknown_url")
        _expect(request, "POST")
        body = bytes(request.body)
        now = int(self._wall_clock())
        if path == "/v1/completions":
            completion = dialect.decode_completion(body)
            self._known(completion.model)
            return dialect.answer_completion(completion, now), completion.pace(self._pace), completion.stream
        if path == "/v1/chat/completions":
            chat = dialect.decode_chat(body)
            self._known(chat.model)
            return dialect.answer_chat(chat, now), chat.pace(self._pace), chat.stream
        embeddings = dialect.decode_embeddings(body)
        self._known(embeddings.model)
        return dialect.answer_embeddings(embeddings)

    def _authenticate(self, request: Request) -> None:
        if self._keys is None:
            return
        scheme, _, key = request.headers.get(b"authorization", b"").partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        # Compares with every key whatever the outcome: the time tells nothing about which one was near.
        matches = [hmac.compare_digest(digest, known) for known in self._keys]
        if scheme.lower() != b"bearer" or not any(matches):
            raise RequestError(401, "Incorrect API key provided.", code="invalid_api_key")

    def _known(self, model: str) -> None:
        if model not in self._models:
            offered = ", ".join(self._models)
            message = f"The model '{model}' does not exist. This demo offers: {offered}."
            raise RequestError(404, message, code="model_not_found", param="model")

    def _list_models(self, name: str) -> bytes:
        if name:
            self._known(name)
            return msgspec.json.encode(self._model(name))
        return msgspec.json.encode({"object": "list", "data": [self._model(model) for model in self._models]})

    def _model(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "orgate-demo"}

    async def _streams(self, request: Request, query: dict[str, list[str]]) -> bytes:
        """`?wait=reset&count=3&timeout_s=10` answers when three streams were reset, or the time is up."""
        _expect(request, "GET")
        if "wait" in query:
            counter = query["wait"][-1]
            if counter not in _COUNTERS:
                raise RequestError(400, "wait is one of: opened, ended, reset.", param="wait")
            wanted = _number(query, "count", 1.0, 1e9)
            timeout_s = _number(query, "timeout_s", 20.0, MAX_WAIT_S)
            await self.ledger.wait(cast(Counter, counter), int(wanted), timeout_s)
        return msgspec.json.encode(self.ledger.view())


def _expect(request: Request, method: str) -> None:
    if request.method != method:
        raise RequestError(
            405, f"Not allowed to {request.method} here: use {method}.", code="method_not_supported"
        )


def _number(query: dict[str, list[str]], name: str, default: float, most: float) -> float:
    if name not in query:
        return default
    try:
        value = float(query[name][-1])
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise RequestError(400, f"{name} is a number between 0 and {most:g}.", param=name)
    return value


async def _whole(reply: Reply, status: int, body: bytes, record: Record | None) -> None:
    reply.head(status, _JSON, len(body))
    if record:
        record.answered = True
    await reply.body(body, last=True)
    if record:
        record.end()


async def _send(answer: Answer, pace: Pace, reply: Reply, record: Record | None, *, stream: bool) -> None:
    """Sends at the model's pace. Between two events it only sleeps, so that a cancel lands at once."""
    if pace.first_byte_ms:
        await asyncio.sleep(pace.first_byte_ms / 1000)
    if not stream:
        if pace.token_ms:
            await asyncio.sleep(pace.token_ms * len(answer.tokens) / 1000)
        await _whole(reply, 200, answer.whole(), record)
        return
    reply.head(200, _EVENTS, None)
    if record:
        record.answered = True
    for index, event in enumerate(answer.events()):
        if index and pace.token_ms and index < len(answer.tokens):
            await asyncio.sleep(pace.token_ms / 1000)
        # The last event is known by its content, not by its number: usage may or may not come before it.
        await reply.body(event, last=event is dialect.DONE)
        if record:
            record.chunks += 1
    if record:
        record.end()
