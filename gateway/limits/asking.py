"""Who waits for what: requests that a worker's slices did not do for, and the message that asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from gateway.exchange import Claim
from gateway.limits.local import Bucket
from gateway.limits.protocol import SliceAsk, Wish

Refuser = Literal["store", "worker", "outage"]
"""Who said no: the store; this worker, because the store has just said so; this worker without the store."""


class Asker(Protocol):
    """Somebody who wants units of one account. One of `granted` and `refused` is called, once."""

    @property
    def claims(self) -> tuple[Claim, ...]: ...
    @property
    def gone(self) -> bool:
        """Nobody waits any more."""

    def granted(self, buckets: Sequence[Bucket], units: Sequence[int]) -> None: ...
    def refused(self, claim: Claim, wait_us: int | None, *, by: Refuser) -> None:
        """`wait_us`: until it would be granted, `NEVER`; None: nobody can tell, and the limit says no then."""


class Asked:
    """An asker in a message. Of each claim `units` are reserved already, or it is among the `wishes`."""

    __slots__ = ("asker", "buckets", "units", "wishes")

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.buckets: list[Bucket] = []
        self.units: list[int] = []
        self.wishes: list[int] = []

    def wished(self, places: dict[Bucket, int]) -> tuple[Wish, ...]:
        claims = self.asker.claims
        return tuple([Wish(places[self.buckets[i]], claims[i].enough, claims[i].cost) for i in self.wishes])


class Message:
    """One that is under way; what it says of each bucket (spent, back), and who waits for what.

    `retaken`: slots in use of which the store does not know: they are asked for before everything else.
    `anew`: of what the store's epoch is told for the first time what there was of it before.
    """

    __slots__ = ("anew", "ask", "asked", "retaken", "said", "times")

    def __init__(
        self,
        ask: SliceAsk,
        said: list[tuple[Bucket, int, int]],
        retaken: list[Bucket],
        asked: list[Asked],
        anew: dict[Bucket, None],
    ) -> None:
        self.ask = ask
        self.said = said
        self.retaken = retaken
        self.asked = asked
        self.anew = anew
        self.times = 0
