"""Deny by default; a deny beats every allow; a refusal names its rule."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.facts import Action, Allowed, Decision, Facts, Policy, Refused, Role
from policies.rules import DEFAULT_DENY, Effect, Rule, RulesPolicy, starting_rules

MODELS = ("code", "code-small", "chat", "")
PATTERNS = ("*", "code*", "code-*", "c?de", "[cx]hat", "chat", "other")

rules = st.builds(
    Rule,
    id=st.sampled_from(("r1", "r2", "r3", "r4")),
    effect=st.sampled_from(Effect),
    roles=st.lists(st.sampled_from(Role), max_size=3).map(tuple),
    actions=st.lists(st.sampled_from(Action), max_size=3).map(tuple),
    models=st.lists(st.sampled_from(PATTERNS), max_size=2).map(tuple),
)
facts = st.builds(
    Facts,
    org=st.just("acme"),
    member=st.just("mem_1"),
    roles=st.frozensets(st.sampled_from(Role), max_size=3),
    client=st.just("orgate-cli"),
    action=st.sampled_from(Action),
    model=st.sampled_from(MODELS),
)


def asked(*roles: Role, action: Action = Action.CHAT, model: str = "code") -> Facts:
    return Facts(
        org="acme", member="mem_1", roles=frozenset(roles), client="orgate-cli", action=action, model=model
    )


def rule(name: str, effect: Effect, models: tuple[str, ...] = ("*",)) -> Rule:
    return Rule(id=name, effect=effect, roles=(Role.MEMBER,), actions=(Action.CHAT,), models=models)


def decide(given_rules: Sequence[Rule], question: Facts) -> Decision:
    policy: Policy = RulesPolicy(given_rules)
    return policy.decide(question)


@given(facts)
def test_nothing_configured_means_no(question: Facts) -> None:
    answer = decide([], question)
    assert answer == Refused(DEFAULT_DENY, f"no rule allows {question.action} on model '{question.model}'")


@given(st.lists(rules, max_size=6), facts)
def test_a_deny_that_matches_beats_every_allow(some: list[Rule], question: Facts) -> None:
    answer = decide(some, question)
    denying = [r.id for r in some if r.effect is Effect.DENY and r.matches(question)]
    allowing = [r.id for r in some if r.effect is Effect.ALLOW and r.matches(question)]
    if denying:
        assert isinstance(answer, Refused)
        assert answer.rule == denying[0]
        assert f"'{denying[0]}'" in answer.reason
    elif allowing:
        assert answer == Allowed(allowing[0])
    else:
        assert isinstance(answer, Refused)
        assert answer.rule == DEFAULT_DENY


@given(st.lists(rules, max_size=6), facts, st.randoms(use_true_random=False))
def test_order_decides_only_whose_id_is_named(some: list[Rule], question: Facts, random: object) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert type(decide(some, question)) is type(decide(shuffled, question))


@given(st.lists(rules, max_size=6), rules, facts)
def test_another_deny_never_turns_a_no_into_a_yes(some: list[Rule], more: Rule, question: Facts) -> None:
    denies = Rule(id=more.id, effect=Effect.DENY, roles=more.roles, actions=more.actions, models=more.models)
    if isinstance(decide(some, question), Refused):
        assert isinstance(decide([*some, denies], question), Refused)


@given(st.lists(rules, max_size=6), facts)
def test_the_same_facts_give_the_same_decision(some: list[Rule], question: Facts) -> None:
    policy = RulesPolicy(some)
    assert policy.decide(question) == policy.decide(question) == RulesPolicy(tuple(some)).decide(question)


@pytest.mark.parametrize(
    "empty",
    [
        Rule(id="r", effect=Effect.ALLOW, roles=(), actions=tuple(Action), models=("*",)),
        Rule(id="r", effect=Effect.ALLOW, roles=tuple(Role), actions=(), models=("*",)),
        Rule(id="r", effect=Effect.ALLOW, roles=tuple(Role), actions=tuple(Action), models=()),
    ],
)
def test_an_empty_list_matches_nothing(empty: Rule) -> None:
    assert not empty.matches(asked(*Role))


def test_who_has_no_role_is_refused() -> None:
    assert isinstance(decide([rule("all", Effect.ALLOW)], asked()), Refused)


def test_a_refusal_names_the_rule_the_action_and_the_model() -> None:
    answer = decide(
        [rule("yes", Effect.ALLOW), rule("no-chat", Effect.DENY, ("code-*",))], asked(Role.MEMBER, model="code-x")
    )
    assert answer == Refused("no-chat", "rule 'no-chat' denies chat on model 'code-x'")


@pytest.mark.parametrize(
    ("pattern", "model", "matches"),
    [
        ("*", "anything", True),
        ("code-*", "code-7b", True),
        ("code-*", "code", False),
        ("code-*", "xcode-7b", False),
        ("code-?b", "code-7b", True),
        ("code-[17]b", "code-7b", True),
        ("code-[!7]b", "code-7b", False),
        ("code", "CODE", False),
        ("code", "code\n", False),
        ("a.c", "abc", False),
        ("*" * 60 + "b", "a" * 64, False),
    ],
)
def test_patterns_are_globs_over_the_whole_name(pattern: str, model: str, matches: bool) -> None:
    assert rule("r", Effect.ALLOW, (pattern,)).matches(asked(Role.MEMBER, model=model)) is matches


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("role", list(Role))
def test_a_new_org_lets_those_who_write_code_use_its_models(role: Role, action: Action) -> None:
    answer = decide(starting_rules(), asked(role, action=action))
    writes_code = role in {Role.MEMBER, Role.ADMIN, Role.OWNER}
    assert isinstance(answer, Allowed if writes_code else Refused)
    assert answer.rule == ("members-use-every-model" if writes_code else DEFAULT_DENY)
