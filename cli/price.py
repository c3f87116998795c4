"""`orgate price`: what models cost, imported as a whole table from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from cli.client import Answer
from cli.command import command
from cli.errors import NotFoundError
from cli.examples import examples
from cli.output import Column, instant, printable
from cli.pricefile import PriceRow, read_prices
from cli.session import Session
from tenants.amounts import dollars
from tenants.ids import PLATFORM
from tenants.models import Price
from tenants.prices import PriceImport, PriceTable

app = typer.Typer(
    help="What models cost, for limits of spend.",
    epilog=examples(
        "orgate price import prices.csv --dry-run", "orgate price import prices.csv", "orgate price list"
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)


class ShownPrice(Struct, frozen=True):
    """Dollars per million tokens, as a file for `import` has them."""

    model: str
    input: str
    output: str


class ShownImport(Struct, frozen=True):
    """`imported_by`: a member. `imported_at`: Unix seconds."""

    version: int
    imported_at: int
    imported_by: str
    models: int


COLUMNS = [
    Column("MODEL", "model"),
    Column("INPUT $/M", "input"),
    Column("OUTPUT $/M", "output"),
]
VERSIONS = [
    Column("VERSION", "version"),
    Column("AT", "at", instant),
    Column("BY", "by"),
    Column("MODELS", "count"),
]
Version = Annotated[int, typer.Option("--version", help="As this import had them; 0: those in force.", min=0)]


class _Versions(Struct, frozen=True):
    items: list[PriceImport]
    next: str = ""


def _path(session: Session, *rest: str) -> str:
    return "/".join([f"/admin/v1/orgs/{session.org}/prices", *rest])


def _table(session: Session, version: int = 0) -> tuple[PriceTable, Answer]:
    params: dict[str, str | int] = {"version": version} if version else {}
    what = f"version {version} of the prices" if version else "the prices"
    try:
        answer = session.client.read(_path(session), what=what, params=params)
    except NotFoundError:
        if not version:
            raise
        raise NotFoundError(
            f"{what} of '{session.org}' does not exist, or is not yours to see",
            "`orgate price versions` shows which there are",
        ) from None
    return answer.decode(PriceTable), answer


def _shown(price: Price) -> ShownPrice:
    return ShownPrice(price.model, dollars(price.input), dollars(price.output))


def _imported(made: PriceImport) -> ShownImport:
    return ShownImport(made.version, made.at, made.by, made.count)


@command(
    app, examples("orgate price list", "orgate price list --version 3 --output csv > prices.csv"), name="list"
)
def list_(session: Session, version: Version = 0) -> None:
    """List the prices of the organization: dollars per million tokens, by the provider's name of the model.

    A model without a price of the organization's own has the platform's (`--org platform`). As csv or json, the
    output is a file that `import` takes.
    """
    table, _ = _table(session, version)
    session.out.items([_shown(price) for price in table.prices], COLUMNS, empty="no prices of its own")


@command(app, examples("orgate price show gpt-code"))
def show(
    session: Session,
    model: Annotated[str, typer.Argument(help="The provider's name of the model.")],
    version: Version = 0,
) -> None:
    """Show what one model costs."""
    table, _ = _table(session, version)
    found = next((price for price in table.prices if price.model == model), None)
    if found is None:
        hint = "" if session.org == PLATFORM else "the platform's price holds, if there is one"
        raise NotFoundError(f"'{session.org}' has no price of its own for '{printable(model)}'", hint)
    session.out.item(_shown(found))


@command(app, examples("orgate price versions"))
def versions(session: Session) -> None:
    """List the imports, the newest first: who, when, how many."""
    found: list[PriceImport] = []
    after = ""
    while True:
        params: dict[str, str | int] = {"limit": 500, **({"after": after} if after else {})}
        page = session.client.read(_path(session, "versions"), what="the versions", params=params).decode(
            _Versions
        )
        found += page.items
        after = page.next
        if not after:
            break
    session.out.items(found, VERSIONS, empty="no prices were imported yet")


@command(
    app,
    examples(
        "orgate price import prices.csv --dry-run",
        "orgate price import prices.toml --yes",
        "orgate price import prices.csv --org platform",
    ),
    name="import",
    writes=True,
)
def import_(
    session: Session,
    file: Annotated[
        Path, typer.Argument(help="CSV (model,input,output), TOML or JSON (a list of prices).", metavar="FILE")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before prices are taken away.")] = False,
) -> None:
    """Make the prices those of FILE, as the next version of the whole table; shows what changes.

    Dollars per million tokens, as decimals with at most nine digits behind the point: 0.15, not 1.5e-7.
    """
    wanted = read_prices(file)
    table, answer = _table(session)
    changes, removed = difference(table, wanted)
    if not changes and table.imported.version:
        session.wrote(_imported(table.imported), "the prices are as in the file already")
        return
    for line in changes:
        session.out.say(line)
    if removed:
        session.confirm(f"Take the price of {removed} model{'s' if removed > 1 else ''} away?", yes=yes)
    written = session.client.write(
        "PUT", _path(session), {"prices": wanted}, what="the prices", version=answer.version
    )
    if written is not None:
        made = written.decode(PriceImport)
        session.wrote(_imported(made), f"prices imported: version {made.version} of '{session.org}'")


def difference(table: PriceTable, wanted: list[PriceRow]) -> tuple[list[str], int]:
    """What changes, a line each, and how many prices are taken away."""
    was = {price.model: (price.input, price.output) for price in table.prices}
    will = {row.model: (row.input, row.output) for row in wanted}
    lines = []
    for model in sorted(was.keys() | will.keys()):
        name = printable(model)
        if model not in was:
            lines.append(f"+ {name}: input ${dollars(will[model][0])}, output ${dollars(will[model][1])}")
        elif model not in will:
            lines.append(f"- {name}: input ${dollars(was[model][0])}, output ${dollars(was[model][1])}")
        elif was[model] != will[model]:
            parts = [
                f"{side} ${dollars(old)} → ${dollars(new)}"
                for side, old, new in zip(("input", "output"), was[model], will[model], strict=True)
                if old != new
            ]
            lines.append(f"~ {name}: {', '.join(parts)}")
    return lines, len(was.keys() - will.keys())
