from __future__ import annotations

import pytest

from policies.holds import Hold, HoldError, hold_ms, parse


def test_a_hold_is_a_pattern_and_milliseconds() -> None:
    assert parse("copilot.vim/1.4.*=3") == Hold("copilot.vim/1.4.*", 3)


@pytest.mark.parametrize(
    "text", ["", "vim", "vim=", "=3", "vim=0", "vim=51", "vim=-1", "vim=3ms", "vi m=3", "v\n=3"]
)
def test_what_is_no_hold_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(HoldError, match="PATTERN=MS"):
        parse(text)


def test_the_first_pattern_that_matches_decides() -> None:
    holds = ("vim/1.4.*=3", "vim/*=1")
    assert hold_ms(holds, "vim/1.4.2") == 3
    assert hold_ms(holds, "vim/1.5.0") == 1
    assert hold_ms(holds, "emacs/30") == 0
    assert hold_ms((), "vim/1.4.2") == 0
