"""`orgate limit`: how much of what, per what time, for whom; who uses how much; what a limit would do."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isnan
from typing import Annotated, Any
from urllib.parse import quote

import typer
from msgspec import Struct

from cli.command import command
from cli.errors import NotFoundError, UsageError
from cli.examples import examples
from cli.limit_fields import (
    Amount,
    Budget,
    Burst,
    End,
    Fields,
    NotifyAt,
    Outage,
    Per,
    Scope,
    Subject,
    Unit,
)
from cli.member import member_id_of
from cli.output import Column, Format
from cli.resources import Resource, body_of
from cli.serve import SettingsOption, settings_file
from cli.session import Session
from cli.webhook import app as webhook
from tenants.amounts import number, sentence
from tenants.ids import PLATFORM, InvalidIdError, org_id
from tenants.models import Limit, LimitScope, LimitUnit

app = typer.Typer(
    help="Limits and budgets of requests, tokens, bytes, money and concurrency.",
    epilog=examples(
        "orgate limit set requests --scope member --unit requests --amount 1000 --per minute",
        "orgate limit set money --scope org --unit spend --amount 200 --window month",
        "orgate limit usage",
        "orgate limit top",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(webhook, name="webhook")

RAW = [Column(name, name) for name in Limit.__struct_fields__ if name not in ("org", "version")]
Name = Annotated[str, typer.Argument(help="The limit's name.")]
Whose = Annotated[
    str | None,
    typer.Option("--subject", help="Only this member's (id or e-mail address), team's, model's … bucket."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
NOTHING = "nothing is used: buckets that are full are not shown"


class Shown(Struct, frozen=True):
    """A limit as people read it."""

    name: str
    scope: str
    subject: str
    allows: str
    burst: str
    on_end: str
    on_outage: str
    notify: str


COLUMNS = [
    Column("NAME", "name"),
    Column("SCOPE", "scope"),
    Column("SUBJECT", "subject"),
    Column("ALLOWS", "allows"),
    Column("BURST", "burst"),
    Column("ON END", "on_end"),
    Column("ON OUTAGE", "on_outage"),
    Column("NOTIFY AT", "notify"),
]


def _limits(session: Session) -> Resource[Limit]:
    return session.resource("limits", Limit, "limit")


def _shown(limit: Limit, name_of: Callable[[str], str]) -> Shown:
    each = "" if limit.scope is LimitScope.ORG and limit.org != PLATFORM else "each"
    return Shown(
        name=limit.name,
        scope=limit.scope.value,
        subject=name_of(limit.subject) if limit.subject else each,
        allows=sentence(limit),
        burst=number(limit.burst, limit.unit) if limit.burst else "",
        on_end=limit.on_end.value,
        on_outage=limit.on_outage.value,
        notify=_percents(limit.notify_at),
    )


def _percents(notify_at: tuple[int, ...]) -> str:
    return ", ".join(f"{percent} %" for percent in notify_at)


def _for(session: Session, limit: Limit | None) -> Any:
    from cli.limit_use import names_of

    return _shown(limit, names_of(session)) if limit is not None and session.out.form is Format.TABLE else limit


def _member(session: Session) -> Callable[[str], str]:
    return lambda who: member_id_of(session, who)


@command(app, examples("orgate limit list", "orgate limit list --scope member --output json"), name="list")
def list_(
    session: Session,
    scope: Annotated[LimitScope | None, typer.Option(help="Only those of this scope.")] = None,
    unit: Annotated[LimitUnit | None, typer.Option(help="Only those of this unit.")] = None,
) -> None:
    """List the organization's limits. All that apply to a request must grant it."""
    from cli.limit_use import names_of

    found = _limits(session).list(scope=scope or "", unit=unit or "")
    if session.out.form is Format.TABLE:
        name_of = names_of(session)
        session.out.items([_shown(limit, name_of) for limit in found], COLUMNS, empty="no limits yet")
    else:
        session.out.items(found, RAW)


@command(app, examples("orgate limit show requests"))
def show(session: Session, name: Name) -> None:
    """Show one limit."""
    session.out.item(_for(session, _limits(session).get(name)[0]))


@command(
    app,
    examples(
        "orgate limit set requests --scope member --unit requests --amount 1000 --per minute",
        "orgate limit set blue --scope team --subject blue --unit tokens --amount 2M --window day",
        "orgate limit set money --scope org --unit spend --amount 200 --window month --notify-at 50,80,100",
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
    amount: Amount = None,
    scope: Scope = None,
    unit: Unit = None,
    per: Per = None,
    window: Budget = None,
    burst: Burst = None,
    subject: Subject = None,
    on_end: End = None,
    on_outage: Outage = None,
    notify_at: NotifyAt = None,
) -> None:
    """Create a limit, or change what is given of one that exists.

    With --window it is a budget: so much for each calendar day, week or month, all of which may be used at once.
    """
    given = Fields(amount, scope, unit, per, window, burst, subject, on_outage, on_end, notify_at)
    given.check()
    limits, member = _limits(session), _member(session)
    lost: tuple[int, ...] = ()

    def over(was: Limit) -> Limit:
        nonlocal lost
        will = given.over(was, member)
        lost = was.notify_at if given.notify_at is None and not will.notify_at else ()
        return will

    try:
        changed = limits.change(name, over)
    except NotFoundError:
        made = limits.create(body_of(given.new(session.org, name, member)), name)
        session.wrote(_for(session, made), f"limit '{name}' created")
    else:
        if lost:
            session.out.say(
                f"note: nobody is told at {_percents(lost)} any more: only a budget (--window) has an end"
            )
        session.wrote(_for(session, changed), f"limit '{name}' changed")


@command(app, examples("orgate limit delete requests --yes"), writes=True)
def delete(session: Session, name: Name, yes: Yes = False) -> None:
    """Delete a limit."""
    session.confirm(f"Delete limit '{name}'?", yes=yes)
    if _limits(session).delete(name):
        session.out.say(f"limit '{name}' deleted")


@command(
    app,
    examples(
        "orgate limit usage",
        "orgate limit usage requests",
        "orgate limit usage requests --subject ann@acme.example --output json",
    ),
)
def usage(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="The limit's name; else all.", show_default=False)] = None,
    subject: Whose = None,
) -> None:
    """Show how much of each bucket is used, those nearest their end first.

    USED and LEFT are as the store has them; LENT is in the hands of workers, OPEN what of that is reserved by
    requests in flight. Buckets that are full are not shown. Limits of the platform's operators are platform/….
    """
    from cli.limit_use import ROWS, read
    from cli.limit_use import show as show_use

    whose = _subject(session, subject)
    if name is None:
        use = read(session, f"/admin/v1/orgs/{session.org}/limits-usage", "what is used", subject=whose, top=ROWS)
    else:
        limits = _limits(session)
        use = read(session, limits.at(name, "usage"), limits.what(name), subject=whose, top=ROWS)
    show_use(session, use, use.items, empty=NOTHING)


@command(
    app,
    examples("orgate limit reset money --yes", "orgate limit reset requests --subject ann@acme.example --yes"),
    writes=True,
)
def reset(session: Session, name: Name, subject: Whose = None, yes: Yes = False) -> None:
    """Set a limit's buckets back: full, and nobody's debt. It is written into the audit log."""
    from cli.limit_use import LimitReset

    limits = _limits(session)
    path = limits.at(name, "reset")
    if (whose := _subject(session, subject)) is not None:
        path += f"?subject={quote(whose, safe='')}"
    of = "" if subject is None else f" of '{subject}'"
    session.confirm(f"Set limit '{name}'{of} back, as if nothing had been used?", yes=yes)
    answer = session.client.write("POST", path, what=limits.what(name))
    if answer is not None:
        made = answer.decode(LimitReset)
        done = "set back" if made.buckets else "had no bucket in use: nothing was set back"
        session.wrote(made, f"limit '{name}'{of} {done}")


@command(
    app,
    examples("orgate limit top", "orgate limit top --by tokens", "orgate limit top --once --output json"),
)
def top(
    session: Session,
    by: Annotated[
        LimitUnit | None, typer.Option(help="Only limits of this unit, and who used most of it first.")
    ] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", help="How many.", min=1, max=200)] = 20,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.5, max=3_600)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once; so it is without a terminal.")] = False,
) -> None:
    """Show who is nearest the end of a limit now, and go on showing it on a terminal."""
    from cli.limit_use import LimitUse, names_of, read, rows, watch
    from cli.limit_use import show as show_use

    if isnan(every):  # not less than 0.5 either, and no time to sleep for
        raise UsageError("--every is no number of seconds", "leave it out, or write 0.5 to 3600")
    path = f"/admin/v1/orgs/{session.org}/limits-usage"

    def look() -> LimitUse:
        use = read(session, path, "what is used", unit=by, top=1_000 if by else lines)
        items = sorted(use.items, key=lambda one: -(one.used + one.open)) if by else use.items
        return LimitUse(tuple(items[:lines]), use.buckets)

    if once or session.out.form is not Format.TABLE or not session.out.interactive:
        use = look()
        show_use(session, use, use.items, empty=NOTHING)
        return
    name = names_of(session)
    watch(lambda: rows(look().items, name), every)


@command(
    app,
    examples(
        "orgate limit simulate --scope member --unit requests --amount 60 --per minute",
        "orgate limit simulate --scope org --unit tokens --amount 2M --window day --since 7d --output json",
        "orgate limit simulate --name requests --amount 500",
    ),
)
def simulate(
    session: Session,
    *,
    name: Annotated[
        str | None, typer.Option(help="An existing limit to begin with; only what is given differs.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="From then on: 2026-01-31, a time in RFC 3339, or 30m, 2h, 7d ago; else 1d.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Until then; the same forms; else now.")] = None,
    amount: Amount = None,
    scope: Scope = None,
    unit: Unit = None,
    per: Per = None,
    window: Budget = None,
    burst: Burst = None,
    subject: Subject = None,
    on_end: End = None,
) -> None:
    """Replay the audit log against a limit, and say who would have been refused. Changes nothing.

    31 days at most. The notes say what the log does not hold. It is an entry in the log, as an export is.
    """
    from cli.audit_log import moment
    from cli.limit_simulate import simulate as replay
    from cli.limit_use import names_of

    given = Fields(amount, scope, unit, per, window, burst, subject, None, on_end, None)
    if name is None or given != Fields():
        given.check()
    if name is None:
        if missing := given.missing():
            raise UsageError(f"{', '.join(missing)} not given", "say what the limit is, or --name of one there is")
        limit = given.new(session.org, "simulated", _member(session))
    else:
        limit = given.over(_limits(session).get(name)[0], _member(session))
    now = time.time()
    bounds = [None if text is None else moment(text, now) for text in (since, until)]
    replay(session, limit, bounds[0], bounds[1], names_of(session))


@command(
    app,
    examples(
        "orgate limit acl",
        "orgate limit acl --settings /srv/orgate/orgate.toml",
        "orgate limit acl --org acme",
        "orgate limit acl --scripts",
    ),
)
def acl(
    session: Session,
    *,
    settings: SettingsOption = None,
    scripts: Annotated[
        bool, typer.Option("--scripts", help="For a Redis before 7, which has no functions.")
    ] = False,
) -> None:
    """Print the ACL line for the user that counts limits in Redis: exactly what it needs, on its own keys.

    With `--org`, on that organization's keys only. Reads the settings; asks no server. Put a password in the place
    of PASSWORD, or `#` and its SHA-256 in the place of `>PASSWORD`. With `limits.user_per_org` each organization's
    line has the SHA-256 of its own.
    """
    from gateway.limits_settings import LimitsSettingsError
    from gateway.redis_check import acl_line
    from gateway.settings import SettingsError, load

    file = settings_file(settings)
    try:
        found = load(file)
    except SettingsError as error:
        raise UsageError(str(error), f"mend {file}") from None
    try:
        org = org_id(session.options.org) if session.options.org else None
    except InvalidIdError as error:
        raise UsageError(f"--org {session.options.org!r}: {error}", "name one organization") from None
    if org and not found.limits.user_per_org:
        said = "limits.user_per_org is off: with this line the gateway would count for"
        session.out.say(f"note: {said} '{org}' alone; leave --org out for its usual line")
    try:
        session.out.line(acl_line(found.limits, found.home, org, scripts=scripts))
    except LimitsSettingsError as error:
        raise UsageError(str(error), "mend limits.password") from None


def _subject(session: Session, given: str | None) -> str | None:
    if given == "":
        raise UsageError("--subject is empty", "name whose bucket; leave it out for all of them")
    return member_id_of(session, given) if given and "@" in given else given
