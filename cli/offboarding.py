"""What shutting somebody out answers: each step with its time."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from cli.output import Column, Format
from cli.session import Session


class Step(Struct, frozen=True):
    """`ms` since the call began."""

    what: str
    ms: float
    count: int | None = None


STEPS = [
    Column("STEP", "what"),
    Column("COUNT", "count", lambda n: "" if n is None else str(n)),
    Column("MS", "ms"),
]


def show(session: Session, told: Struct, steps: Sequence[Step], fenced: Sequence[str]) -> None:
    """`told` as a document where one is asked for, else `steps` as a table and who did not answer."""
    if session.out.form is not Format.TABLE:
        session.out.item(told)
        return
    session.out.items(steps, STEPS, empty="nothing to do")
    for worker in fenced:
        session.out.say(f"worker {worker} did not answer and serves nobody until it has caught up")
