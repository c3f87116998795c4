"""What one process counts: cheap increments, told over the bus as a state that may be sent again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from gateway.bus.messages import MetricsUp
from gateway.exchange import Outcome, Receipt
from gateway.metric_families import BOUNDS, BUCKETS_S, Key
from tenants.ids import OrgId

_BUCKETS_US: Final = tuple(round(bound * 1_000_000) for bound in BUCKETS_S)

FAST_CANCEL_US: Final = 5_000
DAY_US: Final = 86_400_000_000
DAYS_KEPT: Final = 3
"""Days that a worker counts apart, the newest among them: what is older has been said long ago."""

MINUTE_US: Final = 60_000_000
REFUSED_MINUTES: Final = 30
"""Minutes that a worker counts apart, of requests that were refused before anybody knew whose they were."""

CLIENTS_MAX: Final = 100
"""Versions of clients that a worker tells apart, for each organization by itself: one cannot fill another's."""
OTHER: Final = "other"


class _Histogram:
    """Durations of one name and label set: counted apart by bucket, summed in microseconds."""

    __slots__ = ("buckets", "total_us")

    def __init__(self) -> None:
        self.buckets = [0] * len(BOUNDS)
        self.total_us = 0

    def put(self, microseconds: int) -> None:
        self.buckets[bisect_left(_BUCKETS_US, microseconds)] += 1
        self.total_us += microseconds


class _Day:
    """What is counted for one organization and UTC day: by when a request began, as its entry says."""

    __slots__ = ("completion_tokens", "nanodollars", "prompt_tokens", "requests")

    def __init__(self) -> None:
        self.requests = self.prompt_tokens = self.completion_tokens = self.nanodollars = 0


class _Task:
    """What is counted for one organization and task, whatever the outcome. `day`: where what begins from
    `begins_us` up to `ends_us` is counted too, with the organization's other tasks."""

    __slots__ = (
        "begins_us",
        "bytes_in",
        "bytes_out",
        "completion_tokens",
        "day",
        "ends_us",
        "first_byte",
        "nanodollars",
        "overhead",
        "prompt_tokens",
        "whole",
    )

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = self.prompt_tokens = self.completion_tokens = self.nanodollars = 0
        self.day, self.begins_us, self.ends_us = _Day(), 0, 0
        self.whole, self.first_byte, self.overhead = _Histogram(), _Histogram(), _Histogram()


class _Cell:
    """What is counted for one organization, task and outcome: found once for each request."""

    __slots__ = ("requests", "task", "unsent")

    def __init__(self, task: _Task) -> None:
        self.task = task
        self.requests = self.unsent = 0


class Counters:
    """One worker's. Cumulative since its boot; used by one event loop. An increment is a dict update.

    A histogram takes two: its bucket (`name_bucket`, one more label) and its sum (`name_sum`). What is counted
    for every request has cells of its own, which become counters when they are reported.
    """

    __slots__ = ("_cells", "_clients", "_days", "_refused", "_tasks", "_values")

    def __init__(self) -> None:
        self._values: dict[Key, float] = {}
        self._refused: dict[tuple[int, int, str], int] = {}
        self._clients: dict[str, set[str]] = {}
        self._tasks: dict[tuple[str, str], _Task] = {}
        self._cells: dict[tuple[str, str, str], _Cell] = {}
        self._days: dict[tuple[OrgId, int], _Day] = {}

    def add(self, name: str, labels: tuple[str, ...], amount: float = 1) -> None:
        key = (name, labels)
        self._values[key] = self._values.get(key, 0) + amount

    def time(self, name: str, labels: tuple[str, ...], microseconds: int) -> None:
        """Put one duration into the histogram `name`."""
        self.add(f"{name}_bucket", (*labels, BOUNDS[bisect_left(_BUCKETS_US, microseconds)]))
        self.add(f"{name}_sum", labels, microseconds / 1_000_000)

    def observe(self, receipt: Receipt) -> None:
        """Count one settled request."""
        cell = self._cells.get((receipt.org, receipt.action, receipt.outcome))
        if cell is None:
            cell = self._cell(receipt)
        cell.requests += 1
        if not receipt.sent:
            cell.unsent += 1
        task = cell.task
        task.bytes_in += receipt.bytes_in
        task.bytes_out += receipt.bytes_out
        task.prompt_tokens += receipt.prompt_tokens
        task.completion_tokens += receipt.completion_tokens
        task.nanodollars += receipt.cost_nanodollars
        if not task.begins_us <= receipt.at_us < task.ends_us:
            self._turn(task, receipt)
        day = task.day
        day.requests += 1
        day.prompt_tokens += receipt.prompt_tokens
        day.completion_tokens += receipt.completion_tokens
        day.nanodollars += receipt.cost_nanodollars
        task.whole.put(receipt.total_us)
        if receipt.first_byte_us:
            task.first_byte.put(receipt.first_byte_us)
        if receipt.overhead_us:
            task.overhead.put(receipt.overhead_us)
        if receipt.outcome is Outcome.CANCELLED_BY_CLIENT and (
            not receipt.sent or receipt.total_us < FAST_CANCEL_US
        ):
            self._fast_cancel(receipt.org, receipt.client_version)
        if not receipt.org:
            self._refuse(receipt)

    def _refuse(self, receipt: Receipt) -> None:
        """Nobody's request has no entry of its own: a minute of them has. Minutes that are over for long are
        forgotten."""
        key = (receipt.at_us // MINUTE_US, receipt.status, receipt.error or receipt.outcome.value)
        if key not in self._refused:
            oldest = key[0] - REFUSED_MINUTES
            self._refused = {one: count for one, count in self._refused.items() if one[0] > oldest}
        self._refused[key] = self._refused.get(key, 0) + 1

    def _fast_cancel(self, org: str, client: str) -> None:
        known = self._clients.setdefault(org, set())
        if client not in known:
            if len(known) < CLIENTS_MAX:
                known.add(client)
            else:
                client = OTHER
        self.add("orgate_fast_cancels_total", (org, client))

    def message(
        self, worker: str, boot: str, gauges: tuple[tuple[str, tuple[str, ...], float], ...] = ()
    ) -> MetricsUp:
        """All of them, for the bus, and `gauges`. Sent again it changes nothing: a state, not an increment."""
        values = dict(self._values)
        for key, value in self._observed():
            values[key] = values.get(key, 0) + value
        counters = tuple((name, labels, value) for (name, labels), value in values.items())
        days = tuple(
            (org, number, day.requests, day.prompt_tokens, day.completion_tokens, day.nanodollars)
            for (org, number), day in self._days.items()
        )
        refused = tuple((*key, count) for key, count in self._refused.items())
        return MetricsUp(worker, boot, counters, gauges, days, refused=refused)

    def _turn(self, task: _Task, receipt: Receipt) -> None:
        """A request of another day than the one before it. Days that are over for long are forgotten."""
        made = receipt.at_us // DAY_US
        if made > max((number for _, number in self._days), default=-1):
            self._days = {key: day for key, day in self._days.items() if key[1] > made - DAYS_KEPT}
        task.begins_us, task.ends_us = made * DAY_US, (made + 1) * DAY_US
        task.day = self._days.setdefault((receipt.org, made), _Day())

    def _cell(self, receipt: Receipt) -> _Cell:
        """The first request of its kind. Plain strings as keys: they live as long as this worker."""
        org, action, outcome = receipt.org, receipt.action.value, receipt.outcome.value
        task = self._tasks.setdefault((org, action), _Task())
        return self._cells.setdefault((org, action, outcome), _Cell(task))

    def _observed(self) -> Iterator[tuple[Key, float]]:
        """What the cells stand for. What was never counted is no counter yet."""
        plain: list[tuple[str, tuple[str, ...], float]] = []
        for outcome, cell in self._cells.items():
            plain += [
                ("orgate_requests_total", outcome, cell.requests),
                ("orgate_unsent_total", outcome, cell.unsent),
            ]
        for both, task in self._tasks.items():
            plain += [
                ("orgate_bytes_total", (*both, "in"), task.bytes_in),
                ("orgate_bytes_total", (*both, "out"), task.bytes_out),
                ("orgate_tokens_total", (*both, "prompt"), task.prompt_tokens),
                ("orgate_tokens_total", (*both, "completion"), task.completion_tokens),
                ("orgate_spend_dollars_total", both, task.nanodollars / 1_000_000_000),
            ]
            for name, times in (
                ("orgate_request_seconds", task.whole),
                ("orgate_first_byte_seconds", task.first_byte),
                ("orgate_overhead_seconds", task.overhead),
            ):
                if any(times.buckets):
                    yield (f"{name}_sum", both), times.total_us / 1_000_000
                plain += [
                    (f"{name}_bucket", (*both, bound), count)
                    for bound, count in zip(BOUNDS, times.buckets, strict=True)
                ]
        for name, labels, value in plain:
            if value:
                yield (name, labels), value
