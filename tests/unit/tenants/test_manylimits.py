"""How many limits one request meets at most, whatever it is of."""

from __future__ import annotations

import pytest

from tenants.manylimits import TEAMS, at_once
from tenants.models import LimitScope

ORG, MEMBER, MODEL, TEAM = LimitScope.ORG, LimitScope.MEMBER, LimitScope.MODEL, LimitScope.TEAM


@pytest.mark.parametrize(
    ("limits", "met"),
    [
        ([], 0),
        ([(ORG, "", 3), (MEMBER, "", 2), (MODEL, "", 1)], 6),
        ([(MEMBER, "mem_1", 2), (MEMBER, "mem_2", 5), (MODEL, "code", 1)], 6),
        ([(MEMBER, "mem_1", 2), (MEMBER, "mem_1", 1), (MEMBER, "", 1)], 4),
        ([(TEAM, "", 2)], 2 * TEAMS),
        ([(TEAM, f"t{n}", 1) for n in range(TEAMS + 3)], TEAMS),
        ([(TEAM, "", 1), (TEAM, "blue", 4)], TEAMS + 4),
    ],
)
def test_subjects_of_one_request_add_up_and_others_do_not(
    limits: list[tuple[LimitScope, str, int]], met: int
) -> None:
    assert at_once(limits) == met
    assert at_once(limits[::-1]) == met
