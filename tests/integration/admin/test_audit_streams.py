"""Streams over the admin API: made, changed, paused, tried; their secrets kept and never shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from gateway.audit.formats.context import Context
from gateway.audit.reader import LogReader
from gateway.control_metrics import ControlMetrics
from gateway.pki import make_ca
from gateway.secrets.sealed import SealedStreams
from gateway.secrets.store import NoSuchSecretError
from gateway.streaming.parts import Senders
from gateway.streaming.streams import Streams
from policies.facts import Role
from tenants.ids import OrgId
from tenants.streams import MOST
from tests.fakes.siem import ndjson, receiving
from tests.integration.admin.world import ACME, World
from tests.kit.client_certs import issue, texts
from tests.unit.streaming.bed import LOOPBACK

PATH = "/orgs/acme/audit-streams"
STREAM: dict[str, Any] = {"name": "siem", "kind": "splunk", "url": "https://splunk.example.com:8088"}
TOKEN = "11111111-zqtoken"


class Api:
    """The admin API with streams behind it."""

    def __init__(self, world: World, client: httpx.AsyncClient, secrets: SealedStreams) -> None:
        self.world, self.client, self.secrets = world, client, secrets

    async def ask(self, method: str, path: str, role: Role = Role.OWNER, **more: Any) -> httpx.Response:
        headers = {**self.world.bearer(role), **more.pop("headers", {})}
        return await self.client.request(method, f"/admin/v1{path}", headers=headers, **more)

    async def made(self, **changes: Any) -> dict[str, Any]:
        answer = await self.ask("POST", PATH, json={**STREAM, **changes})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    secrets, ctx = SealedStreams(world.keys), Context(host="gateway.example")

    async def told(org: OrgId, kind: str, key: str, data: dict[str, Any]) -> bool:
        return bool(org and kind and key and data)

    streams = Streams(
        world.store.streams,
        LogReader(world.sequencer),
        Senders(secrets, ctx, world.clock, allowed=LOOPBACK).make,
        ctx=ctx,
        clock=world.clock,
        random=lambda: 0.5,
        metrics=ControlMetrics(world.clock.now),
        tell=told,
        behind_s=900,
    )
    app = world.replaced(streaming=streams, stream_secrets=secrets, check_url=lambda _: None)
    async with world.client_from("127.0.0.1", app) as client:
        yield Api(world, client, secrets)


async def test_a_stream_is_made_with_the_usual_format_of_its_kind(api: Api) -> None:
    made = await api.made()
    assert (made["format"], made["paused"], made["version"]) == ("jsonl", False, 1)
    assert (await api.ask("GET", f"{PATH}/siem", Role.AUDITOR)).json() == made
    entry = await api.world.last_entry()
    assert (entry["action"], entry["target"]) == ("audit_stream.create", "siem")
    assert entry["detail"]["url"] == "https://splunk.example.com:8088"


async def test_the_log_has_the_origin_of_a_url_alone(api: Api) -> None:
    await api.made(kind="ndjson", url="https://in.example.com/zqpath?token=zqquery")
    assert "zq" not in str(await api.world.last_entry())


BAD: list[tuple[dict[str, Any], str]] = [
    ({"url": "http://splunk.example.com"}, "url"),
    ({"url": "ftp://splunk.example.com"}, "url"),
    ({"url": "https://user:pass@splunk.example.com"}, "url"),
    ({"url": "https://splunk.example.com/?a=b"}, "url"),
    ({"kind": "syslog", "url": "https://splunk.example.com"}, "url"),
    ({"kind": "syslog", "url": "tcp://splunk.example.com:514"}, "url"),
    ({"kind": "syslog", "url": "tls://splunk.example.com/path"}, "url"),
    ({"kind": "s3", "url": "https://s3.example.com"}, "url"),
    ({"kind": "s3", "url": "https://s3.example.com/bucket/../other"}, "url"),
    ({"format": "syslog"}, "format"),
    ({"kind": "s3", "url": "https://s3.example.com/bucket", "ack": True}, "ack"),
    ({"region": "eu"}, "region"),
    ({"index": "a b"}, "index"),
    ({"ca_pem": "x"}, "ca_pem"),
    ({"name": "../x"}, "name"),
    ({"secret": "x"}, "secret"),
    ({"kind": "kafka"}, "kind"),
]


async def test_what_cannot_be_is_refused_by_name(api: Api) -> None:
    for changes, field in BAD:
        answer = await api.ask("POST", PATH, json={**STREAM, **changes})
        assert answer.status_code == 422, (changes, answer.text)
        assert field in {fault["field"] for fault in answer.json()["errors"]}, changes
    assert (await api.ask("GET", PATH)).json()["items"] == []


async def test_where_a_url_leads_is_judged(world: World) -> None:
    answer = await world.ask("POST", PATH, json={**STREAM, "url": "https://127.0.0.1:8088"})
    assert (answer.status_code, "loopback" in answer.text) == (422, True)


async def test_a_secret_is_kept_and_never_shown(api: Api) -> None:
    await api.made()
    answer = await api.ask("PUT", f"{PATH}/siem/secret", json={"secret": TOKEN})
    assert answer.json() == {"version": 1}
    assert (await api.secrets.get(ACME, "siem")).reveal().decode() == TOKEN
    for path in (PATH, f"{PATH}/siem", f"{PATH}-state"):
        assert TOKEN not in (await api.ask("GET", path)).text
    assert (await api.ask("GET", f"{PATH}/siem")).json()["secret_version"] == 1
    await api.world.actions()
    stored = b"".join([piece async for piece in api.world.deps.audit.raw(ACME, 0, 999)])
    assert TOKEN.encode() not in stored


BAD_SECRETS: list[tuple[str, str, dict[str, str], str]] = [
    ("splunk", "https://a.example.com", {"secret": ""}, "secret"),
    ("splunk", "https://a.example.com", {"secret": "two\nlines"}, "secret"),
    ("splunk", "https://a.example.com", {"cert": "x", "key": "y"}, "cert"),
    ("s3", "https://a.example.com/bucket", {"secret": "no-colon"}, "secret"),
    ("syslog", "tls://a.example.com", {"secret": "x"}, "secret"),
    ("syslog", "tls://a.example.com", {"cert": "x", "key": "y"}, "cert"),
    ("splunk", "https://a.example.com", {"token": TOKEN}, ""),
]


async def test_a_secret_that_cannot_be_used_is_refused_and_not_quoted(api: Api) -> None:
    for number, (kind, url, body, field) in enumerate(BAD_SECRETS):
        await api.made(name=f"s{number}", kind=kind, url=url)
        answer = await api.ask("PUT", f"{PATH}/s{number}/secret", json=body)
        assert (answer.status_code, TOKEN in answer.text) == (422, False)
        assert [fault["field"] for fault in answer.json()["errors"]] == [field]


async def test_syslog_takes_a_client_certificate(api: Api) -> None:
    await api.made(kind="syslog", url="tls://logs.example.com")
    now = datetime.fromtimestamp(api.world.clock.seconds, UTC)
    pair = texts(issue(make_ca("Clients"), now=now))
    assert (await api.ask("PUT", f"{PATH}/siem/secret", json=pair)).status_code == 200
    assert b"PRIVATE KEY" in (await api.secrets.get(ACME, "siem")).reveal()


async def test_a_secret_does_not_follow_a_url_that_leads_elsewhere(api: Api) -> None:
    await api.made()
    await api.ask("PUT", f"{PATH}/siem/secret", json={"secret": TOKEN})
    for changes, status in (
        ({"url": "https://evil.example.com"}, 422),
        ({"kind": "otlp"}, 422),
        ({"from_start": True}, 422),
        ({"url": STREAM["url"] + "/services/collector/event"}, 200),
    ):
        answer = await api.ask("PUT", f"{PATH}/siem", json={**STREAM, **changes}, headers={"if-match": "*"})
        assert answer.status_code == status, answer.text


async def test_pause_and_resume_are_harmless_when_repeated(api: Api) -> None:
    await api.made()
    for verb, paused, version in (
        ("pause", True, 2),
        ("pause", True, 2),
        ("resume", False, 3),
        ("resume", False, 3),
    ):
        answer = await api.ask("POST", f"{PATH}/siem/{verb}")
        assert (answer.status_code, answer.json()["paused"], answer.json()["version"]) == (200, paused, version)


async def test_a_deleted_streams_secret_goes_with_it(api: Api) -> None:
    await api.made()
    await api.ask("PUT", f"{PATH}/siem/secret", json={"secret": TOKEN})
    assert (await api.ask("DELETE", f"{PATH}/siem", headers={"if-match": "*"})).status_code == 204
    with pytest.raises(NoSuchSecretError):
        await api.secrets.get(ACME, "siem")
    assert (await api.made())["secret_version"] == 0


async def test_an_organization_has_so_many_at_most(api: Api) -> None:
    for number in range(MOST):
        await api.made(name=f"siem-{number}")
    answer = await api.ask("POST", PATH, json={**STREAM, "name": "one-more"})
    assert (answer.status_code, "at most" in answer.text) == (409, True)


async def test_states_say_how_far_each_is(api: Api) -> None:
    await api.made(from_start=True, paused=True)
    await api.world.actions()
    (state,) = (await api.ask("GET", f"{PATH}-state", Role.AUDITOR)).json()["items"]
    size = int((await api.world.deps.audit.checkpoint(ACME)).split("\n")[1])
    assert (state["state"], state["position"], state["lag_entries"]) == ("paused", 0, size)


async def test_a_test_says_what_it_met_and_is_an_entry(api: Api) -> None:
    with receiving(ndjson) as siem:
        await api.made(kind="ndjson", url=siem.url)
        assert (await api.ask("POST", f"{PATH}/siem/test")).json()["ok"] is True
        siem.statuses = [503]
        result = (await api.ask("POST", f"{PATH}/siem/test")).json()
        assert (result["ok"], result["detail"]) == (False, "the receiver answered status 503")
    assert (await api.world.actions()).count("audit_stream.test") == 2


async def test_auditors_look_and_admins_change(api: Api) -> None:
    await api.made()
    for role in (Role.AUDITOR, Role.MEMBER):
        for method, path in (
            ("POST", PATH),
            ("PUT", f"{PATH}/siem"),
            ("PUT", f"{PATH}/siem/secret"),
            ("POST", f"{PATH}/siem/test"),
            ("POST", f"{PATH}/siem/pause"),
            ("DELETE", f"{PATH}/siem"),
        ):
            assert (await api.ask(method, path, role)).status_code == 403, (role, method, path)
    assert (await api.ask("GET", PATH, Role.AUDITOR)).status_code == 200
    assert (await api.ask("GET", PATH, Role.MEMBER)).status_code == 403


async def test_a_deleted_organization_leaves_no_stream(api: Api) -> None:
    await api.made()
    await api.ask("PUT", f"{PATH}/siem/secret", json={"secret": TOKEN})
    answer = await api.ask("DELETE", "/orgs/acme", Role.OPERATOR, headers={"if-match": "*"})
    assert answer.status_code == 204, answer.text
    assert await api.world.store.streams.all() == ()
    with pytest.raises(NoSuchSecretError):
        await api.secrets.get(ACME, "siem")
