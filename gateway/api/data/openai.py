"""OpenAI's dialect: request bodies in, error bodies out. Source: OpenAI API reference, 2026-10.

Unknown fields are passed through as they came. What is checked is what the gateway itself relies on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.errors import BadRequestError, GatewayError, UnprocessableError
from gateway.exchange import Call
from policies.facts import Action

MODEL_NAME_MAX = 256
"""Characters; an alias has 64 at most, and what does not exist is named in its error."""

_fields = msgspec.json.Decoder(dict[str, Raw])
REQUIRED = {Action.COMPLETE: "prompt", Action.CHAT: "messages", Action.EMBED: "input"}

# status → OpenAI's `type` where it isn't simply the caller's fault or ours
_TYPES = {403: "permission_error", 429: "rate_limit_error"}
_TYPES_OF_CODES = {"insufficient_quota": "insufficient_quota"}


_Count = Annotated[int, Meta(ge=1, le=10_000_000)] | None


class _Options(Struct):
    include_usage: bool | None = None


class _Body(Struct):
    """What all endpoints' bodies have that the gateway looks at."""

    model: Annotated[str, Meta(min_length=1, max_length=MODEL_NAME_MAX)]
    stream_options: _Options | None = None
    n: _Count = None
    best_of: _Count = None
    max_tokens: _Count = None
    max_completion_tokens: _Count = None
    n_predict: _Count = None
    """llama.cpp's own name, which goes before the others there."""


class _Completion(_Body):
    stream: bool | None = None
    prompt: str | list[Any] | None = None
    suffix: str | None = None


class _Chat(_Body, kw_only=True):
    messages: Annotated[list[dict[str, Raw]], Meta(min_length=1)]
    stream: bool | None = None


class _Embedding(_Body, kw_only=True):
    input: str | list[Any]


RELIED_ON = frozenset(name for kind in (_Completion, _Chat, _Embedding) for name in kind.__struct_fields__) | {
    "tools"
}
"""What the gateway judges, reserves for or writes itself. Many servers, those in Go among them, read names in any
case and let the last one win: `Model` beside `model` would be another model than the one that was permitted."""

_USUAL = RELIED_ON | {"temperature", "top_p", "stop", "user", "seed", "logprobs", "tool_choice", "response_format"}

_Sound = _Completion | _Chat | _Embedding
_sound: Mapping[Action, msgspec.json.Decoder[_Sound]] = {
    Action.COMPLETE: msgspec.json.Decoder(_Completion),
    Action.CHAT: msgspec.json.Decoder(_Chat),
    Action.EMBED: msgspec.json.Decoder(_Embedding),
}
"""One pass over a body in order. What it refuses is gone over field by field, to say what is wrong with which."""


def decoder(task: Action) -> Callable[[bytes], Call]:
    """The `decode` of one endpoint: body bytes → `Call`."""

    def decode(body: bytes) -> Call:
        return decode_call(task, body)

    return decode


def decode_call(task: Action, body: bytes) -> Call:
    """Parse a request body. Malformed or incomplete: 400; a field of the wrong type or range: 422."""
    try:
        if not body.isascii():
            body.decode()  # JSON is UTF-8 (RFC 8259, 8.1), also where fields pass through unread
        fields = _fields.decode(body)
    except msgspec.ValidationError:
        raise BadRequestError("the body must be a JSON object") from None
    except RecursionError:
        raise BadRequestError("the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise BadRequestError("the body is not valid JSON: it is not UTF-8") from None
    except msgspec.DecodeError as error:
        raise BadRequestError(f"the body is not valid JSON: {_where(error)}") from None
    required = REQUIRED[task]
    for name in ("model", required):
        if name not in fields:
            raise BadRequestError(f"'{name}' is required", param=name)
    if not _USUAL.issuperset(fields):
        _check_names(fields)
    try:
        sound = _sound[task].decode(body)
    except (msgspec.DecodeError, RecursionError):
        sound = None
    if sound is None:
        return _examined(task, fields, len(body))
    options = sound.stream_options
    return Call(
        task=task,
        model=sound.model,
        stream=not isinstance(sound, _Embedding) and bool(sound.stream),
        include_usage=options is not None and bool(options.include_usage),
        # Servers differ in which of them they heed: what is reserved has to cover each.
        max_tokens=max(sound.max_completion_tokens or 0, sound.max_tokens or 0, sound.n_predict or 0) or None,
        answers=max(sound.n or 1, sound.best_of or 1)
        * (_prompts(sound.prompt) if isinstance(sound, _Completion) else 1),
        size=len(body),
        fields=fields,
    )


def _check_names(fields: Mapping[str, Raw]) -> None:
    for name in fields:
        meant = name.casefold()
        if meant in RELIED_ON and name not in RELIED_ON:
            raise BadRequestError(f"'{meant}' must be spelled in lower case", param=meant)


def _examined(task: Action, fields: dict[str, Raw], size: int) -> Call:
    """Field by field, with words for what is wrong."""
    model = _typed(fields, "model", str, "a string")
    if not 0 < len(model) <= MODEL_NAME_MAX:
        raise UnprocessableError(f"'model' must have 1 to {MODEL_NAME_MAX} characters", param="model")
    prompts = _check_input(task, fields)
    stream = bool(_typed(fields, "stream", bool | None, "true or false")) if task is not Action.EMBED else False
    options = _typed(fields, "stream_options", dict[str, Raw] | None, "an object") or {}
    include_usage = bool(_typed(options, "include_usage", bool | None, "true or false", "stream_options."))
    choices = max(_positive(fields, "n") or 1, _positive(fields, "best_of") or 1)
    most = max(_positive(fields, name) or 0 for name in ("max_completion_tokens", "max_tokens", "n_predict"))
    return Call(
        task=task,
        model=model,
        stream=stream,
        include_usage=include_usage,
        max_tokens=most or None,
        answers=choices * prompts,
        size=size,
        fields=fields,
    )


def _check_input(task: Action, fields: dict[str, Raw]) -> int:
    """Returns how many prompts it is: each gets answers of its own."""
    if task is Action.COMPLETE:  # a null prompt is OpenAI's own default; a list of tokens is a prompt too
        prompt = _typed(fields, "prompt", str | list[Any] | None, "a string or an array")
        _typed(fields, "suffix", str | None, "a string")
        return _prompts(prompt)
    if task is Action.CHAT:
        if not _typed(fields, "messages", list[dict[str, Raw]], "an array of objects"):
            raise UnprocessableError("'messages' must not be empty", param="messages")
    else:
        _typed(fields, "input", str | list[Any], "a string or an array")
    return 1


def _prompts(prompt: str | list[Any] | None) -> int:
    """How many they are: a list of numbers is one, in tokens."""
    if isinstance(prompt, list) and any(not isinstance(item, int) for item in prompt):
        return len(prompt)
    return 1


def _typed(fields: dict[str, Raw], name: str, kind: Any, words: str, prefix: str = "") -> Any:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return _decoder(kind).decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise UnprocessableError(f"'{prefix}{name}' must be {words}", param=prefix + name) from None


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _positive(fields: dict[str, Raw], name: str) -> int | None:
    value: int | None = _typed(fields, name, int | None, "an integer")
    if value is not None and not 1 <= value <= 10_000_000:
        raise UnprocessableError(f"'{name}' must be between 1 and 10000000", param=name)
    return value


def _where(error: Exception) -> str:
    """The parser's complaint. msgspec names a byte offset and a kind, never a piece of the body."""
    return str(error).removeprefix("JSON is malformed: ")


def error_body(error: GatewayError) -> bytes:
    """OpenAI's error object. `type` tells whose fault it is, `code` what it was."""
    body: dict[str, object] = {
        "message": error.message,
        "type": _TYPES_OF_CODES.get(error.code)
        or _TYPES.get(error.status)
        or ("server_error" if error.status >= 500 else "invalid_request_error"),
        "param": error.param,
        "code": error.code,
    }
    for extra in (
        "rule",
        "limit",
        "scope",
        "owner",
        "resets_at",
    ):  # which policy or limit said no, for the admin who is asked
        value = getattr(error, extra, None)
        if value:
            body[extra] = value
    return msgspec.json.encode({"error": body})


def error_event(error: GatewayError) -> bytes:
    """The last event of a stream that breaks after its head: OpenAI's SDKs raise on an `error` member."""
    return b"data: " + error_body(error) + b"\n\n"
