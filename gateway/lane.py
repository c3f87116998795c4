"""Which lane a request waits in when its upstream is full: what the call is, and `x-orgate-lane`."""

from __future__ import annotations

from typing import Final

from gateway.errors import BadRequestError
from gateway.exchange import Call
from policies.lanes import Lane, lane_named, lane_of

LANE: Final = b"x-orgate-lane"


def lane_asked(value: bytes | None) -> Lane:
    """The lane that a caller asks for; the highest when it asks for none. Raises `BadRequestError`."""
    if value is None:
        return Lane.COMPLETION
    try:
        return lane_named(value)
    except ValueError as error:
        name = LANE.decode()
        raise BadRequestError(f"the header '{name}' {error}", param=name) from None


def lane_of_call(call: Call, asked: Lane) -> Lane:
    """Never a higher one than the call's own: asking only lowers."""
    tools = call.fields.get("tools")
    return lane_of(call.task, b"" if tools is None else bytes(tools), asked)
