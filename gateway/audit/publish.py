"""Publishing checkpoints where others keep them: whoever has an old one can tell whether the log begins so still.

Weaker than witnesses, who look before they sign, and cheaper: a file on another machine's disk, a git repository,
a message. Each place gets an organization's newest checkpoint at most once in an interval, and only when it is
another than the last one there. What fails is tried again with growing pauses; nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from gateway.audit.disk import Disk, replace_file
from gateway.audit.note import parse_checkpoint, split_note
from tenants.ids import OrgId

log = logging.getLogger("orgate.publish")

LOOK_S: Final = 5.0
PAUSES_S: Final = (10.0, 60.0, 300.0, 1_800.0)
"""After the first failure of a place, the second, …; the last one repeats."""


class Publication(Struct, frozen=True):
    """One checkpoint: `checkpoint` is the whole note, `at` when it was published (Unix seconds)."""

    at: int
    org: OrgId
    origin: str
    size: int
    checkpoint: str


class PublishError(Exception):
    """It is not there; says why, in words for the operator."""


class Place(Protocol):
    """Somewhere to publish. `name` is a label of metrics: from a fixed set."""

    name: str

    async def put(self, items: Sequence[Publication]) -> Sequence[OrgId]:
        """Those that are there when it returns, or need not be. Raises `PublishError` for none. Is repeated."""


class Last(Struct, frozen=True):
    """What was published last: when (Unix seconds), and of how many entries."""

    at: int
    size: int


class _State:
    """What a place has, and when it is tried again."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.last: dict[str, Last] = {}
        self.failed = 0
        self.until = 0.0


class Publishing:
    """`await run()` beside the servers. `newest`: a log's checkpoint to be published, '' for none. `book`: a file
    that remembers what was published; when it is lost, each place gets the newest once more.

    `clock`: Unix seconds. `count` is told of each attempt: the place's name, and `done` or `failed`.
    """

    def __init__(
        self,
        places: Sequence[Place],
        orgs: Callable[[], Sequence[OrgId]],
        newest: Callable[[OrgId], Awaitable[str]],
        book: Path,
        *,
        every_s: int,
        clock: Callable[[], float],
        count: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._states = [_State(place) for place in places]
        self._orgs, self._newest = orgs, newest
        self._book = book
        self._every_s = every_s
        self._clock = clock
        self._count = count
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Publish until cancelled."""
        self._read_book()
        await asyncio.gather(*map(self._keep_on, self._states))

    async def _keep_on(self, state: _State) -> None:
        """Each place by itself: one that is slow keeps none of the others waiting."""
        while True:
            await self._serve(state)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Publish once what is due, everywhere."""
        await asyncio.gather(*map(self._serve, self._states))

    async def _serve(self, state: _State) -> None:
        now = self._clock()
        due = await self._due(state, now) if now >= state.until else []
        if not due:
            return
        name = state.place.name
        try:
            done = set(await state.place.put(due))
        except PublishError as error:
            log.warning("checkpoints are not published (%s): %s", name, error)
            done = set()
        for item in due:
            self._count(name, "done" if item.org in done else "failed")
            if item.org in done:
                state.last[item.org] = Last(item.at, item.size)
        if len(done) < len(due):
            state.until = now + PAUSES_S[min(state.failed, len(PAUSES_S) - 1)]
            state.failed += 1
        else:
            state.failed = 0
        if done:
            await self._write_book()

    async def _due(self, state: _State, now: float) -> list[Publication]:
        found = []
        for org in self._orgs():
            last = state.last.get(org, Last(0, 0))
            note = await self._newest(org) if last.at + self._every_s <= now or last.at > now else ""
            if not note:
                continue
            head = parse_checkpoint(split_note(note)[0])
            if head.size != last.size:
                found.append(Publication(int(now), org, head.origin, head.size, note))
        return found

    def _read_book(self) -> None:
        with suppress(OSError, msgspec.DecodeError):
            kept: Mapping[str, dict[str, Last]] = msgspec.json.decode(
                self._book.read_bytes(), type=dict[str, dict[str, Last]]
            )
            for state in self._states:
                state.last = kept.get(state.place.name, {})

    async def _write_book(self) -> None:
        async with self._writing:
            data = msgspec.json.encode({state.place.name: state.last for state in self._states})
            try:
                await asyncio.to_thread(replace_file, self._book, data, Disk())
            except OSError as error:
                log.warning("%s cannot be written: %s", self._book, error.strerror)
