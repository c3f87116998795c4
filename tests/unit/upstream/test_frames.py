"""Joining DATA frames changes nothing that means anything: same bytes per stream, same order of all else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.frames import FRAME_LIMIT, FrameTooLongError, join

Frame = tuple[int, int, int, bytes]
"""(type, flags, stream, payload)"""


def wire(frames: list[Frame]) -> bytes:
    return b"".join(
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
        for kind, flags, stream, payload in frames
    )


def parse(data: bytes) -> list[Frame]:
    frames = []
    while data:
        length = int.from_bytes(data[:3], "big")
        frames.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
        data = data[9 + length :]
    return frames


frame = st.one_of(
    st.tuples(st.just(0), st.sampled_from([0, 0, 0, 1, 8]), st.sampled_from([1, 3, 5]), st.binary(max_size=40)),
    st.tuples(st.sampled_from([1, 3, 4, 6, 7, 8]), st.just(4), st.sampled_from([0, 1, 3]), st.binary(max_size=10)),
)


def meaning(frames: list[Frame]) -> list[object]:
    """What a receiver understands: between two frames that are not plain DATA, each stream's bytes and end."""
    understood: list[object] = []
    data: dict[int, list[object]] = {}

    def flush() -> None:
        for _, said in sorted(data.items()):
            ends = [part for part in said if part == 1]
            understood.append([b"".join(part for part in said if isinstance(part, bytes)), *ends])
        understood.append(sorted(data))
        data.clear()

    for kind, flags, stream, payload in frames:
        if kind != 0 or flags & 8:
            flush()
            understood.append((kind, flags, stream, payload))
        else:
            data.setdefault(stream, []).extend([payload, 1] if flags & 1 else [payload])
    flush()
    return understood


@given(st.lists(frame, max_size=30))
def test_the_meaning_stays(frames: list[Frame]) -> None:
    whole, rest = join(wire(frames))
    assert rest == b""
    assert meaning(parse(whole)) == meaning(frames)


@given(st.lists(frame, max_size=12), st.lists(st.integers(0, 400), max_size=6))
def test_any_cutting_of_the_wire_gives_every_byte(frames: list[Frame], cuts: list[int]) -> None:
    data = wire(frames)
    got, rest, last = b"", b"", 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        whole, rest = join(rest + data[last:cut])
        got, last = got + whole, cut
    assert rest == b""
    bytes_of = {s: b"".join(p for k, f, t, p in parse(got) if k == 0 and not f & 8 and t == s) for s in (1, 3, 5)}
    assert bytes_of == {
        s: b"".join(p for k, f, t, p in frames if k == 0 and not f & 8 and t == s) for s in (1, 3, 5)
    }
    assert [f for f in parse(got) if f[0] or f[1] & 8] == [f for f in frames if f[0] or f[1] & 8]


def test_interleaved_tokens_become_one_frame_a_stream() -> None:
    tokens = [(0, 0, stream, b"data: x\n\n") for _ in range(20) for stream in (1, 3, 5)]
    assert parse(join(wire(tokens))[0]) == [(0, 0, stream, b"data: x\n\n" * 20) for stream in (1, 3, 5)]


def test_a_frame_of_its_own_is_the_object_that_came() -> None:
    data = wire([(0, 0, 1, b"x")])
    assert join(data)[0] is data


def test_what_comes_after_the_end_of_a_stream_is_not_hidden() -> None:
    late = [(0, 0, 1, b"a"), (0, 1, 1, b"b"), (0, 0, 1, b"late")]
    assert parse(join(wire(late))[0]) == [(0, 1, 1, b"ab"), (0, 0, 1, b"late")]


def test_no_joined_frame_is_longer_than_a_frame_may_be() -> None:
    frames = [(0, 0, 1, b"x" * 9_000)] * 5
    joined = parse(join(wire(frames))[0])
    assert max(len(payload) for *_, payload in joined) <= FRAME_LIMIT
    assert b"".join(payload for *_, payload in joined) == b"x" * 45_000


@pytest.mark.parametrize("before", [b"", wire([(0, 0, 1, b"x")])])
def test_a_frame_that_announces_too_much_is_refused_at_its_head(before: bytes) -> None:
    with pytest.raises(FrameTooLongError):
        join(before + (FRAME_LIMIT + 1).to_bytes(3, "big") + b"\0\0\0\0\0\1")
