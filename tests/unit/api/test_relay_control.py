from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.testing import TestClient

from gateway.api.oauth.routes import oauth_routes
from gateway.api.relay_control import MAX_BODY, RELAYED, control_routes
from gateway.bus.client import Relayed
from gateway.errors import UnavailableError
from gateway.oauth.service import OAuthService


class FakeControl:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.away = False

    async def relay(self, method: str, path_qs: str, headers: list[tuple[str, str]], body: bytes) -> Relayed:
        if self.away:
            raise UnavailableError("away")
        self.asked.append((method, path_qs, dict(headers), body))
        fields = (
            (b"content-type", b"text/html"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"server", b"secret-name"),
            (b"content-length", b"999"),
        )
        return Relayed(201, fields, b"the answer")


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def client(control: FakeControl) -> Iterator[TestClient[Litestar]]:
    with TestClient(Litestar(control_routes(control), openapi_config=None)) as found:
        yield found


def test_method_query_body_and_allowed_headers_pass(client: TestClient[Litestar], control: FakeControl) -> None:
    answer = client.post(
        "/oauth/token?x=1&y=%2F",
        content=b"grant_type=refresh_token",
        headers={
            "content-type": "application/x-www-form-urlencoded",
            "authorization": "Basic abc",
            "x-orgate-client": "10.0.0.1",
            "x-forwarded-for": "10.0.0.1",
            "x-request-id": "req_abcdefgh",
        },
    )
    assert (answer.status_code, answer.content) == (201, b"the answer")
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["content-length"] == "10"
    assert answer.headers["x-request-id"] == "req_abcdefgh"
    assert "server" not in answer.headers
    method, path, headers, body = control.asked[0]
    assert (method, path, body) == ("POST", "/oauth/token?x=1&y=%2F", b"grant_type=refresh_token")
    assert headers["authorization"] == "Basic abc"
    assert headers["x-orgate-client"] == "testclient"  # the peer's, not what it claims
    assert headers["x-request-id"] == "req_abcdefgh"
    assert "x-forwarded-for" not in headers
    assert "host" not in headers


@pytest.mark.parametrize(("path", "methods"), RELAYED.items())
def test_other_methods_are_refused_with_those_that_exist(
    client: TestClient[Litestar], control: FakeControl, path: str, methods: tuple[str, ...]
) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        answer = client.request(method, path.replace("{org:str}", "acme"))
        assert answer.status_code == (201 if method in methods else 405)
        if method not in methods:
            assert set(methods) <= set(answer.headers["allow"].split(", "))
            assert answer.json()["error"] == "invalid_request"
    assert len(control.asked) == len(methods)


def test_what_is_relayed_is_what_the_control_process_serves() -> None:
    service = SimpleNamespace(sso=object())
    app = Litestar(oauth_routes(cast("OAuthService", service)), openapi_config=None)
    served = {route.path: set(route.methods) - {"OPTIONS"} for route in app.routes if isinstance(route, HTTPRoute)}
    assert served == {path: set(methods) for path, methods in RELAYED.items()}


def test_head_is_get_without_content(client: TestClient[Litestar], control: FakeControl) -> None:
    answer = client.head("/.well-known/jwks.json")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (201, b"", "10")
    assert control.asked[0][0] == "GET"


def test_other_paths_do_not_exist(client: TestClient[Litestar], control: FakeControl) -> None:
    for path in ("/oauth", "/oauth/other", "/.well-known/other", "/oauth/token/more", "/bus/v1/slices"):
        assert client.get(path).status_code == 404
    assert control.asked == []


def test_an_organization_in_the_path_goes_on_as_it_is_and_nothing_else_does(
    client: TestClient[Litestar], control: FakeControl
) -> None:
    for wrong in ("ACME", "a%2Fb", "a--b", "%00", "x" * 41, "a%0d%0ab", "..%2Ftoken"):
        assert client.get(f"/oauth/sso/callback/{wrong}?code=1").status_code == 404
    assert control.asked == []
    assert client.get("/oauth/sso/callback/acme?code=1").status_code == 201
    assert control.asked[0][1] == "/oauth/sso/callback/acme?code=1"


def test_a_large_body_or_query_is_refused(client: TestClient[Litestar], control: FakeControl) -> None:
    assert client.post("/oauth/token", content=b"x" * MAX_BODY).status_code == 201
    answer = client.post("/oauth/token", content=b"x" * (MAX_BODY + 1))
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")
    assert client.get("/oauth/device?" + "x" * 9_000).status_code == 414
    assert len(control.asked) == 1


def test_a_control_process_that_is_away_is_said_in_oauths_words(
    client: TestClient[Litestar], control: FakeControl
) -> None:
    control.away = True
    answer = client.post("/oauth/token", content=b"")
    assert answer.status_code == 503
    assert json.loads(answer.content)["error"] == "temporarily_unavailable"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["cache-control"] == "no-store"


def test_a_forged_request_id_is_replaced(client: TestClient[Litestar], control: FakeControl) -> None:
    answer = client.post("/oauth/token", headers={"x-request-id": "a b\tc"})
    assert answer.headers["x-request-id"].startswith("req_")
    assert control.asked[0][2]["x-request-id"] == answer.headers["x-request-id"]


def test_a_header_that_is_not_ascii_is_left_out(client: TestClient[Litestar], control: FakeControl) -> None:
    headers = [(b"user-agent", b"\xff\xe9"), (b"cookie", b"a=\xff"), (b"accept", b"text/html")]
    assert client.get("/oauth/device", headers=headers).status_code == 201
    assert control.asked[0][2].keys() & {"user-agent", "cookie", "accept"} == {"accept"}


async def test_a_body_that_never_ends_is_given_up(control: FakeControl) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": "/oauth/token",
        "query_string": b"",
        "headers": [(b"content-length", b"5")],
        "client": None,
    }
    await Litestar(control_routes(control, body_s=0.01), openapi_config=None)(scope, receive, send)
    assert sent[0]["status"] == 408
    assert control.asked == []


async def test_cookies_in_fields_of_their_own_are_one_line_again(control: FakeControl) -> None:
    """HTTP/2 allows browsers to split them (RFC 9113 section 8.2.3), and they do."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    scope: Any = {
        "type": "http",
        "method": "GET",
        "path": "/oauth/device",
        "query_string": b"",
        "headers": [(b"cookie", b"a=1"), (b"cookie", b"b=\xff"), (b"cookie", b"c=3")],
        "client": None,
    }
    await Litestar(control_routes(control), openapi_config=None)(scope, receive, send)
    assert control.asked[0][2]["cookie"] == "a=1; c=3"
