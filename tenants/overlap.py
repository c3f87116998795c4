"""Limits that never decide, because another one always says no before them. Pure.

All limits that apply must grant, so one that is meant as an exception ("ann may do more") and is larger than what
holds for everybody has no effect. That is allowed, and worth a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tenants.models import Limit, LimitScope, LimitUnit, Window

_LONGEST_S = {Window.DAY: 25 * 3_600, Window.WEEK: 7 * 86_400 + 3_600, Window.MONTH: 31 * 86_400 + 3_600}
"""With a change to winter time in it."""
_NESTED = {(Window.DAY, Window.DAY), (Window.WEEK, Window.WEEK), (Window.MONTH, Window.MONTH)} | {
    (Window.DAY, Window.WEEK),
    (Window.DAY, Window.MONTH),
}
"""(inner, outer): each inner window is in one outer window. A week may be in two months."""


def remarks(limit: Limit, others: Iterable[Limit]) -> Iterator[str]:
    """What to tell whoever has just set `limit` beside `others`: which of them decides nothing (any more)."""
    for other in others:
        if other.name == limit.name:
            continue
        if _never_decides(limit, other):
            yield (
                f"limit '{limit.name}' never decides: '{other.name}' allows no more to the same requests,"
                " and all limits that apply must grant"
            )
        elif _never_decides(other, limit):
            yield (
                f"limit '{other.name}' does not decide any more: '{limit.name}' allows no more"
                " to the same requests"
            )


def _never_decides(one: Limit, other: Limit) -> bool:
    """Whether whatever `other` lets pass, `one` does too."""
    if one.unit is not other.unit or not _covers(other, one):
        return False
    if one.unit is LimitUnit.CONCURRENCY:
        return other.amount <= one.amount
    if other.window and one.window:
        times = 1 if (one.window, other.window) in _NESTED else 2
        return (one.window, other.window) not in _SHORTER and other.amount * times <= one.amount
    if other.window:
        return False  # it holds for its window, a bucket that refills for any time
    burst = other.burst or other.amount
    if one.window:
        return burst + -(-other.amount * _LONGEST_S[one.window] // other.period_s) <= one.amount
    return burst <= (one.burst or one.amount) and other.amount * one.period_s <= one.amount * other.period_s


_SHORTER = {(Window.WEEK, Window.DAY), (Window.MONTH, Window.DAY), (Window.MONTH, Window.WEEK)}
"""(one, other) where `other` begins anew several times in a window of `one`: said nothing about."""


def _covers(other: Limit, one: Limit) -> bool:
    """Whether all that `one` counts in one bucket, `other` counts in one too."""
    if other.scope is LimitScope.ORG:
        return other.subject in ("", one.subject) if one.scope is LimitScope.ORG else not other.subject
    return other.scope is one.scope and other.subject in ("", one.subject)
