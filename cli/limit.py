"""`orgate limit`: how much of what, per what time, for whom."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from msgspec import structs

from cli.command import command
from cli.errors import NotFoundError, UsageError
from cli.examples import examples
from cli.output import Column
from cli.resources import Resource, body_of
from cli.session import Session
from cli.webhook import app as webhook
from tenants.ids import OrgId
from tenants.models import Limit, LimitScope, LimitUnit

app = typer.Typer(
    help="Limits of requests, tokens and concurrency.",
    epilog=examples(
        "orgate limit set requests --scope member --unit requests --amount 1000 --per minute", "orgate limit list"
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.add_typer(webhook, name="webhook")


class Period(StrEnum):
    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


SECONDS = {Period.SECOND: 1, Period.MINUTE: 60, Period.HOUR: 3_600, Period.DAY: 86_400}
NAMES = {seconds: str(period) for period, seconds in SECONDS.items()}


def _period(seconds: Any) -> str:
    return "" if not seconds else NAMES.get(seconds, f"{seconds} s")


COLUMNS = [
    Column("NAME", "name"),
    Column("SCOPE", "scope"),
    Column("SUBJECT", "subject", lambda subject: subject or "each"),
    Column("UNIT", "unit"),
    Column("AMOUNT", "amount"),
    Column("PER", "period_s", _period),
    Column("BURST", "burst", lambda burst: str(burst or "")),
]
Name = Annotated[str, typer.Argument(help="The limit's name.")]


def _limits(session: Session) -> Resource[Limit]:
    return session.resource("limits", Limit, "limit")


@command(app, examples("orgate limit list", "orgate limit list --scope member --output json"), name="list")
def list_(
    session: Session,
    scope: Annotated[LimitScope | None, typer.Option(help="Only those of this scope.")] = None,
    unit: Annotated[LimitUnit | None, typer.Option(help="Only those of this unit.")] = None,
) -> None:
    """List the organization's limits. All that apply to a request must grant it."""
    session.out.items(_limits(session).list(scope=scope or "", unit=unit or ""), COLUMNS, empty="no limits yet")


@command(app, examples("orgate limit show requests"))
def show(session: Session, name: Name) -> None:
    """Show one limit."""
    session.out.item(_limits(session).get(name)[0])


@command(
    app,
    examples(
        "orgate limit set requests --scope member --unit requests --amount 1000 --per minute",
        "orgate limit set tokens --scope org --unit tokens --amount 2000000 --per day",
        "orgate limit set parallel --scope member --unit concurrency --amount 4",
        "orgate limit set requests --amount 2000",
    ),
    name="set",
    writes=True,
)
def set_(
    session: Session,
    *,
    name: Name,
    amount: Annotated[int | None, typer.Option(help="How many.", min=1)] = None,
    scope: Annotated[LimitScope | None, typer.Option(help="Whose bucket: one for each.")] = None,
    unit: Annotated[LimitUnit | None, typer.Option(help="Of what.")] = None,
    per: Annotated[
        Period | None, typer.Option(help="Refilled evenly over this time; minute, when a new limit is not told.")
    ] = None,
    burst: Annotated[int | None, typer.Option(help="How much may come at once; 0: the amount.", min=0)] = None,
    subject: Annotated[str | None, typer.Option(help="Only this member, model or client; '': each.")] = None,
) -> None:
    """Create a limit, or change what is given of one that exists."""
    if per is not None and unit is LimitUnit.CONCURRENCY:
        raise UsageError("concurrency is counted at one moment, not per time", "leave out --per")
    given: dict[str, Any] = {
        key: value
        for key, value in {
            "amount": amount,
            "scope": scope,
            "unit": unit,
            "period_s": 0 if unit is LimitUnit.CONCURRENCY else SECONDS[per] if per else None,
            "burst": burst,
            "subject": subject,
        }.items()
        if value is not None
    }
    if not given:
        raise UsageError("nothing to set", "give at least --amount; see --help")
    limits = _limits(session)
    try:
        changed = limits.change(name, lambda was: _with_period(structs.replace(was, **given)))
    except NotFoundError:
        missing = [f"--{key}" for key in ("scope", "unit", "amount") if key not in given]
        if missing:
            raise UsageError(
                f"limit '{name}' does not exist yet", f"to create it, add {', '.join(missing)}"
            ) from None
        made = Limit(**{"org": OrgId(session.org), "name": name, **given})
        session.wrote(limits.create(body_of(made), name), f"limit '{name}' created")
    else:
        session.wrote(changed, f"limit '{name}' changed")


def _with_period(limit: Limit) -> Limit:
    """A limit that was one of concurrency, and is none now, needs a period again."""
    counted_per_time = limit.unit is not LimitUnit.CONCURRENCY
    return structs.replace(limit, period_s=60) if counted_per_time and not limit.period_s else limit


@command(app, examples("orgate limit delete requests --yes"), writes=True)
def delete(
    session: Session, name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete a limit."""
    session.confirm(f"Delete limit '{name}'?", yes=yes)
    if _limits(session).delete(name):
        session.out.say(f"limit '{name}' deleted")
