"""A few of the races of `make races`, and that it would notice a store with the fault they are for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tenants.sql.store import sqlite_url
from tests.kit.postgres_store import empty_control_database
from tests.races import run
from tests.races.run import Outcome, race


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast a family dies is for `make races` to say, on a machine that does nothing else."""
    monkeypatch.setattr(run, "KILLED_WITHIN_S", 60.0)


@pytest.mark.parametrize("store", run.STORES)
def test_of_many_at_once_one_rotates(store: str, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "control.db") if store == "sqlite" else empty_control_database().url
    found = race(store, url, 4, at_once=20)
    assert (found.races, found.refreshes, found.extra, found.faults) == (4, 80, 0, {})
    assert found.sound


def test_a_store_that_reads_and_then_writes_is_caught(tmp_path: Path) -> None:
    found = race("sqlite", sqlite_url(tmp_path / "control.db"), 2, at_once=20, build="broken")
    assert found.extra > 0
    assert not found.sound


@pytest.mark.parametrize(
    ("worse", "status"), [({}, 0), ({"extra": 1}, 1), ({"faults": {"no successor": 1}}, 1), ({"races": 0}, 1)]
)
def test_a_fault_is_printed_and_ends_in_1(
    worse: dict[str, object],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def raced(store: str, url: str, races: int) -> Outcome:
        return Outcome(store, **{"races": races, **worse})  # type: ignore[arg-type]

    monkeypatch.setenv("SIZE", "small")
    monkeypatch.setattr(run, "STORES", ("sqlite",))
    monkeypatch.setattr(run, "race", raced)
    assert run.main() == status
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["extra_successors"] == worse.get("extra", 0)
    assert figures["races"] == worse.get("races", run.SMALL)
