"""Requests that were refused before anybody knew whose they were, counted by the minute.

Of the control process alone: no worker reads any of it. A minute is of UTC, as minutes since 1970-01-01.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Counts = Mapping[str, int]
"""`status.code`, as in `401.invalid_token` → how many."""


class Refusals(Protocol):
    """Durable when a call returns; one writer, the control process, is assumed."""

    async def add(self, minute: int, counted: Mapping[str, Counts]) -> None:
        """Make an entry `request.refused` of the platform's log of what workers counted in a minute, by boot.

        What a boot counted in a minute is taken once: again it changes nothing, also after a restart.
        """
