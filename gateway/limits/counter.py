"""Single counts in the store of the limits, for what asks no model: attempts to sign in, admin writes."""

from __future__ import annotations

import secrets
from hashlib import sha256

from gateway.limits.protocol import Part, SliceAsk, Wish
from gateway.limits.refusal import OF_PLATFORM
from gateway.limits.store import SliceStore
from tenants.ids import PLATFORM
from tenants.models import LimitUnit


class SliceCounter:
    """`gateway.oauth.throttle.Counter` over a `SliceStore`: buckets of the platform's account, asked one by one.

    A count whose answer is lost may stand all the same: it errs towards refusing.
    """

    def __init__(self, store: SliceStore) -> None:
        self._store = store

    async def count(self, name: str, key: str, limit: int, period_s: int, n: int) -> float:
        """Take `n` from the bucket of `key`. With `n` 0: seconds until one is left in it, 0 when there is.
        Raises `UnavailableError`."""
        # A session of its own, closed by the message that opens it: nothing stays in anybody's hands.
        part = Part(
            limit=OF_PLATFORM + name,
            subject=sha256(key.encode()).hexdigest()[:32],  # an address is a person's; the store needs none
            unit=LimitUnit.REQUESTS,
            amount=limit,
            burst=limit,
            period_s=period_s,
            spent=n,
        )
        ask = SliceAsk(
            org=PLATFORM,
            worker="count-" + secrets.token_hex(8),
            session="",
            epoch="",
            seq=1,
            parts=(part,),
            requests=() if n else ((Wish(0, 1, 0),),),
            close=True,
        )
        (result,) = (await self._store.ask(ask)).results or (None,)
        if result is None or result.part < 0:
            return 0.0
        return max(result.wait_us, 1) / 1_000_000
