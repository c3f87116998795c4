"""The line before an upstream that is full: who waits, who goes next, and how long it may take. No I/O, no clock.

The order of turns:

1. the lowest lane goes first (`policies.lanes`);
2. at the latest every `STRIDE`th turn goes to a lower-ranking lane in which somebody waits who can be served:
   to the one whose next has waited longest. So a lane gets 1/STRIDE of the turns however busy those before it;
3. inside a lane organizations take turns, each one request;
4. inside an organization the one who came first goes first.

Who cannot be served yet (no stream free on its own connections) is passed over and keeps its place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from typing import Generic, TypeVar

from policies.lanes import Lane

F = TypeVar("F")

LANES = len(Lane)
STRIDE = 8

RETRY_MIN_S = 1
RETRY_MAX_S = 30
MEMORY_S = 10.0
"""`Pace` looks back this far, then forgets by halves."""


class Place(Generic[F]):
    """One request's place in line. `flow`: what must be ready for it, its connections; turns go round by `org`."""

    __slots__ = ("flow", "lane", "number", "org")

    def __init__(self, lane: int, org: str, flow: F) -> None:
        self.lane = lane
        self.org = org
        self.flow = flow
        self.number = 0
        """In order of arrival in its line; 0: not in line."""

    @property
    def gone(self) -> bool:
        """Given up, though it has not left the line yet: it is passed over."""
        return False


class Line(Generic[F]):
    """Places in line, by lane, organization and flow. Joining and leaving cost the same however many wait."""

    def __init__(self) -> None:
        self._lanes: list[OrderedDict[str, dict[F, OrderedDict[Place[F], None]]]] = [
            OrderedDict() for _ in range(LANES)
        ]
        self._counts: dict[tuple[int, str], int] = {}
        self._flows: dict[F, int] = {}
        self._last = 0
        self._passed = 0
        """Turns in a row that were given while somebody waited in a lower-ranking lane."""
        self.waiting = 0

    def count(self, lane: int, org: str) -> int:
        """How many of `org` wait in `lane`."""
        return self._counts.get((lane, org), 0)

    def of_flow(self, flow: F) -> int:
        return self._flows.get(flow, 0)

    def ahead(self, lane: int) -> int:
        """How many wait in `lane` and in those before it."""
        return sum(count for (other, _), count in self._counts.items() if other <= lane)

    def places(self, flow: F) -> list[Place[F]]:
        """Everybody who waits for `flow`."""
        return [place for lane in self._lanes for flows in lane.values() for place in flows.get(flow, ())]

    def join(self, place: Place[F]) -> None:
        self._last += 1
        place.number = self._last
        self._lanes[place.lane].setdefault(place.org, {}).setdefault(place.flow, OrderedDict())[place] = None
        key = (place.lane, place.org)
        self._counts[key] = self._counts.get(key, 0) + 1
        self._flows[place.flow] = self._flows.get(place.flow, 0) + 1
        self.waiting += 1

    def leave(self, place: Place[F]) -> None:
        """Give the place up, at any moment. Does nothing when it is no longer in line."""
        if not place.number:
            return
        place.number = 0
        lane = self._lanes[place.lane]
        flows = lane[place.org]
        places = flows[place.flow]
        del places[place]
        if not places:
            del flows[place.flow]
            if not flows:
                del lane[place.org]  # and comes in last when it comes again
        self.waiting -= 1
        key = (place.lane, place.org)
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
        self._flows[place.flow] -= 1
        if not self._flows[place.flow]:
            del self._flows[place.flow]

    def next(self, ready: Callable[[F], bool]) -> Place[F] | None:
        """Whose turn it is, out of the line from now on; None when nobody in it can be served."""
        chosen: Place[F] | None = None
        lowered: Place[F] | None = None
        for lane in range(LANES):
            head = self._head(lane, ready)
            if head is None:
                continue
            if chosen is None:
                chosen = head
                if self._passed < STRIDE - 1:
                    break
            elif lowered is None or head.number < lowered.number:
                lowered = head
        if chosen is None:
            return None
        if lowered is not None:
            chosen, self._passed = lowered, 0
        elif any(self._lanes[chosen.lane + 1 :]):
            self._passed = min(self._passed + 1, STRIDE - 1)
        else:
            self._passed = 0
        self.leave(chosen)
        orgs = self._lanes[chosen.lane]
        if chosen.org in orgs:
            orgs.move_to_end(chosen.org)
        return chosen

    def _head(self, lane: int, ready: Callable[[F], bool]) -> Place[F] | None:
        for flows in self._lanes[lane].values():
            best: Place[F] | None = None
            for flow, places in flows.items():
                head = next((place for place in places if not place.gone), None)
                if head is not None and (best is None or head.number < best.number) and ready(flow):
                    best = head
            if best is not None:
                return best
        return None


class Pace:
    """How fast a line moves, for an honest `Retry-After`. Times: seconds on any one clock."""

    def __init__(self) -> None:
        self._since = 0.0
        self._turns = 0.0

    def begin(self, now: float) -> None:
        """Somebody waits where nobody did. What was measured shortly before still holds."""
        if now - self._since > 2 * MEMORY_S:
            self._since, self._turns = now, 0.0

    def turn(self, now: float) -> None:
        """Somebody's turn has come."""
        self._turns += 1
        passed = now - self._since
        if passed > MEMORY_S:
            self._turns /= 2
            self._since = now - passed / 2

    def retry_after_s(self, ahead: int, now: float) -> int:
        """Seconds until as many turns as `ahead` will have come, 1 to 30. None has come yet: as long again as
        the line has stood."""
        passed = max(now - self._since, 0.001)
        estimate = (ahead + 1) * passed / self._turns if self._turns else passed
        return min(max(ceil(estimate), RETRY_MIN_S), RETRY_MAX_S)
