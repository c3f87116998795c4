"""The keyed hash of a prompt through a real gateway: wanted, made, and found by who has the prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.gateway import PASSWORD, RunningGateway, Session
from tests.kit.marker import MARKER
from tests.kit.orgate import Orgate
from tests.kit.wait import until

PROMPT = {"prompt": f"def {MARKER}(", "suffix": "):", "model": "code"}
CHAT = {"messages": [{"role": "user", "content": f"what is {MARKER}?"}], "model": "code"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path_factory.mktemp("prompts") / "home") as running:
        yield running


@pytest.fixture(scope="module")
def owner(gateway: RunningGateway) -> Session:
    owner = gateway.owner()
    owner.create("upstreams", name="none", base_url="https://model.example")
    owner.create("models", name="code", upstream="none", model="m")
    owner.create(
        "rules", name="all", effect="allow", roles=["owner"], actions=["completions", "chat"], models=["*"]
    )
    return owner


@pytest.fixture(scope="module")
def orgate(gateway: RunningGateway, owner: Session, tmp_path_factory: pytest.TempPathFactory) -> Orgate:
    cli = Orgate(tmp_path_factory.mktemp("cli") / "config")
    who = {"org": owner.org, "email": "owner@acme.test", "password": PASSWORD}
    cli.login(server=gateway.url, admin=gateway.admin_url, ca=Path(gateway.ca), **who)
    return cli


def asked(gateway: RunningGateway, owner: Session, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The entry of one request, which gets as far as an upstream that has no key."""
    answer = gateway.http.post(gateway.url + path, json=body, headers=owner.bearer)
    assert answer.status_code == 503, answer.text
    found: list[dict[str, Any]] = []

    def there() -> bool:
        items = owner.admin("GET", "/admin/v1/orgs/acme/audit/entries?limit=1000").json()["items"]
        found[:] = [one for one in items if one.get("request_id") == answer.headers["x-request-id"]]
        return bool(found)

    until(there, "the request is an entry")
    return found[0]


def test_an_entry_has_it_where_it_is_wanted_and_who_has_the_prompt_finds_it(
    gateway: RunningGateway, owner: Session, orgate: Orgate, tmp_path: Path
) -> None:
    assert "prompt_hmac" not in asked(gateway, owner, "/v1/completions", PROMPT)
    orgate("org", "set", "--audit-prompt-hash")
    entry = asked(gateway, owner, "/v1/completions", PROMPT)
    chat = asked(gateway, owner, "/v1/chat/completions", CHAT)
    assert entry["prompt_hmac"] != chat["prompt_hmac"]
    request = tmp_path / "request.json"
    request.write_text(json.dumps(PROMPT, indent=4))
    assert orgate("audit", "prompt-hash", str(request)).strip() == entry["prompt_hmac"]
    request.unlink()
    assert orgate("audit", "prompt-hash", "-", given=json.dumps(CHAT)).strip() == chat["prompt_hmac"]
    found = orgate("audit", "prompt-hash", "-", "--text", given="another")
    assert found.strip() not in (entry["prompt_hmac"], chat["prompt_hmac"])
    asked_for = "/admin/v1/orgs/acme/audit/entries?limit=1000&action=audit_prompt.read"
    items = owner.admin("GET", asked_for).json()["items"]
    assert [one["detail"]["prompt_hmac"] for one in items][:2] == [entry["prompt_hmac"], chat["prompt_hmac"]]
    orgate("org", "set", "--no-audit-prompt-hash")
    assert "prompt_hmac" not in asked(gateway, owner, "/v1/completions", PROMPT)


@pytest.mark.parametrize("body", [{}, {"prompt": [1, 2]}, {"prompt": "x", "input": "y"}])
def test_what_is_no_prompt_is_said(owner: Session, body: dict[str, Any]) -> None:
    answer = owner.admin("POST", "/admin/v1/orgs/acme/audit/prompt-hash", json=body, expect=422)
    assert answer.json()["errors"][0]["field"] == "prompt"


def test_a_file_without_a_prompt_is_a_users_mistake(orgate: Orgate, tmp_path: Path) -> None:
    assert "cannot be read" in orgate("audit", "prompt-hash", str(tmp_path / "none"), expect=2)
    assert "no JSON object" in orgate("audit", "prompt-hash", "-", given="def f(", expect=2)
    assert "no prompt in it" in orgate("audit", "prompt-hash", "-", given="{}", expect=2)
