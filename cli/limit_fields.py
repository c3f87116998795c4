"""The options that say what a limit is, and how they change one: for `limit set` and `limit simulate`."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer
from msgspec import Struct, structs

from cli.errors import UsageError
from tenants.amounts import AmountError, is_amount, parse
from tenants.ids import OrgId
from tenants.models import Limit, LimitScope, LimitUnit, OnEnd, OnOutage, Window


class Period(StrEnum):
    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


class Calendar(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


SECONDS = {Period.SECOND: 1, Period.MINUTE: 60, Period.HOUR: 3_600, Period.DAY: 86_400}
_OTHERWISE_COUNTED = frozenset({LimitUnit.SPEND, LimitUnit.BYTES})


def plausible(text: str | None) -> str | None:
    """Refuse what is no amount of anything where it is parsed, so that the usage is shown."""
    if text is not None and not is_amount(text):
        raise typer.BadParameter(f"{text[:40]!r} is no amount: write 1000, 500k, 2M or 0.5")
    return text


Amount = Annotated[
    str | None,
    typer.Option(
        callback=plausible,
        help="How many: 1000, 500k, 2M; of bytes also 64KiB; of spend dollars, as 200 or 0.5.",
        metavar="AMOUNT",
    ),
]
Scope = Annotated[LimitScope | None, typer.Option(help="Whose bucket: one for each.")]
Unit = Annotated[LimitUnit | None, typer.Option(help="Of what.")]
Per = Annotated[
    Period | None, typer.Option(help="Refilled evenly over this time; minute, when a new limit is not told.")
]
Budget = Annotated[
    Calendar | None,
    typer.Option(
        "--window",
        help="A budget instead: so much for each calendar day, week or month where the organization is.",
    ),
]
Burst = Annotated[
    str | None,
    typer.Option(
        help="How much may come at once, as --amount; 0: the amount.", metavar="AMOUNT", callback=plausible
    ),
]
Subject = Annotated[
    str | None,
    typer.Option(help="Only this member (id or e-mail address), team, model, client or upstream; '': each."),
]
Outage = Annotated[
    OnOutage | None,
    typer.Option(
        help="While the store of limits is out of reach: each worker counts its share, nothing passes, or all"
        " does."
    ),
]
End = Annotated[
    OnEnd | None,
    typer.Option(
        help="With less left than a request may use: refuse it, let it begin and cut its stream, or let it finish"
        " and refuse the next."
    ),
]
NotifyAt = Annotated[
    str | None,
    typer.Option(help="Percent of a budget at which to tell, e.g. 50,80,100; '': never.", metavar="PERCENTS"),
]


class Fields(Struct, frozen=True):
    """What was given; None: not."""

    amount: str | None = None
    scope: LimitScope | None = None
    unit: LimitUnit | None = None
    per: Period | None = None
    window: Calendar | None = None
    burst: str | None = None
    subject: str | None = None
    on_outage: OnOutage | None = None
    on_end: OnEnd | None = None
    notify_at: str | None = None

    def check(self) -> None:
        """Raises `UsageError` for what contradicts itself, whatever limit it is for."""
        if all(value is None for value in structs.asdict(self).values()):
            raise UsageError("nothing to set", "give at least --amount; see --help")
        if self.per is not None and self.window is not None:
            raise UsageError(
                "--per and --window are given together",
                "--per refills evenly over a time, --window is a budget of a calendar day, week or month",
            )
        if self.unit is LimitUnit.CONCURRENCY and (self.per is not None or self.window is not None):
            option = "--per" if self.per is not None else "--window"
            raise UsageError("concurrency is counted at one moment, not per time", f"leave out {option}")
        if self.window is not None and self.burst not in (None, "0"):
            raise UsageError("a budget has no burst: all of it may be used at once", "leave out --burst")

    def missing(self) -> list[str]:
        """The options that a new limit needs and that were not given."""
        return [f"--{key}" for key in ("scope", "unit", "amount") if getattr(self, key) is None]

    def new(self, org: str, name: str, member: Callable[[str], str]) -> Limit:
        """A limit of these fields. `member` gives the id of a member by e-mail address."""
        if missing := self.missing():
            raise UsageError(f"limit '{name}' does not exist yet", f"to create it, add {', '.join(missing)}")
        assert self.scope is not None  # noqa: S101  # as `missing` says
        assert self.unit is not None  # noqa: S101
        return self.over(Limit(OrgId(org), name, self.scope, self.unit, 0, period_s=0), member)

    def over(self, was: Limit, member: Callable[[str], str]) -> Limit:
        """`was` with these fields in their place."""
        unit, scope = self.unit or was.unit, self.scope or was.scope
        if self.amount is None and unit is not was.unit and {unit, was.unit} & _OTHERWISE_COUNTED:
            raise UsageError(f"an amount of {was.unit} says nothing of {unit}", "add --amount")
        window, period_s, burst = was.window, was.period_s, was.burst
        if unit is LimitUnit.CONCURRENCY:
            if self.per is not None or self.window is not None:
                option = "--per" if self.per is not None else "--window"
                raise UsageError(
                    f"limit '{was.name}' counts concurrency, at one moment and not per time",
                    f"leave out {option}, or add --unit and --amount to count something else",
                )
            window, period_s, burst = Window.NONE, 0, 0
        elif self.window is not None:
            window, period_s, burst = Window(self.window.value), 0, 0
        elif self.per is not None:
            window, period_s = Window.NONE, SECONDS[self.per]
        elif not window and not period_s:
            period_s = 60  # new, or one of concurrency until now
        notify_at = was.notify_at if window else ()
        subject = was.subject if self.subject is None else self.subject
        return structs.replace(
            was,
            unit=unit,
            scope=scope,
            amount=was.amount if self.amount is None else _amount("--amount", self.amount, unit),
            burst=burst if self.burst is None else _amount("--burst", self.burst, unit),
            period_s=period_s,
            window=window,
            subject=member(subject) if scope is LimitScope.MEMBER and "@" in subject else subject,
            on_outage=self.on_outage or was.on_outage,
            on_end=self.on_end or was.on_end,
            notify_at=notify_at if self.notify_at is None else _percents(self.notify_at),
        )


def _amount(option: str, text: str, unit: LimitUnit) -> int:
    try:
        amount = parse(text, unit)
    except AmountError as error:
        raise UsageError(f"{option}: {error}") from None
    if not amount and option == "--amount":
        raise UsageError("--amount: 0 lets nothing pass", "to shut somebody out, deny it with a rule")
    return amount


def _percents(text: str) -> tuple[int, ...]:
    parts = [part.strip().removesuffix("%") for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdecimal() and 1 <= int(part[:9]) <= 100 for part in parts):
        raise UsageError(f"--notify-at: {text[:40]!r} is no list of percents from 1 to 100", "write 50,80,100")
    return tuple(sorted({int(part) for part in parts}))
