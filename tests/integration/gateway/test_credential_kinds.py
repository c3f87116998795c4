"""Models that want something other than a bearer key, through the whole gateway, and what never leaves it.

The gateway logs at DEBUG; after the last test no file of it, no answer and no metric holds a planted secret.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.fakes import aws
from tests.fakes.token_endpoint import TokenEndpoint
from tests.integration.gateway.refusals import refused
from tests.integration.gateway.world import DONE, SSE_HEAD, World, bind, populate, sse
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway
from tests.kit.upstream import RecordingUpstream, Request
from tests.kit.wait import until

PLANTED = "planted"
"""In every secret of this file, and in nothing else."""

AWS = {
    "access_key_id": "AKIDplanted",
    "secret_access_key": "planted/9+secret=",
    "session_token": "planted/session==",
    "region": "eu-central-1",
    "service": "bedrock",
}
CLIENT = {"client_id": "gw", "client_secret": "cs-planted", "scope": "models"}

Check = Callable[[Request], str]
"""What an upstream has against a request, '' for nothing."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[World]:
    home = tmp_path_factory.mktemp("kinds") / "home"
    with RunningGateway(home, settings={"ORGATE_SERVER__LOG_LEVEL": "debug"}) as gateway:
        world = populate(gateway, pki)
        yield world
        metrics = world.operator.admin("GET", "/metrics").content
        entries = world.owner.admin("GET", "/admin/v1/orgs/acme/audit/entries", params={"limit": 1000}).content
    assert PLANTED.encode() not in metrics + entries
    files = [path for path in home.rglob("*") if path.is_file()]
    assert gateway.log in files
    assert not [path for path in files if PLANTED.encode() in path.read_bytes()]


@asynccontextmanager
async def model(pki: Pki, check: Check) -> AsyncIterator[RecordingUpstream]:
    """A model server that checks who calls, and repeats in its refusal all that it was sent."""

    def script(request: Request) -> None:
        if wrong := check(request):
            request.respond_json({"error": {"message": f"{wrong}: {request.headers}"}}, 401)
        elif request.path.endswith("/models"):
            request.respond_json({"data": []})
        elif request.json().get("stream"):
            request.respond(200, SSE_HEAD)
            request.send(sse("x") + DONE, end=True)
        else:
            request.respond_json({"object": "text_completion", "choices": []})

    async with RecordingUpstream(tls=pki.server_context(), script=script) as upstream:
        yield upstream
        assert not upstream.faults


async def bound(
    world: World, upstream: RecordingUpstream, auth: str, key: str | dict[str, str], **more: Any
) -> str:
    text = key if isinstance(key, str) else json.dumps(key, indent=1)
    return await asyncio.to_thread(bind, world.owner, world.pki, upstream.url, key=text, auth=auth, **more)


def complete_now(world: World, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": "def fib(n):", **fields}
    url = world.gateway.url + "/v1/completions"
    answer = world.gateway.http.post(url, headers=world.ada.session.bearer, json=body)
    assert PLANTED not in answer.text + repr(answer.headers)
    return answer


async def complete(world: World, model: str, **fields: Any) -> httpx.Response:
    return await asyncio.to_thread(complete_now, world, model, **fields)


async def served_again(world: World, model: str) -> None:
    await asyncio.to_thread(until, lambda: complete_now(world, model).status_code == 200, "to be served again")


async def admin(world: World, method: str, model: str, what: str = "", **more: Any) -> httpx.Response:
    path = f"/admin/v1/orgs/acme/upstreams/{model}{what}"
    answer = await asyncio.to_thread(world.owner.admin, method, path, **more)
    assert PLANTED not in answer.text
    return answer


def says(**wanted: str | None) -> Check:
    """The request has these fields, and of those that could carry a key no other."""
    expected = {name.replace("_", "-"): value for name, value in wanted.items()}

    def check(request: Request) -> str:
        keys = ("authorization", "api-key", "x-api-key", "anthropic-version")
        found = {name: request.headers[name] for name in keys if name in request.headers}
        return "" if found == expected else "not as it should be"

    return check


@pytest.mark.parametrize(
    ("auth", "key", "check"),
    [
        ("bearer", "sk-planted", says(authorization="Bearer sk-planted")),
        ("api-key", "sk-planted", says(api_key="sk-planted")),
        ("x-api-key", "sk-planted", says(x_api_key="sk-planted", anthropic_version="2023-06-01")),
        ("none", "", says()),
    ],
)
@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_a_plain_key_goes_where_the_model_wants_it(
    world: World, auth: str, key: str, check: Check, protocol: str
) -> None:
    async with model(world.pki, check) as upstream:
        name = await bound(world, upstream, auth, key, protocol=protocol)
        assert (await complete(world, name)).status_code == 200
        assert (await complete(world, name, stream=True)).text.endswith("[DONE]\n\n")
        tried = (await admin(world, "POST", name, "/test")).json()
        assert tried["ok"], tried


async def test_a_model_without_a_key_that_wants_one_says_so(world: World) -> None:
    async with model(world.pki, lambda request: "who are you") as upstream:
        name = await bound(world, upstream, "none", "")
        answer = await complete(world, name)
        error = refused(answer.status_code, answer.headers, answer.content, expect=502, code="upstream_error")
        assert "bound without one" in error["message"]
        assert "wants a key; none is set" in (await admin(world, "POST", name, "/test")).json()["detail"]
        await admin(world, "PUT", name, "/key", json={"key": "sk-planted"}, expect=422)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_each_request_to_aws_is_signed(world: World, protocol: str) -> None:
    def check(request: Request) -> str:
        if request.headers.get("x-amz-security-token") != AWS["session_token"]:
            return "no session"
        secret = AWS["secret_access_key"]
        return aws.fault(request, secret, service="bedrock", region="eu-central-1", now=datetime.now(UTC))

    async with model(world.pki, check) as upstream:
        name = await bound(world, upstream, "aws-sigv4", AWS, protocol=protocol)
        for number in range(3):
            assert (await complete(world, name, prompt=f"é{number}" * 1000)).status_code == 200
        assert (await complete(world, name, stream=True)).status_code == 200
        assert (await admin(world, "POST", name, "/test")).json()["ok"]
        await admin(world, "PUT", name, "/key", json={"key": json.dumps({**AWS, "secret_access_key": "planted2"})})
        answer = await complete(world, name)
        refused(answer.status_code, answer.headers, answer.content, expect=502, code="upstream_error")
        tried = (await admin(world, "POST", name, "/test")).json()
        assert (tried["ok"], tried["status"]) == (False, 401)


@asynccontextmanager
async def with_tokens(
    world: World, *, life_s: int = 3600
) -> AsyncIterator[tuple[TokenEndpoint, RecordingUpstream, str]]:
    """A model behind a token endpoint, and its alias."""

    async with TokenEndpoint(life_s=life_s) as endpoint:

        def check(request: Request) -> str:
            return "" if endpoint.takes(request.headers.get("authorization", "")) else "invalid_token"

        async with model(world.pki, check) as upstream:
            key = {**CLIENT, "token_url": endpoint.url}
            name = await bound(world, upstream, "oauth-client-credentials", key)
            yield endpoint, upstream, name


async def test_a_token_is_fetched_once(world: World) -> None:
    async with with_tokens(world) as (endpoint, upstream, name):
        answers = await asyncio.gather(*(complete(world, name, stream=bool(number % 2)) for number in range(20)))
        assert [answer.status_code for answer in answers] == [200] * 20
        assert endpoint.asked == 1
        assert (await admin(world, "POST", name, "/test")).json()["ok"]
        assert endpoint.asked == 2, "a try asks for itself"
        assert upstream.opened == 21


async def test_a_token_of_a_second_is_renewed_under_load(world: World) -> None:
    async with with_tokens(world, life_s=1) as (endpoint, _, name):
        served = 0
        while endpoint.asked < 4:
            answer = await complete(world, name)
            assert answer.status_code == 200, answer.text
            served += 1
        assert served > endpoint.asked


async def test_a_revoked_token_is_replaced(world: World) -> None:
    async with with_tokens(world) as (endpoint, _, name):
        assert (await complete(world, name)).status_code == 200
        endpoint.revoked.update(endpoint.given)
        answer = await complete(world, name)
        error = refused(answer.status_code, answer.headers, answer.content, expect=502, code="upstream_error")
        assert "refused the organization's key" in error["message"]
        await served_again(world, name)  # the first was too young to be doubted
        assert len(endpoint.given) == 2


async def test_without_a_token_it_is_503_and_nothing_is_sent(world: World) -> None:
    async with with_tokens(world) as (endpoint, upstream, name):
        endpoint.status = 500
        answer = await complete(world, name)
        refused(answer.status_code, answer.headers, answer.content, expect=503, code="unavailable")
        assert int(answer.headers["retry-after"]) > 0
        tried = (await admin(world, "POST", name, "/test")).json()
        assert tried["detail"] == "the token endpoint answered status 500"
        assert upstream.opened == 0
        endpoint.status = None
        await served_again(world, name)


async def test_a_rotated_client_makes_nobody_wait_and_a_wrong_one_is_not_set(world: World) -> None:
    async with with_tokens(world) as (endpoint, _, name):
        assert (await complete(world, name)).status_code == 200
        endpoint.clients["gw"] = "cs-planted-2"
        wrong = json.dumps({**CLIENT, "token_url": endpoint.url, "client_secret": "cs-planted-3"})
        said = await admin(world, "POST", name, "/key", json={"key": wrong}, expect=409)
        assert "invalid_client" in said.text
        right = json.dumps({**CLIENT, "token_url": endpoint.url, "client_secret": "cs-planted-2"})
        await admin(world, "POST", name, "/key", json={"key": right})
        for _ in range(5):
            assert (await complete(world, name)).status_code == 200


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_an_error_that_quotes_any_part_of_a_key_is_not_passed_on(world: World, status: int) -> None:
    quoted: list[str] = []

    def script(request: Request) -> None:
        request.respond_json({"error": {"message": f"what is {quoted[-1]}?"}}, status)

    async with TokenEndpoint() as endpoint, RecordingUpstream(tls=world.pki.server_context(), script=script) as up:
        client = {**CLIENT, "token_url": endpoint.url}
        for auth, key, parts in (
            ("x-api-key", "sk-planted", ["sk-planted"]),
            ("aws-sigv4", AWS, [AWS["secret_access_key"], AWS["session_token"].replace("/", "%2F")]),
            ("oauth-client-credentials", client, ["cs-planted", "at-planted-1"]),
        ):
            name = await bound(world, up, auth, key)
            for part in parts:
                quoted.append(part)
                answer = await complete(world, name)
                refused(answer.status_code, answer.headers, answer.content, expect=502, code="upstream_error")
            quoted.append("that field")
            assert (await complete(world, name)).status_code == status


@pytest.mark.parametrize(
    ("auth", "key", "says"),
    [
        ("aws-sigv4", "sk-planted", "JSON object"),
        ("aws-sigv4", json.dumps({**AWS, "region": "planted region"}), "key.region"),
        (
            "oauth-client-credentials",
            json.dumps({**CLIENT, "token_url": "http://planted.example"}),
            "key.token_url",
        ),
        (
            "oauth-client-credentials",
            json.dumps({**CLIENT, "token_url": "https://10.0.0.1/"}),
            "a private address; only the operator can allow it, in upstreams.allow_networks",
        ),
        ("oauth-client-credentials", json.dumps({**CLIENT, "planted": "x"}), "not known"),
        ("bearer", json.dumps(AWS, indent=1), "printable ASCII"),
    ],
)
async def test_a_key_of_another_kind_is_not_stored(world: World, auth: str, key: str, says: str) -> None:
    async with model(world.pki, lambda request: "") as upstream:
        name = await bound(world, upstream, auth, "")
        for method in ("PUT", "POST"):
            said = await admin(world, method, name, "/key", json={"key": key}, expect=422)
            assert says in said.text
        assert (await admin(world, "GET", name, "/key")).json()["set"] is False
        assert (await complete(world, name)).status_code == 503
        assert upstream.opened == 0


async def test_a_stored_key_does_not_become_one_of_another_kind(world: World) -> None:
    """A client's secret sent as a bearer key would be in the model's log."""
    async with with_tokens(world) as (endpoint, upstream, name):
        stands = (await admin(world, "GET", name)).json()
        for auth in ("bearer", "none", "aws-sigv4"):
            said = await admin(
                world, "PUT", name, json={**stands, "auth": auth}, headers={"if-match": "*"}, expect=409
            )
            assert "change auth" in said.text
        assert upstream.opened == 0
        await admin(world, "DELETE", name, "/key")
        stands = (await admin(world, "GET", name)).json()
        await admin(world, "PUT", name, json={**stands, "auth": "api-key"}, headers={"if-match": "*"})
        assert endpoint.asked == 0
