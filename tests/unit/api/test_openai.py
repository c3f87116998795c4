"""OpenAI's dialect: what is refused, with which status and field, and what passes untouched."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.data.openai import _examined, _fields, decode_call, error_body, error_event
from gateway.errors import (
    BadRequestError,
    ForbiddenError,
    GatewayError,
    LimitExceededError,
    UnavailableError,
    UnprocessableError,
)
from gateway.exchange import Call
from gateway.upstream.relay import upstream_body
from policies.facts import Action


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("given", "kind", "param"),
    [
        (b"", BadRequestError, None),
        (b"{", BadRequestError, None),
        (b"[]", BadRequestError, None),
        (b'"x"', BadRequestError, None),
        (b'{"model":"m"', BadRequestError, None),
        (b"\xff\xfe", BadRequestError, None),
        (body(prompt="x"), BadRequestError, "model"),
        (body(model="m"), BadRequestError, "prompt"),
        (body(model=1, prompt="x"), UnprocessableError, "model"),
        (body(model="", prompt="x"), UnprocessableError, "model"),
        (body(model="m" * 257, prompt="x"), UnprocessableError, "model"),
        (body(model="m", prompt={}), UnprocessableError, "prompt"),
        (body(model="m", prompt="x", suffix=3), UnprocessableError, "suffix"),
        (body(model="m", prompt="x", stream="yes"), UnprocessableError, "stream"),
        (body(model="m", prompt="x", stream_options=[]), UnprocessableError, "stream_options"),
        (
            body(model="m", prompt="x", stream_options={"include_usage": 1}),
            UnprocessableError,
            "stream_options.include_usage",
        ),
        (body(model="m", prompt="x", max_tokens=0), UnprocessableError, "max_tokens"),
        (body(model="m", prompt="x", max_tokens="9"), UnprocessableError, "max_tokens"),
        (body(model="m", prompt="x", n=-1), UnprocessableError, "n"),
    ],
)
def test_bad_completions(given: bytes, kind: type[GatewayError], param: str | None) -> None:
    with pytest.raises(kind) as caught:
        decode_call(Action.COMPLETE, given)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "name", ["Model", "MODEL", "max_to\u212aens", "\u017ftream", "Stream_Options", "N", "Prompt"]
)
def test_what_the_gateway_judges_has_one_spelling(name: str) -> None:
    """A server that reads names in any case would else take the model, or the bound, from another field."""
    with pytest.raises(BadRequestError, match="must be spelled in lower case") as refusal:
        decode_call(Action.COMPLETE, body(model="m", prompt="x", **{name: "other"}))
    assert refusal.value.param == name.casefold()


def test_an_error_never_quotes_the_body() -> None:
    with pytest.raises(BadRequestError) as caught:
        decode_call(Action.COMPLETE, b'{"model": "m", "prompt": secret_code()}')
    assert "secret_code" not in caught.value.message


@pytest.mark.parametrize("messages", [[], "hi", ["hi"], None])
def test_bad_chats(messages: object) -> None:
    with pytest.raises(UnprocessableError) as caught:
        decode_call(Action.CHAT, body(model="m", messages=messages))
    assert caught.value.param == "messages"


def test_what_the_gateway_reads() -> None:
    call = decode_call(
        Action.CHAT, body(model="m", messages=[{"role": "user"}], stream=True, max_completion_tokens=7, n=2)
    )
    assert (call.model, call.stream, call.include_usage) == ("m", True, False)
    assert (call.max_tokens, call.answers) == (7, 2)


def test_embeddings_never_stream() -> None:
    assert decode_call(Action.EMBED, body(model="m", input=["a"], stream=True)).stream is False


def test_unknown_fields_go_upstream_as_they_came() -> None:
    given = (
        b'{"model":"alias","prompt":"x","suffix":"y",'
        b'"x_future":{"deep":[1.0,1e400,"\\u00e9"]},"seed":12345678901234567890}'
    )
    sent = upstream_body(decode_call(Action.COMPLETE, given), "real-model")
    assert b'"x_future":{"deep":[1.0,1e400,"\\u00e9"]}' in sent
    assert b'"seed":12345678901234567890' in sent
    assert b'"model":"real-model"' in sent
    assert b"stream_options" not in sent


def test_a_stream_is_asked_for_its_usage() -> None:
    call = decode_call(Action.COMPLETE, body(model="m", prompt="x", stream=True, stream_options={"chunk": 1}))
    assert json.loads(upstream_body(call, "m"))["stream_options"] == {"chunk": 1, "include_usage": True}
    asked = decode_call(
        Action.COMPLETE, body(model="m", prompt="x", stream=True, stream_options={"include_usage": True})
    )
    assert json.loads(upstream_body(asked, "m"))["stream_options"] == {"include_usage": True}
    null = decode_call(Action.COMPLETE, body(model="m", prompt="x", stream=True, stream_options=None))
    assert json.loads(upstream_body(null, "m"))["stream_options"] == {"include_usage": True}


def test_error_bodies_say_whose_fault_and_which_rule() -> None:
    said = json.loads(error_body(ForbiddenError("no", rule="r1")))["error"]
    assert said == {"message": "no", "type": "permission_error", "param": None, "code": "forbidden", "rule": "r1"}
    limited = json.loads(error_body(LimitExceededError("no", limit="l", scope="member", retry_after_s=3)))["error"]
    assert (limited["type"], limited["code"], limited["limit"], limited["scope"]) == (
        "rate_limit_error",
        "rate_limit_exceeded",
        "l",
        "member",
    )
    assert json.loads(error_body(UnavailableError("later")))["error"]["type"] == "server_error"
    assert error_event(UnavailableError("later")).startswith(b'data: {"error":')


@pytest.mark.parametrize(
    ("fields", "answers", "most"),
    [
        ({"prompt": "x"}, 1, None),
        ({"prompt": "x", "n": 3}, 3, None),
        ({"prompt": "x", "n": 2, "best_of": 5}, 5, None),
        ({"prompt": ["a", "b", "c"], "n": 2}, 6, None),
        ({"prompt": [[1, 2], [3]]}, 2, None),
        ({"prompt": [1, "b", "c"]}, 3, None),
        ({"prompt": [1, 2, 3]}, 1, None),
        ({"prompt": []}, 1, None),
        ({"prompt": None}, 1, None),
        ({"prompt": "x", "max_completion_tokens": 1, "max_tokens": 4_000}, 1, 4_000),
        ({"prompt": "x", "max_tokens": 1, "n_predict": 90_000}, 1, 90_000),
    ],
)
def test_all_that_may_come_is_reserved(fields: dict[str, object], answers: int, most: int | None) -> None:
    """What is reserved too low is admitted too often: many requests at once would go beyond the limit."""
    call = decode_call(Action.COMPLETE, body(model="m", **fields))
    assert (call.answers, call.max_tokens) == (answers, most)


def test_an_answer_without_end_is_refused_by_whatever_name() -> None:
    """-1 is as long as it likes, to llama.cpp."""
    with pytest.raises(UnprocessableError):
        decode_call(Action.COMPLETE, body(model="m", prompt="x", max_tokens=1, n_predict=-1))
    with pytest.raises(BadRequestError):
        decode_call(Action.COMPLETE, body(model="m", prompt="x", max_tokens=1, N_Predict=9))


_FRAGMENTS = (
    *(
        "null",
        "true",
        "false",
        "0",
        "1",
        "3",
        "-1",
        "1.0",
        "1.5",
        "1e2",
        "10000000",
        "10000001",
        "99999999999999999999",
    ),
    *(
        '""',
        '"m"',
        '"true"',
        '"\\ud800"',
        '"\\u00fc"',
        "[]",
        "[1,2]",
        '["a","b"]',
        "[[1],[2]]",
        '["a",1]',
        "[null]",
    ),
    *(
        "{}",
        '[{"role":"user"}]',
        "[{}]",
        '[{"role":"user"},1]',
        '{"include_usage":true}',
        '{"include_usage":null}',
    ),
    *('{"include_usage":1}', '{"other":[1,{"a":2}]}', '{"include_usage":false,"include_usage":true}'),
    f'"{"m" * 256}"',
    f'"{"m" * 257}"',
)
_NAMES = (
    *("model", "prompt", "messages", "input", "suffix", "stream", "stream_options", "n", "best_of", "max_tokens"),
    *("max_completion_tokens", "n_predict", "other"),
)
_GOOD = {
    Action.COMPLETE: '"model":"m","prompt":"x"',
    Action.CHAT: '"model":"m","messages":[{}]',
    Action.EMBED: '"model":"m","input":"x"',
}


@given(
    task=st.sampled_from([Action.COMPLETE, Action.CHAT, Action.EMBED]),
    members=st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from(_FRAGMENTS)), max_size=4),
    first=st.booleans(),
)
@settings(max_examples=600, deadline=None)
def test_a_body_read_in_one_pass_is_what_it_is_field_by_field(
    task: Action, members: list[tuple[str, str]], first: bool
) -> None:
    given_members = [f'"{name}":{value}' for name, value in members]
    text = ",".join([_GOOD[task], *given_members] if first else [*given_members, _GOOD[task]])
    raw = f"{{{text}}}".encode()
    try:
        fields = _fields.decode(raw)
    except msgspec.DecodeError:  # half of a surrogate pair: no JSON text at all
        with pytest.raises(BadRequestError, match="not valid JSON"):
            decode_call(task, raw)
        return
    expected = _outcome(lambda: _examined(task, fields, len(raw)))
    assert _outcome(lambda: decode_call(task, raw)) == expected


def _outcome(decode: Callable[[], Call]) -> object:
    try:
        return decode()
    except GatewayError as error:
        return type(error), error.message, error.param
