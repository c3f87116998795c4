"""Ways to spoil bytes: by accident (flips, cuts), by hand (lines moved), and the same said in other bytes.

Each takes a source of randomness and bytes, and may give back what it got when it finds nothing to spoil.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

Spoil = Callable[[random.Random, bytes], bytes]


def flip_bit(rng: random.Random, data: bytes) -> bytes:
    return _at(rng, data, lambda byte: byte ^ 1 << rng.randrange(8))


def change_digit(rng: random.Random, data: bytes) -> bytes:
    return _sub(rng, rb"[0-9]", data, lambda _: b"%d" % rng.randrange(10))


def insert_byte(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes([rng.randrange(256)]) + data[at:]


def delete_bytes(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.randint(1, 40) :]


def swap_bytes(rng: random.Random, data: bytes) -> bytes:
    spoiled = bytearray(data)
    if data:
        a, b = rng.randrange(len(data)), rng.randrange(len(data))
        spoiled[a], spoiled[b] = spoiled[b], spoiled[a]
    return bytes(spoiled)


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def append_bytes(rng: random.Random, data: bytes) -> bytes:
    return data + rng.choice(
        (b"\n", b" ", b"\0", b"\r\n", b"{}\n", b"\xef\xbb\xbf", rng.randbytes(rng.randint(1, 20)))
    )


def prepend_mark(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"\n")) + data


def delete_line(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if lines:
        del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def insert_line(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    lines.insert(
        rng.randrange(len(lines) + 1), rng.choice((b"\n", b"{}\n", b'{"index":1,"org":"acme","schema":1}\n'))
    )
    return b"".join(lines)


def duplicate_line(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if lines:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return b"".join(lines)


def swap_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if lines:
        a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def end_lines_otherwise(rng: random.Random, data: bytes) -> bytes:
    return data.replace(
        b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\x85", b"\xe2\x80\xa8")), rng.choice((1, -1))
    )


# -- the same, in other bytes ----------------------------------------------------------------------------------


def reorder_members(rng: random.Random, data: bytes) -> bytes:
    """Two neighbouring members of one object change places."""
    member = rb'("[^"\\]*":(?:"[^"\\]*"|-?[0-9]+|true|false))'
    return _sub(rng, member + b"," + member, data, lambda found: found[2] + b"," + found[1])


def repeat_member(rng: random.Random, data: bytes) -> bytes:
    """One name twice: some readers take the first, others the last."""
    return _sub(
        rng, rb'("[^"\\]*":)(-?[0-9]+|true|false)', data, lambda m: m[0] + b"," + m[1] + rng.choice((m[2], b"7"))
    )


def space_out(rng: random.Random, data: bytes) -> bytes:
    return _sub(rng, rb"[,:{}\[\]]", data, lambda m: m[0] + rng.choice((b" ", b"\t", b"\r")))


def spell_number(rng: random.Random, data: bytes) -> bytes:
    forms = (
        b"%s.0",
        b"%se0",
        b"%sE+0",
        b"%s0e-1",
        b"0%s",
        b"+%s",
        b"0x%s",
        b"%sn",
        b" %s",
        b"-0",
        b"1e999",
        b"NaN",
    )
    return _sub(rng, rb"(?<=:)-?[0-9]+(?=[,}])", data, lambda m: _fill(rng.choice(forms), m[0]))


def escape_character(rng: random.Random, data: bytes) -> bytes:
    """A character that stands for itself is written as an escape."""
    upper, lower = b"\\u%04X", b"\\u%04x"
    return _sub(rng, rb'(?<=[a-z:"])[a-z/](?=[a-z"])', data, lambda m: rng.choice((upper, lower)) % m[0][0])


def escape_otherwise(rng: random.Random, data: bytes) -> bytes:
    """An escape in another of its forms: in upper case, long for short."""
    long = {b'\\"': b"\\u0022", b"\\\\": b"\\u005c", b"\\n": b"\\u000a", b"\\t": b"\\u0009", b"\\b": b"\\u0008"}
    return _sub(
        rng, rb'\\(?:u[0-9a-f]{4}|["\\nt])', data, lambda m: long.get(m[0], m[0].upper().replace(b"\\U", b"\\u"))
    )


def spell_utf8(rng: random.Random, data: bytes) -> bytes:
    """Over-long forms, halves of surrogate pairs, escaped and as bytes; all refused by RFC 3629."""
    odd = (
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\\ud800",
        b"\\udc00\\ud800",
        b"\xc3",
    )
    return _sub(rng, rb'(?<=")[a-z](?=[a-z])', data, lambda _: rng.choice(odd))


def other_value(rng: random.Random, data: bytes) -> bytes:
    """What JSON knows and entries do not have, at the edges of what is allowed, or nested."""
    integers = (b"9007199254740991", b"9007199254740992", b"-9007199254740993", b"1" * 30, b'"1"')
    nested = (b"[]", b"{}", b"[[[1]]]", b"[[[[1]]]]", b'{"a":{"b":{"c":1}}}', b"[1,]")
    values = (*integers, *nested, b"null", b"true", b'{"":1}', b'{"a b":1}', b'"\x7f"', b'"\xc2\x85"')
    return _sub(rng, rb'(?<=:)(?:-?[0-9]+|true|false|"[a-z]+")(?=[,}])', data, lambda _: rng.choice(values))


def upper_hex(rng: random.Random, data: bytes) -> bytes:
    return _sub(rng, rb"[0-9a-f]{8,64}", data, lambda m: m[0].upper())


def spell_base64(rng: random.Random, data: bytes) -> bytes:
    """The same bytes to a lenient decoder: other padding bits, none, white space, the URL's alphabet."""

    def again(found: re.Match[bytes]) -> bytes:
        text, pad = found[1], found[2]
        last = _ALPHABET.index(text[-1:])
        bits = {0: 0, 1: 2, 2: 4}[len(pad)]
        forms = [text, text + pad + b"=", text[:9] + b" " + text[9:] + pad, text[:9] + b"\n" + text[9:] + pad]
        forms += [text.translate(_URL) + pad, text + pad.replace(b"=", b"%3D")]
        if bits:
            other = last ^ rng.randrange(1, 1 << bits)
            forms.append(text[:-1] + _ALPHABET[other : other + 1] + pad)
        return rng.choice(forms)

    return _sub(rng, rb"([A-Za-z0-9+/]{40,})(={0,2})(?=\n|$)", data, again)


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URL = bytes.maketrans(b"+/", b"-_")

ACCIDENTS: Sequence[Spoil] = (flip_bit, change_digit, insert_byte, delete_bytes, swap_bytes)
LINES: Sequence[Spoil] = (delete_line, insert_line, duplicate_line, swap_lines, end_lines_otherwise)
ANY: Sequence[Spoil] = (*ACCIDENTS, *LINES, truncate, append_bytes, prepend_mark)
SPELLINGS: Sequence[Spoil] = (
    reorder_members,
    repeat_member,
    space_out,
    spell_number,
    escape_character,
    escape_otherwise,
    spell_utf8,
)
"""For lines of JSON: what they leave is no canonical line."""
JSON: Sequence[Spoil] = (*SPELLINGS, other_value, upper_hex)
NOTES: Sequence[Spoil] = (spell_base64, upper_hex)


def _at(rng: random.Random, data: bytes, change: Callable[[int], int]) -> bytes:
    spoiled = bytearray(data)
    if data:
        place = rng.randrange(len(data))
        spoiled[place] = change(spoiled[place])
    return bytes(spoiled)


def _sub(rng: random.Random, pattern: bytes, data: bytes, change: Callable[[re.Match[bytes]], bytes]) -> bytes:
    found = list(re.finditer(pattern, data))
    if not found:
        return data
    one = rng.choice(found)
    return data[: one.start()] + change(one) + data[one.end() :]


def _fill(form: bytes, number: bytes) -> bytes:
    return form % number if b"%s" in form else form
