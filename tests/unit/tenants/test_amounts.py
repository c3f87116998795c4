"""Amounts, read and written: exactly, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.amounts import AmountError, dollars, number, parse, period, quantity, sentence
from tenants.ids import OrgId
from tenants.models import Limit, LimitScope, LimitUnit, Window

TOKENS, SPEND, BYTES = LimitUnit.TOKENS, LimitUnit.SPEND, LimitUnit.BYTES


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        ("1000", TOKENS, 1_000),
        ("2M", TOKENS, 2_000_000),
        ("500k", TOKENS, 500_000),
        ("500K", TOKENS, 500_000),
        ("1.5k", TOKENS, 1_500),
        ("2,000,000", TOKENS, 2_000_000),
        ("2_000_000", TOKENS, 2_000_000),
        ("-0", TOKENS, None),
        ("200", SPEND, 200 * 10**9),
        ("0.5", SPEND, 5 * 10**8),
        ("$0.000000001", SPEND, 1),
        ("1,200.25", SPEND, 1_200_250_000_000),
        ("0.0000000001", SPEND, None),
        ("2e3", SPEND, None),
        ("$5", TOKENS, None),
        ("1.0005k", TOKENS, None),
        ("64KiB", BYTES, 65_536),
        ("64 kB", BYTES, 64_000),
        ("1GiB", BYTES, 2**30),
        ("1KiB", TOKENS, None),
        ("-5", TOKENS, None),
        ("", TOKENS, None),
        ("12,34", TOKENS, None),
        ("nan", SPEND, None),
        ("∞", SPEND, None),
        ("9" * 400, TOKENS, None),
        ("٣", TOKENS, None),
    ],
)
def test_reading(text: str, unit: LimitUnit, amount: int | None) -> None:
    if amount is not None:
        assert parse(text, unit) == amount
        return
    with pytest.raises(AmountError):
        parse(text, unit)


@given(st.integers(min_value=0, max_value=9 * 10**15), st.sampled_from(LimitUnit))
def test_what_is_written_is_read_back_as_it_was(amount: int, unit: LimitUnit) -> None:
    assert parse(number(amount, unit), unit) == amount
    assert parse(dollars(amount), SPEND) == amount


@pytest.mark.parametrize(
    ("amount", "unit", "said"),
    [
        (2_000_000, TOKENS, "2,000,000 tokens"),
        (1, LimitUnit.INPUT_TOKENS, "1 input token"),
        (1, LimitUnit.CONCURRENCY, "1 request at once"),
        (200 * 10**9, SPEND, "$200"),
        (-5 * 10**8, SPEND, "-$0.5"),
        (1_234_500_000_000, SPEND, "$1,234.5"),
    ],
)
def test_writing(amount: int, unit: LimitUnit, said: str) -> None:
    assert quantity(amount, unit) == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "1,000 requests a minute"),
        ({"unit": TOKENS, "period_s": 3_600}, "1,000 tokens an hour"),
        ({"period_s": 90}, "1,000 requests each 90 s"),
        ({"unit": LimitUnit.CONCURRENCY, "period_s": 0, "amount": 4}, "4 requests at once"),
        ({"unit": SPEND, "period_s": 0, "amount": 2 * 10**11, "window": Window.MONTH}, "$200 a calendar month"),
    ],
)
def test_what_a_limit_allows(changes: dict[str, Any], said: str) -> None:
    values: dict[str, Any] = {"scope": LimitScope.ORG, "unit": LimitUnit.REQUESTS, "amount": 1_000, **changes}
    limit = Limit(org=OrgId("acme"), name="x", **values)
    assert sentence(limit) == said
    assert period(limit) in said
