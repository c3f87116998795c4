from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.data.openai import decode_call
from gateway.exchange import Permit, Principal, Usage
from gateway.limits import tokens as module
from gateway.limits.tokens import (
    BELIEVED,
    EVERY,
    EXACT,
    HEARD,
    IMAGE_TOKENS,
    MOST_IMAGES,
    SAMPLE,
    SPARSE,
    Ratio,
    Tokens,
)
from policies.facts import Action, Role
from tenants.ids import OrgId
from tenants.models import ModelAlias, Org
from tenants.snapshot import Tenant, TenantRecord

ACME = OrgId("acme")
TENANT = Tenant(TenantRecord(Org(ACME, "Acme")))


def permit(task: Action = Action.COMPLETE, model: str = "real", **body: Any) -> Permit:
    call = decode_call(task, json.dumps({"model": "code", **body}).encode())
    who = Principal(ACME, "mem_1", frozenset({Role.MEMBER}), "editor", "jti", "aud", 0, 1)
    return Permit(principal=who, tenant=TENANT, call=call, alias=ModelAlias(ACME, "code", "up", model), rule="r")


def fields(name: str, value: object) -> dict[str, Any]:
    return {name: value}


class Counter:
    """A tokenizer for which a word is a token; it notes what it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, text: str) -> int | None:
        self.seen.append(text)
        return len(text.split())


def test_the_first_prompts_of_a_model_are_counted() -> None:
    counter = Counter()
    tokens = Tokens(counter)
    for words in range(1, EXACT + 1):
        assert tokens.of_prompt(permit(prompt="word " * words, suffix="tail")) == words + 1
    assert counter.seen[0] == "word \ntail"
    assert tokens.of_prompt(permit(prompt="w" * 4_000)) > 0
    assert len(counter.seen) == EXACT


def test_after_that_they_are_estimated_and_now_and_then_counted() -> None:
    counter = Counter()
    tokens = Tokens(counter)
    asked = permit(prompt="four words are these")
    for _ in range(EVERY * 4):
        assert tokens.of_prompt(asked) == 4
    assert len(counter.seen) == EXACT + 4


def test_what_the_provider_reports_goes_before_what_is_counted() -> None:
    counter = Counter()
    tokens = Tokens(counter)
    asked = permit(prompt="four words are these")
    for _ in range(EXACT):
        tokens.learn(asked, Usage(9, 5, counted=False), 0)
    assert tokens.of_prompt(asked) == 9
    assert 18 - 2 <= tokens.of_prompt(permit(prompt="four words are these" * 2)) <= 18
    assert counter.seen == []


def test_each_model_task_and_organization_has_its_own() -> None:
    tokens = Tokens(Counter())
    for _ in range(EXACT):
        tokens.learn(permit(prompt="four words are these"), Usage(9, 5, counted=False), 0)
    assert tokens.of_prompt(permit(prompt="four words are these", model="other")) == 4
    assert tokens.of_prompt(permit(Action.EMBED, input="four words are these")) == 4


def test_a_provider_that_changes_is_followed() -> None:
    tokens = Tokens(Counter())
    asked = permit(prompt="x" * 10_000)
    for reported in (1_000, 4_000):
        for _ in range(HEARD * 700):
            tokens.learn(asked, Usage(reported, 5, counted=False), 0)
        assert abs(tokens.of_prompt(asked) - reported) <= reported // 50


def test_what_a_provider_reports_is_believed_within_reason() -> None:
    tokens = Tokens(Counter())
    asked = permit(prompt="four")
    for _ in range(EXACT):
        tokens.learn(asked, Usage(2**31 - 1, 2**31 - 1, counted=False), 1)
    assert tokens.of_prompt(asked) == 4 * len('"four"')
    assert tokens.of_answer(asked, 10, 0) == 40


def test_what_one_caller_hides_from_measuring_is_not_spread_over_all_others() -> None:
    tokens = Tokens(Counter())
    usual = permit(Action.CHAT, messages=[{"role": "user", "content": "four words are these" * 100}])
    for _ in range(EXACT):
        tokens.learn(usual, Usage(500, 5, counted=False), 5)
    before = tokens.of_prompt(usual), tokens.of_answer(usual, 100, 0)
    disguised = {"role": "user", "content": "x;base64," + "word " * 20_000}
    for _ in range(HEARD):
        tokens.learn(permit(Action.CHAT, messages=[disguised]), Usage(25_000, 9, counted=False), 9)
        tokens.learn(permit(Action.CHAT, messages=[{"role": "u"}], documents="x" * 10_000), Usage(9_000, 9), 9)
    assert tokens.of_prompt(usual) < 1.5 * before[0]
    assert tokens.of_answer(usual, 100, 0) == before[1]


def test_while_the_vocabulary_is_read_a_rule_of_thumb_stands_in() -> None:
    tokens = Tokens(lambda text: None)
    assert tokens.of_prompt(permit(prompt="x" * 398)) == 100


def test_of_a_long_prompt_the_beginning_and_the_end_stand_for_the_rest() -> None:
    counter = Counter()
    tokens = Tokens(counter)
    text = '"quoted"\tword\n' * 10_000
    found = tokens.of_prompt(permit(prompt=text))
    assert len(counter.seen[0]) <= SAMPLE
    assert counter.seen[0].startswith('""quoted"\tword\n')
    assert counter.seen[0].endswith('word\n"')
    assert abs(found - 20_000) < 400


def test_a_conversation_is_its_texts_and_its_tools() -> None:
    counter = Counter()
    parts = [{"type": "text", "text": "deux"}, {"type": "text", "text": "trois quatre"}]
    messages = [{"role": "user", "content": "un"}, {"role": "user", "content": parts}]
    Tokens(counter).of_prompt(permit(Action.CHAT, messages=messages, tools=[{"function": {"name": "f"}}]))
    assert counter.seen[0].split() == ["user", "un", "user", "text", "deux", "text", "trois", "quatre", "f"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"temperature": 0},
        {"tools": [{"function": {"name": "f"}}]},
        {"functions": [{"name": "f"}], "response_format": {"type": "json_object"}},
        {"messages": [{"role": "user", "content": "x" * 2 * SAMPLE}]},
    ],
)
def test_without_images_a_rough_estimate_is_the_exact_one(body: dict[str, Any]) -> None:
    tokens = Tokens(Counter())
    asked = permit(Action.CHAT, **{"messages": [{"role": "user", "content": "un deux"}], **body})
    for _ in range(EXACT):
        tokens.learn(asked, Usage(30, 5, counted=False), 0)
    assert tokens.of_prompt(asked, roughly=True) == tokens.of_prompt(asked) > 0


def test_an_image_is_not_as_many_tokens_as_it_has_bytes() -> None:
    counter = Counter()
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    messages = [{"role": "user", "content": [url, url, {"type": "text", "text": "what is it"}]}]
    found = Tokens(Counter()).of_prompt(permit(Action.CHAT, messages=messages))
    assert 2 * IMAGE_TOKENS < found < 2 * IMAGE_TOKENS + 200
    tokens = Tokens(counter)
    asked = permit(Action.CHAT, messages=messages)
    for _ in range(EXACT):
        tokens.learn(asked, Usage(2 * IMAGE_TOKENS + 50, 5, counted=False), 0)
    assert tokens.of_prompt(asked) == 2 * IMAGE_TOKENS + 50


def test_images_beyond_number_count_by_their_bytes() -> None:
    tokens = Tokens(lambda text: None)
    content = [{"image_url": "data:image/png;base64,AAAA"}] * (MOST_IMAGES + 4_000)
    found = tokens.of_prompt(permit(Action.CHAT, messages=[{"role": "user", "content": content}]))
    assert MOST_IMAGES * IMAGE_TOKENS + 40_000 < found < MOST_IMAGES * IMAGE_TOKENS + 80_000
    data = [{"image_url": "data:image/png;base64," + "A" * 400}] * (MOST_IMAGES + 1_000)
    found = tokens.of_prompt(permit(Action.CHAT, messages=[{"role": "user", "content": data}]))
    assert MOST_IMAGES * IMAGE_TOKENS + 100_000 < found < MOST_IMAGES * IMAGE_TOKENS + 150_000
    names = ["_url"] * (2 * MOST_IMAGES)  # what there is behind so many is not looked at
    hidden = permit(Action.CHAT, messages=[{"role": "user", "content": names + content}])
    assert tokens.of_prompt(hidden) > MOST_IMAGES * IMAGE_TOKENS


@pytest.mark.parametrize(
    ("task", "name"), [(Action.COMPLETE, "prompt"), (Action.EMBED, "input")], ids=["complete", "embed"]
)
def test_a_prompt_in_tokens_is_as_long_as_it_says(task: Action, name: str) -> None:
    counter = Counter()
    tokens = Tokens(counter)
    assert tokens.of_prompt(permit(task, **fields(name, [1, 2, 3]))) == 3
    assert tokens.of_prompt(permit(task, **fields(name, [[1, 2, 3], [4]]))) == 4
    assert counter.seen == []
    assert tokens.of_prompt(permit(task, **fields(name, ["one two", "three"]))) == 3
    assert tokens.of_prompt(permit(task, **fields(name, [1, [["one two three four"]]]))) == 4  # no way around it


def test_nothing_is_nothing() -> None:
    assert Tokens(Counter()).of_prompt(permit(prompt=None)) <= 1


@pytest.mark.parametrize(
    ("events", "octets", "expected"), [(5, 0, 5), (5, 400, 100), (200, 400, 200), (0, 401, 101)]
)
def test_of_an_answer_events_count_or_its_text(events: int, octets: int, expected: int) -> None:
    assert Tokens(Counter()).of_answer(permit(prompt="x"), events, octets) == expected


def test_the_text_of_an_answer_is_as_dense_as_prompts_are() -> None:
    tokens = Tokens(Counter())
    asked = permit(prompt="two words " * 99 + "end")
    for _ in range(EXACT):
        assert tokens.of_prompt(asked) == 199
    assert tokens.of_answer(asked, 3, 10 * 199) in (397, 398, 399)


def test_how_many_tokens_an_event_is_is_learned() -> None:
    tokens = Tokens(Counter())
    asked = permit(prompt="x")
    tokens.learn(asked, Usage(1, 30, counted=False), 10)
    assert tokens.of_answer(asked, 7, 0) == 21
    assert tokens.of_answer(asked, 0, 400) == 100


def test_of_what_is_reported_often_only_some_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def measured(call: object) -> tuple[int, int]:
        nonlocal looked
        looked += 1
        return 10, 0

    monkeypatch.setattr(module, "_measured", measured)
    tokens, asked = Tokens(Counter()), permit(prompt="x")
    for _ in range(EXACT + 10 * HEARD):
        tokens.learn(asked, Usage(3, 5, counted=False), 0)
    assert EXACT + 9 <= looked <= EXACT + 11


def test_memory_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    tokens = Tokens(Counter())
    for number in range(10):
        assert tokens.of_prompt(permit(prompt="one two", model=f"m{number}")) == 2
    assert len(tokens._models) <= 3


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)), min_size=1), st.integers(0, 10**7))
def test_a_ratio_never_leaves_its_bounds(pairs: list[tuple[int, int]], asked: int) -> None:
    ratio = Ratio()
    for one, other in pairs:
        ratio.add(one, other)
    assert asked <= SPARSE * ratio.of(asked)
    assert ratio.of(asked) <= BELIEVED * asked
    assert ratio.seen <= 2 * 10**6


PART: st.SearchStrategy[object] = st.text() | st.integers() | st.none() | st.booleans()


@settings(max_examples=40)
@given(st.lists(PART | st.lists(PART) | st.dictionaries(st.text(), st.lists(PART))), st.text())
def test_whatever_is_sent_has_an_estimate(prompt: list[object], suffix: str) -> None:
    assert Tokens(len).of_prompt(permit(prompt=prompt, suffix=suffix)) >= 0
