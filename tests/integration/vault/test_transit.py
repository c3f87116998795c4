"""A whole gateway whose own keys are wrapped by Transit, or stay inside it: sealed at the start, sealed later."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tenants.ids import PLATFORM
from tests.contract.vault_places import place as place  # noqa: PLC0414 - a fixture
from tests.kit.gateway import RunningGateway
from tests.kit.vault import VaultPlace
from tests.kit.wait import until

WAITS = "wait for Vault's Transit"


@pytest.fixture
def gateway(place: VaultPlace, tmp_path: Path) -> Iterator[RunningGateway]:
    """Not started yet; its keys are what `orgate init` left, plain."""
    vault = place.prepare(PLATFORM, transit_mount=f"{place.prefix}-transit")
    settings = {
        "ORGATE_SECRETS__SYSTEM": "transit",
        "ORGATE_VAULT__ADDRESS": vault.address,
        "ORGATE_VAULT__TRANSIT_MOUNT": vault.transit_mount,
        "ORGATE_VAULT__ROLE": vault.role,
        "ORGATE_VAULT__CREDENTIAL": str(tmp_path / "vault/{org}.secret-id"),
    }
    made = RunningGateway(tmp_path / "home", settings=settings)
    yield made
    made.stop()
    made.http.close()


def renew(gateway: RunningGateway, token: str) -> tuple[int, dict[str, str]]:
    answer = gateway.token(grant_type="refresh_token", refresh_token=token)
    return answer.status_code, answer.json()


def test_sealed_later_it_stops_nobody_and_sealed_at_the_start_it_is_waited_for(
    gateway: RunningGateway, place: VaultPlace
) -> None:
    gateway.start()
    session = gateway.owner()
    with place.sealed():
        status, renewed = renew(gateway, session.refresh_token)
        assert status == 200
        session.create(
            "upstreams", name="vllm", base_url="https://models.example"
        )  # a new snapshot, an audit entry
        # Somebody new, whose own key is made and wrapped while Vault is sealed.
        made = session.create("members", email="late@acme.test", name="Late", roles=["member"])
        for action, target in (("upstream.create", "vllm"), ("member.create", made["member"]["id"])):
            listed = session.admin("GET", f"/admin/v1/orgs/acme/audit/entries?action={action}&wait_s=20")
            assert listed.json()["items"][-1]["target"] == target
    assert gateway.stop() == 0
    text = (gateway.home / "secrets.sealed").read_text()
    assert "orgate-envelope" not in text  # sealed once more, by the master key

    with ThreadPoolExecutor(1) as pool:
        with place.sealed():
            before = len(gateway.log.read_text())
            starting = pool.submit(gateway.start)
            until(
                lambda: WAITS in gateway.log.read_text()[before:] or starting.done(), "it says what it waits for"
            )
            said = gateway.log.read_text()[before:]
            assert "503" in said
            assert "sealed" in said
            says_what_it_waits_for(gateway, place)
        starting.result()
    assert "the platform's keys are here" in gateway.log.read_text()
    assert renew(gateway, renewed["refresh_token"])[0] == 200


def says_what_it_waits_for(gateway: RunningGateway, place: VaultPlace) -> None:
    """The admin listener, meanwhile: what for, how far the audit log is behind, and when to ask again."""

    def asked(path: str) -> httpx.Response | None:
        with suppress(httpx.TransportError):
            return gateway.http.get(gateway.admin_url + path)
        return None

    until(lambda: asked("/livez") is not None, "the admin listener to answer")
    ready, metrics, status = asked("/readyz"), asked("/metrics"), asked("/admin/v1/status")
    assert ready is not None
    assert metrics is not None
    assert status is not None
    assert (ready.status_code, "Vault's Transit" in ready.text) == (503, True)
    assert status.json()["type"] == "urn:orgate:problem:unavailable"
    assert int(status.headers["retry-after"]) > 0
    assert place.address not in ready.text + status.text
    values = dict(line.rsplit(" ", 1) for line in metrics.text.splitlines() if not line.startswith("#"))
    assert values["orgate_keys_waiting"] == "1"
    assert int(values["orgate_audit_waiting_receipts"]) >= 0


def test_keys_in_envelopes_say_what_they_need_when_the_settings_change(gateway: RunningGateway) -> None:
    gateway.start()
    gateway.stop()
    gateway.settings["ORGATE_SECRETS__SYSTEM"] = "sealed-file"
    with pytest.raises(AssertionError, match=r"set secrets\.system = transit"):
        gateway.start()


def test_signing_inside_costs_nobody_their_session_while_vault_is_away(
    gateway: RunningGateway, place: VaultPlace
) -> None:
    gateway.settings["ORGATE_SECRETS__SIGNING"] = "transit"
    gateway.start()
    session = gateway.owner()
    header = json.loads(base64.urlsafe_b64decode(session.access_token.split(".")[0] + "=="))
    published = gateway.http.get(gateway.url + "/.well-known/jwks.json").json()["keys"]
    assert header["kid"] in [key["kid"] for key in published]
    with place.sealed():
        for _ in range(2):
            status, said = renew(gateway, session.refresh_token)
            assert (status, said["error"]) == (503, "temporarily_unavailable")
            assert place.address not in str(said)
        assert session.admin("GET", "/admin/v1/orgs/acme/upstreams").status_code == 200  # the token goes on
    status, renewed = renew(gateway, session.refresh_token)
    assert status == 200, "the refused renewals did not use the token up"
    assert renew(gateway, renewed["refresh_token"])[0] == 200


def test_a_new_version_is_published_at_the_next_start(gateway: RunningGateway, place: VaultPlace) -> None:
    gateway.settings["ORGATE_SECRETS__SIGNING"] = "transit"
    place.call("POST", f"{place.prefix}-transit/keys/orgate-signing/rotate")
    gateway.start()
    assert len(gateway.http.get(gateway.url + "/.well-known/jwks.json").json()["keys"]) == 2
    assert gateway.owner().admin("GET", "/admin/v1/orgs/acme/upstreams").status_code == 200
