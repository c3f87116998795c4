"""Commands that make a provider's next key, or revoke its last one. Only those that the operator allows are run.

A command gets the organization and the upstream as its two arguments, never a shell, and no more of the gateway's
environment than PATH, HOME, LANG and TZ: the gateway's own may hold a master key. Nothing it says is logged.
Trusted: whoever can change such a file runs as the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

from gateway.secret import Secret
from tenants.ids import OrgId

LONGEST: Final = 8192
"""Bytes that a command may print: a key."""

_PASSED_ON: Final = ("PATH", "HOME", "LANG", "TZ")


class MintError(Exception):
    """The command is not allowed, cannot be run, or did not do what it should. Says nothing of what it printed."""


class Commands:
    """`allowed`: absolute paths. `timeout_s`: what does not end in time is killed, with all it has started."""

    def __init__(self, allowed: Collection[Path] = (), timeout_s: float = 60.0) -> None:
        self._allowed = frozenset(str(path) for path in allowed)
        self._timeout_s = timeout_s

    def check(self, command: str) -> None:
        """Raises `MintError` unless the operator allows `command`."""
        if command not in self._allowed:
            raise MintError("that command is not among secrets.mint_commands of the settings")

    async def run(self, command: str, org: OrgId, upstream: str, given: Secret | None = None) -> Secret:
        """What `command ORG UPSTREAM` prints, without the line's end. `given` is its stdin. Raises `MintError`."""
        self.check(command)
        _judge_file(command)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                command,
                org,
                upstream,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise MintError(f"the command cannot be run: {getattr(error, 'strerror', '') or 'bad path'}") from None
        try:
            async with asyncio.timeout(self._timeout_s):
                printed = await _talk(process, given)
                status = await process.wait()
        except TimeoutError:
            raise MintError(f"the command did not end in {self._timeout_s:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # its own group: all that it has started ends with it
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if printed is None:
            raise MintError(f"the command printed more than {LONGEST} bytes")
        if status:
            raise MintError(f"the command ended with status {status}")
        return printed


async def _talk(process: asyncio.subprocess.Process, given: Secret | None) -> Secret | None:
    """None: it printed more than a key has."""
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it does not want to read it
        if given is not None:
            process.stdin.write(given.reveal() + b"\n")
            await process.stdin.drain()
        process.stdin.close()
    printed = bytearray()
    while piece := await process.stdout.read(LONGEST):
        printed += piece
        if len(printed) > LONGEST + 2:
            return None
    return Secret(bytes(printed).removesuffix(b"\n").removesuffix(b"\r"))


def _judge_file(command: str) -> None:
    try:
        status = os.stat(command)
    except OSError as error:
        raise MintError(f"the command cannot be run: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022:
        raise MintError("the command is no file, or one that others than its owner can write")
