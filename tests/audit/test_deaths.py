"""A worker that dies at any call to its disk, whatever that refused before: each request is one entry."""

from __future__ import annotations

import pytest

from tests.audit import deaths

DEATHS = 60
FOUND = (1787, 2105, 2114)
"""Seeds in which requests were once lost or there twice."""


@pytest.mark.parametrize("seed", [*range(DEATHS), *FOUND])
def test_each_request_is_one_entry_whenever_its_worker_dies(seed: int) -> None:
    assert deaths.play(seed) == []
