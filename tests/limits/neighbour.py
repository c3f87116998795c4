"""What an organization at ten times its limit costs the one beside it, through the real gateway.

The gateway with one worker is on one core, the compiled upstream and the compiled loads on the other. The quiet
organization's load is the same throughout. In every round its latencies are taken with the loud one within its
limit, at ten times of it, and within its limit again: the first and the last are the A/A control.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from msgspec import Struct

from tests.bench.processes import choose_cores, pinned
from tests.bench.rig import JSON, Figures, Rig, figures_of, running
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


class Spells(Struct, frozen=True):
    """`judged`: whether they are long enough for p99 to be more than its slowest request or two."""

    rounds: int
    seconds: float
    judged: bool = True


FULL = Spells(rounds=9, seconds=4)
SMALL = Spells(rounds=2, seconds=1, judged=False)


WORDS = Words(
    "One organization at ten times its limit, and the one beside it",
    {
        "p50_ms": "of the quiet organization's requests, the loud one within its limit",
        "p50_loud_ms": "the loud one at ten times of it",
        "p50_moved_pct": "by so much, median over the rounds",
        "p50_control_pct": "what two calm spells of a round differ by",
        "p99_ms": "",
        "p99_loud_ms": "",
        "p99_moved_pct": "",
        "p99_control_pct": "",
        "passed": "of the loud organization's requests",
        "refused": "of them",
        "failed": "of the quiet one's: none may",
    },
)


@dataclass
class Latencies:
    """p50 and p99 of the quiet organization's requests in ms, a pair for each spell of a kind."""

    before: list[tuple[float, float]] = field(default_factory=list)
    loud: list[tuple[float, float]] = field(default_factory=list)
    after: list[tuple[float, float]] = field(default_factory=list)
    failed: int = 0
    """Requests of the quiet organization that were not answered whole."""
    refused: int = 0
    passed: int = 0
    """Of the loud one's, while it was loud."""

    def add(self, spell: list[tuple[float, float]], quiet: Figures) -> None:
        spell.append((quiet["p50"], quiet["p99"]))
        self.failed += int(quiet["bad"] + quiet["err"] + quiet["hung"] + quiet["short"])


def judge(found: Latencies, *, p99: bool = True) -> Verdict:
    """Each round's loud spell against the mean of its calm ones; the control is one calm spell against the other.
    Of either the median over the rounds. `p99`: whether that is held to its bar."""
    moved = {}
    for name, place in (("p50", 0), ("p99", 1)):
        pairs = [
            (a[place], b[place], c[place]) for a, b, c in zip(found.before, found.loud, found.after, strict=True)
        ]
        moved[f"{name}_ms"] = round(median((a + c) / 2 for a, _, c in pairs), 3)
        moved[f"{name}_loud_ms"] = round(median(b for _, b, _ in pairs), 3)
        moved[f"{name}_moved_pct"] = round(median(100 * (2 * b / (a + c) - 1) for a, b, c in pairs), 1)
        moved[f"{name}_control_pct"] = round(abs(median(100 * (c / a - 1) for a, _, c in pairs)), 1)
    beyond = moved["p99_moved_pct"] - moved["p99_control_pct"]
    verdict = Verdict({**moved, "passed": found.passed, "refused": found.refused, "failed": found.failed})
    claims = [
        (not found.failed, f"{found.failed} requests of the quiet organization failed"),
        (found.refused > found.passed, "the loud organization was not refused: nothing was shown"),
        (
            beyond < MOVED_PCT or not p99,
            f"the quiet organization's p99 moved by {beyond:.1f} % beyond the control",
        ),
    ]
    verdict.faults = [fault for holds, fault in claims if not holds]
    return verdict


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
    _spell(rig, quiet, loud, LOUD_RATE, 1.0)
    for turn in range(spells.rounds):
        say(f"beside an organization at ten times its limit, round {turn + 1} of {spells.rounds}")
        found.add(found.before, _spell(rig, quiet, loud, CALM_RATE, spells.seconds)[0])
        beside, noise = _spell(rig, quiet, loud, LOUD_RATE, spells.seconds)
        found.add(found.loud, beside)
        found.passed += int(noise["ok"])
        found.refused += int(noise["bad"])
        found.add(found.after, _spell(rig, quiet, loud, CALM_RATE, spells.seconds)[0])
    return found


def _spell(rig: Rig, quiet: Target, loud: Target, rate: float, seconds: float) -> tuple[Figures, Figures]:
    """The loud one begins first and ends last."""
    noise = rig.start(loud, JSON, seconds=seconds + 0.4, rate=rate)
    beside = rig.start(quiet, JSON, seconds=seconds, rate=QUIET_RATE)
    return figures_of(beside), figures_of(noise)


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
