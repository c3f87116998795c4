"""The caller's own deadline: both headers, whatever bytes they hold."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.deadline import timeout_s
from gateway.errors import BadRequestError

UNITS = {"H": 3_600.0, "M": 60.0, "S": 1.0, "m": 0.001, "u": 0.000001, "n": 0.000000001}


def test_without_a_header_there_is_none() -> None:
    assert timeout_s(None, None) is None


@given(st.integers(1, 9_999_999_999))
def test_milliseconds(number: int) -> None:
    assert timeout_s(b"%d" % number, None) == pytest.approx(number / 1000)


@given(st.integers(1, 99_999_999), st.sampled_from(sorted(UNITS)), st.integers(0, 7))
def test_every_grpc_timeout_is_read(number: int, unit: str, zeros: int) -> None:
    text = f"{'0' * zeros}{number}"[-8:]
    if int(text):
        assert timeout_s(None, (text + unit).encode()) == pytest.approx(int(text) * UNITS[unit])


@given(st.binary(max_size=12) | st.from_regex(rb"[0-9]{0,10}[HMSmunhs]?", fullmatch=True))
@example(b"")
@example(b"0S")
@example(b"00000000n")
@example(b"123456789S")
@example(b"5s")
@example(b"5 S")
@example(b"1.5S")
@example(b"-1S")
@example(b"5S\n")
@example("٥S".encode())
def test_whatever_is_no_grpc_timeout_is_refused(text: bytes) -> None:
    good = re.fullmatch(rb"[0-9]{1,8}[HMSmun]", text) is not None and text.strip(b"0HMSmun") != b""
    if good:
        assert timeout_s(None, text)
        return
    with pytest.raises(BadRequestError, match="'grpc-timeout' must be") as caught:
        timeout_s(None, text)
    assert caught.value.param == "grpc-timeout"


@pytest.mark.parametrize(
    "text", [b"", b"0", b"000", b"-5", b"+5", b"1.5", b"5ms", b" 5", b"5\n", b"1" * 11, b"\xd9\xa5"]
)
def test_whatever_is_no_number_of_milliseconds_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequestError, match="'x-request-timeout-ms' must be") as caught:
        timeout_s(text, b"5S")
    assert caught.value.param == "x-request-timeout-ms"


def test_of_both_the_shorter_counts() -> None:
    assert timeout_s(b"1500", b"1S") == 1.0
    assert timeout_s(b"900", b"1S") == 0.9
    with pytest.raises(BadRequestError, match="grpc-timeout"):
        timeout_s(b"900", b"soon")
