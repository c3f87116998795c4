"""What the listener of a sign-in takes for its answer, and what it does with anything else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from cli.errors import NotAllowedError, RefusedError
from cli.loopback import Loopback

ISSUER = "https://gateway.example"
ANSWER = {"state": "s1", "iss": ISSUER, "code": "c1"}


@pytest.fixture
def listener() -> Iterator[Loopback]:
    with Loopback("s1", ISSUER) as made:
        yield made


def come_back(listener: Loopback, *, path: str = "", **changes: str) -> httpx.Response:
    query = urlencode({name: value for name, value in {**ANSWER, **changes}.items() if value})
    url = listener.redirect_uri if not path else listener.redirect_uri.replace("/callback", path)
    return httpx.get(f"{url}?{query}", trust_env=False)


def test_the_browser_brings_the_code(listener: Loopback) -> None:
    assert urlsplit(listener.redirect_uri).hostname == "127.0.0.1"
    page = come_back(listener)
    assert (page.status_code, "You are signed in" in page.text) == (200, True)
    assert "c1" not in page.text
    assert listener.code(10) == "c1"


def test_what_is_not_the_answer_is_ignored_and_the_answer_still_counts(listener: Loopback) -> None:
    for changes in ({"state": "other"}, {"state": ""}, {"path": "/"}, {"path": "/favicon.ico"}):
        assert come_back(listener, **changes).status_code == 404
    for query in ("state=s1&state=s1&code=x&iss=" + ISSUER, "&".join(f"a{n}=1" for n in range(40))):
        assert httpx.get(f"{listener.redirect_uri}?{query}", trust_env=False).status_code == 404
    assert httpx.post(listener.redirect_uri, trust_env=False).status_code == 501
    assert come_back(listener).status_code == 200
    assert come_back(listener, code="second").status_code == 200
    assert listener.code(10) == "c1"


def test_a_connection_that_says_nothing_keeps_nobody_out(listener: Loopback) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(listener.redirect_uri).port or 0)):
        assert come_back(listener).status_code == 200
    assert listener.code(10) == "c1"


def test_a_refusal_is_said(listener: Loopback) -> None:
    page = come_back(listener, code="", error="access_denied", error_description="the sign-in was refused")
    assert "refused" in page.text
    with pytest.raises(NotAllowedError, match="refused"):
        listener.code(10)


@pytest.mark.parametrize("issuer", ["", "https://evil.example"])
def test_the_code_of_another_server_is_not_taken(listener: Loopback, issuer: str) -> None:
    come_back(listener, iss=issuer)
    with pytest.raises(RefusedError):
        listener.code(10)


def test_nobody_is_waited_for_for_ever(listener: Loopback) -> None:
    with pytest.raises(NotAllowedError, match="in time"):
        listener.code(0.01)
