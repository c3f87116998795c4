"""What limits cost a gateway's CPU a request, held to its bar: `tests.bench.limits` measures it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from tests.bench.limits import LimitsCost, measure_limits
from tests.bench.processes import choose_cores
from tests.bench.rig import running
from tests.kit.certs import make_pki
from tests.limits.judge import Verdict, Words

BUSY_US = 15.0
"""The bar."""

WORDS = Words(
    "What two busy limits cost the gateway, in µs of CPU a request",
    {
        "busy_us": "half of either is used: claims, reservation, headers, settlement, messages; first quartiles",
        "spread_us": "with 95 % it is not farther off than this",
        "usual_us": "the same by the medians, in which more of what else the machine does is",
        "control_us": "what an organization without limits seems to cost more than another without",
        "whole_us": "a request that no limit applies to",
        "evalsha_us": "the client alone of a gateway that asks Redis for each request: one EVALSHA",
        "evalsha_x": "times as much as both limits",
    },
)


class Spells(Struct, frozen=True):
    """`seconds` of one; in each of `rounds` every organization has one, and the baseline half of one. `judged`:
    whether they are enough to be held to the bar."""

    rounds: int
    seconds: float
    judged: bool = True


FULL = Spells(rounds=200, seconds=0.3)
SMALL = Spells(rounds=5, seconds=0.2, judged=False)


def measure(spells: Spells, say: Callable[[str], None]) -> Verdict:
    """Raises `RigError` when the rig can't be built."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orgate-cost-")))
        pki = make_pki(folder / "tls")
        rig = stack.enter_context(running(folder, pki, choose_cores()))

        def done(turn: int) -> None:
            if turn % 10 == 0 or turn == spells.rounds:
                say(f"what limits cost, turn {turn} of {spells.rounds}")

        cost = measure_limits(rig, folder / "cost", pki, rounds=spells.rounds, seconds=spells.seconds, done=done)
        return judge(cost, judged=spells.judged)


def judge(cost: LimitsCost, *, judged: bool = True) -> Verdict:
    verdict = Verdict(
        {
            "busy_us": round(cost.busy, 1),
            "spread_us": round(cost.spread, 1),
            "usual_us": round(cost.usual, 1),
            "control_us": round(cost.control, 1),
            "whole_us": round(cost.whole, 1),
            "evalsha_us": round(cost.evalsha, 1),
            "evalsha_x": round(cost.times, 1),
        }
    )
    if judged and cost.busy > BUSY_US:
        verdict.faults.append(f"{cost.busy:.1f} µs a request for two busy limits, {BUSY_US:.0f} may be")
    return verdict
