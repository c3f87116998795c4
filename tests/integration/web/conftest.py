"""One gateway for all tests of this folder, the people who sign in to it, and a browser for each file."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from playwright.sync_api import Browser, Page, StorageState

from tests.integration.oauth.test_pages import Form
from tests.kit.browser import chromium, tab
from tests.kit.gateway import PASSWORD, RunningGateway, Session
from tests.kit.wait import until

AUDITOR, MEMBER = "eve@acme.test", "max@acme.test"
ASKED = "completion.create"
"""An action of which the log has 55 entries, all refused."""
HOSTILE = "<img src=x onerror=alert(1)>"
"""What somebody looked for in the log: that is in the log itself, and has to stay text."""


@dataclass
class House:
    gateway: RunningGateway
    owner: Session
    operator: Session
    states: dict[str, StorageState] = field(default_factory=dict)
    """E-mail → cookies of a browser in which they are signed in."""

    def url(self, org: str = "acme", query: str = "") -> str:
        return f"{self.gateway.admin_url}/orgs/{org}/audit{query}"

    def join(self, email: str, role: str) -> str:
        """A member of acme who can sign in; their id."""
        body = {"email": email, "name": email, "roles": [role]}
        made = self.owner.admin("POST", "/admin/v1/orgs/acme/members", json=body).json()
        self.gateway.sign_in("acme", email, invitation=made["invitation"]["code"])
        member: str = made["member"]["id"]
        return member

    def entries(self, **filters: str) -> list[dict[str, object]]:
        """Those of acme that match."""
        path = "/admin/v1/orgs/acme/audit/entries"
        found: list[dict[str, object]] = self.owner.admin("GET", path, params={"limit": 1000, **filters}).json()[
            "items"
        ]
        return found

    def client(self) -> httpx.Client:
        """A browser without a screen, whose cookies a test can look at."""
        return httpx.Client(verify=ssl.create_default_context(cafile=str(self.gateway.ca)), timeout=20)


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with RunningGateway(tmp_path_factory.mktemp("web") / "home") as gateway:
        made = House(gateway, gateway.owner(), gateway.operator())
        made.join(AUDITOR, "auditor")
        made.join(MEMBER, "member")
        asked = {"model": "none", "prompt": "x"}
        for _ in range(55):
            answer = gateway.http.post(f"{gateway.url}/v1/completions", json=asked, headers=made.owner.bearer)
            assert answer.status_code == 404
        until(lambda: len(made.entries(action=ASKED)) == 55, "55 entries")
        assert made.entries(model=HOSTILE) == []
        yield made


@pytest.fixture(scope="module")
def browser(house: House) -> Iterator[Browser]:
    """Gone again before the next file, and begun after the gateway: Playwright keeps an event loop running in this
    thread for as long as it is there."""
    with chromium() as made:
        yield made


@pytest.fixture
def auditor(house: House, browser: Browser) -> Iterator[Page]:
    """A tab in which the auditor of acme is signed in."""
    with tab(browser, cookies=signed_in(house, browser)) as page:
        yield page


@pytest.fixture
def plain_auditor(house: House, browser: Browser) -> Iterator[Page]:
    """The same without JavaScript."""
    with tab(browser, scripts=False, cookies=signed_in(house, browser)) as page:
        yield page


def signed_in(house: House, browser: Browser, email: str = AUDITOR, org: str = "acme") -> StorageState:
    """The cookies of somebody who signed in by the pages, once for all tests."""
    if email not in house.states:
        with tab(browser) as page:
            page.goto(f"{house.gateway.admin_url}/sign-in?to=/orgs/acme/audit")
            sign_in(page, email, org)
            page.wait_for_url(house.url())
            house.states[email] = page.context.storage_state()
    return house.states[email]


def sign_in(page: Page, email: str = AUDITOR, org: str = "acme", password: str = PASSWORD) -> None:
    """Fill the sign-in page that the browser shows and, with the right password, say yes to the one after it."""
    page.get_by_label("Organization").fill(org)
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    if password == PASSWORD:
        page.get_by_role("button", name="Allow").click()


def sign_in_without_a_screen(client: httpx.Client, start: str, email: str = AUDITOR) -> httpx.Response:
    """The same by hand, from the URL `start` to the answer of the callback, which is not followed."""
    begun = client.get(start)
    assert begun.status_code == 303
    page = client.get(begun.headers["location"])
    form = {**Form(page.text).fields, "org": "acme", "email": email, "password": PASSWORD, "action": "approve"}
    back = client.post(str(page.url.copy_with(query=None)), data=form)
    assert back.status_code == 303, back.text
    return client.get(back.headers["location"])
