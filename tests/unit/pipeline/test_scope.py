"""What a personal token was made for: looked at beside the rules, which cannot widen it."""

from __future__ import annotations

import pytest
from msgspec import structs

from gateway.authorize.stage import SCOPE_RULE, authorize, visible_models
from gateway.errors import ForbiddenError, UnknownModelError
from gateway.exchange import Call, Principal
from policies.facts import Action, Role
from policies.rules import starting_rules
from tenants.ids import OrgId
from tenants.models import ModelAlias, Org, OrgRule
from tenants.snapshot import Tenant, TenantRecord
from tenants.statickeys import EVERY_ACTION, KeyScope

ACME = OrgId("acme")
RULE = starting_rules()[0]
TENANT = Tenant(
    TenantRecord(
        Org(id=ACME, name="Acme"),
        models=tuple(ModelAlias(ACME, name, "gpt", name) for name in ("code", "chatty")),
        rules=(OrgRule(ACME, RULE.id, RULE.effect, RULE.roles, RULE.actions, RULE.models),),
    )
)
PERSON = Principal(ACME, "mem_ada", frozenset({Role.MEMBER}), "personal-token", "pt_1", "a", 0, 1)


def call(task: Action, model: str) -> Call:
    return Call(task=task, model=model, stream=False, include_usage=False, max_tokens=None, size=1, fields={})


def holder(*actions: Action, models: tuple[str, ...] = ()) -> Principal:
    return structs.replace(PERSON, scope=KeyScope(actions, models))


def test_what_it_was_made_for_passes_and_nothing_else() -> None:
    token = holder(Action.CHAT, models=("code",))
    assert authorize(token, TENANT, call(Action.CHAT, "code")).rule == RULE.id
    for task, model in ((Action.COMPLETE, "code"), (Action.CHAT, "chatty")):
        with pytest.raises(ForbiddenError) as refused:
            authorize(token, TENANT, call(task, model))
        assert refused.value.rule == SCOPE_RULE
        assert authorize(PERSON, TENANT, call(task, model)).rule == RULE.id


def test_a_scope_gives_nothing_that_the_rules_do_not() -> None:
    token = structs.replace(holder(*EVERY_ACTION), roles=frozenset({Role.BILLING}))
    with pytest.raises(ForbiddenError) as refused:
        authorize(token, TENANT, call(Action.CHAT, "code"))
    assert refused.value.rule == "default-deny"
    assert visible_models(token, TENANT) == []


def test_an_unknown_model_is_unknown_first() -> None:
    with pytest.raises(UnknownModelError):
        authorize(holder(Action.EMBED), TENANT, call(Action.CHAT, "nothing"))


def test_a_listing_is_narrowed_or_refused() -> None:
    assert [alias.name for alias in visible_models(holder(*EVERY_ACTION), TENANT)] == ["chatty", "code"]
    assert [alias.name for alias in visible_models(holder(*EVERY_ACTION, models=("code",)), TENANT)] == ["code"]
    with pytest.raises(ForbiddenError):
        visible_models(holder(Action.CHAT), TENANT)
