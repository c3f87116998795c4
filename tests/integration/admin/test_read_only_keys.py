"""Keys that come from mounted files: shown as any other, written by nobody here, in words that say where to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.secrets.sources import MountedKeys
from policies.facts import Role
from tests.integration.admin.world import World

ONE = "/admin/v1/orgs/acme/upstreams/vllm"


@pytest.fixture
async def client(world: World, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The admin API on a folder of keys, which has one for acme's upstream `vllm`."""
    (tmp_path / "keys" / "acme").mkdir(parents=True)
    (tmp_path / "keys" / "acme" / "vllm").write_text("sk-mounted\n")
    app = world.replaced(keys=MountedKeys(tmp_path / "keys"))
    async with world.client_from("127.0.0.1", app) as made:
        made.headers.update(world.bearer(Role.OWNER))
        answer = await made.post(
            "/admin/v1/orgs/acme/upstreams", json={"name": "vllm", "base_url": "https://models.example"}
        )
        assert answer.status_code == 201, answer.text
        yield made


async def test_it_is_shown_as_set_and_tried(client: httpx.AsyncClient, world: World) -> None:
    answer = await client.get(f"{ONE}/key")
    assert answer.json()["set"] is True
    assert answer.json()["version"] > 0
    assert (await client.post(f"{ONE}/test")).status_code == 200
    ((_, credential),) = world.probe.asked
    assert credential is not None
    assert credential.secret.reveal() == b"sk-mounted"


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
async def test_writing_one_says_where_it_comes_from(
    client: httpx.AsyncClient, method: str, tmp_path: Path
) -> None:
    body = None if method == "DELETE" else {"key": "sk-new"}
    answer = await client.request(method, f"{ONE}/key", json=body)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:orgate:problem:keys-read-only")
    assert "the file acme/vllm in the folder secrets.mounted" in answer.json()["detail"]
    assert str(tmp_path) not in answer.text
    assert (tmp_path / "keys" / "acme" / "vllm").read_text() == "sk-mounted\n"


async def test_an_upstream_is_not_deleted_from_under_its_key(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Else the next upstream of this name would get the key, at a server that an admin chose."""
    match = {"If-Match": (await client.get(ONE)).headers["etag"]}
    answer = await client.delete(ONE, headers=match)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:orgate:problem:in-use")
    body = {"name": "vllm", "base_url": "https://elsewhere.example"}
    answer = await client.put(ONE, json=body, headers=match)
    assert answer.status_code == 409
    (tmp_path / "keys" / "acme" / "vllm").unlink()
    assert (await client.delete(ONE, headers=match)).status_code == 204
