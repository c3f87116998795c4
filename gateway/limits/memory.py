"""Limits in one process's memory: the `LimitStore` for a gateway without workers, and the model of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.exchange import Claim, Hold, Standing, Used
from gateway.limits.refusal import exceeded
from gateway.limits.table import Table, standings


class MemoryLimits:
    """`clock_us` gives microseconds that never go back. Never suspends, never unavailable."""

    def __init__(self, clock_us: Callable[[], int]) -> None:
        self._clock_us = clock_us
        self._table = Table()

    def __len__(self) -> int:
        """How many buckets are remembered."""
        return len(self._table)

    async def reserve(self, claims: Sequence[Claim]) -> Hold:
        now = self._clock_us()
        self._table.sweep(now, len(claims) + 1)
        refused = self._table.take(claims, "", now)
        if refused is not None:
            raise exceeded(refused)
        return _MemoryHold(self, tuple(claims), standings(claims, [self._table.at(c, now).left for c in claims]))

    def give(self, claim: Claim, n: int) -> None:
        self._table.at(claim, self._clock_us()).give(n, "")


class _MemoryHold:
    __slots__ = ("_claims", "_limits", "_open", "_standings")

    def __init__(self, limits: MemoryLimits, claims: tuple[Claim, ...], standing: tuple[Standing, ...]) -> None:
        self._limits = limits
        self._claims = claims
        self._standings = standing
        self._open = True

    @property
    def standings(self) -> tuple[Standing, ...]:
        return self._standings

    @property
    def metered(self) -> bool:
        return False

    def spending(self, used: Used) -> Claim | None:
        return None

    def settle(self, used: Used) -> None:
        self._close()
        for claim in self._claims:
            self._limits.give(claim, claim.cost - used.of(claim.unit))

    def refund(self) -> None:
        self._close()
        for claim in self._claims:
            self._limits.give(claim, claim.cost)

    def _close(self) -> None:
        if not self._open:
            raise RuntimeError("this hold has been settled or refunded already")
        self._open = False
