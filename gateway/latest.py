"""Latest keystroke wins: a newer completion of the same document takes the place of the one in flight.

Per worker: HTTP/2 keeps one connection on one worker, and an editor's completions on one connection.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final, NamedTuple

from gateway.errors import BadRequestError
from gateway.inflight import Abort, Abortable
from tenants.ids import OrgId

DOCUMENT: Final = b"x-orgate-document"
SESSION: Final = b"vscode-sessionid"
"""Which window of an editor: sent with every request by GitHub Copilot's clients."""
INTENT: Final = b"openai-intent"
"""What for, sent along with it: `copilot-ghost` as one types, `copilot-panel` for a list on demand."""

_OPAQUE = re.compile(rb"[\x21-\x7e]{1,128}")


class Place(NamedTuple):
    """What a member is typing in. Requests of two members, organizations or clients never share one.

    `client` is the token's, `version` what the program calls itself. `document` is the caller's own secret: it
    is a key in memory for as long as the request lives, and goes nowhere else.
    """

    org: OrgId
    member: str
    client: str
    version: str
    document: bytes


def document_of(document: bytes | None, session: bytes | None, intent: bytes | None) -> bytes | None:
    """What the caller is typing in, from its `x-orgate-document`, else its editor's session header.

    Raises `BadRequestError` for a document that is not 1 to 128 visible ASCII characters; a session header
    that is not is none: it was not meant for the gateway.
    """
    if document is not None:
        if _OPAQUE.fullmatch(document) is None:
            name = DOCUMENT.decode()
            raise BadRequestError(f"the header '{name}' must be 1 to 128 visible ASCII characters", param=name)
        return b"d" + document
    if session is None or _OPAQUE.fullmatch(session) is None:
        return None
    return b"s%b\0%b" % (session, intent if intent is not None and _OPAQUE.fullmatch(intent) else b"")


class Turn:
    """One request's stay in its place, from `Latest.enter` to `end`."""

    __slots__ = ("_before", "_latest", "_place", "_request", "arrived", "over")

    def __init__(
        self, latest: Latest, place: Place, request: Abortable, arrived: float, before: Turn | None
    ) -> None:
        self._latest = latest
        self._place = place
        self._request = request
        self._before = before
        self.arrived = arrived
        self.over = asyncio.Event()

    async def alone(self) -> None:
        """Wait until the one before has settled: what it held of the limits is there for this one.

        It was told to end before this is called, so it is a matter of one turn of the loop. A request that came
        too late for its place was itself told to end: it ends here.
        """
        if self._before is not None:
            await self._before.over.wait()
            self._before = None

    def supersede(self) -> None:
        self._request.abort(Abort.SUPERSEDED)

    def end(self) -> None:
        """The request has settled. Never awaits.

        It may not have waited to the end for the one before: it lets go of it, or a row of keystrokes that came
        together would be held, each by the next, for as long as they come.
        """
        self._latest.leave(self._place, self)
        self._before = None
        self.over.set()


class Latest:
    """The newest completion of each place. One loop's own; holds nothing but requests in flight."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: dict[Place, Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def enter(self, place: Place, request: Abortable, arrived: float) -> Turn:
        """Take the place of whatever is in it, which is ended at once. Every `enter` is followed by one `end`.

        `arrived`: when the request's head came, on any one clock. A keystroke whose body was slow may come here
        after the next one: then it is the one that is ended.
        """
        before = self._turns.get(place)
        turn = Turn(self, place, request, arrived, before)
        if before is not None and before.arrived > arrived:
            turn.supersede()
            return turn
        self._turns[place] = turn
        if before is not None:
            before.supersede()
        return turn

    def leave(self, place: Place, turn: Turn) -> None:
        if self._turns.get(place) is turn:
            del self._turns[place]
