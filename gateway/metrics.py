"""What all processes counted, summed in the control process and shown as Prometheus text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from gateway.bus.messages import MetricsUp
from gateway.metric_families import BOUNDS, FAMILIES, Family, Key

_KEPT_BOOTS: Final = 2
STALE_S: Final = 5.0
"""A worker that has not reported for so long holds nothing any more: its gauges are left out."""


class Gauge(Struct, frozen=True):
    """A value of this moment, given at exposition. Labels as (name, value)."""

    name: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


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
        for bound in BOUNDS:
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
