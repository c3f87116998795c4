from __future__ import annotations

import pytest

from policies.facts import Action
from policies.lanes import LANE_NAMES, Lane, lane_named, lane_of


@pytest.mark.parametrize(
    ("action", "tools", "lane"),
    [
        (Action.COMPLETE, b"", Lane.COMPLETION),
        (Action.COMPLETE, b'[{"type":"function"}]', Lane.COMPLETION),
        (Action.CHAT, b"", Lane.CHAT),
        (Action.CHAT, b"null", Lane.CHAT),
        (Action.CHAT, b"[]", Lane.CHAT),
        (Action.CHAT, b'[{"type":"function"}]', Lane.AGENT),
        (Action.EMBED, b"", Lane.CHAT),
    ],
)
def test_lane_follows_from_the_call(action: Action, tools: bytes, lane: Lane) -> None:
    assert lane_of(action, tools) is lane


@pytest.mark.parametrize("asked", list(Lane))
@pytest.mark.parametrize("action", [Action.COMPLETE, Action.CHAT, Action.EMBED])
def test_nobody_is_raised_by_asking(action: Action, asked: Lane) -> None:
    assert lane_of(action, asked=asked) == max(lane_of(action), asked)


def test_names() -> None:
    assert LANE_NAMES == ("completion", "chat", "agent")
    assert [lane_named(name.encode()) for name in LANE_NAMES] == list(Lane)
    assert lane_named(b" Agent ") is Lane.AGENT
    for word in (b"", b"0", b"agents", b"\xff"):
        with pytest.raises(ValueError, match="must be completion, chat or agent"):
            lane_named(word)
