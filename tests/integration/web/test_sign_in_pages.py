"""The pages of the public listener in Chromium, as a person meets them who ran `orgate login` or was invited."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.web.conftest import AUDITOR, House, sign_in
from tests.kit.browser import inaccessible, tab
from tests.kit.gateway import PASSWORD
from tests.kit.orgate import COMMAND, Orgate
from tests.kit.wait import until

NO = "Failed to load resource: the server responded with a status of 4"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab without JavaScript: these pages have none."""
    with tab(browser, scripts=False, expect=(NO,)) as made:
        yield made


@contextmanager
def login(house: House, folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """`orgate login` with a display, waiting for somebody. Where it leads the browser is written to the path."""
    opened = folder / "opened"
    script = folder / "browser"
    script.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.new && mv {opened}.new {opened}\n')
    script.chmod(0o700)
    where = ("--server", house.gateway.url, "--admin-url", house.gateway.admin_url, "--ca", str(house.gateway.ca))
    process = subprocess.Popen(
        [*COMMAND, "login", *where],
        env=Orgate(folder / "config", {"DISPLAY": ":9", "BROWSER": str(script)}).environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    )
    try:
        yield process, opened
    finally:
        process.kill()
        process.communicate()


def fill(page: Page, code: str, password: str = PASSWORD) -> None:
    page.get_by_label("Code on your device").fill(code)
    page.get_by_label("Organization").fill("acme")
    page.get_by_label("E-mail").fill(AUDITOR)
    page.get_by_label("Password").fill(password)


@pytest.mark.parametrize("scripts", [True, False])
def test_a_browser_that_the_command_opens_signs_it_in(
    house: House, browser: Browser, scripts: bool, tmp_path: Path
) -> None:
    """Code and PKCE with a loopback address (RFC 8252): the page's policy lets the form lead there."""
    with login(house, tmp_path) as (process, opened), tab(browser, scripts=scripts, expect=(NO,)) as page:
        until(opened.exists, "the command opens a browser")
        page.goto(opened.read_text())
        expect(page.get_by_text("The Orgate command line")).to_be_visible()
        sign_in(page, password="not the password")
        expect(page.get_by_role("alert")).to_contain_text("do not go together")
        expect(page.get_by_label("E-mail")).to_have_value(AUDITOR)
        expect(page.get_by_label("Password")).to_have_value("")
        sign_in(page)
        expect(page.get_by_text("You are signed in.")).to_be_visible()
        assert page.url.startswith("http://127.0.0.1:")
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0, said


def test_who_refuses_in_the_browser_is_told_so_in_the_terminal(house: House, page: Page, tmp_path: Path) -> None:
    with login(house, tmp_path) as (process, opened):
        until(opened.exists, "the command opens a browser")
        page.goto(opened.read_text())
        page.get_by_role("button", name="Refuse").click()
        expect(page.get_by_text("The sign-in was refused.")).to_be_visible()
        said, _ = process.communicate(timeout=20)
        assert (process.returncode, "the sign-in was refused" in said) == (3, True), said


def test_an_invitation_becomes_a_password(house: House, page: Page) -> None:
    email = "new@acme.test"
    body = {"email": email, "name": "New", "roles": ["member"]}
    made = house.owner.admin("POST", "/admin/v1/orgs/acme/members", json=body).json()["invitation"]
    page.goto(made["url"])
    expect(page.get_by_label("Organization")).to_have_value("acme")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Invitation code").fill(made["code"])
    page.get_by_label("New password", exact=True).fill("a long enough password")
    page.get_by_label("New password, once more").fill("another long password")
    page.get_by_role("button", name="Set the password").click()
    expect(page.get_by_role("alert")).to_contain_text("The two passwords differ")
    page.get_by_label("New password", exact=True).fill("a long enough password")
    page.get_by_label("New password, once more").fill("a long enough password")
    page.get_by_role("button", name="Set the password").click()
    expect(page.get_by_role("heading")).to_have_text("Your password is set")
    house.gateway.sign_in("acme", email, password="a long enough password")


def test_these_pages_are_accessible_too(house: House, browser: Browser) -> None:
    with tab(browser, expect=(NO,)) as page:
        for path in ("/oauth/device", "/oauth/invitation"):
            page.goto(house.gateway.url + path)
            assert inaccessible(page) == [], path
        begun = device(house)
        page.goto(begun["verification_uri"])
        fill(page, begun["user_code"])
        page.get_by_role("button", name="Continue", exact=True).click()
        expect(page.get_by_role("button", name="Refuse")).to_be_visible()
        assert inaccessible(page) == []
        page.goto(house.gateway.admin_url + "/sign-in")
        sign_in(page, password="not the password")
        assert inaccessible(page) == []
        page.emulate_media(color_scheme="dark")
        assert inaccessible(page, "color-contrast") == []


def device(house: House) -> dict[str, str]:
    """A device that wants to sign in (RFC 8628 section 3.2)."""
    begun = house.gateway.http.post(
        house.gateway.url + "/oauth/device_authorization", data={"client_id": "orgate-cli"}
    )
    found: dict[str, str] = begun.json()
    return found


def polled(house: House, device_code: str) -> httpx.Response:
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    return house.gateway.token(grant_type=grant, device_code=device_code)


def test_the_code_of_a_device_is_confirmed_in_a_browser(house: House, page: Page) -> None:
    begun = device(house)
    page.goto(begun["verification_uri_complete"])
    expect(page.get_by_label("Code on your device")).to_have_value(begun["user_code"])
    fill(page, "BBBB-BBBB")
    page.get_by_role("button", name="Continue", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("This code is unknown")
    fill(page, begun["user_code"].lower().replace("-", " "))
    page.get_by_role("button", name="Continue", exact=True).click()
    expect(page.get_by_text("The Orgate command line")).to_be_visible()
    expect(page.get_by_text(f"asks to act as you, {AUDITOR} of acme")).to_be_visible()
    page.get_by_role("button", name="Sign in the device").click()
    expect(page.get_by_role("heading")).to_have_text("The device is signed in")
    assert polled(house, begun["device_code"]).status_code == 200


def test_a_device_is_refused_in_a_browser(house: House, page: Page) -> None:
    begun = device(house)
    page.goto(begun["verification_uri"])
    fill(page, begun["user_code"])
    page.get_by_role("button", name="Continue", exact=True).click()
    page.get_by_role("button", name="Refuse").click()
    expect(page.get_by_role("heading")).to_have_text("The sign-in was refused")
    assert polled(house, begun["device_code"]).json()["error"] == "access_denied"
