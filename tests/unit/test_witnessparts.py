"""What the settings make of witnesses and places of publication, and what the control process says of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.alarms import Alarms
from gateway.audit.cosignature import key_of
from gateway.audit.publish import Publication, PublishError
from gateway.audit.sequencer import Sequencer
from gateway.control_metrics import ControlMetrics
from gateway.settings import validated
from gateway.webhooks import DeliveryError, Webhooks
from gateway.witnessparts import WebhookPlace, WitnessParts, witness_parts
from tenants.budgets import Webhook
from tenants.ids import OrgId
from tenants.store import StoreUnavailableError
from tests.fakes.audit import ACME, GLOBEX, SIGNER, up
from tests.kit.wait import eventually
from tests.unit.test_deliveries import Time

KEY = key_of("w1.example", Ed25519PrivateKey.from_private_bytes(bytes(32)))


class Hooks:
    """Acme has a webhook, globex has none. `down`: the store cannot be asked; `status` of refusals, 0 for none."""

    def __init__(self) -> None:
        self.down = False
        self.status = 0
        self.sent: list[tuple[OrgId, str, Mapping[str, Any]]] = []

    async def get(self, org: OrgId) -> Webhook | None:
        if self.down:
            raise StoreUnavailableError("the control store is away")
        return Webhook(org, "https://acme.example/hook") if org == ACME else None

    async def send(self, hook: Webhook, message_id: str, body: bytes) -> int:
        if self.status:
            raise DeliveryError("it did not arrive", self.status)
        self.sent.append((hook.org, message_id, msgspec.json.decode(body)))
        return 204


def publication(org: OrgId = ACME, size: int = 5) -> Publication:
    return Publication(1_763_690_000, org, SIGNER.origin(org), size, SIGNER.checkpoint(org, size, bytes(32)))


def place(hooks: Hooks) -> WebhookPlace:
    return WebhookPlace(Alarms(hooks, Time()))  # type: ignore[arg-type]  # all that is asked of webhooks


async def test_a_webhook_is_told_the_checkpoint_once_under_one_id() -> None:
    hooks = Hooks()
    assert await place(hooks).put([publication(), publication(GLOBEX)]) == [ACME, GLOBEX]
    assert await place(hooks).put([publication()]) == [ACME]
    await place(hooks).put([publication(size=6)])
    (org, first, body), (_, again, _), (_, other, _) = hooks.sent
    assert (org, body["type"]) == (ACME, "audit.checkpoint")
    assert body["data"] == {
        "org": "acme",
        "origin": "gateway.example/audit/acme",
        "size": 5,
        "checkpoint": publication().checkpoint,
    }
    assert first == again != other


async def test_a_webhook_that_refuses_is_told_again_and_one_that_is_gone_is_not() -> None:
    hooks = Hooks()
    hooks.status = 500
    assert await place(hooks).put([publication(), publication(GLOBEX)]) == [GLOBEX]
    hooks.status = 410
    assert await place(hooks).put([publication()]) == [ACME]
    hooks.down = True
    with pytest.raises(PublishError, match="away"):
        await place(hooks).put([publication()])


def parts(home: Path, sequencer: Sequencer, **audit: object) -> tuple[WitnessParts, ControlMetrics]:
    metrics = ControlMetrics(Time().now)
    settings = validated({"home": home, "audit": {"path": home / "audit", **audit}})
    hooks: Webhooks = Hooks()  # type: ignore[assignment]  # as above
    return witness_parts(settings, sequencer, metrics=metrics, webhooks=hooks, clock=Time()), metrics


async def test_nothing_runs_where_nothing_is_set(tmp_path: Path) -> None:
    sequencer = Sequencer(tmp_path / "audit", SIGNER)
    made, _ = parts(tmp_path, sequencer)
    assert (made.witnesses, made.publishing, made.work(), made.degraded()) == (None, None, (), [])
    assert sequencer.published is None


async def test_a_log_without_its_quorum_is_shown_and_said(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text(f"witness w1 {KEY} http://127.0.0.1:1\nquorum w1\n")
    sequencer = Sequencer(tmp_path / "audit", SIGNER)
    await sequencer.open()
    made, metrics = parts(
        tmp_path,
        sequencer,
        witness_policy="policy",
        witness_late_s=10,
        publish_file=str(tmp_path / "checkpoints"),
    )
    await sequencer.append_receipts(up("boot", 1, 2))
    await sequencer.save_checkpoints(closing=True)
    tasks = [asyncio.create_task(work) for work in made.work()]
    await eventually(lambda: 'outcome="failed"} 1' in metrics.exposition(), "the attempt is counted")
    await eventually((tmp_path / "checkpoints").exists, "it is published")
    assert 'orgate_audit_witness_attempts_total{witness="w1",outcome="failed"} 1' in metrics.exposition()
    assert made.degraded() == []
    assert made.witnesses
    late: Sequence[float] = [25.0, 3.0, 11.0]
    made.witnesses.late = lambda: dict(zip(("a", "b", "c"), late, strict=True))  # type: ignore[method-assign, return-value, assignment]
    assert made.degraded() == [
        "the newest checkpoints of 2 audit logs have no quorum of witnesses, for 25 s at most"
    ]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await sequencer.close()
