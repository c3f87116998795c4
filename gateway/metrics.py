"""Counters: cheap increments in a worker, summed in the control process, shown as Prometheus text.

Labels are the organization, its upstream, the task, the outcome and the like, from fixed sets or the tenant list:
never a member or an address. What a caller wrote is in one alone, its program's name and version: bounded in form
and in number.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from gateway.bus.messages import MetricsUp
from gateway.exchange import Outcome, Receipt
from tenants.ids import OrgId

Key = tuple[str, tuple[str, ...]]

BUCKETS_S: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds of the latency buckets, seconds; one more without bound."""

_BUCKETS_US: Final = tuple(round(bound * 1_000_000) for bound in BUCKETS_S)
_BOUNDS: Final = (*(str(bound) for bound in BUCKETS_S), "+Inf")
_KEPT_BOOTS: Final = 2
STALE_S: Final = 5.0
"""A worker that has not reported for so long holds nothing any more: its gauges are left out."""

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


class Family(Struct, frozen=True):
    """One metric: its type as Prometheus names it, what it says, the names of its labels."""

    type: str
    help: str
    labels: tuple[str, ...]


_UPSTREAM: Final = ("org", "upstream")
_LANE: Final = (*_UPSTREAM, "lane")

FAMILIES: Final[Mapping[str, Family]] = {
    "orgate_requests_total": Family("counter", "Requests that ended, by outcome.", ("org", "task", "outcome")),
    "orgate_bytes_total": Family("counter", "Bytes of request and answer bodies.", ("org", "task", "direction")),
    "orgate_tokens_total": Family("counter", "Tokens settled.", ("org", "task", "kind")),
    "orgate_spend_dollars_total": Family("counter", "Cost of these tokens by the price tables.", ("org", "task")),
    "orgate_unsent_total": Family(
        "counter", "Requests of which no byte reached an upstream.", ("org", "task", "outcome")
    ),
    "orgate_request_seconds": Family("histogram", "From the request's head to its end.", ("org", "task")),
    "orgate_first_byte_seconds": Family(
        "histogram", "From sending to the upstream's first byte.", ("org", "task")
    ),
    "orgate_overhead_seconds": Family("histogram", "Spent in the gateway itself.", ("org", "task")),
    "orgate_fast_cancels_total": Family(
        "counter",
        "Requests whose client was gone before they were sent upstream, or within 5 ms. Many of one version: a"
        " broken build.",
        ("org", "client"),
    ),
    "orgate_in_flight": Family("gauge", "Requests that are being served.", ("org",)),
    "orgate_upstream_connections": Family("gauge", "Connections to an upstream that are open.", _UPSTREAM),
    "orgate_upstream_streams": Family("gauge", "Requests in flight at an upstream.", _UPSTREAM),
    "orgate_upstream_queue": Family("gauge", "Requests that wait for a stream or a connection.", _LANE),
    "orgate_upstream_queued_total": Family("counter", "Requests sent after waiting in line.", _LANE),
    "orgate_upstream_queued_seconds_total": Family("counter", "How long these waited, in all.", _LANE),
    "orgate_upstream_shed_total": Family("counter", "Requests refused because too many waited.", _LANE),
    "orgate_upstream_expired_total": Family("counter", "Requests whose time ended as they waited.", _LANE),
    "orgate_upstream_requests_total": Family("counter", "Requests meant for an upstream.", _UPSTREAM),
    "orgate_upstream_handshakes_total": Family("counter", "Connections made.", _UPSTREAM),
    "orgate_upstream_dial_failures_total": Family("counter", "Connections that could not be made.", _UPSTREAM),
    "orgate_upstream_replaced_total": Family(
        "counter", "Connections given up for their age or the resets they had sent.", _UPSTREAM
    ),
    "orgate_upstream_resets_total": Family(
        "counter", "Streams ended early, by who reset them.", (*_UPSTREAM, "direction")
    ),
    "orgate_upstream_refused_total": Family(
        "counter", "Streams that an upstream declined to process: they are sent again.", _UPSTREAM
    ),
    "orgate_audit_reconcile_difference": Family(
        "gauge",
        "Figures of the last day that was reconciled which differ between log, counters and budgets, and which"
        " nothing explains: requests that are missing in the log, or too many. Anything but 0 is an alarm.",
        ("org",),
    ),
    "orgate_audit_stream_lag_entries": Family(
        "gauge", "Entries of the audit log that streams have not delivered yet.", ("org", "kind")
    ),
    "orgate_audit_stream_lag_seconds": Family(
        "gauge", "How old the oldest of these is, of the stream that is furthest behind.", ("org", "kind")
    ),
    "orgate_audit_stream_entries_total": Family(
        "counter", "Entries that streams have sent, what is sent again included.", ("org", "kind")
    ),
    "orgate_audit_stream_failures_total": Family("counter", "Attempts of streams that failed.", ("org", "kind")),
    "orgate_audit_waiting_receipts": Family(
        "gauge", "Receipts of requests that are not known to be entries of an audit log yet.", ()
    ),
    "orgate_audit_witness_attempts_total": Family(
        "counter",
        "Checkpoints shown to a witness, by what came of it: `cosigned` or `failed`.",
        ("witness", "outcome"),
    ),
    "orgate_audit_witness_late_seconds": Family(
        "gauge",
        "For how long an audit log has had checkpoints without the cosignatures that the policy asks for; 0 when"
        " its newest one has them.",
        ("org",),
    ),
    "orgate_audit_publications_total": Family(
        "counter",
        "Checkpoints published in a `file`, in `git` or by `webhook`, by what came of it: `done` or `failed`.",
        ("place", "outcome"),
    ),
    "orgate_keys_waiting": Family(
        "gauge",
        "1 while the control process has started, and waits for Vault's Transit to unwrap the platform's keys."
        " Until then it answers this, `/livez` and `/readyz`, and all else with 503.",
        (),
    ),
    "orgate_key_rotations_total": Family(
        "counter",
        "Rotations of an upstream's key, by how they ended. `rolled_back`: the new one was refused within the"
        " overlap. `refused`: so was the one from before.",
        (*_UPSTREAM, "outcome"),
    ),
    "orgate_limit_messages_total": Family(
        "counter", "Messages to the store of limits that were answered; each carries many requests.", ("org",)
    ),
    "orgate_limit_resends_total": Family(
        "counter", "Messages that were sent again, because no answer had come.", ("org",)
    ),
    "orgate_limit_refusals_total": Family(
        "counter",
        "Requests that a limit refused, by who said so: the `store`, the `worker` because the store had just said"
        " so, the worker in an `outage` of the store.",
        ("org", "by"),
    ),
    "orgate_limit_accounts_away": Family(
        "gauge", "Accounts of organizations whose store of limits cannot be asked, in all workers together.", ()
    ),
    "orgate_limit_thresholds_total": Family(
        "counter", "Budgets of which so many percent were used, once each window.", ("org", "limit", "percent")
    ),
    "orgate_webhook_attempts_total": Family(
        "counter",
        "Attempts to tell an organization's webhook, by how they ended. `failed`: it is given up.",
        ("org", "outcome"),
    ),
    "orgate_upstream_timeouts_total": Family("counter", "Streams ended because time was over.", _UPSTREAM),
}


class Gauge(Struct, frozen=True):
    """A value of this moment, given at exposition. Labels as (name, value)."""

    name: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


class _Histogram:
    """Durations of one name and label set: counted apart by bucket, summed in microseconds."""

    __slots__ = ("buckets", "total_us")

    def __init__(self) -> None:
        self.buckets = [0] * len(_BOUNDS)
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
        self.add(f"{name}_bucket", (*labels, _BOUNDS[bisect_left(_BUCKETS_US, microseconds)]))
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
                    for bound, count in zip(_BOUNDS, times.buckets, strict=True)
                ]
        for name, labels, value in plain:
            if value:
                yield (name, labels), value


class Metrics:
    """The control process's sums over all workers, those that ended included, so that no counter ever falls.

    Not durable: a restart of the control process begins at zero, which Prometheus' `rate` understands.
    Gauges are summed over the workers that report. `now`: seconds that never go back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._gauges: dict[tuple[str, str], tuple[float, tuple[tuple[str, tuple[str, ...], float], ...]]] = {}
        self._boots: dict[tuple[str, str], dict[Key, float]] = {}
        self._ended: dict[Key, float] = {}
        self._folded: set[tuple[str, str]] = set()

    def absorb(self, message: MetricsUp) -> None:
        """Take a worker's state. Repeats and late arrivals change nothing.

        Raises `ValueError` for a counter that is not known here: a worker of another version.
        """
        for name, labels, _ in message.counters:
            if len(labels) != _width(name):
                raise ValueError(f"{name[:80]} with {len(labels)} labels is no counter of this version")
        for name, labels, _ in message.gauges:
            family = FAMILIES.get(name)
            if family is None or family.type != "gauge" or len(labels) != len(family.labels):
                raise ValueError(f"{name[:80]} with {len(labels)} labels is no gauge of this version")
        boot = (message.worker, message.boot)
        if boot in self._folded:
            return  # its last state is in the sums already
        self._gauges[boot] = (self._now(), message.gauges)
        known = self._boots.setdefault(boot, {})
        for name, labels, value in message.counters:
            key = (name, labels)
            known[key] = max(value, known.get(key, 0))
        same = [item for item in self._boots if item[0] == message.worker]
        for old in same[:-_KEPT_BOOTS]:
            self._folded.add(old)
            for key, value in self._boots.pop(old).items():
                self._ended[key] = self._ended.get(key, 0) + value

    def totals(self) -> dict[Key, float]:
        sums = dict(self._ended)
        for counters in self._boots.values():
            for key, value in counters.items():
                sums[key] = sums.get(key, 0) + value
        return sums

    def _of_this_moment(self) -> Iterator[tuple[Key, float]]:
        oldest = self._now() - STALE_S
        self._gauges = {boot: found for boot, found in self._gauges.items() if found[0] >= oldest}
        for _, gauges in self._gauges.values():
            for name, labels, value in gauges:
                yield (name, labels), value

    def exposition(self, gauges: Iterable[Gauge] = ()) -> str:
        """Prometheus text format, version 0.0.4."""
        sums = self.totals()
        for key, value in self._of_this_moment():
            sums[key] = sums.get(key, 0) + value
        by_name: dict[str, dict[tuple[str, ...], float]] = {}
        for (name, labels), value in sorted(sums.items()):
            by_name.setdefault(name, {})[labels] = value
        lines: list[str] = []
        for name, family in FAMILIES.items():
            lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.type}"]
            if family.type == "histogram":
                lines += _histogram(
                    name, family, by_name.get(f"{name}_bucket", {}), by_name.get(f"{name}_sum", {})
                )
            else:
                lines += [_line(name, family.labels, key, value) for key, value in by_name.get(name, {}).items()]
        seen: set[str] = set()
        for gauge in sorted(gauges, key=lambda gauge: (gauge.name, gauge.labels)):
            if gauge.name not in seen:
                seen.add(gauge.name)
                lines += [f"# HELP {gauge.name} {gauge.help}", f"# TYPE {gauge.name} gauge"]
            names, values = tuple(name for name, _ in gauge.labels), tuple(value for _, value in gauge.labels)
            lines.append(_line(gauge.name, names, values, gauge.value))
        return "\n".join(lines) + "\n"


def _width(name: str) -> int:
    """How many labels a counter has; -1 when there is no such counter."""
    if (family := FAMILIES.get(name)) is not None:
        return len(family.labels) if family.type == "counter" else -1
    base, _, part = name.rpartition("_")
    family = FAMILIES.get(base)
    if family is None or family.type != "histogram" or part not in {"bucket", "sum"}:
        return -1
    return len(family.labels) + (part == "bucket")


def _histogram(
    name: str, family: Family, buckets: Mapping[tuple[str, ...], float], sums: Mapping[tuple[str, ...], float]
) -> list[str]:
    """Buckets are counted apart and shown cumulative: an increment touches one, not all above it."""
    lines = []
    for labels, total in sums.items():
        count = 0.0
        for bound in _BOUNDS:
            count += buckets.get((*labels, bound), 0)
            lines.append(_line(f"{name}_bucket", (*family.labels, "le"), (*labels, bound), count))
        lines.append(_line(f"{name}_sum", family.labels, labels, total))
        lines.append(_line(f"{name}_count", family.labels, labels, count))
    return lines


def _line(name: str, labels: tuple[str, ...], values: tuple[str, ...], value: float) -> str:
    pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in zip(labels, values, strict=True))
    shown = str(int(value)) if value == int(value) else repr(value)
    return f"{name}{{{pairs}}} {shown}" if pairs else f"{name} {shown}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
