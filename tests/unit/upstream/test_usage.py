"""Usage is read from a stream however it is cut, and what the caller did not ask for is taken out."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import Usage
from gateway.upstream.usage import CARRY_LIMIT, MAX_TOKENS, UsageTap, around_text, text_of_answer, usage_of_answer


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


TOKEN = event(id="c", choices=[{"index": 0, "text": "x"}])
NULL = event(id="c", choices=[{"index": 0, "text": "x"}], usage=None)
LAST = event(id="c", choices=[], usage={"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15})
DONE = b"data: [DONE]\n\n"


def run(pieces: list[bytes], *, keep: bool) -> tuple[bytes, UsageTap]:
    tap = UsageTap(keep=keep)
    out = b"".join(tap.feed(piece) for piece in pieces)
    return out + tap.end(), tap


@given(st.lists(st.integers(min_value=1, max_value=300), max_size=8), st.booleans())
def test_any_cutting_gives_the_same_answer(cuts: list[int], keep: bool) -> None:
    whole = TOKEN + NULL + TOKEN + LAST + DONE
    places = sorted({cut % len(whole) for cut in cuts} | {0, len(whole)})
    pieces = [whole[a:b] for a, b in pairwise(places)]
    out, tap = run(pieces, keep=keep)
    assert tap.usage == Usage(12, 3, counted=False)
    assert out == (whole if keep else TOKEN * 3 + DONE)
    assert tap.events == 5


def test_whole_events_pass_as_the_same_object() -> None:
    tap = UsageTap(keep=False)
    assert tap.feed(TOKEN) is TOKEN


def test_a_partial_event_waits_for_its_rest() -> None:
    tap = UsageTap(keep=False)
    assert tap.feed(TOKEN[:-1]) == b""
    assert tap.feed(TOKEN[-1:]) == TOKEN


def test_usage_beside_choices_loses_only_the_usage() -> None:
    out, tap = run(
        [event(id="c", choices=[{"text": "x"}], usage={"prompt_tokens": 1, "completion_tokens": 2})], keep=False
    )
    assert json.loads(out.removeprefix(b"data: ")) == {"id": "c", "choices": [{"text": "x"}]}
    assert tap.usage == Usage(1, 2, counted=False)


def test_the_word_in_code_is_not_usage() -> None:
    code = event(choices=[{"text": 'x = {"usage": {"prompt_tokens": 99}}'}])
    out, tap = run([code], keep=False)
    assert out == code
    assert tap.usage is None


def test_carriage_returns_separate_events_too() -> None:
    out, tap = run([LAST.replace(b"\n", b"\r\n"), DONE.replace(b"\n", b"\r\n")], keep=False)
    assert tap.usage == Usage(12, 3, counted=False)
    assert out == DONE.replace(b"\n", b"\r\n")


def test_garbage_with_the_word_passes_unharmed() -> None:
    garbage = b'data: {"usage" oops\n\n: "usage" in a comment\n\n'
    assert run([garbage], keep=False)[0] == garbage


def test_an_endless_event_is_passed_on_in_pieces() -> None:
    tap = UsageTap(keep=False)
    assert len(tap.feed(b"data: " + b"x" * CARRY_LIMIT)) == CARRY_LIMIT + 6


def test_an_unfinished_last_event_is_not_lost() -> None:
    assert run([b"data: half"], keep=False)[0].startswith(b"data: half")


def test_usage_of_a_whole_answer() -> None:
    assert usage_of_answer(b'{"usage":{"prompt_tokens":5,"total_tokens":5}}') == Usage(5, 0, counted=False)
    assert usage_of_answer(b'{"data":[]}') is None
    with pytest.raises(msgspec.DecodeError):
        usage_of_answer(b"<html>")


@pytest.mark.parametrize("usage", [{}, {"input_tokens": 5, "output_tokens": 9}, {"total_tokens": 14}])
def test_usage_in_another_shape_is_not_usage_of_nothing(usage: dict[str, int]) -> None:
    assert usage_of_answer(json.dumps({"usage": usage}).encode()) is None
    _, tap = run([TOKEN, event(choices=[], usage=usage), DONE], keep=False)
    assert tap.usage is None


@pytest.mark.parametrize("figure", [-1, MAX_TOKENS + 1, 10**30])
@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens"])
def test_a_figure_that_cannot_be_is_as_good_as_none(field: str, figure: int) -> None:
    """Settled as it is, it would refill the caller's bucket, or fail and leave the request without an entry."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, field: figure}
    assert usage_of_answer(json.dumps({"usage": usage}).encode()) is None
    _, tap = run([TOKEN, event(choices=[], usage=usage), DONE], keep=False)
    assert tap.usage is None
    _, tap = run([TOKEN, LAST, event(choices=[], usage=usage), DONE], keep=False)
    assert tap.usage == Usage(12, 3, counted=False)


def test_an_event_without_end_is_searched_once() -> None:
    """By a stand-in that counts the bytes that searches may look at: a peer might send single ones."""
    looked = 0

    class Watched(bytearray):
        def rfind(self, separator: Any, start: Any = 0, end: Any = None) -> int:
            nonlocal looked
            looked += len(self) - start
            return super().rfind(separator, start, end)

    tap = UsageTap(keep=False)
    tap._carry = Watched()
    assert tap.feed(b"data: " + b"a" * 100_000) == b""
    looked = 0
    for _ in range(100):
        assert tap.feed(b"a") == b""
    assert 0 < looked <= 100 * 2 * 4
    assert tap.feed(b"\n") == b""
    assert tap.feed(b"\n") == b"data: " + b"a" * 100_100 + b"\n\n"
    assert tap.events == 1


@pytest.mark.parametrize("separator", [b"\n\n", b"\r\n\r\n"])
def test_a_separator_cut_anywhere_is_found(separator: bytes) -> None:
    whole = b"data: one" + separator + b"data: two" + separator
    for at in range(1, len(whole)):
        tap = UsageTap(keep=False)
        out = tap.feed(whole[:at]) + tap.feed(whole[at:])
        assert (out, tap.events, tap.end()) == (whole, 2, b"")
    tap = UsageTap(keep=False)
    assert b"".join(tap.feed(whole[at : at + 1]) for at in range(len(whole))) == whole
    assert tap.events == 2


def test_an_event_beyond_the_limit_passes_unseen_and_is_forgotten() -> None:
    tap = UsageTap(keep=False)
    assert tap.feed(b"data: ") == b""
    assert len(tap.feed(b"x" * CARRY_LIMIT)) == CARRY_LIMIT + 6
    assert tap.end() == b""


def test_the_text_of_an_answer_is_what_its_choices_say() -> None:
    whole = {"id": "x" * 999, "choices": [{"message": {"role": "assistant", "content": "héllo"}}, {"text": "ab"}]}
    assert text_of_answer(json.dumps(whole).encode()) == len("assistant") + 6 + 2
    for body in (b'{"data":[0.1,0.2]}', b'{"choices":' + b"[" * 3_000 + b"]" * 3_000 + b"}"):
        assert text_of_answer(body) == len(body)


def test_an_answer_is_not_read_whole_again_when_that_would_take_many_times_its_memory() -> None:
    body = b'{"choices":[' + b",".join([b'"a"'] * 100_000) + b"]}"
    tracemalloc.start()
    try:
        assert text_of_answer(body) == len(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000


@pytest.mark.parametrize("separator", [b"\n\n", b"\r\n\r\n"])
def test_what_is_around_the_text_is_measured_in_the_events_of_one_piece(separator: bytes) -> None:
    one = TOKEN.removesuffix(b"\n\n") + separator
    empty = len(one) - 1
    assert around_text(one) == (empty, 1)
    assert around_text(one * 3 + b"data: [DONE]" + separator) == (3 * empty, 3)
    assert around_text(one + one[:20]) == (empty, 1)
    assert around_text(b": a comment" + separator) == (0, 0)
    assert around_text(b"") == (0, 0)
