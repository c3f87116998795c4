"""Checkpoints in a git repository: `<organization>/checkpoint` on a branch of its own, a commit for what is new.

By the `git` program's plumbing, with an index of its own: it works in a bare repository and in a clone, whose
files and checked-out branch are left alone, and runs no hook but those of a push. A clone of the branch elsewhere
shows every checkpoint there ever was, and that none was taken back.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.audit.publish import Publication, PublishError
from tenants.ids import OrgId

BRANCH: Final = "refs/heads/checkpoints"
LOCAL_S: Final = 30
PUSH_S: Final = 60
_WHO: Final = ("Orgate", "orgate@localhost")
_KEPT: Final = ("PATH", "HOME", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND")
"""What git and ssh need to find their own configuration."""


class GitPlace:
    """`remote` is '' for none. One process writes the branch."""

    name = "git"

    def __init__(self, repository: Path, remote: str = "") -> None:
        self._repository = repository
        self._remote = remote

    async def put(self, items: Sequence[Publication]) -> Sequence[OrgId]:
        """Committed when it returns, and pushed if there is a remote. A crash in between leaves objects that git
        clears away, or a commit that the next push takes along."""
        await asyncio.to_thread(self._put, items)
        return [item.org for item in items]

    def _put(self, items: Sequence[Publication]) -> None:
        with tempfile.TemporaryDirectory(prefix="orgate-git-") as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            parent = self._git("rev-parse", "--verify", "--quiet", BRANCH, fails_as="")
            if parent:
                self._git("read-tree", BRANCH, more=index)
            for item in items:
                blob = self._git("hash-object", "-w", "--stdin", given=item.checkpoint)
                entry = f"100644,{blob},{item.org}/checkpoint"
                self._git("update-index", "--add", "--cacheinfo", entry, more=index)
            tree = self._git("write-tree", more=index)
        if not parent or tree != self._git("rev-parse", f"{BRANCH}^{{tree}}"):
            parents = ("-p", parent) if parent else ()
            made = self._git("commit-tree", tree, *parents, given=_message(items))
            self._git("update-ref", BRANCH, made, parent or "0" * len(made))
        if self._remote:
            self._git("push", "--quiet", self._remote, f"{BRANCH}:{BRANCH}", patience_s=PUSH_S)

    def _git(
        self,
        *arguments: str,
        given: str = "",
        more: Mapping[str, str] | None = None,
        patience_s: int = LOCAL_S,
        fails_as: str | None = None,
    ) -> str:
        """What `git` prints. Raises `PublishError`, unless `fails_as` says what a refusal means."""
        try:
            ended = subprocess.run(  # noqa: S603  # no word of these comes from outside the settings
                ["git", "-C", str(self._repository), *arguments],  # noqa: S607  # the PATH is the operator's
                input=given.encode(),
                env={**_environment(), **(more or {})},
                capture_output=True,
                timeout=patience_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PublishError(f"git {arguments[0]} did not end in {patience_s} s") from None
        except OSError as error:
            raise PublishError(f"git cannot be run: {error.strerror}") from None
        if ended.returncode:
            if fails_as is not None:
                return fails_as
            said = ended.stderr.decode(errors="replace").strip().splitlines()
            raise PublishError(
                f"git {arguments[0]}: {ascii(said[-1]) if said else f'exit code {ended.returncode}'}"
            )
        return ended.stdout.decode().strip()


def _message(items: Sequence[Publication]) -> str:
    if len(items) == 1:
        return f"{items[0].org}: {items[0].size} entries\n"
    lines = [f"{item.org}: {item.size} entries" for item in items]
    return "\n".join([f"Checkpoints of {len(items)} logs", "", *lines, ""])


def _environment() -> dict[str, str]:
    """Nothing of the gateway's own, which may be secret; nobody is asked for a password."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        **kept,
        "GIT_AUTHOR_NAME": _WHO[0],
        "GIT_AUTHOR_EMAIL": _WHO[1],
        "GIT_COMMITTER_NAME": _WHO[0],
        "GIT_COMMITTER_EMAIL": _WHO[1],
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
