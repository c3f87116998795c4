"""Two gateways that count in one Redis: one limit for both, and what people see when Redis is gone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.redis_check import acl_line
from tests.integration.redis.place import settings
from tests.kit.certs import make_pki
from tests.kit.gateway import RunningGateway, Session
from tests.kit.orgate import Orgate
from tests.kit.programs import listening
from tests.kit.redis import RedisServer, redis_server
from tests.kit.wait import until

KEY = "demo-key-of-a-test"
PASSWORD = "correct-horse-battery"


class World:
    def __init__(self, redis: RedisServer, gateways: list[RunningGateway], owners: list[Session]) -> None:
        self.redis = redis
        self.gateways = gateways
        self.owners = owners
        self.operator = gateways[0].operator()

    def ask(self, place: int, model: str = "code") -> Any:
        body = {"model": model, "prompt": "def f(", "max_tokens": 2}
        gateway = self.gateways[place]
        return gateway.http.post(gateway.url + "/v1/completions", json=body, headers=self.owners[place].bearer)

    def limit(self, **fields: Any) -> None:
        """The same limit in both installations; they share nothing but Redis."""
        for owner in self.owners:
            owner.create("limits", **fields)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("redis")
    pki = make_pki(folder / "pki")
    (folder / "key").write_text(KEY + "\n")
    tls = ("--certificate", str(pki.files.certificate), "--key", str(pki.files.key))
    demo = [sys.executable, "-m", "gateway.demo_model", *tls, "--key-file", str(folder / "key")]
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(tls=pki, options=("tls-auth-clients no",)))
        with redis.client() as client:
            line = acl_line(settings(redis.address, prefix="orgate", username="orgate", password="x"), Path())
            client.execute_command("ACL SETUSER", *line.replace("PASSWORD", PASSWORD).split()[1:])
        model_url = stack.enter_context(listening(demo, folder / "demo.log"))
        given = {
            "ORGATE_LIMITS__STORE": "redis",
            "ORGATE_LIMITS__ADDRESSES": redis.address,
            "ORGATE_LIMITS__TLS": "true",
            "ORGATE_LIMITS__CA": str(pki.files.ca),
            "ORGATE_LIMITS__USERNAME": "orgate",
            "ORGATE_LIMITS__PASSWORD": "env:REDIS_PASSWORD",
            "ORGATE_LIMITS__TIMEOUT_MS": "2000",
            "REDIS_PASSWORD": PASSWORD,
        }
        gateways = [RunningGateway(folder / name, settings=given) for name in ("one", "two")]
        owners = []
        for gateway in gateways:
            stack.enter_context(gateway)
            owner = gateway.owner()
            owner.create("upstreams", name="demo", base_url=model_url, ca_pem=pki.ca_pem)
            owner.admin("PUT", "/admin/v1/orgs/acme/upstreams/demo/key", json={"key": KEY})
            for alias in ("code", "monthly", "local", "denied", "allowed"):
                owner.create("models", name=alias, upstream="demo", model="demo-coder")
            owners.append(owner)
        yield World(redis, gateways, owners)


def test_two_gateways_share_one_limit(world: World) -> None:
    world.limit(name="shared", unit="requests", scope="model", subject="code", amount=6, period_s=86_400)
    statuses = [world.ask(number % 2).status_code for number in range(8)]
    assert statuses == [200] * 6 + [429] * 2
    refusal = world.ask(0)
    assert refusal.headers["retry-after"]


def test_a_budget_that_is_used_up_stays_so_when_its_organization_moves(world: World) -> None:
    month = {"unit": "requests", "scope": "model", "subject": "monthly", "window": "month"}
    world.limit(name="month", amount=5, **month)
    assert [world.ask(number % 2, "monthly").status_code for number in range(6)] == [200] * 5 + [429]
    owner = world.owners[0]
    for zone in ("Asia/Tokyo", "America/New_York", "Pacific/Kiritimati", "UTC"):
        body = {"name": "acme", "timezone": zone}
        owner.admin("PUT", "/admin/v1/orgs/acme", json=body, headers={"if-match": "*"})
        refusal = world.ask(0, "monthly")
        assert (refusal.status_code, refusal.json()["error"]["limit"]) == (429, "month"), zone
        (used,) = owner.admin("GET", "/admin/v1/orgs/acme/limits/month/usage").json()["items"]
        assert (used["used"] + used["lent"], used["left"]) == (5, 0)


def test_operators_see_where_limits_are_counted(world: World, tmp_path: Path) -> None:
    gateway = world.gateways[0]
    assert world.operator.admin("GET", "/admin/v1/status").json()["limits"] == "redis"
    orgate = Orgate(tmp_path / "config", gateway.settings)
    where = ("--settings", str(gateway.installed.settings))
    rows = [row for row in orgate.json("doctor", *where) if row["check"].startswith("redis")]
    assert {row["result"] for row in rows} == {"ok"}
    assert any("by functions" in row["seen"] for row in rows)
    line = orgate("limit", "acl", *where)
    assert line.startswith("user orgate on >PASSWORD ~orgate:{*}:* resetchannels -@all ")
    assert "~orgate:{acme}:* " in orgate("limit", "acl", "--org", "acme", *where)
    assert PASSWORD not in line


def test_each_limit_says_what_holds_while_redis_is_gone(world: World) -> None:
    """Last of this file: what was counted before is lost with it."""
    for model, outage in (("local", "local"), ("denied", "deny"), ("allowed", "allow")):
        world.limit(
            name=model, unit="requests", scope="model", subject=model, amount=4, period_s=86_400, on_outage=outage
        )
    assert [world.ask(0, model).status_code for model in ("local", "denied", "allowed")] == [200] * 3
    world.redis.stop(kill=True)
    log = world.gateways[0].log
    denied = world.ask(0, "denied")
    assert (denied.status_code, denied.json()["error"]["limit"]) == (503, "denied")
    assert [world.ask(0, "allowed").status_code for _ in range(8)] == [200] * 8
    assert 429 in [world.ask(0, "local").status_code for _ in range(5)]
    said = log.read_text()
    assert said.count("Redis cannot be used") <= 2, said  # two processes, a line each
    assert PASSWORD not in said
    device = world.gateways[0].http.post(
        world.gateways[0].url + "/oauth/device_authorization", data={"client_id": "orgate-cli"}
    )
    assert (device.status_code, device.json()["error"]) == (503, "temporarily_unavailable")
    assert device.headers["retry-after"]
    limit = "/admin/v1/orgs/acme/limits/local"
    written = world.owners[0].admin("DELETE", limit, headers={"if-match": "*"}, expect=503)
    assert "cannot be counted" in written.json()["detail"]
    state = world.operator.admin("GET", "/admin/v1/status").json()["limits"]
    assert state.startswith("redis: ")
    world.redis.start()
    until(lambda: world.ask(0, "local").status_code in (200, 429), "it answers")
