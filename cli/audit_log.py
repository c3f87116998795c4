"""What the `audit` commands share: where the log is, the filters' words, times as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.errors import RefusedError, UsageError
from cli.session import Session

Since = Annotated[
    str | None, typer.Option(help="From then on: 2026-01-31, a time in RFC 3339, or 30m, 2h, 7d ago.")
]
Until = Annotated[str | None, typer.Option(help="Before then; the same forms.")]
Actor = Annotated[str | None, typer.Option(help="Only this member's (mem_...).")]
Action = Annotated[str | None, typer.Option(help="Only this action, e.g. completion.create.")]
Outcome = Annotated[str | None, typer.Option(help="Only requests that ended so, e.g. refused.")]
Model = Annotated[str | None, typer.Option(help="Only requests for this model.")]
Client = Annotated[str | None, typer.Option(help="Only from this client program.")]

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def moment(text: str, now: float) -> int:
    """Unix seconds of a time in RFC 3339, a date (UTC), or so long before `now` (Unix seconds)."""
    if ago := _AGO.fullmatch(text):
        return max(int(now) - int(ago[1]) * _UNIT_S[ago[2]], 0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text[:40]!r} is no time", "write 2026-01-31, 2026-01-31T12:00:00Z, or 30m, 2h, 7d"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def is_ago(text: str) -> bool:
    """Whether a time is told from now, so that it is another one a minute later."""
    return _AGO.fullmatch(text) is not None


def bounds(since: str | None, until: str | None, now: float) -> dict[str, int]:
    """`since` and `until` in Unix seconds, as far as they are given. Raises `UsageError`."""
    found = {name: moment(text, now) for name, text in (("since", since), ("until", until)) if text}
    if len(found) == 2 and found["until"] <= found["since"]:
        raise UsageError("--until is not after --since", "give the earlier time to --since")
    return found


def path(session: Session, rest: str) -> str:
    return f"/admin/v1/orgs/{session.org}/audit/{rest}"


def size_of(checkpoint: str) -> int:
    """How many entries a checkpoint is about: its second line (C2SP tlog-checkpoint)."""
    lines = checkpoint.splitlines()
    if len(lines) < 2 or not (lines[1].isascii() and lines[1].isdecimal() and len(lines[1]) < 20):
        raise RefusedError("the server's checkpoint cannot be understood")
    return int(lines[1])
