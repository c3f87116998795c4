"""A key is tried before it is set, looked at once it is, and set back when it is refused after all."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gateway.secrets.store import NoSuchSecretError
from policies.facts import Role
from tests.integration.admin.world import ACME, UPSTREAM, World

OLD, NEW = "sk-PLANTED-old", "sk-PLANTED-new"
WHERE = "/orgs/acme/upstreams/gpt/key"


@pytest.fixture(autouse=True)
async def upstream(world: World) -> None:
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    await world.ask("PUT", WHERE, json={"key": OLD})
    world.probe.asked.clear()


async def held(world: World) -> tuple[bytes, int]:
    """The key that is stored, and the version that workers are told."""
    return (await world.keys.get(ACME, "gpt")).secret.reveal(), world.hub.snapshot.tenants[ACME].upstreams[
        "gpt"
    ].key_version


def tried(world: World) -> list[bytes]:
    return [credential.secret.reveal() for _, credential in world.probe.asked if credential is not None]


async def test_a_key_that_passes_is_set_and_tried_again(world: World) -> None:
    answer = await world.ask("POST", WHERE, Role.ADMIN, json={"key": NEW})
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert await held(world) == (NEW.encode(), 2)
    assert tried(world) == [NEW.encode(), NEW.encode()]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 0])
async def test_a_key_that_does_not_pass_changes_nothing(world: World, status: int) -> None:
    world.probe.statuses = [status]
    answer = await world.ask("POST", WHERE, json={"key": NEW})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:orgate:problem:key-not-taken")
    assert f"status {status}" in answer.json()["detail"]
    assert await held(world) == (OLD.encode(), 1)
    assert tried(world) == [NEW.encode()]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_refused_after_all_is_rolled_back(world: World, status: int) -> None:
    world.probe.statuses = [200, status]
    answer = await world.ask("POST", WHERE, json={"key": NEW})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:orgate:problem:key-rolled-back")
    assert await held(world) == (OLD.encode(), 3)  # a version only rises


@pytest.mark.parametrize("status", [0, 429, 503])
async def test_an_upstream_that_is_busy_the_second_time_is_no_reason_to_roll_back(
    world: World, status: int
) -> None:
    world.probe.statuses = [200, status]
    assert (await world.ask("POST", WHERE, json={"key": NEW})).status_code == 200
    assert await held(world) == (NEW.encode(), 2)


async def test_a_first_key_has_nothing_to_go_back_to(world: World) -> None:
    await world.ask("DELETE", WHERE)
    world.probe.statuses = [401]
    assert (await world.ask("POST", WHERE, json={"key": NEW})).status_code == 409
    with pytest.raises(NoSuchSecretError):
        await world.keys.get(ACME, "gpt")
    world.probe.statuses = [200, 401]
    assert (await world.ask("POST", WHERE, json={"key": NEW})).status_code == 200


async def test_it_is_written_down_and_never_what(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.probe.statuses = [200, 401]
    answer = await world.ask("POST", WHERE, Role.ADMIN, json={"key": NEW})
    await world.sequencer.drain_once(world.store)
    log = await world.ask("GET", "/orgs/acme/audit/entries", params={"action": "key.write"})
    assert [item["detail"] for item in log.json()["items"]] == [{"version": 1}, {"version": 2}, {"version": 3}]
    assert "PLANTED" not in answer.text + log.text + caplog.text


@pytest.mark.parametrize("body", [{"key": ""}, {"key": "a b\n"}, {}, {"key": NEW, "force": True}])
async def test_a_body_that_is_no_key_is_refused_untried(world: World, body: dict[str, Any]) -> None:
    assert (await world.ask("POST", WHERE, json=body)).status_code == 422
    assert tried(world) == []


async def test_an_upstream_that_is_not_there(world: World) -> None:
    assert (await world.ask("POST", "/orgs/acme/upstreams/none/key", json={"key": NEW})).status_code == 404
    assert (await world.ask("POST", WHERE, Role.AUDITOR, json={"key": NEW})).status_code == 403
