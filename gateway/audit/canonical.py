"""Canonical JSON: the subset of RFC 8785 that audit entries use. Standard library only.

Objects, arrays, strings, booleans and integers that fit a double exactly (RFC 7493 section 2.2); no floats,
no null. Members are sorted, nothing is between tokens. Keys are ASCII, so that sorting by code point is
sorting by UTF-16 code unit. One value has one spelling: `canonical(parse(line)) == line` or it is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NoReturn

LINE_MAX = 65_535
"""Bytes. An entry bundle of C2SP tlog-tiles has 16 bits for it."""
INTEGER_MAX = 2**53 - 1
DEPTH_MAX = 4

_KEY = re.compile(r"[@A-Za-z0-9_.-]{1,64}")


class CanonicalError(ValueError):
    """Not canonical JSON. The message says what is wrong, never a value."""


def canonical(value: Mapping[str, object]) -> bytes:
    """The one spelling of `value`, without a newline. Raises `CanonicalError`."""
    _check(value, DEPTH_MAX)
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise CanonicalError("a string holds half of a surrogate pair") from None


def parse(line: bytes) -> dict[str, object]:
    """Read one line (without its newline) and insist that it is spelt canonically. Raises `CanonicalError`."""
    if len(line) > LINE_MAX:
        raise CanonicalError(f"the line has {len(line)} bytes, more than {LINE_MAX}")
    try:
        value = _DECODER.decode(line.decode())
    except UnicodeDecodeError:
        raise CanonicalError("the line is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise CanonicalError(f"the line is not JSON ({error.msg} at character {error.pos})") from None
    except (ValueError, RecursionError) as error:
        raise CanonicalError(str(error)) from None
    if not isinstance(value, dict):
        raise CanonicalError("the line is not a JSON object")
    if canonical(value) != line:
        raise CanonicalError("the line is JSON, but not in its canonical form (order, spaces or escapes)")
    return value


def _check(value: object, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool:
        return
    if kind is int:
        if not -INTEGER_MAX <= value <= INTEGER_MAX:  # type: ignore[operator]  # `kind` says it is an int
            raise CanonicalError("an integer is beyond 2^53 - 1")
        return
    if depth == 0:
        raise CanonicalError(f"nested deeper than {DEPTH_MAX}")
    if isinstance(value, Mapping):
        for key, member in value.items():
            if not (type(key) is str and _KEY.fullmatch(key)):
                raise CanonicalError("the name of a member is not made of letters, digits and @ _ . -")
            _check(member, depth - 1)
    elif isinstance(value, list | tuple):
        for member in value:
            _check(member, depth - 1)
    else:
        raise CanonicalError(f"a value is {kind.__name__}, not a string, integer, boolean, array or object")


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CanonicalError("a member appears twice in one object")
    return found


def _number(text: str) -> NoReturn:
    raise CanonicalError("a number is not an integer")


_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_number, parse_constant=_number)
