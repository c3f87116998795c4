"""Fixed windows per key, bounded in number."""

from __future__ import annotations

import pytest

from gateway.oauth.digests import ServerKey
from gateway.oauth.errors import TooManyAttemptsError
from gateway.oauth.throttle import Throttle
from gateway.secret import Secret


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_window_fills_and_ends() -> None:
    clock = Clock()
    throttle = Throttle(2, 60, clock)
    for _ in range(2):
        throttle.check("a")
        throttle.charge("a")
    clock.now += 20.5
    with pytest.raises(TooManyAttemptsError) as caught:
        throttle.check("a")
    assert caught.value.retry_after_s == 40
    throttle.check("b")
    clock.now += 39.5
    throttle.check("a")
    throttle.charge("a")
    throttle.check("a")


def test_the_oldest_keys_are_forgotten_first() -> None:
    throttle = Throttle(1, 60, Clock(), capacity=2)
    for key in ("a", "b", "c"):
        throttle.charge(key)
    throttle.check("a")
    for key in ("b", "c"):
        with pytest.raises(TooManyAttemptsError):
            throttle.check(key)


def test_a_short_server_key_is_refused_and_labels_keep_uses_apart() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ServerKey(Secret(b"short"))
    key = ServerKey(Secret(b"k" * 32))
    assert key.mac(b"a", b"x") != key.mac(b"b", b"x")
