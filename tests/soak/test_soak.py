"""The soak in miniature: the whole program, gateway and compiled storm included, on a few hundred requests."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from tests.soak.run import SEED, WORDS, report, soak
from tests.soak.storm import Size

TINY = Size(requests=600, http1=20, innocents=8, innocent_events=20, connections=1)


@pytest.mark.slow
def test_a_small_storm_touches_nobody() -> None:
    screen = Console(quiet=True)
    verdict = soak(TINY, SEED, screen)
    assert verdict.faults == []
    figures = json.loads(json.dumps(verdict.figures))
    assert figures.keys() == WORDS.keys()
    assert figures["requests"] >= TINY.requests + TINY.http1 + TINY.innocents
    assert figures["dangling"] == figures["spurious"] == figures["innocent_failures"] == 0
    assert figures["reset_or_done"] == figures["cancelled"] > 0.4 * TINY.requests
    assert figures["reset_upstream"] > 0.1 * TINY.requests
    printed = Console(record=True, quiet=True, width=120)
    report(verdict, printed)
