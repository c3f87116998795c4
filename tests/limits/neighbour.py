"""What an organization at ten times its limit costs the one beside it, through the real gateway.

The gateway with one worker is on one core, the compiled upstream and the compiled loads on the other. The quiet
organization's load goes on without a pause. Beside it the loud one is within its limit, at ten times of it, and
within its limit again, in turns of seconds: each kind of spell meets the same machine, and the first against the
last is the A/A control. The answers of all spells of a kind are taken together: one spell has too few for a p99.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from tests.bench.processes import choose_cores, pinned
from tests.bench.rig import JSON, Rig, answers_in, figures_of, quantile, running
from tests.bench.targets import Target, wait_served
from tests.integration.gateway.world import invite
from tests.kit.certs import Pki, make_pki
from tests.kit.gateway import RunningGateway, Session
from tests.kit.redis import redis_server
from tests.limits.judge import Verdict, Words

LIMIT = 50
"""Requests a second that the loud organization may make: 3,000 a minute."""

QUIET_RATE = 97.0
"""Requests a second of the quiet one. It and the loud one's rates have no common beat."""

CALM_RATE, LOUD_RATE = 0.9 * LIMIT + 1.7, 10 * LIMIT + 3.1

MOVED_PCT = 10.0
"""The bar, beyond what the control moves by itself."""


WIDE_PCT = 20.0
"""What p99 has moved by may be farther off than this: then the machine was not still enough to show anything."""

SETTLE_S = 0.3
"""Of a spell's beginning nothing counts: the loud one connects."""

RESAMPLED = 500
"""Times that as many turns are drawn again from those there were, to see how far a figure may be off."""


class Spells(Struct, frozen=True):
    """Three in each of `rounds`, of `seconds` each. `judged`: whether they are enough for p99 to be more than the
    slowest answer or two."""

    rounds: int
    seconds: float
    judged: bool = True


FULL = Spells(rounds=40, seconds=2)
SMALL = Spells(rounds=2, seconds=1, judged=False)


WORDS = Words(
    "One organization at ten times its limit, and the one beside it",
    {
        "p50_ms": "of the quiet organization's requests, the loud one within its limit",
        "p50_loud_ms": "the loud one at ten times of it",
        "p50_moved_pct": "by so much",
        "p50_control_pct": "what the spells before and after it differ by",
        "p99_ms": "",
        "p99_loud_ms": "",
        "p99_moved_pct": "",
        "p99_control_pct": "",
        "p99_spread_pct": "with 95 % what p99 has moved by is not farther off than this",
        "passed": "of the loud organization's requests",
        "refused": "of them",
        "failed": "of the quiet one's: none may",
    },
)


class Turn(Struct, frozen=True):
    """What the quiet organization's answers took in ms, by when they were asked for."""

    before: Sequence[float]
    loud: Sequence[float]
    after: Sequence[float]


@dataclass
class Latencies:
    turns: list[Turn] = field(default_factory=list)
    failed: int = 0
    """Requests of the quiet organization that were not answered whole."""
    refused: int = 0
    passed: int = 0
    """Of the loud one's, while it was loud."""


def judge(found: Latencies, *, p99: bool = True) -> Verdict:
    """The loud spells against the calm ones; the control is the calm ones after against those before. `p99`:
    whether that is held to its bar."""
    moved: dict[str, float] = {}
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        before, loud, after = (
            _quantile([getattr(turn, kind) for turn in found.turns], part) for kind in ("before", "loud", "after")
        )
        moved[f"{name}_ms"] = round(_calm(found.turns, part), 3)
        moved[f"{name}_loud_ms"] = round(loud, 3)
        moved[f"{name}_moved_pct"] = round(_moved_pct(found.turns, part), 1)
        moved[f"{name}_control_pct"] = round(abs(100 * (after / before - 1)), 1)
    moved["p99_spread_pct"] = round(_spread_pct(found.turns, 0.99), 1)
    beyond = moved["p99_moved_pct"] - moved["p99_control_pct"]
    verdict = Verdict({**moved, "passed": found.passed, "refused": found.refused, "failed": found.failed})
    claims = [
        (not found.failed, f"{found.failed} requests of the quiet organization failed"),
        (found.refused > found.passed, "the loud organization was not refused: nothing was shown"),
        (
            beyond < MOVED_PCT or not p99,
            f"the quiet organization's p99 moved by {beyond:.1f} % beyond the control",
        ),
        (
            moved["p99_spread_pct"] <= WIDE_PCT or not p99,
            f"by how much p99 moved may be {moved['p99_spread_pct']:.1f} % off: nothing was shown",
        ),
    ]
    verdict.faults = [fault for holds, fault in claims if not holds]
    return verdict


def _quantile(spells: Sequence[Sequence[float]], part: float) -> float:
    return quantile(sorted(took for spell in spells for took in spell), part)


def _calm(turns: Sequence[Turn], part: float) -> float:
    return _quantile([spell for turn in turns for spell in (turn.before, turn.after)], part)


def _moved_pct(turns: Sequence[Turn], part: float) -> float:
    return 100 * (_quantile([turn.loud for turn in turns], part) / _calm(turns, part) - 1)


def _spread_pct(turns: Sequence[Turn], part: float) -> float:
    again = random.Random(RESAMPLED)  # the same turns say the same
    drawn = sorted(_moved_pct(again.choices(turns, k=len(turns)), part) for _ in range(RESAMPLED))
    return (drawn[-RESAMPLED // 40 - 1] - drawn[RESAMPLED // 40]) / 2


def measure(spells: Spells, say: Callable[[str], None]) -> Verdict:
    """Raises `RigError` when the rig can't be built."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orgate-neighbour-")))
        cores = choose_cores()
        pki = make_pki(folder / "tls")
        rig = stack.enter_context(running(folder, pki, cores))
        with pinned(cores.rig):
            store = stack.enter_context(redis_server())
        settings = {"ORGATE_LIMITS__STORE": "redis", "ORGATE_LIMITS__ADDRESSES": store.address}
        gateway = RunningGateway(folder / "gateway", settings=settings)
        stack.callback(gateway.http.close)
        stack.callback(gateway.stop)
        with pinned(cores.target):
            gateway.start()
        quiet, loud = _targets(gateway, rig, pki)
        allowed = os.sched_getaffinity(0)
        stack.callback(os.sched_setaffinity, 0, allowed)
        os.sched_setaffinity(0, {cores.rig})
        return judge(_rounds(rig, quiet, loud, spells, say), p99=spells.judged)


def _rounds(rig: Rig, quiet: Target, loud: Target, spells: Spells, say: Callable[[str], None]) -> Latencies:
    found = Latencies()
    rig.run(loud, JSON, seconds=1.0, rate=LOUD_RATE)
    for turn in range(spells.rounds):
        if turn % 10 == 0:
            say(f"beside an organization at ten times its limit, turn {turn + 1} of {spells.rounds}")
        _turn(rig, quiet, loud, spells.seconds, found)
    return found


def _turn(rig: Rig, quiet: Target, loud: Target, seconds: float, found: Latencies) -> None:
    journal = rig.folder / "quiet.journal"
    lasts = SETTLE_S + 3 * (seconds + SETTLE_S)
    extra = ("--journal", str(journal))
    beside = rig.start(quiet, JSON, seconds=lasts, rate=QUIET_RATE, extra=extra)
    time.sleep(SETTLE_S)  # the first calm spell begins as the last does, with the quiet one's connections warm
    spans = []
    for rate in (CALM_RATE, LOUD_RATE, CALM_RATE):
        began_s = time.monotonic()
        noise = rig.run(loud, JSON, seconds=seconds, rate=rate)
        spans.append((began_s + SETTLE_S, began_s + seconds))
        if rate == LOUD_RATE:
            found.passed += int(noise["ok"])
            found.refused += int(noise["bad"])
    figures = figures_of(beside)
    found.failed += int(figures["bad"] + figures["err"] + figures["hung"] + figures["short"])
    answers = answers_in(journal.read_text())
    found.turns.append(Turn(*([ms for at_s, ms in answers if start <= at_s < end] for start, end in spans)))


def _targets(gateway: RunningGateway, rig: Rig, pki: Pki) -> tuple[Target, Target]:
    operator, owner = gateway.operator(), gateway.owner()
    operator.admin("POST", "/admin/v1/orgs", json={"id": "globex", "name": "Globex"})
    other = invite(gateway, operator, "globex", "owner", "owner").session
    targets = []
    for name, session, amount in (("quiet", owner, 2_000_000_000), ("loud", other, LIMIT)):
        _set_up(session, f"https://127.0.0.1:{rig.upstream_port}", pki, amount)
        wait_served(gateway, session.access_token)
        targets.append(Target(name, gateway.public_port, (), session.access_token, gateway.ca))
    return targets[0], targets[1]


def _set_up(owner: Session, url: str, pki: Pki, amount: int) -> None:
    owner.create("upstreams", name="rig", base_url=url, protocol="h2", ca_pem=pki.ca_pem)
    owner.admin("PUT", f"/admin/v1/orgs/{owner.org}/upstreams/rig/key", json={"key": "sk-limits-upstream"})
    owner.create("models", name="bench", upstream="rig", model="bench")
    owner.create("rules", name="all", effect="allow", roles=["owner"], actions=["chat"], models=["*"])
    owner.create("limits", name="requests", scope="org", unit="requests", amount=amount, period_s=1)
    owner.create("limits", name="tokens", scope="member", unit="tokens", amount=2_000_000_000)
