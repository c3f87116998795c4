"""`server.scheduling`: the workers' threads, and no others."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.processes import threads_cpu_s
from tests.kit.gateway import RunningGateway


def test_batch_is_for_all_threads_of_the_workers_alone(tmp_path: Path) -> None:
    with RunningGateway(tmp_path / "home", settings={"ORGATE_SERVER__SCHEDULING": "batch"}) as gateway:
        assert gateway.process is not None
        policies: dict[int, set[int]] = {}
        for pid, thread in threads_cpu_s([gateway.process.pid]):
            policies.setdefault(pid, set()).add(os.sched_getscheduler(thread))
        workers = [pid for pid, found in policies.items() if os.SCHED_BATCH in found]
        assert len(workers) == 1
        assert policies[workers[0]] == {os.SCHED_BATCH}
        assert len(policies) > 3
