"""Fixed windows per key, bounded in number; or buckets counted elsewhere, which refuse what cannot be counted."""

from __future__ import annotations

import pytest

from gateway.errors import UnavailableError
from gateway.limits.accounts import LimitOwner
from gateway.limits.counter import SliceCounter
from gateway.limits.protocol import SliceAnswer, SliceAsk
from gateway.oauth.digests import ServerKey
from gateway.oauth.errors import TemporarilyUnavailableError, TooManyAttemptsError
from gateway.oauth.throttle import MemoryThrottle, SharedThrottle, throttles
from gateway.secret import Secret
from tenants.ids import PLATFORM


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_window_fills_and_ends() -> None:
    clock = Clock()
    throttle = throttles(clock)("x", 2, 60)
    for _ in range(2):
        await throttle.check("a")
        await throttle.charge("a")
    clock.now += 20.5
    with pytest.raises(TooManyAttemptsError) as caught:
        await throttle.check("a")
    assert caught.value.retry_after_s == 40
    await throttle.check("b")
    clock.now += 39.5
    await throttle.check("a")
    await throttle.charge("a")
    await throttle.check("a")


async def test_the_oldest_keys_are_forgotten_first() -> None:
    throttle = MemoryThrottle(1, 60, Clock(), capacity=2)
    for key in ("a", "b", "c"):
        await throttle.charge(key)
    await throttle.check("a")
    for key in ("b", "c"):
        with pytest.raises(TooManyAttemptsError):
            await throttle.check(key)


class Store:
    """A real owner of the limits, which may be away; `asked` is what it was sent."""

    def __init__(self, clock: Clock) -> None:
        self.owner = LimitOwner(lambda: int(clock.now * 1_000_000))
        self.asked: list[SliceAsk] = []
        self.away = False

    async def ask(self, message: SliceAsk) -> SliceAnswer:
        self.asked.append(message)
        if self.away:
            raise UnavailableError("limits cannot be asked", retry_after_s=1)
        return await self.owner.ask(message)


async def test_two_nodes_count_together_and_the_bucket_refills() -> None:
    clock = Clock()
    store = Store(clock)
    here, there = (SharedThrottle(SliceCounter(store), "wrong-passwords", 4, 60) for _ in range(2))
    for throttle in (here, there, here, there):
        await throttle.check("192.0.2.1")
        await throttle.charge("192.0.2.1")
    for throttle in (here, there):
        with pytest.raises(TooManyAttemptsError) as caught:
            await throttle.check("192.0.2.1")
        assert caught.value.retry_after_s == 15
    await here.check("192.0.2.2")
    clock.now += 15
    await there.check("192.0.2.1")
    assert {message.org for message in store.asked} == {PLATFORM}
    assert not any("192.0.2.1" in repr(message) for message in store.asked), "an address is a person's"
    assert sum(one.lent for one in await store.owner.usage(PLATFORM)) == 0


async def test_one_name_and_another_are_apart() -> None:
    counter = SliceCounter(Store(Clock()))
    first, second = (SharedThrottle(counter, name, 1, 60) for name in ("device-starts", "wrong-user-codes"))
    await first.charge("a")
    await second.check("a")
    with pytest.raises(TooManyAttemptsError):
        await first.check("a")


async def test_what_cannot_be_counted_is_refused() -> None:
    store = Store(Clock())
    store.away = True
    throttle = SharedThrottle(SliceCounter(store), "wrong-passwords", 4, 60)
    for act in (throttle.check, throttle.charge):
        with pytest.raises(TemporarilyUnavailableError) as caught:
            await act("192.0.2.1")
        assert caught.value.retry_after_s == 1


def test_a_short_server_key_is_refused_and_labels_keep_uses_apart() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ServerKey(Secret(b"short"))
    key = ServerKey(Secret(b"k" * 32))
    assert key.mac(b"a", b"x") != key.mac(b"b", b"x")
