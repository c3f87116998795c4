"""One gateway for all tests of this folder, the people who sign in to it, and a browser for each file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page

from tests.kit.browser import chromium
from tests.kit.gateway import PASSWORD, RunningGateway, Session

AUDITOR, MEMBER = "eve@acme.test", "max@acme.test"


@dataclass
class House:
    gateway: RunningGateway
    owner: Session
    operator: Session

    def url(self, org: str = "acme") -> str:
        return f"{self.gateway.admin_url}/orgs/{org}/audit"

    def join(self, email: str, role: str) -> str:
        """A member of acme who can sign in; their id."""
        body = {"email": email, "name": email, "roles": [role]}
        made = self.owner.admin("POST", "/admin/v1/orgs/acme/members", json=body).json()
        self.gateway.sign_in("acme", email, invitation=made["invitation"]["code"])
        member: str = made["member"]["id"]
        return member

    def entries(self) -> int:
        """How many the log of acme has."""
        note = self.owner.admin("GET", "/admin/v1/orgs/acme/audit/checkpoint").text
        return int(note.split("\n")[1])


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with RunningGateway(tmp_path_factory.mktemp("web") / "home") as gateway:
        made = House(gateway, gateway.owner(), gateway.operator())
        made.join(AUDITOR, "auditor")
        made.join(MEMBER, "member")
        for number in range(60):
            made.owner.create("teams", name=f"team-{number}", title=f"<b>Team</b> {number}")
        yield made


@pytest.fixture(scope="module")
def browser(house: House) -> Iterator[Browser]:
    """Gone again before the next file, and begun after the gateway: Playwright keeps an event loop running in this
    thread for as long as it is there."""
    with chromium() as made:
        yield made


def sign_in(page: Page, email: str = AUDITOR, org: str = "acme", password: str = PASSWORD) -> None:
    """Fill the sign-in page, wherever the browser is sent from there."""
    page.get_by_label("Organization").fill(org)
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
