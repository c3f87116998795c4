"""The OpenAI dialect: request bodies in, answers cut into events out. Knows no HTTP.

Two fields of our own set the pace of one request: `x_pace_ms` (milliseconds between tokens) and `x_first_byte_ms`
(milliseconds before the answer begins).
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from gateway.demo_model.completer import complete, reply, tokens_of

MAX_PACE_MS: Final = 600_000.0
MAX_TOKENS: Final = 4_096
DEFAULT_DIMENSIONS: Final = 256
DONE: Final = b"data: [DONE]\n\n"

Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_PACE_MS)]
Stop = str | Annotated[list[str], msgspec.Meta(max_length=4)]
_T = TypeVar("_T")
_numbers = count(1)


class RequestError(Exception):
    """A request this dialect refuses. `code`, `param`: the fields of OpenAI's error object."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    def body(self) -> bytes:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds before the first byte of an answer and between two of its tokens."""

    token_ms: float = 0.0
    first_byte_ms: float = 0.0

    def checked(self) -> Pace:
        """Itself. Raises ValueError when a figure is negative, not finite or longer than ten minutes."""
        for value in (self.token_ms, self.first_byte_ms):
            if not 0 <= value <= MAX_PACE_MS:
                raise ValueError(f"a pace is between 0 and {MAX_PACE_MS:.0f} ms")
        return self


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class _Generation(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: Stop | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=1)] | None = None
    x_pace_ms: Milliseconds | None = None
    x_first_byte_ms: Milliseconds | None = None

    def pace(self, default: Pace) -> Pace:
        token = default.token_ms if self.x_pace_ms is None else self.x_pace_ms
        first = default.first_byte_ms if self.x_first_byte_ms is None else self.x_first_byte_ms
        return Pace(token_ms=token, first_byte_ms=first)


class CompletionRequest(_Generation, frozen=True, kw_only=True):
    prompt: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=1)]
    suffix: str | None = None


class ContentPart(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[ContentPart] | None = None

    def text(self) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)


class ChatRequest(_Generation, frozen=True, kw_only=True):
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    input: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=256)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=3072)] = DEFAULT_DIMENSIONS
    x_first_byte_ms: Milliseconds | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer, known before its first byte: `tokens` joined are the text."""

    kind: Literal["text_completion", "chat.completion"]
    id: str
    created: int
    model: str
    tokens: Sequence[str]
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    include_usage: bool

    def usage(self) -> dict[str, int]:
        completion = sum(1 for token in self.tokens if token)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }

    def whole(self) -> bytes:
        """The body of an answer that isn't streamed."""
        text = "".join(self.tokens)
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish_reason, "logprobs": None}
        if self.kind == "chat.completion":
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        return msgspec.json.encode({**self._frame(self.kind), "choices": [choice], "usage": self.usage()})

    def events(self) -> Iterator[bytes]:
        """The server-sent events of a stream, one a token; the last brings the finish reason (and usage)."""
        last = len(self.tokens) - 1
        for index, token in enumerate(self.tokens):
            yield self._event([self._piece(token, first=index == 0, last=index == last)])
        if self.include_usage:
            yield self._event([], usage=self.usage())
        yield DONE

    def _piece(self, token: str, *, first: bool, last: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish_reason if last else None}
        if self.kind == "chat.completion":
            role = {"role": "assistant"} if first else {}
            choice["delta"] = {**role, "content": token}
        else:
            choice["text"] = token
        return choice

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        kind = "chat.completion.chunk" if self.kind == "chat.completion" else self.kind
        event = {**self._frame(kind), "choices": choices}
        if self.include_usage:
            event["usage"] = usage
        return b"data: " + msgspec.json.encode(event) + b"\n\n"

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def decode_completion(body: bytes) -> CompletionRequest:
    return _decode(body, CompletionRequest)


def decode_chat(body: bytes) -> ChatRequest:
    return _decode(body, ChatRequest)


def decode_embeddings(body: bytes) -> EmbeddingsRequest:
    return _decode(body, EmbeddingsRequest)


def answer_completion(request: CompletionRequest, now: int) -> Answer:
    """`now`: seconds since the epoch, for the field `created`."""
    prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[0]
    suffix = request.suffix or ""
    prompt_tokens = len(tokens_of(prompt)) + len(tokens_of(suffix))
    limit = request.max_tokens or MAX_TOKENS
    text = complete(prompt, suffix)
    return _answer("text_completion", request, text, prompt_tokens=prompt_tokens, limit=limit, now=now)


def answer_chat(request: ChatRequest, now: int) -> Answer:
    """`now`: seconds since the epoch, for the field `created`."""
    asked = [message.text() for message in request.messages if message.role == "user"]
    prompt_tokens = sum(len(tokens_of(message.text())) + 1 for message in request.messages)
    limit = request.max_completion_tokens or request.max_tokens or MAX_TOKENS
    text = reply(asked[-1] if asked else "")
    return _answer("chat.completion", request, text, prompt_tokens=prompt_tokens, limit=limit, now=now)


def answer_embeddings(request: EmbeddingsRequest) -> bytes:
    texts = [request.input] if isinstance(request.input, str) else request.input
    items = []
    for index, text in enumerate(texts):
        vector = unit_vector(text, request.dimensions)
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        embedding = packed if request.encoding_format == "base64" else vector
        items.append({"object": "embedding", "index": index, "embedding": embedding})
    tokens = sum(len(tokens_of(text)) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": items, "model": request.model, "usage": usage})


def unit_vector(text: str, dimensions: int) -> list[float]:
    """A direction that follows from the text: SHAKE-256 read as signed 16-bit integers, then length 1."""
    stream = hashlib.shake_256(text.encode(errors="replace")).digest(2 * dimensions)
    # The half keeps every component, and so the length, from being zero.
    raw = [value + 0.5 for value in struct.unpack(f"<{dimensions}h", stream)]
    length = math.sqrt(sum(value * value for value in raw))
    return [value / length for value in raw]


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as problem:
        raise RequestError(400, str(problem), code="invalid_type") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestError(400, "The request body is not valid JSON.", code="invalid_json") from None


def _answer(
    kind: Literal["text_completion", "chat.completion"],
    request: _Generation,
    text: str,
    *,
    prompt_tokens: int,
    limit: int,
    now: int,
) -> Answer:
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    for stop in stops:
        if stop:
            text = text.split(stop, 1)[0]
    tokens = tokens_of(text)
    options = request.stream_options
    return Answer(
        kind=kind,
        id=f"{'chatcmpl' if kind == 'chat.completion' else 'cmpl'}-demo-{next(_numbers)}",
        created=now,
        model=request.model,
        # An empty answer (a stop sequence at its very start) still has one event, which says why it finished.
        tokens=tokens[:limit] or [""],
        finish_reason="length" if len(tokens) > limit else "stop",
        prompt_tokens=prompt_tokens,
        include_usage=options is not None and options.include_usage,
    )
