"""Canonical JSON (RFC 8785, the subset of audit entries)."""

from __future__ import annotations

import pytest

from gateway.audit.canonical import DEPTH_MAX, INTEGER_MAX, LINE_MAX, CanonicalError, canonical, parse


def test_members_are_sorted_and_nothing_is_between_tokens() -> None:
    assert canonical({"b": 1, "@a": [True, "x"], "_c": {"z": 0, "a": ""}}) == (
        b'{"@a":[true,"x"],"_c":{"a":"","z":0},"b":1}'
    )


def test_strings_are_spelt_as_rfc_8785_section_3_2_2_2_says() -> None:
    # The example of the RFC: euro sign, $, U+000F, U+000A, A', B", \, \, ", /
    value = "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/"
    expected = '{"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    assert canonical({"string": value}).decode() == expected


def test_control_characters_have_their_short_escapes_and_others_stay() -> None:
    assert canonical({"s": "\b\t\n\f\r\x00\x1f\x7f\u2028😀"}).decode() == (
        '{"s":"\\b\\t\\n\\f\\r\\u0000\\u001f\x7f\u2028😀"}'
    )


def test_what_was_written_reads_back() -> None:
    value = {"a": "ü", "n": INTEGER_MAX, "o": {"l": ["x", 1, False]}}
    assert parse(canonical(value)) == value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"f": 1.0}, "float"),
        ({"n": None}, "NoneType"),
        ({"n": INTEGER_MAX + 1}, "2^53"),
        ({"n": -INTEGER_MAX - 1}, "2^53"),
        ({"ü": 1}, "name of a member"),
        ({1: 1}, "name of a member"),
        ({"": 1}, "name of a member"),
        ({"s": "\ud800"}, "surrogate"),
    ],
)
def test_values_without_one_spelling_are_refused(value: dict[str, object], says: str) -> None:
    with pytest.raises(CanonicalError) as caught:
        canonical(value)
    assert says in str(caught.value)


def test_nesting_is_bounded() -> None:
    value: dict[str, object] = {}
    for _ in range(DEPTH_MAX):
        value = {"a": value}
    with pytest.raises(CanonicalError, match="nested"):
        canonical(value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a":1,"a":1}', "twice"),
        (b'{"a":{"b":1,"b":2}}', "twice"),
        (b'{"a":1.0}', "not an integer"),
        (b'{"a":NaN}', "not an integer"),
        (b'{"a":null}', "NoneType"),
        (b'{"a": 1}', "canonical form"),
        (b'{"b":1,"a":1}', "canonical form"),
        (b'{"a":"\\u0061"}', "canonical form"),
        (b'{"a":"\\/"}', "canonical form"),
        (b'{"a":-0}', "canonical form"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":1}\r', "canonical form"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b"", "not JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "digits"),
        (b"[" * 60_000, "recursion"),
        (b'{"a":"' + b"x" * LINE_MAX + b'"}', "more than"),
    ],
)
def test_a_line_that_is_spelt_otherwise_is_refused(line: bytes, says: str) -> None:
    with pytest.raises(CanonicalError) as caught:
        parse(line)
    assert says in str(caught.value)
