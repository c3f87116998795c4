"""Last use, from counters that rise."""

from __future__ import annotations

from gateway.secrets.last_used import COUNTER, LastUsed


def test_a_counter_that_rises_is_a_use() -> None:
    now = 100.0
    used = LastUsed(lambda: now)
    used.note("boot", [(COUNTER, ("acme", "up"), 3), ("orgate_other_total", ("acme", "else"), 9)])
    assert (used.at("acme", "up"), used.at("acme", "else"), used.at("globex", "up")) == (100, 0, 0)  # type: ignore[arg-type]
    assert used.take() == {("acme", "up"): 100}
    now = 200.0
    used.note("boot", [(COUNTER, ("acme", "up"), 3)])
    assert (used.at("acme", "up"), used.take()) == (100, {})  # type: ignore[arg-type]
    used.note("another", [(COUNTER, ("acme", "up"), 1)])
    assert used.take() == {("acme", "up"): 200}


def test_a_worker_that_left_is_forgotten() -> None:
    used = LastUsed(lambda: 100.0)
    used.note("boot", [(COUNTER, ("acme", "up"), 3)])
    used.left("boot")
    assert used._counts == {}
