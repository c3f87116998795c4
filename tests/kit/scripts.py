"""Scripts for the recording upstream: OpenAI-shaped answers, so that thousands of requests need no gate each.

`RecordingUpstream(script=openai(chunks=20))`. Deterministic: the text depends on the number of chunks alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from tests.kit.upstream import Request, Script

JSON = ("content-type", "application/json")
SSE = ("content-type", "text/event-stream")


def openai(*, chunks: int = 5, pace_s: float = 0.0, first_byte_s: float = 0.0) -> Script:
    """Answers completions, chat completions, embeddings and the list of models; streams when `stream` is true.

    `pace_s`: between two chunks; 0 sends all in one burst. `first_byte_s`: before the head.
    """

    def script(request: Request) -> Coroutine[Any, Any, None] | None:
        asked = request.json() if request.body else {}
        if not (pace_s or first_byte_s):
            _answer(request, asked, chunks)
            return None
        return _paced(request, asked, chunks, pace_s, first_byte_s)

    return script


def usage(chunks: int) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": chunks, "total_tokens": 7 + chunks}


def _answer(request: Request, asked: dict[str, Any], chunks: int) -> None:
    if asked.get("stream"):
        request.respond(200, [SSE])
        request.send(b"".join(_events(request, asked, chunks)), end=True)
    else:
        request.respond_json(_whole(request, asked, chunks))


async def _paced(request: Request, asked: dict[str, Any], chunks: int, pace_s: float, first_byte_s: float) -> None:
    await asyncio.sleep(first_byte_s)
    if not asked.get("stream"):
        request.respond_json(_whole(request, asked, chunks))
        return
    request.respond(200, [SSE])
    for event in _events(request, asked, chunks):
        if request.was_reset:
            return
        request.send(event)
        await asyncio.sleep(pace_s)
    request.end()


def _whole(request: Request, asked: dict[str, Any], chunks: int) -> dict[str, Any]:
    path, model = request.path.partition("?")[0], asked.get("model", "demo")
    if path.endswith("/models"):
        return {"object": "list", "data": [{"id": "demo", "object": "model", "created": 0, "owned_by": "tests"}]}
    if path.endswith("/embeddings"):
        item = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 1.0]}
        return {"object": "list", "data": [item], "model": model, "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    text = "".join(_words(chunks))
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if _is_chat(path):
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    return {**_envelope(request, model, stream=False), "choices": [choice], "usage": usage(chunks)}


def _events(request: Request, asked: dict[str, Any], chunks: int) -> list[bytes]:
    model, chat = asked.get("model", "demo"), _is_chat(request.path.partition("?")[0])
    envelope = _envelope(request, model, stream=True)
    events = []
    for number, word in enumerate(_words(chunks), 1):
        finish = "stop" if number == chunks else None
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
        choice |= {"delta": {"content": word}} if chat else {"text": word}
        events.append({**envelope, "choices": [choice]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        events = [{**event, "usage": None} for event in events]
        events.append({**envelope, "choices": [], "usage": usage(chunks)})
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return [*lines, b"data: [DONE]\n\n"]


def _envelope(request: Request, model: str, *, stream: bool) -> dict[str, Any]:
    chat = _is_chat(request.path.partition("?")[0])
    kind = ("chat.completion.chunk" if stream else "chat.completion") if chat else "text_completion"
    return {"id": f"cmpl-{request.number}", "object": kind, "created": 1_700_000_000, "model": model}


def _is_chat(path: str) -> bool:
    return path.endswith("/chat/completions")


def _words(chunks: int) -> list[str]:
    return [f"w{number} " for number in range(chunks)]
