"""A whole gateway, a certified provider and Chromium: from `orgate idp set` to somebody who is signed in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.web.conftest import House
from tests.integration.web.test_sign_in_pages import login
from tests.kit.browser import chromium, inaccessible, tab
from tests.kit.gateway import PASSWORD, RunningGateway
from tests.kit.node import node
from tests.kit.oidc import CLIENT, SECRET, Person, log_in, oidc_provider
from tests.kit.orgate import Orgate
from tests.kit.wait import until

NO = "Failed to load resource: the server responded with a status of 4"
PEOPLE = {
    "ada": Person(
        {"email": "ada@acme.test", "email_verified": True, "name": "Ada", "groups": ["ops"]}, amr=("mfa",)
    ),
    "bob": Person({"email": "bob@acme.test", "email_verified": True, "groups": ["ops"]}),
}


@dataclass
class Place:
    gateway: RunningGateway
    owner: Orgate
    issuer: str

    def entries(self, action: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.owner.json("audit", "query", "--action", action)
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    node()
    folder = tmp_path_factory.mktemp("sso")
    settings = {"ORGATE_UPSTREAMS__ALLOW_NETWORKS": "127.0.0.0/8"}
    with RunningGateway(folder / "home", settings=settings) as gateway:
        redirect = f"{gateway.url}/oauth/sso/callback/acme"
        person = next(one for one in gateway.installed.people if one.org == "acme")
        owner = Orgate(folder / "owner")
        owner.login(
            server=gateway.url,
            admin=gateway.admin_url,
            ca=gateway.ca,
            org="acme",
            email=person.email,
            password=PASSWORD,
            invitation=person.invitation,
        )
        with oidc_provider(folder / "provider.log", redirect, PEOPLE) as issuer:
            shown = owner.json("idp", "show")
            assert shown["redirect_uri"] == redirect
            (folder / "secret").write_text(SECRET)
            given = ("--issuer", issuer, "--client-id", CLIENT, "--secret-from", str(folder / "secret"))
            groups = ("--groups-claim", "groups", "--group-role", "ops=admin", "--require-amr", "admin=mfa")
            owner("idp", "set", *given, *groups, "--jit", "--domain", "acme.test")
            yield Place(gateway, owner, issuer)


@pytest.fixture(scope="module")
def browser(place: Place) -> Iterator[Browser]:
    with chromium() as made:
        yield made


def away(page: Page, opened: Path) -> None:
    """From the page that `orgate login` opened to the provider's own."""
    page.goto(opened.read_text())
    page.get_by_label("Organization").fill("acme")
    page.get_by_role("button", name="Continue with single sign-on").click()
    expect(page.get_by_role("heading", name="Company sign-in")).to_be_visible()


def test_what_is_set_works_as_far_as_can_be_told(place: Place) -> None:
    result = place.owner.json("idp", "test")
    assert result["ok"] is True, result
    assert {step["what"]: step["ok"] for step in result["steps"]}["client credential"] is True


@pytest.mark.parametrize("scripts", [True, False])
def test_somebody_signs_in_at_their_company(place: Place, browser: Browser, scripts: bool, tmp_path: Path) -> None:
    house = cast("House", place)  # of which `login` wants the gateway
    with login(house, tmp_path) as (process, opened), tab(browser, scripts=scripts, expect=(NO,)) as page:
        until(opened.exists, "the command opens a browser")
        away(page, opened)
        log_in(page, "ada")
        expect(page.get_by_text("The Orgate command line")).to_be_visible()
        expect(page.get_by_text("ada@acme.test")).to_be_visible()
        if scripts:
            assert inaccessible(page) == []
        page.get_by_role("button", name="Allow").click()
        expect(page.get_by_text("You are signed in.")).to_be_visible()
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0, said
    who = Orgate(tmp_path / "config").json("whoami")
    assert (who["org"], sorted(who["roles"])) == ("acme", ["admin", "member"])


REFUSED = (
    ("ada", "Cancel", "The provider refused the sign-in"),
    ("bob", "Log in", "stronger sign-in"),
)


def test_who_is_not_let_in_is_told_why(place: Place, browser: Browser, tmp_path: Path) -> None:
    house = cast("House", place)
    with login(house, tmp_path) as (_, opened):
        until(opened.exists, "the command opens a browser")
        for person, button, said in REFUSED:
            with tab(browser, expect=(NO,)) as page:
                away(page, opened)
                log_in(page, person, button)
                expect(page.get_by_role("alert")).to_contain_text(said)
                expect(page.get_by_label("Organization")).to_have_value("acme")
                assert inaccessible(page) == []
    reasons = [str(entry) for entry in place.entries("session.refuse")]
    assert [text for text in reasons if "sso: weak sign-in for admin" in text]


def test_a_wrong_secret_is_found_by_the_test(place: Place, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("not the secret")
    (tmp_path / "right").write_text(SECRET)
    place.owner("idp", "set", "--secret-from", str(tmp_path / "wrong"))
    try:
        assert "client id and set the secret again" in place.owner("idp", "test", expect=1)
    finally:
        place.owner("idp", "set", "--secret-from", str(tmp_path / "right"))


def test_nothing_secret_is_in_the_servers_log(place: Place) -> None:
    text = place.gateway.log.read_text()
    assert SECRET not in text
    assert "code=" not in text
