from __future__ import annotations

from pathlib import Path

import pytest

from gateway.limits import tokenizer
from gateway.limits.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def ready() -> Tokenizer:
    counting = Tokenizer()
    assert counting.count("hello") is None
    reading = counting.begin()
    assert counting.begin() is reading
    reading.join(timeout=30)
    return counting


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("hello world", 2),
        ("def f(x):\n    return x + 1\n", 11),
        ("<|endoftext|>", 7),
        ("漢字", 3),
        ("a\ud800b", 3),
    ],
)
def test_it_counts_as_openais_own(ready: Tokenizer, text: str, tokens: int) -> None:
    assert ready.count(text) == tokens


def test_a_vocabulary_that_is_damaged_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tokenizer, "DIGEST", "0" * 64)
    counting = Tokenizer()
    counting.begin().join(timeout=30)
    assert counting.count("hello") is None
    assert "cannot be read" in caplog.text
