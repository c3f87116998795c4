"""The `orgate` command as its users run it: a process of its own, with its own configuration folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "cli.main"]


@dataclass(frozen=True)
class Orgate:
    """One person's command line. `config` holds their profiles and logins."""

    config: Path
    extra: dict[str, str] = field(default_factory=dict)
    """More environment variables."""

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ORGATE_")}
        return {**kept, "ORGATE_CONFIG_DIR": str(self.config), "PYTHONPATH": str(REPOSITORY), **self.extra}

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command to its end, whatever its exit code. `given` is its standard input."""
        return subprocess.run(
            [*COMMAND, *arguments],
            input=given,
            env=self.environment,
            cwd=self.config.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def __call__(self, *arguments: str, given: str = "", expect: int = 0) -> str:
        """Run one command that must end with `expect`; what it printed on stdout, on stderr if refused."""
        ended = self.run(*arguments, given=given)
        shown = f"orgate {' '.join(arguments)}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
        assert ended.returncode == expect, shown
        assert "Traceback" not in ended.stderr, shown
        return ended.stderr if expect else ended.stdout

    def json(self, *arguments: str, given: str = "") -> Any:
        """The document that `--output json` prints."""
        return json.loads(self(*arguments, "--output", "json", given=given))

    def login(
        self, *, server: str, admin: str, ca: Path, org: str, email: str, password: str, invitation: str = ""
    ) -> None:
        """Sign in as a script does it, accepting the invitation first when there is one."""
        where = ("--server", server, "--admin-url", admin, "--ca", str(ca), "--org", org, "--email", email)
        invited = ("--invitation", invitation) if invitation else ()
        self("login", *where, *invited, "--password-stdin", given=password + "\n")
