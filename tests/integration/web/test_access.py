"""The web pages without a screen: headers, cookies, who is let in, and what a hostile site can and cannot do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest

from gateway.api.admin.app import admin_app
from gateway.api.admin.dependencies import AdminDependencies
from gateway.api.admin.web_pages import ASSETS, VERIFIER
from gateway.oauth.clients import WEB
from tests.integration.oauth.test_pages import Form
from tests.integration.web.conftest import MEMBER, House, sign_in_without_a_screen

SESSION, SIGN_IN = "__Host-orgate_session", "__Host-orgate_signin"
OURS = {"/web/web.css", "/web/audit.mjs"}
DATA = ("timeline", "checkpoint", "key", "log")


@pytest.fixture
def client(house: House) -> Iterator[httpx.Client]:
    with house.client() as made:
        yield made


@pytest.fixture(scope="module")
def auditor(house: House) -> Iterator[httpx.Client]:
    """Somebody signed in. Tests must not sign them out."""
    with house.client() as made:
        sign_in_without_a_screen(made, house.gateway.admin_url + "/sign-in")
        yield made


def locked_down(answer: httpx.Response) -> None:
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "same-origin"


def test_every_page_is_locked_down_and_says_where_it_is(house: House, auditor: httpx.Client) -> None:
    admin = house.gateway.admin_url
    for path, status in (
        ("/audit", 303),
        ("/orgs/acme/audit", 200),
        ("/orgs/nobody/audit", 404),
        ("/signed-out", 200),
        ("/sign-in", 303),
        ("/sign-in/callback", 403),
    ):
        answer = auditor.get(admin + path)
        assert answer.status_code == status, path
        locked_down(answer)
        assert set(Form(answer.text).active) <= {"link", "script"}, path
        assert set(re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]*)"', answer.text)) <= OURS
    form = Form(auditor.get(house.url()).text)
    assert form.visible | {"outcome", "key", "witnesses", "kept"} == form.labels


def test_files_are_the_pages_own_and_the_second_verifiers(house: House, client: httpx.Client) -> None:
    base = house.gateway.admin_url + "/web/"
    assert "verify.mjs" in VERIFIER
    for name in (*ASSETS, *(f"verifier/{name}" for name in VERIFIER)):
        answer = client.get(base + name)
        assert answer.status_code == 200
        locked_down(answer)
        for found in re.findall(r'from "\./([^"]+)"', answer.text):
            folder = name.rpartition("/")[0]
            assert client.get(f"{base}{folder}/{found}".replace("//", "/").replace(":/", "://")).status_code == 200
    for name in ("nothing.mjs", "verifier/verify-cli.mjs", "..%2fweb.py", "audit.html", "verifier/..%2fweb.css"):
        assert client.get(base + name).status_code == 404, name


def test_without_a_session_everything_is_401_whatever_else_is_sent(house: House, client: httpx.Client) -> None:
    """A bearer token opens the API and not these; a cookie opens these and not the API."""
    bearer = {"authorization": f"Bearer {house.owner.admin_token}"}
    for headers in ({}, bearer, {"cookie": f"{SESSION}={'x' * 43}"}, {"cookie": f"{SESSION}=short"}):
        answer = client.get(house.url(), headers=headers)
        assert answer.status_code == 401
        assert "www-authenticate" not in answer.headers
        for name in DATA:
            asked = client.get(f"{house.url()}/{name}", headers=headers)
            assert asked.status_code == 401, name
            assert asked.headers["content-type"] == "application/problem+json"


def test_a_session_does_not_open_the_api(house: House, auditor: httpx.Client) -> None:
    admin = house.gateway.admin_url
    for path in ("/admin/v1/me", "/admin/v1/orgs/acme/audit/entries", "/admin/v1/orgs/acme/audit/log"):
        assert auditor.get(admin + path).status_code == 401
    assert auditor.get(f"{house.url()}/log").status_code == 200


def test_cookies_are_of_this_host_alone_and_no_script_reads_them(house: House, client: httpx.Client) -> None:
    begun = client.get(house.gateway.admin_url + "/sign-in")
    (held,) = begun.headers.get_list("set-cookie")
    for attribute in ("Secure", "HttpOnly", "SameSite=lax", "Path=/", "Max-Age=600"):
        assert attribute in held
    assert "Domain" not in held
    done = sign_in_without_a_screen(client, house.gateway.admin_url + "/sign-in")
    assert done.headers["location"] == "/audit"
    held = next(one for one in done.headers.get_list("set-cookie") if one.startswith(SESSION))
    for attribute in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
        assert attribute in held
    assert "Domain" not in held
    assert SIGN_IN not in client.cookies


def test_no_token_ever_reaches_the_browser(house: House, client: httpx.Client) -> None:
    done = sign_in_without_a_screen(client, house.gateway.admin_url + "/sign-in")
    page = client.get(house.url())
    for text in (str(done.headers), done.text, str(page.headers), page.text, str(client.cookies)):
        assert "ogr_" not in text
        assert "eyJ" not in text


def test_a_planted_session_does_not_become_the_victims(house: House, client: httpx.Client) -> None:
    """Session fixation: the name is new at every sign-in, and the one before ends."""
    sign_in_without_a_screen(client, house.gateway.admin_url + "/sign-in")
    before = client.cookies[SESSION]
    sign_in_without_a_screen(client, house.gateway.admin_url + "/sign-in")
    assert client.cookies[SESSION] != before
    with house.client() as other:
        assert other.get(house.url(), headers={"cookie": f"{SESSION}={before}"}).status_code == 401


def test_an_answer_from_another_browser_signs_nobody_in(house: House, client: httpx.Client) -> None:
    """Login CSRF: the attacker signs in, and sends the victim the last step."""
    with house.client() as attacker:
        begun = attacker.get(house.gateway.admin_url + "/sign-in")
        page = attacker.get(begun.headers["location"])
        who = {"org": "acme", "email": MEMBER, "password": "correct horse battery staple", "action": "approve"}
        back = attacker.post(str(page.url.copy_with(query=None)), data={**Form(page.text).fields, **who})
        last = back.headers["location"]
    for prepare in (lambda: None, lambda: client.get(house.gateway.admin_url + "/sign-in")):
        prepare()
        answer = client.get(last)
        assert answer.status_code == 403
        assert "not begun in this browser" in answer.text
        assert SESSION not in client.cookies


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/orgs/acme/audit/../../../evil",
        "/orgs/acme/audit?a=b\r\nset-cookie: x=y",
        "/orgs/acme/audit?" + "a" * 2_000,
        "/admin/v1/me",
        "javascript:alert(1)",
        "",
    ],
)
def test_nobody_is_sent_to_another_site(house: House, client: httpx.Client, to: str) -> None:
    begun = client.get(f"{house.gateway.admin_url}/sign-in?to={quote(to, safe='')}")
    held = next(value for value in begun.headers.get_list("set-cookie") if value.startswith(SIGN_IN))
    assert re.match(rf"{SIGN_IN}=[\w-]{{43}}\.L2F1ZGl0;", held), held  # "/audit"


def test_the_redirect_uri_is_the_registered_one(house: House, client: httpx.Client) -> None:
    begun = client.get(house.gateway.admin_url + "/sign-in")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.headers["location"]).query).items()}
    assert asked["redirect_uri"] == house.gateway.admin_url + WEB.redirect_uris[0]
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    evil = {**asked, "redirect_uri": "https://evil.example/sign-in/callback"}
    answer = client.get(house.gateway.url + "/oauth/authorize", params=evil)
    assert (answer.status_code, "location" in answer.headers) == (400, False)


@pytest.mark.parametrize(
    "query", ["", "?code=x", "?code=x&code=y", "?error=access_denied", "?%ff=%fe", "?state=x"]
)
def test_a_callback_that_nobody_began_is_a_page(house: House, client: httpx.Client, query: str) -> None:
    answer = client.get(f"{house.gateway.admin_url}/sign-in/callback{query}")
    assert answer.status_code == 403
    assert 'role="alert"' in answer.text


def test_signing_out_takes_the_token_of_the_sessions_own_form(house: House, client: httpx.Client) -> None:
    sign_in_without_a_screen(client, house.gateway.admin_url + "/sign-in")
    url = house.gateway.admin_url + "/sign-out"
    token = Form(client.get(house.url()).text).fields["token"]
    for data, headers in (
        ({}, {}),
        ({"token": "x" * 64}, {}),
        ({"token": "\u00e9"}, {}),
        ({"token": token}, {"sec-fetch-site": "cross-site"}),
        ({"token": token}, {"cookie": ""}),
    ):
        assert client.post(url, data=data, headers=headers).status_code == 403, data
    assert client.post(url, json={"token": token}).status_code == 403
    assert client.get(url).status_code == 405
    assert client.get(house.url()).status_code == 200
    assert client.post(url, data={"token": token}).status_code == 303
    assert client.get(house.url()).status_code == 401


def test_another_sites_page_cannot_cause_an_export(house: House, auditor: httpx.Client) -> None:
    exports = len(house.entries(action="audit.export"))
    for site in ("cross-site", "same-site", "none"):
        for name in DATA:
            answer = auditor.get(f"{house.url()}/{name}", headers={"sec-fetch-site": site})
            assert answer.status_code == 403
    assert len(house.entries(action="audit.export")) == exports
    assert auditor.get(house.url(), headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_a_member_reads_nothing_by_any_of_the_paths(house: House, client: httpx.Client) -> None:
    sign_in_without_a_screen(client, house.gateway.admin_url + "/sign-in", MEMBER)
    assert client.get(house.url()).status_code == 403
    assert [client.get(f"{house.url()}/{name}").status_code for name in DATA] == [403] * 4


def test_another_organization_is_none_by_any_of_the_paths(house: House, auditor: httpx.Client) -> None:
    for name in ("", *(f"/{name}" for name in DATA)):
        shapes = set()
        for org in ("platform", "zzzzzzzz"):
            answer = auditor.get(house.url(org) + name)
            text = re.sub(r'"request_id":"[^"]*"', "", answer.text)
            shapes.add((answer.status_code, text))
        assert len(shapes) == 1, name
        assert shapes.pop()[0] == 404


def test_what_the_page_downloads_is_what_the_api_gives(house: House, auditor: httpx.Client) -> None:
    for name in ("key", "log?start=0&end=5"):
        mine = auditor.get(f"{house.url()}/{name}")
        assert mine.text == house.owner.admin("GET", f"/admin/v1/orgs/acme/audit/{name}").text
    assert auditor.get(f"{house.url()}/log?start=5&end=1").status_code == 422


def test_no_route_of_the_pages_is_forgotten_here() -> None:
    app = admin_app(cast(AdminDependencies, object()))
    found = {
        route.path
        for route in app.routes
        if not route.path.startswith(("/admin", "/scim", "/livez", "/readyz", "/metrics"))
    }
    scoped = {f"/orgs/{{org:str}}/audit/{name}" for name in DATA}
    open_ones = {"/sign-in", "/sign-in/callback", "/sign-out", "/signed-out"}
    files = {"/web/{name:str}", "/web/verifier/{name:str}"}
    assert found == {"/audit", "/orgs/{org:str}/audit", *scoped, *open_ones, *files}
