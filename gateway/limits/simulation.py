"""What a limit would have refused: a stretch of the audit log, replayed through the very buckets that judge.

Pure: it is fed entries in the log's order (that of their ends) and judges them in that of their arrivals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Final

from msgspec import Struct

from gateway.exchange import Used
from gateway.limits.kinds import KINDS, Bucket, kind_of
from gateway.limits.protocol import Part
from gateway.limits.windows import window_at
from tenants.models import Limit, LimitScope, LimitUnit, OnEnd, Price

LATE_MS: Final = 600_000
"""An entry is written when its request has ended: one that arrived earlier may come so much later."""

WAITING: Final = 100_000
"""Arrivals kept back at most until none that is earlier can come."""

ACTIONS: Final = frozenset({"completion.create", "chat.create", "embedding.create"})
BYTES_PER_TOKEN: Final = 4
MODEL_TOKENS: Final = 1_000_000
MAX_ROWS: Final = 1_000


class Row(Struct, frozen=True):
    """One member's requests for one model. `first_refused_ms`: Unix time, milliseconds."""

    member: str
    model: str
    requests: int
    refused: int
    first_refused_ms: int


class Report(Struct, frozen=True):
    """`entries` were read, `requests` among them judged, `refused` would have been. `refused_then`: were refused
    by a limit at the time. `rows`: who would have been refused, the most first, `callers` in all who asked.
    `notes` say what the log does not hold and how that was dealt with. Times are Unix seconds."""

    limit: Limit
    since: int
    until: int
    entries: int
    requests: int
    refused: int
    refused_then: int
    callers: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


class Arrival(Struct, frozen=True):
    at_us: int
    ends_us: int
    member: str
    model: str
    subjects: tuple[str, ...]
    asked: int
    used: int


class Granted(Struct, frozen=True):
    """What an arrival was given of each of its buckets, in the hands of `session`."""

    session: str
    arrival: Arrival
    parts: tuple[tuple[Bucket, int], ...]


class Simulation:
    """One proposed `limit`, in the organization's `timezone`. `prices`: by the provider's name of a model;
    `upstreams`: of a model alias; `teams`: of a member."""

    def __init__(
        self,
        limit: Limit,
        *,
        timezone: str,
        prices: Mapping[str, Price],
        upstreams: Mapping[str, str],
        teams: Callable[[str], Sequence[str]],
    ) -> None:
        self._limit = limit
        self._slots = limit.unit is LimitUnit.CONCURRENCY
        self._timezone = timezone
        self._prices = prices
        self._upstreams = upstreams
        self._teams = teams
        self._arrivals: list[tuple[int, int, Arrival]] = []
        self._ends: list[tuple[int, int, Granted]] = []
        self._buckets: dict[tuple[str, int], Bucket] = {}
        self._window = (0, 0)
        self._tallies: dict[tuple[str, str], list[int]] = {}
        self._unpriced: set[str] = set()
        self._count = 0
        self._latest_ms = 0
        self._entries = 0
        self._refused_then = 0

    def feed(self, entries: Iterable[Mapping[str, object]]) -> None:
        for entry in entries:
            self._entries += 1
            arrival = self._arrival(entry)
            if arrival is not None:
                self._count += 1
                heappush(self._arrivals, (arrival.at_us, self._count, arrival))
                self._latest_ms = max(self._latest_ms, arrival.ends_us // 1_000)
            self._judge_until((self._latest_ms - LATE_MS) * 1_000)

    def report(self, since: int, until: int) -> Report:
        """After the last entry. `since` and `until` are told, and nothing else is done with them."""
        self._judge_until(None)
        rows = [Row(*caller, *tally) for caller, tally in self._tallies.items() if tally[1]]
        rows.sort(key=lambda row: (-row.refused, row.first_refused_ms, row.member, row.model))
        return Report(
            limit=self._limit,
            since=since,
            until=until,
            entries=self._entries,
            requests=sum(tally[0] for tally in self._tallies.values()),
            refused=sum(tally[1] for tally in self._tallies.values()),
            refused_then=self._refused_then,
            callers=len(self._tallies),
            rows=tuple(rows[:MAX_ROWS]),
            notes=tuple(self._notes(len(rows))),
        )

    # -- one entry ------------------------------------------------------------------------------------------

    def _arrival(self, entry: Mapping[str, object]) -> Arrival | None:
        """What of `entry` a limit is asked; None for what never came so far, or is about somebody else."""
        model = _text(entry, "model")
        if entry.get("action") not in ACTIONS or not model:
            return None
        subjects = self._subjects(entry, model)
        if not subjects:
            return None
        at_us = _number(entry, "@timestamp") * 1_000
        then = bool(entry.get("limit"))
        self._refused_then += then
        # What was never sent is refunded in full, the request itself included; a slot it had for a while.
        spent = self._used(entry).of(self._limit.unit) if then or entry.get("sent") else 0
        asked = 1 if self._limit.unit in (LimitUnit.REQUESTS, LimitUnit.CONCURRENCY) else spent
        ends_us = at_us + _number(entry, "total_us")
        return Arrival(at_us, ends_us, _text(entry, "actor"), model, subjects, asked, spent)

    def _used(self, entry: Mapping[str, object]) -> Used:
        prompt, answer = _number(entry, "prompt_tokens"), _number(entry, "completion_tokens")
        size = _number(entry, "bytes_in")
        if entry.get("limit"):
            prompt = -(-size // BYTES_PER_TOKEN)
        return Used(prompt, answer, size + _number(entry, "bytes_out"), self._cost(entry, prompt, answer))

    def _cost(self, entry: Mapping[str, object], prompt: int, answer: int) -> int:
        if self._limit.unit is not LimitUnit.SPEND:
            return 0
        if charged := _number(entry, "cost_nanodollars"):
            return charged
        price = self._prices.get(_text(entry, "upstream_model"))
        if price is None:
            self._unpriced.add(_text(entry, "model"))
            return 0
        return -(-(prompt * price.input + answer * price.output) // MODEL_TOKENS)

    def _subjects(self, entry: Mapping[str, object], model: str) -> tuple[str, ...]:
        """Whose buckets it would draw from."""
        limit = self._limit
        match limit.scope:
            case LimitScope.ORG:
                return ("",)
            case LimitScope.TEAM:
                return tuple([team for team in self._teams(_text(entry, "actor")) if limit.subject in ("", team)])
            case LimitScope.MEMBER:
                subject = _text(entry, "actor")
            case LimitScope.MODEL:
                subject = model
            case LimitScope.CLIENT:
                subject = _text(entry, "client")
            case _:  # LimitScope.UPSTREAM; what was refused then was never routed
                subject = _text(entry, "upstream") or self._upstreams.get(model, "")
        return (subject,) if subject and limit.subject in ("", subject) else ()

    # -- judging --------------------------------------------------------------------------------------------

    def _judge_until(self, at_us: int | None) -> None:
        """Judge the arrivals up to then, None: all; sooner when too many wait."""
        while self._arrivals and (at_us is None or self._arrivals[0][0] <= at_us or len(self._arrivals) > WAITING):
            _, number, arrival = heappop(self._arrivals)
            while self._ends and self._ends[0][0] <= arrival.at_us:
                self._end(heappop(self._ends)[2])
            self._judge(number, arrival)

    def _judge(self, number: int, arrival: Arrival) -> None:
        limit = self._limit
        buckets = [self._bucket(subject, arrival.at_us) for subject in arrival.subjects]
        least = arrival.asked if limit.on_end is OnEnd.FINISH else min(arrival.asked, 1)
        granted = all(bucket.left >= least for bucket in buckets)
        tally = self._tallies.setdefault((arrival.member, arrival.model), [0, 0, 0])
        tally[0] += 1
        if not granted:
            tally[1] += 1
            tally[2] = tally[2] or arrival.at_us // 1_000
            return
        parts = tuple((bucket, min(arrival.asked, max(bucket.left, 0))) for bucket in buckets)
        for bucket, units in parts:
            if self._slots:
                bucket.grant(str(number), units)
            else:
                bucket.charge(units)
        granted_now = Granted(str(number), arrival, parts)
        heappush(self._ends, (max(arrival.ends_us, arrival.at_us), number, granted_now))

    def _end(self, granted: Granted) -> None:
        arrival = granted.arrival
        for bucket, units in granted.parts:
            bucket.refill(arrival.ends_us)
            rest = units - arrival.used
            if self._slots:
                bucket.close(granted.session)
            elif rest < 0:
                bucket.charge(-rest)
            else:
                bucket.give(rest)

    def _bucket(self, subject: str, at_us: int) -> Bucket:
        limit = self._limit
        now = at_us // 1_000_000
        if limit.window and not self._window[0] <= now < self._window[1]:
            self._window = window_at(limit.window, self._timezone, now)
            self._buckets.clear()  # what still ends in the window before it changes nothing in this one
        key = (subject, self._window[0])
        found = self._buckets.get(key)
        if found is None:
            part = Part(
                limit.name,
                subject,
                limit.unit,
                limit.amount,
                limit.burst or limit.amount,
                limit.period_s,
                *self._window,
            )
            found = self._buckets[key] = KINDS[kind_of(part)](part, at_us)
        found.refill(at_us)
        return found

    def _notes(self, refused_callers: int) -> Iterable[str]:
        limit = self._limit
        if limit.unit not in (LimitUnit.REQUESTS, LimitUnit.CONCURRENCY):
            yield (
                "Requests are judged by what they used. What is reserved for the longest answer that may come is"
                " not in the log, so a few more would be refused close to the limit."
            )
        if limit.window:
            yield "The budget begins unused, also when the time begins in the middle of a window."
        if limit.scope is LimitScope.TEAM:
            yield "Teams are as they are today: the log does not say who was in which."
        if limit.unit is LimitUnit.SPEND:
            yield "Money is what was charged; where the log does not say that, by today's prices."
        if self._unpriced:
            names = ", ".join(sorted(self._unpriced)[:10])
            yield f"No price is known for what these models lead to; they count as nothing spent: {names}."
        if self._refused_then:
            yield (
                f"{self._refused_then} requests were refused by a limit at the time. They count as asked once; of"
                " tokens and money, only their prompt does, by its size."
            )
        if refused_callers > MAX_ROWS:
            yield f"Of {refused_callers} who would have been refused, the first {MAX_ROWS} are told."


def _text(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name, "")
    return value if isinstance(value, str) else ""


def _number(entry: Mapping[str, object], name: str) -> int:
    value = entry.get(name, 0)
    return value if isinstance(value, int) else 0
