"""Which lane a call waits in when its upstream is full: the keystroke before the question before the errand.

A pure function of what the call is. A caller may ask for a lower lane than its own, never for a higher one.
"""

from __future__ import annotations

from enum import IntEnum

from policies.facts import Action


class Lane(IntEnum):
    """Lower goes first. A person waits for a completion between two keystrokes, and for a chat's answer at the
    screen; an agent works on its own, with many calls in a row."""

    COMPLETION = 0
    CHAT = 1
    AGENT = 2


LANE_NAMES = tuple(lane.name.lower() for lane in Lane)
"""As `x-orgate-lane` and the metrics spell them."""

_NAMED = {name.encode(): Lane(number) for number, name in enumerate(LANE_NAMES)}
_NO_TOOLS = frozenset((b"", b"null", b"[]"))


def lane_named(name: bytes) -> Lane:
    """The lane that a caller asks for. Raises `ValueError` for any other word."""
    lane = _NAMED.get(name.strip().lower())
    if lane is None:
        raise ValueError("must be " + ", ".join(LANE_NAMES[:-1]) + " or " + LANE_NAMES[-1])
    return lane


def lane_of(action: Action, tools: bytes = b"", asked: Lane = Lane.COMPLETION) -> Lane:
    """`tools`: the raw JSON of the body's member of that name. A chat that gives the model tools is an agent's;
    embeddings go with chat: they are made in bulk, and nobody's cursor waits for one."""
    if action is Action.COMPLETE:
        own = Lane.COMPLETION
    elif action is Action.CHAT and tools not in _NO_TOOLS:
        own = Lane.AGENT
    else:
        own = Lane.CHAT
    return max(own, asked)
