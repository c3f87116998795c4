"""Amounts as people write and read them: "2M", "64KiB", "$200", "2,000,000 tokens a day". Pure, and exact."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from tenants.models import Limit, LimitUnit, Window

NANODOLLARS: Final = 10**9
"""In a dollar: what `LimitUnit.SPEND` counts."""

_NUMBER: Final = re.compile(
    r"\$?(?P<number>[0-9]{1,20}(?:[_,][0-9]{3})*(?:\.[0-9]{1,20})?)\s?(?P<suffix>[A-Za-z]*)"
)
_TIMES: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BYTES: Final = {
    **_TIMES,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_WORDS: Final = {
    LimitUnit.REQUESTS: "requests",
    LimitUnit.TOKENS: "tokens",
    LimitUnit.INPUT_TOKENS: "input tokens",
    LimitUnit.OUTPUT_TOKENS: "output tokens",
    LimitUnit.BYTES: "bytes",
    LimitUnit.SPEND: "",
    LimitUnit.CONCURRENCY: "requests at once",
}
_SECONDS: Final = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day"}


class AmountError(ValueError):
    """A text that is no amount of that unit. The message says what is, and is safe to show."""


def is_amount(text: str) -> bool:
    """Whether it looks like one, of whatever unit."""
    return _NUMBER.fullmatch(text.strip()) is not None


def parse(text: str, unit: LimitUnit) -> int:
    """Whole units. Spend is in dollars, to nine decimals; others are whole, `k`, `M` and `G` being powers of ten
    and, for bytes, `KiB`, `MiB`, `GiB` powers of two."""
    found = _NUMBER.fullmatch(text.strip())
    suffixes = _BYTES if unit is LimitUnit.BYTES else _TIMES
    if found is None or (text.strip().startswith("$") and unit is not LimitUnit.SPEND):
        raise AmountError(f"'{text[:40]}' is no amount of {unit.value}: {_example(unit)}")
    times = suffixes.get(found["suffix"].lower())
    if times is None:
        raise AmountError(f"'{found['suffix'][:8]}' is no suffix of {unit.value}: {_example(unit)}")
    number = Decimal(re.sub("[_,]", "", found["number"])) * times
    exact = number * NANODOLLARS if unit is LimitUnit.SPEND else number
    if exact != int(exact):
        raise AmountError(
            f"'{text[:40]}' is finer than a nanodollar"
            if unit is LimitUnit.SPEND
            else f"'{text[:40]}' is not whole"
        )
    return int(exact)


def number(amount: int, unit: LimitUnit) -> str:
    """For people, without the unit's name but for the dollar's sign: `2,000,000`, `$200`, `-$0.5`."""
    if unit is not LimitUnit.SPEND:
        return f"{amount:,}"
    sign = "-" if amount < 0 else ""
    return f"{sign}${dollars(abs(amount), thousands=True)}"


def dollars(nanodollars: int, *, thousands: bool = False) -> str:
    """Decimal dollars, all of their digits and not one more: `200`, `0.5`, `0.000000001`."""
    whole, rest = divmod(abs(nanodollars), NANODOLLARS)
    sign = "-" if nanodollars < 0 else ""
    text = f"{whole:,}" if thousands else str(whole)
    return sign + (f"{text}.{rest:09d}".rstrip("0") if rest else text)


def quantity(amount: int, unit: LimitUnit) -> str:
    """With the unit's name: `2,000,000 tokens`, `$200`, `4 requests at once`."""
    said = f"{number(amount, unit)} {_WORDS[unit]}".rstrip()
    return re.sub(r"^1 (\w+ )?(request|token|byte)s\b", r"1 \1\2", said)


def period(limit: Limit) -> str:
    """`minute`, `90 s`, `day (calendar)`; nothing for concurrency."""
    if limit.window is not Window.NONE:
        return f"calendar {limit.window.value}"
    return _SECONDS.get(limit.period_s, f"{limit.period_s} s") if limit.period_s else ""


def sentence(limit: Limit) -> str:
    """What it allows: `2,000,000 tokens a day`, `$200 a calendar month`, `4 requests at once`."""
    per = period(limit)
    if not per:
        return quantity(limit.amount, limit.unit)
    article = "each" if per[0].isdigit() else "an" if per == "hour" else "a"
    return f"{quantity(limit.amount, limit.unit)} {article} {per}"


def _example(unit: LimitUnit) -> str:
    if unit is LimitUnit.SPEND:
        return "write dollars, as 200 or 0.5"
    return "write 65536, 500k or 64KiB" if unit is LimitUnit.BYTES else "write 2000000, 2M or 500k"
