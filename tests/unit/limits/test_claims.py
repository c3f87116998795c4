from __future__ import annotations

import pytest

from gateway.exchange import Call, Claim, Permit, Principal
from gateway.limits.claims import MOST, claims_for, estimate
from policies.facts import Action, Role
from tenants.ids import OrgId
from tenants.models import Limit, LimitScope, LimitUnit, ModelAlias, Org
from tenants.snapshot import Tenant, TenantRecord

ACME = OrgId("acme")


def permit(
    *limits: Limit,
    size: int = 401,
    max_tokens: int | None = None,
    task: Action = Action.COMPLETE,
    answers: int = 1,
) -> Permit:
    return Permit(
        principal=Principal(ACME, "mem_1", frozenset({Role.MEMBER}), "orgate-editor", "jti", "aud", 0, 1),
        tenant=Tenant(TenantRecord(Org(ACME, "Acme"), limits=limits)),
        call=Call(
            task=task,
            model="code",
            stream=False,
            include_usage=False,
            max_tokens=max_tokens,
            size=size,
            fields={},
            answers=answers,
        ),
        alias=ModelAlias(ACME, "code", "up", "real-model", max_tokens=64),
        rule="r",
    )


def limit(scope: LimitScope, unit: LimitUnit = LimitUnit.REQUESTS, subject: str = "", burst: int = 0) -> Limit:
    return Limit(ACME, f"{scope}-{unit}", scope, unit, 10, subject=subject, burst=burst)


@pytest.mark.parametrize(
    ("scope", "subject"),
    [
        (LimitScope.ORG, ""),
        (LimitScope.MEMBER, "mem_1"),
        (LimitScope.MODEL, "code"),
        (LimitScope.CLIENT, "orgate-editor"),
    ],
)
def test_each_scope_has_its_own_bucket(scope: LimitScope, subject: str) -> None:
    assert claims_for(permit(limit(scope, burst=25))) == (
        Claim(ACME, f"{scope}-requests", scope, subject, LimitUnit.REQUESTS, 1, 10, 25, 60),
    )


def test_a_limit_about_one_subject_leaves_others_alone() -> None:
    mine, other = limit(LimitScope.MEMBER, subject="mem_1"), limit(LimitScope.MEMBER, subject="mem_2")
    assert [claim.subject for claim in claims_for(permit(mine, other))] == ["mem_1"]


def test_each_unit_has_its_cost_and_a_burst_of_nothing_means_the_amount() -> None:
    found = claims_for(permit(*(limit(LimitScope.ORG, unit) for unit in LimitUnit)))
    assert {claim.unit: claim.cost for claim in found} == {
        LimitUnit.REQUESTS: 1,
        LimitUnit.TOKENS: 101 + 64,
        LimitUnit.CONCURRENCY: 1,
    }
    assert {claim.burst for claim in found} == {10}


def test_tokens_are_estimated_from_the_body_and_the_longest_answer() -> None:
    assert estimate(permit(size=400)) == 100 + 64
    assert estimate(permit(size=401, max_tokens=5)) == 101 + 5
    assert estimate(permit(size=401, max_tokens=5, answers=3)) == 101 + 15
    assert estimate(permit(size=401, answers=3)) == 101 + 3 * 64
    assert estimate(permit(max_tokens=10**7, answers=10**13)) == MOST
    assert estimate(permit(size=401, task=Action.EMBED)) == 101
