"""The page of an audit log, as text."""

from __future__ import annotations

import pytest

from gateway.api.admin.web_find import Found, read_filter
from gateway.api.admin.web_pages import audit_page


def page(**given: str) -> str:
    wanted = read_filter(given)
    return audit_page(org="acme", who="eve", token="x", wanted=wanted, found=Found((), 0, 0, 0))


@pytest.mark.parametrize("given", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_that_utc_has_none_for_reads_as_an_empty_field(given: str) -> None:
    """It bounds a search, as the API takes it; a field cannot show it."""
    assert '<input id="since" name="since" value=""' in page(since=given)


def test_a_time_is_shown_in_utc() -> None:
    assert 'name="since" value="2026-01-31T11:00"' in page(since="2026-01-31T12:00:00+01:00")
