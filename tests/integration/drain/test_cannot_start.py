"""What only a worker finds wrong, when it starts: said in one line, and `orgate serve` ends with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gateway.install import initialize
from tests.kit.gateway import REPOSITORY
from tests.kit.ports import free_port


def test_a_fault_that_workers_find_ends_the_first_start_in_words(tmp_path: Path) -> None:
    home = tmp_path / "home"
    installed = initialize(
        home,
        operator_email="operator@orgate.test",
        org="acme",
        owner_email="owner@acme.test",
        public_port=free_port(),
        admin_port=free_port(),
    )
    (home / "audit").mkdir()
    (home / "audit/spool").write_text("no folder")
    ran = subprocess.run(
        [sys.executable, "-m", "cli.main", "serve", "--settings", str(installed.settings)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 1, said
    assert "Traceback" not in said
    assert said.count("CRITICAL orgate a worker cannot start") == 1, said
    assert f"{home}/audit/spool: File exists" in said
