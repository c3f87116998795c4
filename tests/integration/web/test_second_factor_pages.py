"""Second factors in Chromium: a passkey of a virtual authenticator, an app's codes, and no script at all."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyotp
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.kit.browser import chromium, inaccessible, tab
from tests.kit.gateway import PASSWORD, RunningGateway, Session

NO = "Failed to load resource: the server responded with a status of 4"


@dataclass
class Town:
    """A gateway with a name, and its people."""

    gateway: RunningGateway
    owner: Session

    def join(self, email: str, role: str) -> None:
        body = {"email": email, "name": email, "roles": [role]}
        made = self.owner.admin("POST", "/admin/v1/orgs/acme/members", json=body).json()
        self.gateway.sign_in("acme", email, invitation=made["invitation"]["code"])

    def demand(self, *roles: str) -> None:
        found = self.owner.admin("GET", "/admin/v1/orgs/acme")
        body = {"name": "Acme", "second_factor": roles}
        self.owner.admin("PUT", "/admin/v1/orgs/acme", json=body, headers={"if-match": found.headers["etag"]})

    def device(self) -> dict[str, str]:
        asked = {"client_id": "orgate-cli"}
        begun = self.gateway.http.post(self.gateway.url + "/oauth/device_authorization", data=asked)
        found: dict[str, str] = begun.json()
        return found


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    made = RunningGateway(tmp_path_factory.mktemp("factors") / "home")
    made.url = f"https://localhost:{made.public_port}"  # browsers make no passkeys for an IP address
    made.settings["ORGATE_SERVER__URL"] = made.url
    with made:
        yield Town(made, made.owner())


@pytest.fixture(scope="module")
def browser(town: Town) -> Iterator[Browser]:
    """Begun after the gateway: Playwright keeps an event loop running in this thread while it is there."""
    with chromium() as made:
        yield made


@contextmanager
def authenticator(page: Page, *, verified: bool = True) -> Iterator[Callable[[bool], None]]:
    """An authenticator within the machine of `page`, whose owner is there at once (Chrome DevTools Protocol,
    WebAuthn). Yields what says whether they are known by their finger."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": verified,
        "automaticPresenceSimulation": True,
    }
    made = session.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]

    def know(finger: bool) -> None:
        session.send("WebAuthn.setUserVerified", {"authenticatorId": made, "isUserVerified": finger})

    yield know
    session.detach()


def fill(page: Page, email: str) -> None:
    page.get_by_label("Organization").fill("acme")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)


def sign_in(page: Page, town: Town, email: str) -> None:
    page.goto(f"{town.gateway.url}/oauth/account")
    fill(page, email)
    page.get_by_role("button", name="Sign in").click()


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def accessible(page: Page) -> None:
    assert inaccessible(page) == [], page.url
    page.emulate_media(color_scheme="dark")
    assert inaccessible(page, "color-contrast") == [], page.url
    page.emulate_media(color_scheme="light")


def app_on(page: Page) -> tuple[pyotp.TOTP, int]:
    """The app that the page offers, and the step that it is in now."""
    secret = page.locator("code").first.inner_text().replace(" ", "")
    return pyotp.TOTP(secret), int(time.time()) // 30


def code(app: pyotp.TOTP, step: int) -> str:
    return app.at(step * 30)


def kept_codes(page: Page) -> list[str]:
    heading(page, "Recovery codes")
    codes = page.locator("ul.codes code").all_inner_texts()
    assert len(codes) == 10
    return codes


def test_a_passkey_is_added_and_signs_in_and_every_page_is_accessible(town: Town, browser: Browser) -> None:
    town.join("ada@acme.test", "member")
    with tab(browser, expect=(NO,)) as page, authenticator(page) as known_by_finger:
        page.goto(f"{town.gateway.url}/oauth/account")
        accessible(page)
        sign_in(page, town, "ada@acme.test")
        heading(page, "Your account")
        page.get_by_role("button", name="Add a factor").click()
        heading(page, "Add a second factor")
        expect(page.get_by_text("Passkeys need JavaScript")).to_be_hidden()
        accessible(page)
        page.locator("#passkey_name").fill("Laptop")
        page.get_by_role("button", name="Add a passkey").click()
        kept_codes(page)
        accessible(page)
        page.get_by_role("button", name="I have kept them").click()
        heading(page, "Your account")
        expect(page.get_by_role("listitem").filter(has_text="Laptop")).to_contain_text("passkey")
        accessible(page)

        page.get_by_role("button", name="Sign out of this page").click()
        sign_in(page, town, "ada@acme.test")
        heading(page, "Second factor")
        expect(page.get_by_label("Recovery code")).to_be_visible()
        accessible(page)
        known_by_finger(False)
        page.get_by_role("button", name="Use a passkey").click()
        expect(page.get_by_role("alert")).to_contain_text("It was cancelled, or it took too long")
        accessible(page)
        known_by_finger(True)
        page.get_by_role("button", name="Use a passkey").click()
        heading(page, "Your account")

        page.get_by_role("button", name="Add a factor").click()
        page.get_by_role("button", name="Add a passkey").click()
        expect(page.get_by_role("alert")).to_contain_text("has a passkey of yours already")
        page.get_by_role("link", name="Cancel").click()
        page.get_by_role("button", name="Remove Laptop").click()
        expect(page.get_by_role("status")).to_have_text("The factor is removed.")


def test_without_a_script_a_demanded_app_is_added_at_the_device_page_and_signs_in(
    town: Town, browser: Browser
) -> None:
    town.join("bob@acme.test", "auditor")
    town.demand("auditor")
    with tab(browser, scripts=False, expect=(NO,)) as page:
        page.goto(town.device()["verification_uri_complete"])
        fill(page, "bob@acme.test")
        page.get_by_role("button", name="Continue", exact=True).click()
        heading(page, "Add a second factor")
        expect(page.get_by_role("button", name="Add a passkey")).to_be_hidden()
        expect(page.get_by_text("Passkeys need JavaScript")).to_be_visible()
        app, step = app_on(page)
        page.get_by_label("Code that the app shows now").fill("000000")
        page.get_by_role("button", name="Add the app").click()
        expect(page.get_by_role("alert")).to_contain_text("The code is not the one that the app shows")
        assert app_on(page)[0].secret == app.secret
        page.get_by_label("Code that the app shows now").fill(code(app, step))
        page.get_by_role("button", name="Add the app").click()
        codes = kept_codes(page)
        page.get_by_role("button", name="I have kept them").click()
        page.get_by_role("button", name="Sign in the device").click()
        heading(page, "The device is signed in")

        begun = town.device()
        page.goto(begun["verification_uri_complete"])
        fill(page, "bob@acme.test")
        page.get_by_role("button", name="Continue", exact=True).click()
        heading(page, "Second factor")
        page.get_by_label("Code").fill(code(app, step))  # the one that added the app
        page.get_by_role("button", name="Continue", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("This is not right, was used before, or is too old")
        page.get_by_label("Code").fill(code(app, step + 1))
        page.get_by_role("button", name="Continue", exact=True).click()
        page.get_by_role("button", name="Sign in the device").click()
        heading(page, "The device is signed in")
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        tokens = town.gateway.token(grant_type=grant, device_code=begun["device_code"]).json()
        body = tokens["access_token"].split(".")[1]
        claims = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        assert claims["amr"] == ["pwd", "otp", "mfa"]

        sign_in(page, town, "bob@acme.test")
        page.get_by_label("Code").fill(codes[0].lower())
        page.get_by_role("button", name="Continue", exact=True).click()
        heading(page, "Your account")
        expect(page.get_by_text("9 recovery codes are left")).to_be_visible()
        page.get_by_role("button", name="Remove Authenticator app").click()
        expect(page.get_by_role("alert")).to_contain_text("Your organization demands a second factor of you")
        town.demand()


def test_a_password_is_changed_and_sessions_end_on_the_page(town: Town, browser: Browser) -> None:
    town.join("cy@acme.test", "member")
    with tab(browser, scripts=False, expect=(NO,)) as page:
        sign_in(page, town, "cy@acme.test")
        sessions = page.get_by_role("listitem")
        expect(sessions).to_have_count(2)
        page.get_by_role("button", name="End the session of the Orgate command line").click()
        expect(sessions).to_have_count(1)
        page.get_by_label("Password you have now").fill(PASSWORD)
        page.get_by_label("New password", exact=True).fill("another long password")
        page.get_by_label("New password, once more").fill("another long password")
        page.get_by_role("button", name="Change the password").click()
        heading(page, "Your account")
        town.gateway.sign_in("acme", "cy@acme.test", password="another long password")
