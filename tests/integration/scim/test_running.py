"""A real gateway, two organizations at once: the tester of the SCIM ecosystem, and what `active=false` ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.kit.gateway import RunningGateway, Session

CHECKS = 70
"""What the tester looks at in users, groups and discovery; more where it learns to."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path_factory.mktemp("scim") / "home") as made:
        yield made


@pytest.fixture(scope="module")
def owner(gateway: RunningGateway) -> Session:
    return gateway.owner()


@pytest.fixture(scope="module")
def acme(owner: Session) -> dict[str, Any]:
    made: dict[str, Any] = owner.admin("POST", "/admin/v1/orgs/acme/scim/tokens", json={}).json()
    return made


@pytest.fixture(scope="module")
def globex(gateway: RunningGateway) -> dict[str, Any]:
    operator = gateway.operator()
    operator.admin("POST", "/admin/v1/orgs", json={"id": "globex", "name": "Globex"})
    made: dict[str, Any] = operator.admin("POST", "/admin/v1/orgs/globex/scim/tokens", json={}).json()
    return made


def judged(gateway: RunningGateway, made: dict[str, Any]) -> list[tuple[bool, str]]:
    """What the tester says: whether it is good, and in words."""
    command = [sys.executable, "-m", "tests.integration.scim.tester", made["url"], str(gateway.ca)]
    ended = subprocess.run(command, input=made["secret"], capture_output=True, text=True, check=False, timeout=110)
    assert ended.returncode == 0, ended.stderr
    return [(good, said) for good, said in json.loads(ended.stdout)]


def test_the_tester_finds_nothing_wrong_in_two_organizations_at_once(
    gateway: RunningGateway, acme: dict[str, Any], globex: dict[str, Any]
) -> None:
    with ThreadPoolExecutor(2) as both:
        runs = list(both.map(lambda made: judged(gateway, made), (acme, globex)))
    for results in runs:
        assert [said for good, said in results if not good] == []
        assert len(results) >= CHECKS
    assert "Traceback" not in gateway.log.read_text()


def test_active_false_ends_access_in_time(gateway: RunningGateway, owner: Session, acme: dict[str, Any]) -> None:
    body = {"email": "ann@acme.test", "name": "Ann", "roles": ["member"]}
    made = owner.admin("POST", "/admin/v1/orgs/acme/members", json=body).json()
    ann = gateway.sign_in("acme", "ann@acme.test", invitation=made["invitation"]["code"])

    def models() -> int:
        return gateway.http.get(gateway.url + "/v1/models", headers=ann.bearer).status_code

    def scim(active: object) -> httpx.Response:
        patch = {"Operations": [{"op": "Replace", "path": "active", "value": active}]}
        headers = {"authorization": f"Bearer {acme['secret']}"}
        return gateway.http.patch(f"{acme['url']}/Users/{made['member']['id']}", headers=headers, json=patch)

    def refresh() -> httpx.Response:
        return gateway.token(grant_type="refresh_token", refresh_token=ann.refresh_token)

    assert models() == 200
    began = time.monotonic()
    assert scim("False").json()["active"] is False
    took = time.monotonic() - began
    assert models() == 401
    assert refresh().status_code == 400
    print(f"SCIM active=false: access and renewal refused {took * 1_000:.0f} ms after it was asked")
    assert scim(True).json()["active"] is True
    assert models() == 401, "what was issued before stays dead"
    assert refresh().status_code == 400
    again = gateway.sign_in("acme", "ann@acme.test")
    assert gateway.http.get(gateway.url + "/v1/models", headers=again.bearer).status_code == 200
