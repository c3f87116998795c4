"""The daily count: what the log itself says once a day about how many requests it holds (`audit.day`).

Whoever takes a request out of a log and makes all of it anew has to make this entry anew as well; and a log whose
requests did not all become entries says so by itself. Pure, standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

DAY = "audit.day"
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Days:
    """Goes over entries in their order. `counted`: the days whose count was held against the entries."""

    def __init__(self) -> None:
        self.counted: list[str] = []
        self._requests = bytearray()
        """One byte for each entry from `_base` on, without gaps: 1 for a request."""
        self._base = 0
        self._last: tuple[str, int] | None = ("", 0)
        """Day and end of the count before; None when it is not known. The first of a log begins at 0."""

    def take(self, index: int, entry: Mapping[str, object]) -> Iterator[str]:
        """The next entry, at `index`: what is wrong with it, in words, as far as days go."""
        if index != self._base + len(self._requests):  # others are left out before it
            self._requests.clear()
            self._base, self._last = index, None
        if entry.get("action") == DAY:
            yield from self._day(index, entry)
        self._requests.append("spool" in entry)

    def _day(self, index: int, entry: Mapping[str, object]) -> Iterator[str]:
        detail = entry.get("detail")
        found = detail if isinstance(detail, dict) else {}
        day, start, end, requests = (found.get(name) for name in ("day", "start", "end", "requests"))
        if not (
            isinstance(day, str)
            and _DATE.fullmatch(day)
            and type(start) is int
            and type(end) is int
            and type(requests) is int
            and 0 <= start <= end <= index
        ):
            yield "its `detail` is no count of a day"
            return
        if self._last is not None and (start != self._last[1] or day <= self._last[0]):
            before = f"{self._last[0]} ended before" if self._last[0] else "the first begins at"
            yield f"counts entries [{start}, {end}) as {day}, but {before} entry {self._last[1]}"
        if start >= self._base:
            there = self._requests.count(1, start - self._base, end - self._base)
            if there == requests:
                self.counted.append(day)
            else:
                yield f"counts {requests} requests on {day}, and entries [{start}, {end}) hold {there}"
        if end > self._base:
            del self._requests[: end - self._base]
            self._base = end
        self._last = day, end
