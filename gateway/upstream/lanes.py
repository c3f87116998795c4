"""The line before an upstream that is full: who waits, who goes next, and how long it may take. No I/O, no clock.

The order of turns:

1. the lowest lane goes first (`policies.lanes`);
2. at the latest every `STRIDE`th turn goes to a lower-ranking lane in which somebody waits who can be served:
   to the one whose next has waited longest. So a lane gets 1/STRIDE of the turns however busy those before it;
3. inside a lane organizations take turns, each one request; one of twice the weight has twice the turns;
4. inside an organization the one who came first goes first.

Who cannot be served yet (no stream free on its own connections) is passed over and keeps its place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
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
    """One request's place in line. `flow`: what must be ready for it, its connections; turns go round by `org`, to
    each as often as its `weight` beside the others'."""

    __slots__ = ("flow", "lane", "number", "org", "weight")

    def __init__(self, lane: int, org: str, flow: F, weight: int = 1) -> None:
        self.lane = lane
        self.org = org
        self.flow = flow
        self.weight = weight
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
        self._credits: dict[tuple[int, str], int] = {}
        """What an organization that waits has saved up for its next turn (see `_weigh`)."""
        self._weighted = False
        """Somebody has had another weight than 1."""
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
        if place.weight != 1:
            self._weighted = True

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
            self._credits.pop(key, None)
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
        if self._weighted:
            chosen = self._weigh(chosen.lane, ready)
        self.leave(chosen)
        orgs = self._lanes[chosen.lane]
        if chosen.org in orgs:
            orgs.move_to_end(chosen.org)
        return chosen

    def _head(self, lane: int, ready: Callable[[F], bool]) -> Place[F] | None:
        return next(self._heads(lane, ready), None)

    def _heads(self, lane: int, ready: Callable[[F], bool]) -> Iterator[Place[F]]:
        """The next of each organization that can be served, in the order of their turns."""
        for flows in self._lanes[lane].values():
            best: Place[F] | None = None
            for flow, places in flows.items():
                head = next((place for place in places if not place.gone), None)
                if head is not None and (best is None or head.number < best.number) and ready(flow):
                    best = head
            if best is not None:
                yield best

    def _weigh(self, lane: int, ready: Callable[[F], bool]) -> Place[F]:
        """Whose turn it is by weight, of a lane in which somebody can be served.

        In a round each who can be served saves up its weight; a turn costs as much as the heaviest's. So the
        heaviest has one in every round, others as much more seldom as they are lighter, and with equal weights it
        is one after the other. (Deficit round robin: Shreedhar and Varghese, 1995.)
        """
        heads = list(self._heads(lane, ready))
        price = max(head.weight for head in heads)
        saved = self._credits
        rounds = min(max(-(-(price - saved.get((lane, h.org), 0)) // h.weight), 0) for h in heads)
        chosen: Place[F] | None = None
        for head in heads:
            key = lane, head.org
            saved[key] = saved.get(key, 0) + rounds * head.weight
            if chosen is None and saved[key] >= price:
                chosen = head
        assert chosen is not None  # noqa: S101  # so many rounds were needed for one of them
        saved[lane, chosen.org] -= price
        return chosen


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
