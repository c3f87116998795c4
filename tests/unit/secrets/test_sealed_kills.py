"""kill -9 at any point of a write of the sealed file: never unreadable, never half-written, nothing lost.

`make kills` does it 1,000 times; ORGATE_KILLS says another number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

KILLS = int(os.environ.get("ORGATE_KILLS", "40"))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the killer found, in a process of its own: it forks, and this one has threads."""
    folder = tmp_path_factory.mktemp("kills")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.kit.sealed_kills", str(folder), str(KILLS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    print(ran.stdout)
    return json.loads(ran.stdout)


def test_killed_between_any_two_system_calls_it_is_the_old_file_or_the_new_one(found: Any) -> None:
    steps = found["steps"]
    assert steps["places"] == steps["it stands"] + steps["it does not"]
    assert steps["it does not"] > 0  # before the rename
    assert steps["it stands"] > 0  # after it


def test_killed_at_random_it_is_never_unreadable_and_loses_nothing_acknowledged(found: Any) -> None:
    at_random = found["random"]
    assert at_random["it stands"] + at_random["it does not"] == KILLS
