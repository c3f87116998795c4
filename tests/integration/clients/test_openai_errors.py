"""What goes wrong reaches the SDK's user as the exception of its kind, saying what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx2
import openai
import pytest
from openai import OpenAI

from tests.integration.clients.conftest import World

Connect = Callable[..., AbstractContextManager[OpenAI]]


@pytest.fixture
def connect(world: World, token: str) -> Connect:
    """Makes a client; `seen` collects the statuses of its answers."""

    @contextmanager
    def connected(
        api_key: str = token, *, max_retries: int = 0, seen: list[int] | None = None
    ) -> Iterator[OpenAI]:
        def note(answer: httpx2.Response) -> None:
            if seen is not None:
                seen.append(answer.status_code)

        http = openai.DefaultHttpxClient(verify=world.tls(), event_hooks={"response": [note]})
        with OpenAI(api_key=api_key, base_url=world.url, http_client=http, max_retries=max_retries) as client:
            yield client

    return connected


@pytest.mark.parametrize("stream", [False, True])
def test_401(connect: Connect, token: str, stream: bool) -> None:
    forged = token[:-6] + ("AAAAAA" if not token.endswith("AAAAAA") else "BBBBBB")
    for key in ("sk-never-issued", forged):
        with connect(key) as client, pytest.raises(openai.AuthenticationError) as caught:
            client.completions.create(model="code", prompt="x", stream=stream)
        assert caught.value.status_code == 401
        assert 'error="invalid_token"' in caught.value.response.headers["www-authenticate"]
        assert caught.value.request_id is not None
        assert key not in str(caught.value)


def test_403_names_the_rule(connect: Connect) -> None:
    with connect() as client, pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(model="forbidden", messages=[{"role": "user", "content": "x"}])
    assert caught.value.type == "permission_error"
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["rule"] == "not-that-one"


def test_404_of_a_model_that_is_not_the_organizations(connect: Connect) -> None:
    with connect() as client:
        for ask in (
            lambda: client.completions.create(model="gpt-4o", prompt="x"),
            lambda: client.embeddings.create(model="gpt-4o", input="x"),
            lambda: client.models.retrieve("gpt-4o"),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                ask()
            assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_404_of_an_endpoint_that_is_not_here(connect: Connect) -> None:
    with connect() as client, pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(prompt="x")
    assert caught.value.code == "not_found"


def test_the_upstreams_own_404_comes_through(connect: Connect) -> None:
    with connect() as client, pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="nowhere", prompt="x")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"prompt": 5}, "prompt"),
        ({"suffix": ["x"]}, "suffix"),
    ],
)
def test_422_names_the_field(connect: Connect, wrong: dict[str, object], param: str) -> None:
    with connect() as client, pytest.raises(openai.UnprocessableEntityError) as caught:
        client.completions.create(model="code", prompt="x", extra_body=wrong)
    assert (caught.value.param, caught.value.code) == (param, "invalid_value")


@pytest.mark.parametrize("model", ["code", "tiny"])
def test_400_in_the_words_of_the_model_that_refused(connect: Connect, model: str) -> None:
    with connect() as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "x"}], extra_body={"messages": [{"role": 7}]}
        )
    assert caught.value.request_id is not None
    assert caught.value.response.headers["x-orgate-upstream"] == {"code": "demo", "tiny": "llama"}[model]


def test_413(connect: Connect) -> None:
    with connect() as client, pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(model="code", prompt="x" * 5_000_000)
    assert caught.value.status_code == 413


def test_429_then_the_sdk_waits_as_long_as_it_is_told_and_is_served(connect: Connect) -> None:
    seen: list[int] = []
    with connect(seen=seen) as client:
        error = _refusal(client)
    assert 1 <= int(error.response.headers["retry-after"]) <= 3
    assert error.type == "rate_limit_error"
    assert isinstance(error.body, dict)
    assert error.body["limit"] == "few"
    seen.clear()
    # By itself the SDK would try again after half a second and once more would be refused.
    with connect(max_retries=1, seen=seen) as client:
        assert client.completions.create(model="scarce", prompt="x", max_tokens=1).choices
    assert seen == [429, 200]


def _refusal(client: OpenAI) -> openai.RateLimitError:
    """The first one of a limit of one request each three seconds."""
    for _ in range(5):
        try:
            client.completions.create(model="scarce", prompt="x", max_tokens=1)
        except openai.RateLimitError as error:
            return error
    raise AssertionError("five requests were served at once")
