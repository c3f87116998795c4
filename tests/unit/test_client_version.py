"""What a program calls itself is bounded in form, length and place, whatever it sends."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client_version import MAX_LENGTH, UNKNOWN, client_version

HEADER = st.none() | st.binary(max_size=400)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ((None, None, None, None), UNKNOWN),
        ((b"vim-orgate/1.4.2", b"copilot/1.2.3", b"vscode/1.85.1", b"curl/8.4"), "vim-orgate/1.4.2"),
        ((None, b"copilot/1.2.3", b"vscode/1.85.1", b"node"), "copilot/1.2.3"),
        ((None, None, None, b"node v22.1"), "node/v22.1"),
        ((None, None, b"JetBrains-IC/231.9011.34", b"node"), "JetBrains-IC/231.9011.34"),
        ((None, None, None, b"GithubCopilot/1.155.0"), "GithubCopilot/1.155.0"),
        ((None, None, None, b"AsyncOpenAI/Python 1.2.3"), "AsyncOpenAI/1.2.3"),
        ((None, None, None, b"Mozilla/5.0 (X11; Linux) " + b"x" * 4_000), "Mozilla/5.0"),
        ((None, None, None, b"node"), UNKNOWN),
        ((None, None, None, b""), UNKNOWN),
        ((b"two words/1", None, None, b"curl/8.4"), UNKNOWN),
        ((b'a"/1', None, None, None), UNKNOWN),
        ((b"a/1\n", None, None, None), UNKNOWN),
        ((b"a/b", None, None, None), UNKNOWN),
        ((b"a/1/c", None, None, None), UNKNOWN),
        (("é/1".encode(), None, None, None), UNKNOWN),
        ((b"n" * 62 + b"/1", None, None, None), "n" * 62 + "/1"),
        ((b"n" * 63 + b"/1", None, None, None), UNKNOWN),
        ((b"n" * 10_000, None, None, None), UNKNOWN),
    ],
)
def test_the_first_header_that_is_there_decides(headers: tuple[bytes | None, ...], said: str) -> None:
    assert client_version(*headers) == said


@given(st.tuples(HEADER, HEADER, HEADER, HEADER))
def test_nothing_else_comes_out(headers: tuple[bytes | None, bytes | None, bytes | None, bytes | None]) -> None:
    said = client_version(*headers)
    assert len(said) <= MAX_LENGTH
    assert re.fullmatch(r"unknown|[A-Za-z0-9._+-]+/v?[0-9][A-Za-z0-9._+-]*", said)
