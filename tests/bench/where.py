"""Where the microseconds of one JSON request go: stages measured one by one, held against the whole gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.floor import floor_target
from tests.bench.processes import pinned, threads_cpu_s
from tests.bench.rig import JSON, Rig
from tests.bench.targets import Target
from tests.kit.certs import Pki

WHAT: Final = {
    "server": "Granian: TLS, HTTP/2, its threads",
    "edge": "the worker's loop from Granian to the handler and back; body, watch, answer",
    "token": "authenticate, signature cached",
    "decode": "body to call",
    "policy": "resolve, authorize",
    "limit": "claims, reserve, headers, settle; two limits, lent",
    "route": "alias to upstream, leased key",
    "transport": "to the upstream and back: HTTP/2, TLS, sockets",
    "ledger": "notes of every stage, the receipt, the time split",
    "audit": "room, intent, receipt, group sync, message to the sequencer",
    "metrics": "count the receipt",
}


@dataclass(frozen=True)
class Where:
    """Microseconds of CPU a request. `stages`: by stage; `threads`: the gateway's own, in one run of the load.
    `durability`: what intent and receipt cost on the request's path by itself, and what `strict` waits."""

    stages: dict[str, float]
    threads: dict[str, float]
    durability: dict[str, float] = field(default_factory=dict)

    @property
    def rest(self) -> float:
        """What the worker took beyond its stages: the bus, and being busy with many requests at a time."""
        return (
            self.threads["worker, main thread"] + self.threads["worker, other threads"] - sum(self.stages.values())
        )


def measure_where(rig: Rig, gateway: Target, folder: Path, pki: Pki, seconds: float) -> Where:
    """The three parts one after the other, so in the same run and on the same core, never at the same time."""
    with floor_target(folder, pki, rig.cores) as floor:
        rig.run(floor, JSON, seconds=0.3)
        served = _threads(rig, floor, seconds)
    stages = {"server": served["worker, other threads"], "edge": served["worker, main thread"]}
    spool = folder / "stages"
    spool.mkdir()
    arguments = [str(spool), str(rig.upstream_port), str(pki.files.ca)]
    with pinned(rig.cores.target):
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.stages", *arguments], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise RuntimeError(f"the stages cannot be measured:\n{done.stderr}")
    measured = json.loads(done.stdout)
    durability = {name: figure for name, figure in measured.items() if name.startswith("audit_")}
    stages |= {name: figure for name, figure in measured.items() if name not in durability}
    return Where(stages, _threads(rig, gateway, seconds), durability)


def _threads(rig: Rig, target: Target, seconds: float) -> dict[str, float]:
    before = threads_cpu_s(target.pids)
    figures = rig.run(target, JSON, seconds=seconds)
    spent = {key: cpu - before.get(key, 0) for key, cpu in threads_cpu_s(target.pids).items()}
    by_process: dict[int, float] = {}
    for (pid, _), cpu in spent.items():
        by_process[pid] = by_process.get(pid, 0) + cpu
    worker = max(by_process, key=lambda pid: by_process[pid])
    main = spent[worker, worker]
    parts = {
        "worker, main thread": main,
        "worker, other threads": by_process[worker] - main,
        "other processes": sum(by_process.values()) - by_process[worker],
    }
    return {name: cpu / max(figures["ok"], 1) * 1e6 for name, cpu in parts.items()}
