"""What the commands fail with: what is wrong, what to do about it, and the exit code a script can act on."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The contract with scripts."""

    DONE = 0
    REFUSED = 1
    """The server or a check said no."""
    USAGE = 2
    """The command was called wrongly."""
    NOT_ALLOWED = 3
    """Not signed in, or not allowed."""
    UNREACHABLE = 4
    """The server cannot be reached."""
    INTERRUPTED = 130
    """Ctrl-C, where something was left that can be gone on with."""


NOT_READABLE = (ValueError, RecursionError)
"""What readers of JSON, TOML and YAML raise: faults of theirs, bytes that are no text, numbers of more digits than
Python reads, dates that there are not, and what is nested deeper than Python goes."""


def unreadable(error: Exception) -> str:
    """What is wrong with a text, by what its reader raised, one of `NOT_READABLE`."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a number in it is too long" if "integer string conversion" in str(error) else str(error)


class CliError(Exception):
    """`message` says what is wrong, `fix` what to do. Both are shown: neither ever holds a secret."""

    code = ExitCode.REFUSED

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class RefusedError(CliError):
    """The server or a check said no."""


class UsageError(CliError):
    code = ExitCode.USAGE


class NotAllowedError(CliError):
    code = ExitCode.NOT_ALLOWED


class UnreachableError(CliError):
    code = ExitCode.UNREACHABLE


class InterruptedExportError(CliError):
    code = ExitCode.INTERRUPTED


class StaleVersionError(RefusedError):
    """412: somebody wrote in between, nothing was changed."""


class NotFoundError(RefusedError):
    """404: nothing by that name, or nothing this member may see; the server answers both the same."""
