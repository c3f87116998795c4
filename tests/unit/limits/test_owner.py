"""How far ahead a worker is lent: further the faster it spends, from the beginning again when it pauses."""

from __future__ import annotations

from gateway.exchange import Claim
from gateway.limits.messages import SliceAsk
from gateway.limits.owner import AGAIN_US, AHEAD, MOST_AHEAD, PAUSE_US, LimitOwner
from tenants.ids import OrgId
from tenants.models import LimitUnit

PLENTY = 2_000_000_000


class Asking:
    """One worker that asks for one request at a time, at moments the test chooses."""

    def __init__(self, amount: int) -> None:
        self.now = 0
        self.owner = LimitOwner(lambda: self.now, boot="b")
        self.claim = Claim(OrgId("acme"), "l", "org", "", LimitUnit.REQUESTS, 1, amount, amount, 60)
        self.session = ""
        self.seq = 0

    def lent(self, after_us: int) -> int:
        self.now += after_us
        self.seq += 1
        answer = self.owner.answer(
            SliceAsk(worker="w", session=self.session, seq=self.seq, seen=self.seq - 1, asks=((self.claim,),))
        )
        if not answer.known:
            self.session = answer.session
            return self.lent(0)
        self.session = answer.session
        return answer.slices[0].amount


def test_a_busy_bucket_is_lent_twice_as_much_each_time_up_to_a_bound() -> None:
    asking = Asking(PLENTY)
    lent = [asking.lent(1_000) for _ in range(10)]
    assert lent[:3] == [AHEAD, AHEAD * 2, AHEAD * 4]
    assert lent[-1] == MOST_AHEAD


def test_a_pause_begins_anew() -> None:
    asking = Asking(PLENTY)
    assert [asking.lent(1_000), asking.lent(1_000)] == [AHEAD, AHEAD * 2]
    assert asking.lent(AGAIN_US) == AHEAD * 2
    assert asking.lent(PAUSE_US) == AHEAD


def test_never_more_than_the_part_of_one_worker_is_lent() -> None:
    asking = Asking(1_000)
    assert all(asking.lent(10) <= 500 for _ in range(20))
