"""A certified OpenID provider (npm `oidc-provider`) as an organization has one, with people by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.kit.node import NPM, node
from tests.kit.programs import listening

CLIENT, SECRET = "orgate", "a client secret of 40 characters, or so"


@dataclass(frozen=True)
class Person:
    """`claims` beside `sub`, which is made of their login; how they sign in."""

    claims: Mapping[str, Any]
    amr: Sequence[str] = ("pwd",)
    acr: str = ""


@contextmanager
def oidc_provider(log: Path, redirect_uri: str, people: Mapping[str, Person]) -> Iterator[str]:
    """One on a free port; gives its issuer."""
    named = {
        name: {"claims": dict(one.claims), "amr": list(one.amr), **({"acr": one.acr} if one.acr else {})}
        for name, one in people.items()
    }
    asked = {"client": CLIENT, "secret": SECRET, "redirect_uris": [redirect_uri], "people": named}
    with listening([node(), str(NPM / "oidc_provider.mjs"), json.dumps(asked)], log) as issuer:
        yield issuer


def log_in(page: Page, login: str, button: str = "Log in") -> None:
    """What a person does on the provider's own page."""
    page.get_by_label("Login").fill(login)
    page.get_by_role("button", name=button).click()
