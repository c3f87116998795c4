"""Counts entries: by action, outcome, model, client and actor, and what they add up to. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Final

from gateway.audit.daily import Glance, glances

Actor = tuple[str, str]
"""The organization an actor is of, and what stands for them in the log."""

FIELDS: Final = ("action", "outcome", "model", "client")


class Stats:
    """Of entries whose `@timestamp` is in [`since`, `until`), Unix milliseconds, 0 for no bound. `next`: behind
    the last entry that was looked at."""

    def __init__(self, org: str, after: int, since: int, until: int) -> None:
        self.next = after
        self.entries = self.requests = 0
        self.bytes_in = self.bytes_out = self.prompt_tokens = self.completion_tokens = self.nanodollars = 0
        self.first_at = self.last_at = 0
        self.counts: dict[str, Counter[str]] = {field: Counter() for field in FIELDS}
        self.actors: Counter[Actor] = Counter()
        self._org = org
        self._since, self._until = since, until

    def feed(self, lines: bytes) -> None:
        for entry in glances(lines):
            self.next = entry.index + 1
            if entry.at >= self._since and not (self._until and entry.at >= self._until):
                self._count(entry)

    def _count(self, entry: Glance) -> None:
        self.first_at = min(self.first_at, entry.at) if self.entries else entry.at
        self.last_at = max(self.last_at, entry.at)
        self.entries += 1
        self.requests += entry.spool is not None
        self.bytes_in += entry.bytes_in
        self.bytes_out += entry.bytes_out
        self.prompt_tokens += entry.prompt_tokens
        self.completion_tokens += entry.completion_tokens
        self.nanodollars += entry.cost_nanodollars
        for field in FIELDS:
            if value := getattr(entry, field):
                self.counts[field][value] += 1
        if entry.actor:
            self.actors[entry.actor_org or self._org, entry.actor] += 1
