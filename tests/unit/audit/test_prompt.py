"""The keyed hash of a prompt, as an auditor would make it by hand."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.audit.prompt import MOST, prompt_hmac
from gateway.secret import Secret
from policies.facts import Action

KEY = Secret(b"k" * 32)


def by_hand(said: object) -> str:
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return urlsafe_b64encode(hmac.digest(b"k" * 32, text.encode(), "sha256")).rstrip(b"=").decode()


def fields(**members: object) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in members.items()}


def test_a_completion_is_its_prompt_and_its_suffix() -> None:
    asked = fields(prompt="def f(", suffix="):\n", model="code", temperature=0.5)
    assert prompt_hmac(KEY, Action.COMPLETE, asked) == by_hand({"prompt": ["def f("], "suffix": ["):\n"]})
    assert prompt_hmac(KEY, Action.COMPLETE, fields(prompt="def f(")) == by_hand({"prompt": ["def f("]})


def test_a_chat_is_every_text_of_its_messages() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "grüß"}, {"n": 1.5}]}]
    assert prompt_hmac(KEY, Action.CHAT, fields(messages=messages)) == by_hand(
        {"messages": ["user", "text", "grüß"]}
    )


def test_spelling_makes_no_difference() -> None:
    plain, other = Raw(b'["a","\xc3\xbc"]'), Raw(b' [ "\\u0061" , "\\u00fc" ] ')
    assert prompt_hmac(KEY, Action.EMBED, {"input": plain}) == prompt_hmac(KEY, Action.EMBED, {"input": other})


@pytest.mark.parametrize("said", [[1, 2, 3], [], {}, None])
def test_what_has_no_text_has_no_hash(said: object) -> None:
    assert prompt_hmac(KEY, Action.COMPLETE, fields(prompt=said)) == ""
    assert prompt_hmac(KEY, Action.LIST_MODELS, fields(prompt="x")) == ""


def test_what_would_hold_up_everybody_has_no_hash() -> None:
    asked = fields(prompt="x" * (MOST - 2))
    assert prompt_hmac(KEY, Action.COMPLETE, asked)
    assert prompt_hmac(KEY, Action.COMPLETE, asked | fields(suffix="")) == ""


@given(st.text(min_size=1), st.text(min_size=1), st.binary(min_size=32, max_size=32))
def test_prompts_and_keys_are_told_apart(one: str, other: str, key: bytes) -> None:
    first = prompt_hmac(KEY, Action.COMPLETE, fields(prompt=one))
    if first:  # none for half of a surrogate pair
        assert len(first) == 43
        assert (first == prompt_hmac(KEY, Action.COMPLETE, fields(prompt=other))) is (one == other)
        assert first != prompt_hmac(KEY, Action.COMPLETE, fields(prompt="", suffix=one))
        assert (first == prompt_hmac(Secret(key), Action.COMPLETE, fields(prompt=one))) is (key == b"k" * 32)
