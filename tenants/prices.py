"""Price tables: dollars as people write them, nanodollars as they are kept, and what an import is.

An amount of money is never a float here: what a file says is what is charged, to the nanodollar.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct

from tenants.amounts import dollars
from tenants.fieldrules import Fault
from tenants.ids import OrgId
from tenants.limitrules import MAX_FINE
from tenants.models import Price
from tenants.validate import validate

MAX_PRICES: Final = 2_000
"""Models of one table: every worker holds all of them."""

_PLAIN: Final = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,60})?")


class PriceError(ValueError):
    """Text that is no price. The message follows the text's name ("is negative") and is safe to show."""


class PriceImport(Struct, frozen=True):
    """One import: version `version` of the organization's whole table, `count` models, by member `by` of `by_org`
    at `at` (Unix seconds). Version 0: none has been imported."""

    org: OrgId
    version: int = 0
    at: int = 0
    by: str = ""
    by_org: str = ""
    count: int = 0


class PriceTable(Struct, frozen=True):
    """An import and what it held, by model."""

    imported: PriceImport
    prices: tuple[Price, ...] = ()


def nanodollars(text: str) -> int:
    """Nanodollars of an amount in dollars: digits, perhaps a point and digits, exact to the nanodollar.

    Raises `PriceError`: a sign, an exponent, NaN, or digits beyond the ninth decimal, as floats leave them.
    """
    if text.startswith("-") and text[1:2].isdigit():
        raise PriceError("is negative")
    if not _PLAIN.fullmatch(text):
        raise PriceError("is no decimal number of dollars, as 0.15 is")
    amount = Decimal(text).scaleb(9)
    if amount != amount.to_integral_value():
        raise PriceError("is finer than a nanodollar (nine decimals); was it a float once?")
    if amount > MAX_FINE:
        raise PriceError(f"is more than {dollars(MAX_FINE)} dollars")
    return int(amount)


def table_faults(prices: Sequence[Price]) -> Iterator[Fault]:
    """What is wrong with `prices` as one organization's table: `(prices[3].input, message)`."""
    if len(prices) > MAX_PRICES:
        yield "prices", f"are at most {MAX_PRICES}"
        return
    seen: set[str] = set()
    for place, price in enumerate(prices):
        for field, message in validate(price):
            yield f"prices[{place}].{field}", message
        if price.model in seen:
            yield f"prices[{place}].model", "stands twice"
        seen.add(price.model)
