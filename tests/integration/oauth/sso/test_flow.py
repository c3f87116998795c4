"""Single sign-on as a browser meets it: away, back, and on with what it was for."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.oauth.digests import sha256
from gateway.oauth.errors import InvalidGrantError
from policies.facts import Role
from tenants.ids import MemberId
from tests.fakes.oidc import CLIENT, SECRET, basic
from tests.integration.oauth.sso.conftest import House, alert
from tests.integration.oauth.test_pages import Form
from tests.unit.oauth.conftest import ACME, ADA, BY, ISSUER, PASSWORD
from tests.unit.oauth.test_authorization_code import REDIRECT, REQUEST, VERIFIER

CALLBACK = ISSUER + "/oauth/sso/callback/acme"


def asked(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def test_somebody_signs_in_at_their_provider(house: House) -> None:
    house.provider.claims = {"amr": ["pwd", "mfa"], "auth_time": int(house.bench.now) - 30}
    page = await house.come_back()
    assert page.status_code == 200
    assert "ada@acme.example" in page.text
    assert "The Orgate command line" in page.text
    claims = house.claims(await house.tokens(page))
    assert (claims["sub"], claims["org"], claims["roles"]) == (ADA, "acme", ["member"])
    assert (claims["amr"], claims["auth_time"]) == (["fed", "pwd", "mfa"], int(house.bench.now) - 30)
    assert await house.refusals() == []


async def test_the_request_to_the_provider_is_bound_to_this_sign_in(house: House) -> None:
    first, second = asked(await house.leave()), asked(await house.leave())
    assert first["redirect_uri"] == CALLBACK
    assert (first["response_type"], first["client_id"], first["scope"]) == ("code", CLIENT, "openid email profile")
    assert first["code_challenge_method"] == "S256"
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) == 43
        assert first[name] != second[name]
    assert "login_hint" not in first


async def test_the_typed_address_goes_along_as_a_hint(house: House) -> None:
    assert asked(await house.leave(email="ada@acme.example"))["login_hint"] == "ada@acme.example"


async def test_the_cookie_is_of_this_host_for_ten_minutes(house: House) -> None:
    page = await house.client.get("/oauth/authorize", params=REQUEST)
    form = {**Form(page.text).fields, "org": "acme", "action": "sso"}
    answer = await house.client.post("/oauth/authorize", data=form)
    (cookie,) = [text for text in answer.headers.get_list("set-cookie") if "orgate_sso" in text]
    name, _, rest = cookie.partition("=")
    assert name.startswith("__Host-")
    assert {part.strip().lower() for part in rest.split(";")[1:]} == {
        "httponly",
        "max-age=600",
        "path=/",
        "samesite=lax",
        "secure",
    }
    assert 'href="http://127.0.0.1' in answer.text
    assert "form-action 'self'" in answer.headers["content-security-policy"]


async def test_the_token_request_carries_verifier_and_credential(house: House) -> None:
    url = await house.leave()
    await house.back(house.provider.authorize(url))
    ((_, headers, form),) = [one for one in house.provider.asked if one[0] == "/token"]
    assert basic(headers["authorization"]) == (CLIENT, SECRET)
    assert (form["grant_type"], form["redirect_uri"]) == ("authorization_code", CALLBACK)
    challenge = bytes.fromhex(sha256(form["code_verifier"]))
    assert urlsafe_b64encode(challenge).rstrip(b"=").decode() == asked(url)["code_challenge"]


async def test_a_provider_that_takes_the_secret_in_the_body_gets_it_there(house: House) -> None:
    house.provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    await house.sign_in()
    ((_, headers, form),) = [one for one in house.provider.asked if one[0] == "/token"]
    assert (form["client_id"], form["client_secret"]) == (CLIENT, SECRET)
    assert "authorization" not in headers


async def test_a_public_client_sends_its_id_alone(house: House) -> None:
    await house.identity.forget(ACME)
    await house.sign_in()
    ((_, headers, form),) = [one for one in house.provider.asked if one[0] == "/token"]
    assert (form["client_id"], "client_secret" in form, "authorization" in headers) == (CLIENT, False, False)


async def test_what_the_id_token_leaves_out_is_asked_of_userinfo(house: House) -> None:
    house.provider.claims = {"email": None, "email_verified": None}
    house.provider.userinfo = {"email": "ada@acme.example", "email_verified": True}
    assert (await house.sign_in())["sub"] == ADA
    ((_, headers, _),) = [one for one in house.provider.asked if one[0] == "/userinfo"]
    assert headers["authorization"] == "Bearer the-access-token"


async def test_userinfo_overrules_nothing_that_is_signed(house: House) -> None:
    await house.bind(groups_claim="groups")
    house.provider.userinfo = {"email": "gus@acme.example", "groups": []}
    assert (await house.sign_in())["sub"] == ADA


async def test_a_device_is_signed_in_the_same_way(house: House) -> None:
    begun = await house.client.post("/oauth/device_authorization", data={"client_id": "orgate-cli"})
    code = begun.json()["user_code"]
    url = await house.leave(path="/oauth/device", user_code=code)
    page = await house.back(house.provider.authorize(url))
    assert code in page.text
    assert (await house.consent(page)).status_code == 200
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    form = {"grant_type": grant, "client_id": "orgate-cli", "device_code": begun.json()["device_code"]}
    tokens = await house.client.post("/oauth/token", data=form)
    assert house.claims(tokens.json())["amr"] == ["fed"]


async def test_who_says_no_after_signing_in_is_believed(house: House) -> None:
    page = await house.come_back()
    answer = await house.consent(page, "deny")
    assert asked(answer.headers["location"])["error"] == "access_denied"


async def test_two_tabs_come_back_each_to_its_own(house: House) -> None:
    first, second = await house.leave(), await house.leave()
    for url in (second, first):
        page = await house.back(house.provider.authorize(url))
        assert page.status_code == 200, page.text
    assert not [name for name in house.client.cookies if "sso" in name]


async def test_begun_sign_ins_do_not_pile_up_in_the_browser(house: House) -> None:
    for _ in range(7):
        await house.leave()
    assert len([name for name in house.client.cookies if "sso" in name]) == 4


async def test_an_organization_without_one_says_so_whether_or_not_it_exists(house: House) -> None:
    said = []
    for org in ("globex", "nobody", "NO ORG", "../acme"):
        page = await house.client.get("/oauth/authorize", params=REQUEST)
        form = {**Form(page.text).fields, "org": org, "action": "sso"}
        answer = await house.client.post("/oauth/authorize", data=form)
        said.append((answer.status_code, alert(answer)))
    assert said == [(403, said[0][1])] * 4
    assert "no single sign-on" in said[0][1]


async def test_without_an_organization_the_page_asks_for_it(house: House) -> None:
    page = await house.client.get("/oauth/authorize", params=REQUEST)
    answer = await house.client.post("/oauth/authorize", data={**Form(page.text).fields, "action": "sso"})
    assert (answer.status_code, "type your organization" in alert(answer).lower()) == (400, True)


async def test_the_address_may_name_the_organization(house: House) -> None:
    page = await house.client.get("/oauth/authorize", params={**REQUEST, "org": "acme"})
    assert Form(page.text).fields["org"] == "acme"


async def test_where_passwords_are_closed_the_address_leads_away_at_once(house: House) -> None:
    owner = await house.join(MemberId("mem_own"), "own@acme.example", Role.OWNER)
    await house.bind(only=True, break_glass=(owner.id,))
    query = {**REQUEST, "org": "acme", "login_hint": "ada@acme.example"}
    answer = await house.client.get("/oauth/authorize", params=query, follow_redirects=False)
    assert answer.status_code == 303
    url = answer.headers["location"]
    assert asked(url)["login_hint"] == "ada@acme.example"
    page = await house.back(house.provider.authorize(url))
    assert house.claims(await house.tokens(page))["sub"] == ADA


async def test_no_link_signs_anybody_in_at_the_account_page(house: House) -> None:
    """Whoever has a provider of their own could send somebody there and back, signed in as somebody else."""
    owner = await house.join(MemberId("mem_own"), "own@acme.example", Role.OWNER)
    await house.bind(only=True, break_glass=(owner.id,))
    page = await house.client.get("/oauth/account", params={"org": "acme"}, follow_redirects=False)
    assert (page.status_code, Form(page.text).fields["org"]) == (200, "acme")
    assert not [name for name in house.client.cookies if "sso" in name]
    form = {**Form(page.text).fields, "action": "sso"}
    cross = await house.client.post("/oauth/account", data={**form, "csrf_token": "A" * 43})
    assert cross.status_code == 403
    assert not [name for name in house.client.cookies if "sso" in name]
    url = await house.leave(path="/oauth/account")
    back = await house.back(house.provider.authorize(url))
    assert (back.status_code, back.headers["location"]) == (303, "/oauth/account")
    assert "ada@acme.example" in (await house.client.get("/oauth/account")).text


async def test_where_passwords_are_closed_one_opens_nothing(house: House) -> None:
    owner = await house.join(MemberId("mem_own"), "own@acme.example", Role.OWNER)
    await house.bench.join(ACME, owner.id, owner.email)
    await house.bind(only=True, break_glass=(owner.id,))

    async def password(email: str) -> tuple[int, str]:
        page = await house.client.get("/oauth/authorize", params=REQUEST)
        form = {**Form(page.text).fields, "org": "acme", "email": email, "password": PASSWORD, "action": "ask"}
        answer = await house.client.post("/oauth/authorize", data=form)
        return answer.status_code, answer.text

    status, text = await password("ada@acme.example")
    assert (status, "single sign-on only" in text) == (403, True)
    assert (await house.noted("session.refuse"))[-1].detail["reason"] == "single sign-on only"
    status, text = await password("own@acme.example")
    assert status == 200, text
    assert [change.target for change in await house.noted("session.break_glass")] == [owner.id]


async def test_where_passwords_are_closed_sessions_that_one_began_end_at_their_next_renewal(house: House) -> None:
    bench = house.bench
    owner = await house.join(MemberId("mem_own"), "own@acme.example", Role.OWNER)
    await bench.join(ACME, owner.id, owner.email)
    sessions = []
    for email in ("ada@acme.example", owner.email):
        device = await bench.begin()
        await bench.decide(device["user_code"], email=email)
        sessions.append((await bench.redeem(device["device_code"]))["refresh_token"])
    federated = (await house.tokens(await house.come_back()))["refresh_token"]
    await house.bind(only=True, break_glass=(owner.id,))
    with pytest.raises(InvalidGrantError, match="single sign-on"):
        await bench.refresh(sessions[0])
    assert (await house.noted("session.revoke"))[-1].detail["reason"] == "single sign-on demanded"
    assert (await bench.refresh(sessions[1]))["access_token"], "who has the key to the emergency door keeps theirs"
    form = {"grant_type": "refresh_token", "refresh_token": federated, "client_id": "orgate-cli"}
    assert (await house.client.post("/oauth/token", data=form)).status_code == 200
    await house.bind(only=False)
    with pytest.raises(InvalidGrantError):
        await bench.refresh(sessions[0])


async def renewed(house: House, tokens: dict[str, str]) -> bool:
    form = {"grant_type": "refresh_token", "client_id": "orgate-cli", "refresh_token": tokens["refresh_token"]}
    answer = await house.client.post("/oauth/token", data=form)
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        tokens["refresh_token"] = answer.json()["refresh_token"]
    else:
        assert answer.json()["error"] == "invalid_grant"
    return answer.status_code == 200


@pytest.mark.parametrize("change", ["issuer", "client", "removed", "set anew"])
async def test_sessions_of_a_provider_end_with_it(house: House, change: str) -> None:
    """Whoever could sign in as anybody at the provider of before keeps nothing of it."""
    tokens = await house.tokens(await house.come_back())
    device = await house.bench.begin()
    await house.bench.decide(device["user_code"])
    local = await house.bench.redeem(device["device_code"])
    await house.back(house.provider.authorize(await house.leave(path="/oauth/account")))
    house.bench.now += 10
    await house.bind(jit=True, domains=("acme.example",))
    assert await renewed(house, tokens), "the same provider, told something else"
    assert "ada@acme.example" in (await house.client.get("/oauth/account")).text
    if change in ("removed", "set anew"):
        provider = await house.identity.get(ACME)
        assert provider is not None
        await house.identity.delete(ACME, provider.version, BY)
    if change != "removed":
        url = house.provider.url + ("/other" if change == "issuer" else "")
        await house.bind(issuer=url, client_id="another" if change == "client" else CLIENT)
    assert not await renewed(house, tokens)
    assert (await house.noted("session.revoke"))[-1].detail["reason"] == "another sign-in demanded"
    assert "ada@acme.example" not in (await house.client.get("/oauth/account")).text
    assert (await house.bench.refresh(local["refresh_token"]))["access_token"], "who came by a password goes on"


@pytest.mark.parametrize("step", ["consent", "code", "device"])
async def test_a_sign_in_under_way_ends_with_its_provider(house: House, step: str) -> None:
    begun = (await house.client.post("/oauth/device_authorization", data={"client_id": "orgate-cli"})).json()
    away = {"path": "/oauth/device", "user_code": begun["user_code"]} if step == "device" else {}
    page = await house.back(house.provider.authorize(await house.leave(**away)))
    form = {"client_id": "orgate-cli", "grant_type": "urn:ietf:params:oauth:grant-type:device_code"}
    form["device_code"] = begun["device_code"]
    if step == "device":
        assert (await house.consent(page)).status_code == 200
    if step == "code":
        (code,) = parse_qs(urlsplit((await house.consent(page)).headers["location"]).query)["code"]
        form = {"client_id": "orgate-cli", "grant_type": "authorization_code", "code": code}
        form |= {"redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    house.bench.now += 5
    await house.bind(client_id="another")
    if step == "consent":
        assert "too old" in alert(await house.consent(page))
        return
    answer = await house.client.post("/oauth/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert "another sign-in" in answer.json()["error_description"]


async def test_a_wrong_password_says_nothing_of_single_sign_on(house: House) -> None:
    owner = await house.join(MemberId("mem_own"), "own@acme.example", Role.OWNER)
    await house.bind(only=True, break_glass=(owner.id,))
    page = await house.client.get("/oauth/authorize", params=REQUEST)
    form = {**Form(page.text).fields, "org": "acme", "email": "ada@acme.example", "password": "x", "action": "ask"}
    answer = await house.client.post("/oauth/authorize", data=form)
    assert "do not go together" in alert(answer)
