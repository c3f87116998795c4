"""`/oauth/authorize` as a browser meets it: a page, a redirect, or a dead end."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from tests.integration.oauth.test_pages import Form
from tests.unit.oauth.conftest import ISSUER, Bench
from tests.unit.oauth.test_authorization_code import REDIRECT, REQUEST, VERIFIER, WHO

Http = AsyncTestClient[Litestar]
PATH = "/oauth/authorize"


async def _filled(client: Http, **changes: str) -> dict[str, str]:
    page = await client.get(PATH, params=REQUEST)
    assert page.status_code == 200
    return {**Form(page.text).fields, **WHO, **changes}


def _back(location: str) -> dict[str, str]:
    assert location.startswith(REDIRECT + "?")
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


async def test_the_page_is_plain_labelled_and_says_who_asks_for_what(client: Http) -> None:
    answer = await client.get(PATH, params={**REQUEST, "state": '"><script>x</script>'})
    form = Form(answer.text)
    assert (form.active, form.visible) == ([], form.labels)
    assert "The Orgate command line" in answer.text
    assert "your organization&#x27;s models" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "form-action 'self' http://127.0.0.1:49152;" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"


async def test_signing_in_goes_back_to_the_client_whose_code_brings_tokens(client: Http) -> None:
    answer = await client.post(PATH, data=await _filled(client), follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["cache-control"] == "no-store"
    back = _back(answer.headers["location"])
    assert (back["state"], back["iss"]) == ("xyz", ISSUER)
    form = {
        "grant_type": "authorization_code",
        "client_id": "orgate-cli",
        "code": back["code"],
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
    }
    tokens = await client.post("/oauth/token", data=form)
    assert tokens.status_code == 200
    assert set(tokens.json()) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    again = await client.post("/oauth/token", data=form)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


async def test_a_wrong_password_is_said_on_the_page_which_keeps_the_request(client: Http) -> None:
    form = await _filled(client, password="wrong, this one")
    answer = await client.post(PATH, data=form, follow_redirects=False)
    assert answer.status_code == 403
    fields = Form(answer.text).fields
    assert {name: fields[name] for name in REQUEST} == REQUEST
    assert (fields["email"], fields["password"]) == ("ada@acme.example", "")
    assert 'role="alert"' in answer.text


async def test_refusing_needs_no_password_and_is_told_to_the_client(client: Http) -> None:
    form = await _filled(client, action="deny")
    for name in ("org", "email", "password"):
        del form[name]
    answer = await client.post(PATH, data=form, follow_redirects=False)
    assert (answer.status_code, _back(answer.headers["location"])["error"]) == (303, "access_denied")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "root"}, "invalid_scope"),
        ({"resource": "https://evil.example/v1"}, "invalid_target"),
    ],
)
async def test_a_mistake_of_the_clients_goes_back_to_it(client: Http, changes: dict[str, str], code: str) -> None:
    answer = await client.get(PATH, params={**REQUEST, **changes}, follow_redirects=False)
    assert answer.status_code == 303
    back = _back(answer.headers["location"])
    assert (back["error"], back["state"], back["iss"]) == (code, "xyz", ISSUER)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "client_id=orgate-cli",
        "client_id=orgate-cli&redirect_uri=https://evil.example/",
        "client_id=%3Cscript%3E&redirect_uri=http://127.0.0.1:1/callback",
        "client_id=orgate-cli&client_id=orgate-editor",
        "client_id=orgate-cli&redirect_uri=http://127.0.0.1:1/callback&state=" + "s" * 4_000,
        "%ff=%fe",
    ],
)
async def test_what_is_wrong_with_the_address_is_a_dead_end(client: Http, query: str) -> None:
    answer = await client.get(f"{PATH}?{query}", follow_redirects=False)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert 'role="alert"' in answer.text
    assert Form(answer.text).active == []


async def test_a_form_from_elsewhere_signs_nobody_in(client: Http, bench: Bench) -> None:
    forged = {**await _filled(client), "csrf_token": "A" * 43}
    elsewhere = {"sec-fetch-site": "cross-site"}
    answer = await client.post(PATH, data=forged, headers=elsewhere, follow_redirects=False)
    assert answer.status_code == 403
    assert "location" not in answer.headers
    assert await bench.noted() == []


async def test_a_store_that_is_down_is_said_on_the_page(client: Http, bench: Bench, tmp_path: Path) -> None:
    form = await _filled(client)
    await bench.control.close()
    (tmp_path / "control.db").write_bytes(b"not a database" * 1000)
    answer = await client.post(PATH, data=form, follow_redirects=False)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "control.db" not in answer.text
