"""From what clients, upstream and audit log wrote down to figures, and to what they prove. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.soak.storm import CANCEL, FAIL, HTTP1_IDS, WHOLE, Done, Upstream

GROWTH_MB = 4.0
"""What the worker's memory may have grown by between warm-up and end.

An object kept for each request, some 160 bytes with its key, would be 10 MB over the 65,000 that follow;
connections that were replaced, with 256 KiB of TLS buffers each, 6 MB. What allocators keep of peaks comes and
goes.
"""

ENDINGS = {WHOLE: {"served"}, CANCEL: {"cancelled_by_client", "served"}}
"""What the log may say of a request its client saw end so. A cancel may come when all of it has just left."""


@dataclass
class Verdict:
    """`figures` as they are printed, `faults` in words: what was to be proven and isn't so."""

    figures: dict[str, float | int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def judge(
    done: Mapping[int, Done],
    upstream: Upstream,
    entries: Iterable[Mapping[str, Any]],
    *,
    asked: int,
    share: float,
    new_connections: int,
    growth_mb: float,
    seconds: float,
) -> Verdict:
    """`asked`: the least number of requests; `share`: of them cancelled, within three in a hundred."""
    cancelled = {number for number, each in done.items() if each.outcome == CANCEL}
    failed = [number for number, each in done.items() if each.outcome == FAIL]
    opened, reset = upstream.opened.keys(), upstream.reset.keys()
    dangling = upstream.dangling
    settled_there = [n for n in cancelled if n not in opened or upstream.ended[n] + upstream.reset[n] == 1]
    spurious = sorted((reset - cancelled) | (upstream.lost.keys() - cancelled))
    books = Counter(_number(entry) for entry in entries)
    unheard = {n for n in cancelled - opened if n >= HTTP1_IDS and books[n] == 0}
    wrong_entries = [n for n in done if books[n] != 1 and n not in unheard] + [n for n in books if n not in done]
    outcomes = {_number(entry): entry for entry in entries}
    misjudged = [
        number
        for number, each in done.items()
        if each.outcome in ENDINGS
        and number in outcomes
        and outcomes[number]["outcome"] not in ENDINGS[each.outcome]
    ]
    free = [n for n, e in outcomes.items() if not e["sent"] and e["prompt_tokens"] + e["completion_tokens"]]
    hidden = [number for number in opened if number in outcomes and not outcomes[number]["sent"]]
    verdict = Verdict(
        figures={
            "requests": len(done),
            "cancelled": len(cancelled),
            "reset_or_done": len(settled_there),
            "dangling": len(dangling),
            "spurious": len(spurious),
            "innocent_failures": len(failed),
            "new_connections": new_connections,
            "rss_growth_mb": round(growth_mb, 2) + 0.0,  # never -0.0
            "reached_upstream": len(opened),
            "reset_upstream": len(reset),
            "cancelled_before_sent": len(cancelled - opened),
            "unheard": len(unheard),
            "entries_missing_or_twice": len(wrong_entries),
            "seconds": round(seconds, 1),
            "requests_per_s": round(len(done) / seconds),
        }
    )
    claims = [
        (len(done) >= asked, f"only {len(done)} of {asked} requests came to an end"),
        (abs(len(cancelled) / len(done) - share) < 0.03 if done else False, "too few or too many were cancelled"),
        (len(settled_there) == len(cancelled), "cancelled, and neither reset nor ended upstream"),
        (not dangling, f"left open upstream: {dangling[:10]}"),
        (not spurious, f"reset or lost upstream, and nobody had cancelled them: {spurious[:10]}"),
        (not failed, f"failed, though nobody had cancelled them: {failed[:10]}"),
        (max(upstream.opened.values(), default=1) == 1, "a request was sent upstream twice"),
        (not wrong_entries, f"not exactly one audit entry: {wrong_entries[:10]}"),
        (not misjudged, f"the audit log says something else than the client saw: {misjudged[:10]}"),
        (not free, f"never sent, and yet charged: {free[:10]}"),
        (not hidden, f"the upstream had them, and the log says they were not sent: {hidden[:10]}"),
        (growth_mb <= GROWTH_MB, f"the worker grew by {growth_mb:.1f} MB, more than {GROWTH_MB:.0f}"),
    ]
    verdict.faults = [fault for holds, fault in claims if not holds]
    return verdict


def _number(entry: Mapping[str, Any]) -> int:
    return int(str(entry["request_id"]).removeprefix("soak-"))
