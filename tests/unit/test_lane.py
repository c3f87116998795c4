from __future__ import annotations

import json

import pytest

from gateway.api.data.openai import decode_call
from gateway.errors import BadRequestError
from gateway.lane import lane_asked, lane_of_call
from policies.facts import Action
from policies.lanes import Lane


def test_header() -> None:
    assert lane_asked(None) is Lane.COMPLETION
    assert lane_asked(b"agent") is Lane.AGENT
    with pytest.raises(BadRequestError, match="'x-orgate-lane' must be completion, chat or agent") as refusal:
        lane_asked(b"first")
    assert refusal.value.param == "x-orgate-lane"


@pytest.mark.parametrize(
    ("tools", "lane"),
    [(None, Lane.CHAT), ([], Lane.CHAT), ([{"type": "function", "function": {"name": "f"}}], Lane.AGENT)],
)
def test_chat_with_tools_is_an_agents(tools: object, lane: Lane) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": tools}
    call = decode_call(Action.CHAT, json.dumps(body).encode())
    assert lane_of_call(call, Lane.COMPLETION) is lane


def test_asking_only_lowers() -> None:
    chat = decode_call(Action.CHAT, b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    completion = decode_call(Action.COMPLETE, b'{"model":"m","prompt":"x"}')
    assert lane_of_call(chat, Lane.COMPLETION) is Lane.CHAT
    assert lane_of_call(completion, Lane.AGENT) is Lane.AGENT
