from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec import Raw, structs

from gateway.errors import PriceUnknownError
from gateway.exchange import LIMITS_MAX, Call, Claim, Permit, Principal
from gateway.limits import claims as module
from gateway.limits.claims import (
    ANSWER_BYTES,
    STREAM_BYTES,
    VECTOR_BYTES,
    CallerLimits,
    counts_tokens,
    limits_for,
    nanodollars,
    origin_of,
    price_of,
)
from gateway.limits.tokens import MOST, Tokens
from gateway.quota import Quota
from policies.facts import Action, Role
from tenants.ids import PLATFORM, OrgId
from tenants.models import (
    Limit,
    LimitScope,
    LimitUnit,
    ModelAlias,
    OnEnd,
    OnOutage,
    Org,
    Price,
    Upstream,
    Window,
)
from tenants.snapshot import Tenant, TenantRecord

ACME = OrgId("acme")
NOW = 1_795_000_000
ALIAS = ModelAlias(ACME, "code", "up", "real-model", max_tokens=64)
UP = Upstream(ACME, "up", "https://Model.Test:443/base")
OWN = Price(ACME, "real-model", 3_000_000_000, 15_000_000_000)
PROMPT = 100
"""Tokens of every prompt here."""


def permit(
    *limits: Limit,
    size: int = 401,
    max_tokens: int | None = None,
    task: Action = Action.COMPLETE,
    answers: int = 1,
    stream: bool = True,
    teams: tuple[str, ...] = (),
    prices: tuple[Price, ...] = (OWN,),
    timezone: str = "UTC",
    weight: int = 1,
) -> Permit:
    org = Org(ACME, "Acme", timezone=timezone, weight=weight)
    return Permit(
        principal=Principal(
            ACME, "mem_1", frozenset({Role.MEMBER}), "orgate-editor", "jti", "aud", 0, 1, teams=teams
        ),
        tenant=Tenant(TenantRecord(org, upstreams=(UP,), limits=limits, prices=prices)),
        call=Call(
            task=task,
            model="code",
            stream=stream,
            include_usage=False,
            max_tokens=max_tokens,
            size=size,
            fields={"prompt": Raw(b'"' + b"x" * 38 + b'"'), "input": Raw(b'"' + b"x" * 38 + b'"')},
            answers=answers,
        ),
        alias=ALIAS,
        rule="r",
    )


def platform(*limits: Limit, prices: tuple[Price, ...] = (), timezone: str = "UTC") -> Tenant:
    org = Org(PLATFORM, "Platform", timezone=timezone)
    return Tenant(TenantRecord(org, limits=limits, prices=prices))


def limit(scope: LimitScope, unit: LimitUnit = LimitUnit.REQUESTS, **more: Any) -> Limit:
    fields: dict[str, Any] = {"amount": 10, **more}
    return Limit(org=ACME, name=f"{scope}-{unit}", scope=scope, unit=unit, **fields)


def found(asked: Permit, shared: Tenant | None = None, now_s: float = NOW) -> tuple[Claim, ...]:
    return limits_for(asked, shared, lambda: now_s).claims(asked, shared, Tokens(lambda text: PROMPT))


@pytest.mark.parametrize(
    ("scope", "subject"),
    [
        (LimitScope.ORG, ""),
        (LimitScope.MEMBER, "mem_1"),
        (LimitScope.MODEL, "code"),
        (LimitScope.CLIENT, "orgate-editor"),
        (LimitScope.UPSTREAM, "up"),
    ],
)
def test_each_scope_has_its_own_bucket(scope: LimitScope, subject: str) -> None:
    assert found(permit(limit(scope, burst=25))) == (
        Claim(Quota(ACME, f"{scope}-requests", scope, subject, LimitUnit.REQUESTS, 10, 25, 60), 1),
    )


def test_each_of_the_members_teams_has_a_bucket_and_others_have_not() -> None:
    every, one = limit(LimitScope.TEAM), limit(LimitScope.TEAM, subject="red")
    assert [c.quota.subject for c in found(permit(every, one, teams=("blue", "red")))] == ["blue", "red", "red"]
    assert found(permit(every, one)) == ()
    assert [c.quota.subject for c in found(permit(one, teams=("blue",)))] == []


def test_a_limit_about_one_subject_leaves_others_alone() -> None:
    for scope, mine in ((LimitScope.MEMBER, "mem_1"), (LimitScope.UPSTREAM, "up"), (LimitScope.MODEL, "code")):
        both = limit(scope, subject=mine), limit(scope, subject="other")
        assert [claim.quota.subject for claim in found(permit(*both))] == [mine]


def test_each_unit_has_its_cost() -> None:
    costs = {c.quota.unit: c.cost for c in found(permit(*(limit(LimitScope.ORG, unit) for unit in LimitUnit)))}
    assert costs == {
        LimitUnit.REQUESTS: 1,
        LimitUnit.CONCURRENCY: 1,
        LimitUnit.INPUT_TOKENS: PROMPT,
        LimitUnit.OUTPUT_TOKENS: 64,
        LimitUnit.TOKENS: PROMPT + 64,
        LimitUnit.BYTES: 401 + 64 * STREAM_BYTES,
        LimitUnit.SPEND: PROMPT * 3_000 + 64 * 15_000,
    }


def test_the_answer_is_as_long_as_the_call_or_the_alias_says_times_the_answers() -> None:
    tokens = limit(LimitScope.ORG, LimitUnit.TOKENS)
    for asked, cost in (
        (permit(tokens, max_tokens=5), PROMPT + 5),
        (permit(tokens, max_tokens=5, answers=3), PROMPT + 15),
        (permit(tokens, answers=3), PROMPT + 3 * 64),
        (permit(tokens, max_tokens=10**7, answers=10**13), MOST),
        (permit(tokens, task=Action.EMBED), PROMPT),
    ):
        assert [claim.cost for claim in found(asked)] == [cost]


def test_an_answer_in_one_piece_takes_fewer_bytes_than_a_stream() -> None:
    octets = limit(LimitScope.ORG, LimitUnit.BYTES)
    assert [c.cost for c in found(permit(octets, stream=False))] == [401 + 64 * ANSWER_BYTES]
    assert [c.cost for c in found(permit(octets, stream=False, task=Action.EMBED))] == [401 + VECTOR_BYTES]


def test_a_limit_that_a_call_cannot_touch_does_not_refuse_it() -> None:
    """An empty budget of output tokens stops no embedding, an empty purse no model that costs nothing."""
    free = Price(ACME, "real-model", 0, 0)
    output, spend = limit(LimitScope.ORG, LimitUnit.OUTPUT_TOKENS), limit(LimitScope.ORG, LimitUnit.SPEND)
    requests = limit(LimitScope.ORG)
    asked = permit(output, requests, spend, task=Action.EMBED, prices=(free,))
    assert [claim.quota.unit for claim in found(asked)] == [LimitUnit.REQUESTS]


def test_money_is_rounded_up_and_the_organizations_own_price_goes_first() -> None:
    assert nanodollars(Price(ACME, "m", 1, 1), 0, 1) == 1
    assert nanodollars(Price(ACME, "m", 250_000, 0), 4, 9) == 1
    assert nanodollars(Price(ACME, "m", 250_000, 0), 5, 9) == 2
    theirs = Price(PLATFORM, "real-model", 1, 1)
    assert price_of(permit(), platform(prices=(theirs,))) == OWN
    assert price_of(permit(prices=()), platform(prices=(theirs,))) == theirs
    assert price_of(permit(prices=()), platform()) is None
    assert price_of(permit(prices=()), None) is None


def test_a_model_without_a_price_is_not_free_where_money_is_limited() -> None:
    asked = permit(limit(LimitScope.ORG, LimitUnit.SPEND), prices=())
    with pytest.raises(PriceUnknownError, match=r"'org-spend'.*'code' has no price"):
        found(asked)
    assert len(found(permit(limit(LimitScope.ORG, LimitUnit.TOKENS), prices=()))) == 1
    other = limit(LimitScope.MEMBER, LimitUnit.SPEND, subject="mem_2")
    assert found(permit(other, prices=())) == ()


@pytest.mark.parametrize(
    ("unit", "cut", "cost"),
    [
        (LimitUnit.TOKENS, PROMPT + 1, PROMPT + 64),
        (LimitUnit.INPUT_TOKENS, PROMPT, PROMPT),
        (LimitUnit.OUTPUT_TOKENS, 1, 64),
        (LimitUnit.SPEND, PROMPT * 3_000 + 15_000, PROMPT * 3_000 + 64 * 15_000),
        (LimitUnit.BYTES, 401 + STREAM_BYTES, 401 + 64 * STREAM_BYTES),
    ],
)
def test_what_must_be_left_is_what_the_limit_says(unit: LimitUnit, cut: int, cost: int) -> None:
    for on_end, enough in ((OnEnd.FINISH, cost), (OnEnd.CUT, cut), (OnEnd.DENY_NEXT, 1)):
        (claim,) = found(permit(limit(LimitScope.ORG, unit, on_end=on_end)))
        assert (claim.enough, claim.cost, claim.quota.on_end) == (enough, cost, on_end)


def test_what_is_no_stream_cannot_be_cut_and_needs_all_of_it() -> None:
    (claim,) = found(permit(limit(LimitScope.ORG, LimitUnit.TOKENS, on_end=OnEnd.CUT), stream=False))
    assert claim.enough == claim.cost == PROMPT + 64


def test_a_limit_says_what_holds_in_an_outage() -> None:
    (claim,) = found(permit(limit(LimitScope.ORG, LimitUnit.TOKENS, on_outage=OnOutage.DENY)))
    assert claim.quota.on_outage is OnOutage.DENY


class TestBudgets:
    BUDGET = limit(LimitScope.ORG, window=Window.DAY, period_s=0, notify_at=(90, 50))

    def test_a_budget_is_of_the_day_that_it_is_where_the_organization_is(self) -> None:
        (claim,) = found(permit(self.BUDGET, timezone="Asia/Tokyo"))
        day = datetime.fromtimestamp(NOW, ZoneInfo("Asia/Tokyo")).replace(hour=0, minute=0, second=0)
        assert (claim.quota.starts_s, claim.quota.ends_s) == (day.timestamp(), day.timestamp() + 86_400)
        assert (claim.quota.burst, claim.quota.period_s, claim.quota.notify_at) == (10, 0, 50)

    def test_the_next_day_is_noticed_by_whoever_was_here_before(self) -> None:
        asked = permit(self.BUDGET)
        (first,) = found(asked)
        (same,) = found(asked, now_s=first.quota.ends_s - 0.001)
        (after,) = found(asked, now_s=first.quota.ends_s)
        assert same is first
        assert after.quota.starts_s == first.quota.ends_s
        assert found(asked, now_s=first.quota.ends_s + 1)[0] is after

    def test_the_first_window_to_end_counts(self) -> None:
        month = limit(LimitScope.MEMBER, window=Window.MONTH, period_s=0)
        asked = permit(month, self.BUDGET)
        first = found(asked)
        after = found(asked, now_s=first[1].quota.ends_s)
        assert (after[0].quota.starts_s, after[1].quota.starts_s) == (
            first[0].quota.starts_s,
            first[1].quota.ends_s,
        )


class TestThePlatform:
    def test_its_limit_on_organizations_is_in_each_ones_account_by_weight(self) -> None:
        shared = platform(structs.replace(limit(LimitScope.ORG, burst=4), org=PLATFORM, name="fair"))
        (claim,) = found(permit(weight=3), shared)
        assert (claim.quota.org, claim.quota.limit, claim.quota.scope, claim.quota.subject) == (
            ACME,
            "platform/fair",
            "org",
            "",
        )
        assert (claim.quota.amount, claim.quota.burst) == (30, 12)

    def test_no_weight_makes_more_than_can_be_counted(self) -> None:
        most = structs.replace(limit(LimitScope.ORG), amount=MOST)
        (claim,) = found(permit(weight=1000), platform(most))
        assert claim.quota.amount == claim.quota.burst == MOST

    def test_it_may_be_about_one_organization(self) -> None:
        named = limit(LimitScope.ORG, subject="globex")
        assert found(permit(), platform(named)) == ()
        assert len(found(permit(), platform(structs.replace(named, subject="acme")))) == 1

    @pytest.mark.parametrize("subject", ["", "https://model.test", "https://model.test:443"])
    def test_its_limit_on_an_upstream_is_one_bucket_for_all(self, subject: str) -> None:
        (claim,) = found(permit(weight=3), platform(limit(LimitScope.UPSTREAM, subject=subject)))
        assert (claim.quota.org, claim.quota.limit, claim.quota.subject) == (
            PLATFORM,
            "upstream-requests",
            "https://model.test",
        )
        assert (claim.quota.amount, claim.quota.burst) == (10, 10)

    def test_another_origin_is_none_of_its_business(self) -> None:
        for subject in ("https://model.test:8443", "http://model.test"):
            assert found(permit(), platform(limit(LimitScope.UPSTREAM, subject=subject))) == ()

    def test_days_of_its_limits_are_its_own_wherever_an_organization_says_it_is(self) -> None:
        day: dict[str, Any] = {"window": Window.DAY, "period_s": 0}
        shared = platform(
            limit(LimitScope.UPSTREAM, **day), limit(LimitScope.ORG, **day), timezone="America/New_York"
        )
        for timezone in ("Asia/Tokyo", "Asia/Kathmandu"):
            for claim in found(permit(timezone=timezone), shared):
                assert datetime.fromtimestamp(claim.quota.starts_s, ZoneInfo("America/New_York")).hour == 0

    def test_an_alias_that_leads_nowhere_has_no_origin(self) -> None:
        asked = structs.replace(permit(), alias=structs.replace(ALIAS, upstream="gone"))
        assert found(asked, platform(limit(LimitScope.UPSTREAM))) == ()


def test_what_changes_is_noticed_at_once() -> None:
    first = permit(limit(LimitScope.ORG))
    raised = permit(limit(LimitScope.ORG, amount=20))
    assert [c.quota.amount for c in found(first)] == [10]
    assert [c.quota.amount for c in found(raised)] == [20]
    assert [c.quota.amount for c in found(first)] == [10]
    assert [c.quota.limit for c in found(first, platform(limit(LimitScope.ORG)))] == [
        "org-requests",
        "platform/org-requests",
    ]
    assert len(found(first)) == 1
    in_team = structs.replace(first, tenant=permit(limit(LimitScope.TEAM)).tenant)
    for teams in (("a",), ("a", "b"), ()):
        who = structs.replace(in_team.principal, teams=teams)
        assert [c.quota.subject for c in found(structs.replace(in_team, principal=who))] == list(teams)


def test_what_is_ready_is_not_made_again() -> None:
    asked = permit(limit(LimitScope.ORG), limit(LimitScope.MEMBER))
    assert found(asked) is found(asked, now_s=NOW + 1)


def test_one_token_asks_now_this_model_and_then_another() -> None:
    asked = permit(limit(LimitScope.MODEL))
    other = structs.replace(asked, alias=structs.replace(asked.alias, name="other"))
    for _ in range(2):
        assert [c.quota.subject for c in found(asked)] == [asked.alias.name]
        assert [c.quota.subject for c in found(other)] == ["other"]


def test_tokens_of_one_member_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    monkeypatch.setattr(module, "_ready", {})
    first = permit(limit(LimitScope.MEMBER))
    asked = [
        structs.replace(first, principal=structs.replace(first.principal, token_id=f"t{n}")) for n in range(10)
    ]
    assert len({id(found(each)) for each in asked}) == 1
    assert len(module._ready[ACME].lately) <= 3


def test_what_callers_share_is_one_object() -> None:
    first = permit(limit(LimitScope.ORG), limit(LimitScope.MEMBER))
    other = structs.replace(first, principal=structs.replace(first.principal, member="mem_2"))
    (shared, own), (theirs_shared, theirs) = found(first), found(other)
    assert shared.quota is theirs_shared.quota
    assert (own.quota.subject, theirs.quota.subject) == ("mem_1", "mem_2")


@pytest.mark.parametrize(
    ("made", "names"),
    [
        ((), ()),
        (((ACME, "a"), (ACME, "a"), (ACME, "b")), ("a", "b")),
        (((PLATFORM, "gpu"), (ACME, "platform/all")), ("platform/gpu", "platform/all")),
        (tuple((ACME, str(n)) for n in range(20)), tuple(map(str, range(LIMITS_MAX)))),
    ],
)
def test_limits_are_named_once_and_the_platforms_as_such(
    made: tuple[tuple[OrgId, str], ...], names: tuple[str, ...]
) -> None:
    quotas = [Quota(org, name, "org", "", LimitUnit.REQUESTS, 9, 9, 60) for org, name in made]
    assert CallerLimits(quotas).names == names


def test_limits_that_a_call_cannot_touch_are_not_named() -> None:
    asked = permit(limit(LimitScope.ORG, LimitUnit.OUTPUT_TOKENS), limit(LimitScope.ORG), task=Action.EMBED)
    limits = limits_for(asked, None, lambda: NOW)
    assert limits.names == ("org-output_tokens", "org-requests")
    assert limits.named(found(asked)) == ("org-requests",)


def test_what_is_kept_ready_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    monkeypatch.setattr(module, "_ready", {})
    first = permit(limit(LimitScope.MEMBER))
    for number in range(10):
        who = structs.replace(first.principal, member=f"mem_{number}")
        assert [c.quota.subject for c in found(structs.replace(first, principal=who))] == [f"mem_{number}"]
    assert len(module._ready[ACME].callers) <= 3
    assert len(module._ready[ACME].quotas) <= 3
    for number in range(10):
        org = OrgId(f"org-{number}")
        tenant = Tenant(TenantRecord(Org(org, "Other"), limits=first.tenant.limits))
        assert [c.quota.org for c in found(structs.replace(first, tenant=tenant))] == [org]
    assert len(module._ready) <= 3


def test_a_tokenizer_is_needed_where_a_prompts_length_counts() -> None:
    for unit in LimitUnit:
        tenants = [platform(), permit(limit(LimitScope.MODEL, unit)).tenant]
        assert counts_tokens(tenants) == (unit in (LimitUnit.TOKENS, LimitUnit.INPUT_TOKENS, LimitUnit.SPEND))


def test_the_platforms_own_people_are_not_limited_twice() -> None:
    shared = platform(limit(LimitScope.ORG))
    asked = structs.replace(permit(), tenant=shared)
    assert [claim.quota.limit for claim in found(asked, shared)] == ["org-requests"]


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Model.Test:443/base", "https://model.test"),
        ("http://model.test:80", "http://model.test"),
        ("https://model.test:8443/v1", "https://model.test:8443"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("http://[0:0:0:0:0:0:0:1]:8000/", "http://[::1]:8000"),
        ("https://[2001:DB8:0::00a]", "https://[2001:db8::a]"),
        ("http://[::ffff:192.0.2.1]:8000", "http://192.0.2.1:8000"),
        ("http://[::FFFF:c000:201]", "http://192.0.2.1"),
    ],
)
def test_an_origin_is_spelt_in_one_way(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_no_bucket_has_the_key_of_another() -> None:
    """Whatever stands in names and subjects: no separator can be written into them."""
    texts = ("", "a", "a'", "a', 'b", "b", "a\n", '"', "\\", "0", "', '', 0, '")
    made = [
        Quota(OrgId(org), name, "org", subject, unit, 9, 9, 60, starts_s=starts)
        for org in texts
        for name in texts
        for subject in texts
        for unit in (LimitUnit.REQUESTS, LimitUnit.TOKENS)
        for starts in (0, 1)
    ]
    assert len({quota.key for quota in made}) == len(made)
