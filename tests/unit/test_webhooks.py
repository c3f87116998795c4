"""Messages as standardwebhooks.com has them, and where they may go."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from ipaddress import ip_network

import pytest

import gateway.webhooks
from gateway.secret import Secret
from gateway.upstream.addresses import Network
from gateway.webhooks import DeliveryError, WebhookPost, message, signature
from tenants.budgets import Webhook
from tenants.ids import OrgId
from tests.kit.certs import Pki
from tests.kit.receiver import Receiver, receiving
from tests.unit.test_deliveries import Time

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


async def post(url: str, *, allowed: Sequence[Network] = LOOPBACK, ca_pem: str = "") -> int:
    hook = Webhook(OrgId("acme"), url, ca_pem)
    return await WebhookPost(Time(), allowed=allowed).post(hook, Secret(SECRET), "msg_1", b'{"test": 2432232314}')


def test_the_signature_is_the_standards_own_example() -> None:
    """From the test vectors of the reference libraries."""
    signed = signature(Secret(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    with pytest.raises(ValueError, match="whsec_"):
        signature(Secret("sk-1"), "msg_1", 1, b"")


def test_a_message_has_its_type_its_time_and_its_data() -> None:
    assert message("a.b", 1_800_000_000, {"n": 1}) == (
        b'{"type":"a.b","timestamp":"2027-01-15T08:00:00Z","data":{"n":1}}'
    )


async def test_what_arrives_is_signed_and_says_when(receiver: Receiver) -> None:
    assert await post(receiver.url + "/in?token=t0p") == 204
    (got,) = receiver.got
    assert (got.path, got.headers["content-type"]) == ("/in?token=t0p", "application/json")
    assert (got.headers["webhook-id"], got.headers["webhook-timestamp"]) == ("msg_1", str(int(Time().now())))
    assert got.signed_with(SECRET)
    assert not got.signed_with("whsec_" + "A" * 32)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 410, 500, 503])
async def test_only_a_2xx_is_a_success_and_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    receiver.statuses = [status]
    with pytest.raises(DeliveryError, match=f"status {status}") as failed:
        await post(receiver.url)
    assert failed.value.status == status
    assert len(receiver.got) == 1


async def test_no_address_of_our_own_network_is_dialled(receiver: Receiver) -> None:
    with pytest.raises(DeliveryError, match="loopback address, which is not allowed"):
        await post(receiver.url, allowed=())
    with pytest.raises(DeliveryError, match="not allowed"):
        await post("http://169.254.169.254/latest/meta-data")
    assert receiver.got == []


async def test_a_receiver_that_is_not_there_or_hangs(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeliveryError, match="the receiver refused the connection"):
        await post("http://127.0.0.1:1")
    monkeypatch.setattr(gateway.webhooks, "TIMEOUT_S", 0.05)
    receiver.hold = threading.Event()
    with pytest.raises(DeliveryError, match="no answer in"):
        await post(receiver.url)


async def test_tls_is_verified_with_the_receivers_ca(pki: Pki) -> None:
    with receiving(pki.server_context(["http/1.1"])) as receiver:
        assert await post(receiver.url, ca_pem=pki.files.ca.read_text()) == 204
        with pytest.raises(DeliveryError, match="the receiver's certificate was refused"):
            await post(receiver.url)
        assert len(receiver.got) == 1
