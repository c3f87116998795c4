"""Vault when it is not well, and what of a key may be seen then. All against the fake, over a socket."""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.secret import Secret
from gateway.secrets.lease import KeyLeases
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError
from gateway.secrets.vault import QUIET_S, RENEW_AT, VaultKeys
from gateway.secrets.vault_client import VaultServer
from gateway.secrets.vault_setup import Binding, SetupError, apply, policy, steps
from gateway.vault_settings import VaultSettings
from tenants.ids import OrgId
from tests.fakes.vault import FakeVault
from tests.kit.certs import Pki
from tests.kit.ports import free_port
from tests.kit.vault import VaultPlace, vault_place

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
KEY = "sk-planted-7c1d9e"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[VaultPlace]:
    with vault_place("fake", tmp_path) as made:
        yield made


@pytest.fixture
def fake(place: VaultPlace) -> FakeVault:
    assert place.fake is not None
    return place.fake


@pytest.fixture
async def keys(place: VaultPlace) -> AsyncIterator[VaultKeys]:
    """Acme's key is stored, and its role has logged in."""
    made = place.keys(place.prepare(ACME, GLOBEX, timeout_s=1))
    await made.put(ACME, "openai", Secret(KEY))
    yield made
    await made.aclose()


def shown(error: BaseException) -> str:
    """Everything a careless handler could write: the chain, the frames but the test's own, and what is in them."""
    assert error.__traceback__ is not None
    below = error.__traceback__.tb_next
    told = traceback.TracebackException(type(error), error, below, capture_locals=True)
    text = "".join(told.format())
    assert "vault.py" in text
    return text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "refuses"),
        (403, "denies permission"),
        (429, "standby, or limits"),
        (472, "disaster-recovery"),
        (473, "performance standby"),
        (474, "lost its active"),
        (500, "fails"),
        (501, "not initialized"),
        (502, "fails"),
        (503, "sealed or down"),
        (504, "fails"),
        (530, "removed from its cluster"),
    ],
)
async def test_every_status_is_told_apart(keys: VaultKeys, fake: FakeVault, status: int, words: str) -> None:
    fake.status = status
    for attempt in (
        keys.get(ACME, "openai"),
        keys.put(ACME, "openai", Secret(KEY)),
        keys.delete(ACME, "openai"),
        keys.get(GLOBEX, "openai"),
    ):
        with pytest.raises(StoreUnavailableError, match=f"{words}.*{status}") as caught:
            await attempt
        assert KEY not in shown(caught.value)
    fake.status = 0
    assert (await keys.get(ACME, "openai")).secret.reveal() == KEY.encode()


async def test_a_standby_s_redirect_is_not_followed(keys: VaultKeys, fake: FakeVault) -> None:
    with FakeVault() as other:
        fake.condition, fake.elsewhere = "standby", other.address
        with pytest.raises(StoreUnavailableError, match="redirects to another server, which is not followed"):
            await keys.get(ACME, "openai")
        assert other.seen == []


async def test_a_server_that_does_not_answer_is_given_up(keys: VaultKeys, fake: FakeVault) -> None:
    with fake.held(), pytest.raises(StoreUnavailableError, match=r"(within|in) 1 s") as caught:
        await keys.get(ACME, "openai")
    assert KEY not in shown(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'"x"',
        b"<html>",
        b"[" * 60_000,
        b'{"data":{"data":{"key":"%s"}}}' % KEY.encode(),
        b'{"data":{"data":{"key":"%s"},"metadata":{"version":"1"}}}' % KEY.encode(),
        b'{"data":null}',
        b"\xff\xfe",
        b'{"data":{"data":{"key":"' + b"%s" % KEY.encode() * 8192 + b'"}}}',
    ],
)
async def test_an_answer_that_is_no_vault_s_is_a_fault(keys: VaultKeys, fake: FakeVault, body: bytes) -> None:
    fake.body = body
    for attempt in (keys.get(ACME, "openai"), keys.put(ACME, "openai", Secret(KEY)), keys.get(GLOBEX, "openai")):
        with pytest.raises(StoreUnavailableError) as caught:
            await attempt
        assert KEY not in shown(caught.value)


async def test_a_404_that_is_no_vault_s_does_not_take_a_key_away(keys: VaultKeys, fake: FakeVault) -> None:
    leases = KeyLeases(keys, lambda: 100.0)
    held = await leases.lease(ACME, "openai", 1)
    fake.status, fake.body = 404, b"<html>not found</html>"
    with pytest.raises(StoreUnavailableError, match="has nothing there"):
        await keys.get(ACME, "openai")
    assert leases.peek(ACME, "openai", 1) is held


async def test_nobody_at_the_address(tmp_path: Path) -> None:
    vault = VaultSettings(address=f"http://127.0.0.1:{free_port()}")
    with vault_place("fake", tmp_path) as place:
        place.credential(ACME, Secret("s"))
        keys = place.keys(vault)
        with pytest.raises(StoreUnavailableError, match="no connection"):
            await keys.get(ACME, "openai")
        await keys.aclose()


async def test_only_its_own_authority_is_believed(pki: Pki, tmp_path: Path) -> None:
    with FakeVault(tls=pki.server_context(("http/1.1",))) as fake:
        path = tmp_path / "vault/acme.secret-id"
        path.parent.mkdir()
        path.write_text("x")
        path.chmod(0o600)
        for ca, words in (
            ("", "certificate is not trusted"),
            (str(pki.files.ca), "invalid role or secret ID|refused"),
        ):
            vault = VaultSettings(address=fake.address, ca=ca)
            server = VaultServer(vault, tmp_path, threads=1)
            if ca:
                list(apply(server, vault, ACME, Secret("root"), steps(vault, ACME, Binding())))
            keys = VaultKeys(vault, tmp_path, _Nothing(), lambda: 0.0)
            with pytest.raises(StoreUnavailableError, match=words):
                await keys.get(ACME, "openai")
            await keys.aclose()
            server.close()
        with pytest.raises(StoreUnavailableError, match=r"vault\.ca: there is no file"):
            VaultKeys(VaultSettings(address=fake.address, ca="none.pem"), tmp_path, _Nothing(), lambda: 0.0)
        broken = tmp_path / "broken.pem"
        broken.write_text("no PEM")
        keys = VaultKeys(VaultSettings(address=fake.address, ca=str(broken)), tmp_path, _Nothing(), lambda: 0.0)
        with pytest.raises(StoreUnavailableError):
            await keys.get(ACME, "openai")
        await keys.aclose()


class _Nothing:
    async def load(self, name: str) -> Secret | None:
        return None

    async def store(self, name: str, secret: Secret) -> None:
        raise AssertionError("nothing is kept unless it was wrapped")


async def test_nothing_is_taken_from_the_environment(
    place: VaultPlace, fake: FakeVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".vault-token").write_text("from-home")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login x password y\n")
    nowhere = f"http://127.0.0.1:{free_port()}"
    for name, value in (
        ("HOME", str(tmp_path)),
        ("NETRC", str(tmp_path / ".netrc")),
        ("VAULT_TOKEN", "from-environment"),
        ("VAULT_ADDR", nowhere),
        ("VAULT_NAMESPACE", "elsewhere"),
        ("HTTP_PROXY", nowhere),
        ("ALL_PROXY", nowhere),
    ):
        monkeypatch.setenv(name, value)
    keys = place.keys(place.prepare(ACME))
    await keys.put(ACME, "openai", Secret(KEY))
    await keys.aclose()
    assert {seen.token for seen in fake.calls("/login")} == {""}
    assert {seen.namespace for seen in fake.seen} == {""}


@pytest.mark.parametrize("mode", [0o640, 0o604])
async def test_a_credential_that_others_can_read_is_refused(place: VaultPlace, mode: int) -> None:
    vault = place.prepare(ACME)
    (place.home / "vault/acme.secret-id").chmod(mode)
    keys = place.keys(vault)
    with pytest.raises(StoreUnavailableError, match="chmod 600"):
        await keys.get(ACME, "openai")
    await keys.aclose()


@pytest.mark.parametrize("text", ["", " \n", "x" * 20_000, "schlüssel"])
async def test_a_credential_that_is_none_is_refused(place: VaultPlace, text: str) -> None:
    vault = place.prepare(ACME)
    place.credential(ACME, Secret(text))
    keys = place.keys(vault)
    with pytest.raises(StoreUnavailableError, match="empty, too long or no ASCII") as caught:
        await keys.get(ACME, "openai")
    assert text.strip() == "" or text not in shown(caught.value)
    await keys.aclose()


async def test_an_organization_that_was_not_set_up_is_told_how(keys: VaultKeys) -> None:
    with pytest.raises(StoreUnavailableError, match="vault-setup --org initech"):
        await keys.get(OrgId("initech"), "openai")


async def test_many_readers_log_in_once(place: VaultPlace, fake: FakeVault) -> None:
    vault = place.prepare(ACME)
    first = place.keys(vault)
    await first.put(ACME, "openai", Secret(KEY))
    await first.aclose()
    before = len(fake.calls("/login"))
    keys = place.keys(vault)
    found = await asyncio.gather(*(keys.get(ACME, "openai") for _ in range(20)))
    assert {one.version for one in found} == {1}
    assert len(fake.calls("/login")) == before + 1
    await keys.aclose()


async def test_a_restart_of_the_server_costs_one_login(keys: VaultKeys, fake: FakeVault) -> None:
    fake.forget_tokens()
    before = len(fake.calls("/login"))
    assert (await keys.get(ACME, "openai")).version == 1
    assert len(fake.calls("/login")) == before + 1


async def test_a_quiet_organization_s_token_is_given_back(place: VaultPlace, fake: FakeVault) -> None:
    now = [0.0]
    vault = place.prepare(ACME)
    keys = VaultKeys(vault, place.home, _Nothing(), lambda: now[0])
    await keys.put(ACME, "openai", Secret(KEY))
    role = keys._roles[ACME]
    await keys._tend(role)
    assert len(fake.calls("renew-self")) == 1
    now[0] += QUIET_S
    await keys._tend(role)
    assert role.token is None
    assert len(fake.calls("revoke-self")) == 1
    assert (await keys.get(ACME, "openai")).version == 1
    await keys.aclose()


async def test_before_its_maximum_a_token_is_replaced_and_never_ends_in_use(
    place: VaultPlace, fake: FakeVault
) -> None:
    now = [0.0]
    fake._clock = lambda: now[0]
    keys = VaultKeys(place.prepare(ACME), place.home, _Nothing(), lambda: now[0])
    await keys.put(ACME, "openai", Secret(KEY))
    role = keys._roles[ACME]
    logins = len(fake.calls("/login"))
    for _ in range(3 * 24 * 5):  # a token lives 20 minutes, and 24 hours at most: three days of renewals
        assert role.token is not None
        assert role.token.lease_s >= 600  # and so no crowd of ever shorter renewals at the end
        now[0] += role.token.lease_s * RENEW_AT
        role.used_at = now[0]
        assert now[0] < role.token_ends
        await keys._tend(role)
        if now[0] > 3 * 86_400:
            break
    assert now[0] > 3 * 86_400
    assert len(fake.calls("/login")) - logins == 3
    await keys.aclose()


async def test_a_renewal_that_fails_is_tried_again_while_the_token_lives(
    keys: VaultKeys, fake: FakeVault, caplog: pytest.LogCaptureFixture
) -> None:
    role = keys._roles[ACME]
    fake.status = 503
    await keys._tend(role)
    assert "was not renewed" in caplog.text
    assert role.token is not None
    assert role.timer is not None
    assert not role.timer.cancelled()


async def test_one_service_account_logs_in_as_the_role_of_each_organization(place: VaultPlace) -> None:
    vault = place.settings(auth="kubernetes", credential="identity")
    binding = Binding(service_account="gateways/orgate")
    server = VaultServer(vault, place.home, threads=1)
    for org in (ACME, GLOBEX):
        list(apply(server, vault, org, Secret(place.root), steps(vault, org, binding)))
    server.close()
    identity = place.home / "identity"
    identity.write_text("token-of-gateways/orgate")
    keys = place.keys(vault)
    for org in (ACME, GLOBEX):
        await keys.put(org, "openai", Secret(f"sk-{org}"))
    identity.write_text("token-of-somebody-else")  # read anew at each login
    keys._roles[ACME].token = None
    with pytest.raises(StoreUnavailableError, match="may have expired"):
        await keys.get(ACME, "openai")
    await keys.aclose()


async def test_a_development_token_warns(place: VaultPlace, caplog: pytest.LogCaptureFixture) -> None:
    place.prepare(ACME)
    (place.home / "token").write_text(place.root)
    (place.home / "token").chmod(0o600)
    keys = place.keys(place.settings(auth="token", credential="token"))
    assert "for development only" in caplog.text
    assert await keys.put(ACME, "openai", Secret(KEY)) == 1
    await keys.aclose()
    assert place.call("GET", "auth/token/lookup-self").status_code == 200  # it is not ours to give back


async def test_versions_that_could_not_be_destroyed_are_told(
    keys: VaultKeys, place: VaultPlace, caplog: pytest.LogCaptureFixture
) -> None:
    writing = f'path "{place.prefix}/data/orgs/acme/*" {{\n capabilities = ["create", "update", "read"]\n}}'
    place.call("PUT", f"sys/policies/acl/{place.prefix}-acme", {"policy": writing})
    assert await keys.put(ACME, "openai", Secret("sk-2")) == 2
    assert "could not be destroyed" in caplog.text
    assert "sk-2" not in caplog.text


async def test_a_planted_key_is_in_no_log_at_debug(
    place: VaultPlace, fake: FakeVault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "hvac"):  # even if somebody turned them up
        logging.getLogger(name).setLevel(logging.DEBUG)
    keys = place.keys(place.prepare(ACME))
    await keys.put(ACME, "openai", Secret(KEY))
    await keys.get(ACME, "openai")
    fake.body = b'{"data":{"data":{"key":"%s"}}}' % KEY.encode()
    with pytest.raises(StoreUnavailableError):
        await keys.get(ACME, "openai")
    fake.body = None
    held = keys._roles[ACME].token
    assert held is not None
    secret_id = (place.home / "vault/acme.secret-id").read_text()
    await keys.delete(ACME, "openai")
    with pytest.raises(NoSuchSecretError):
        await keys.get(ACME, "openai")
    await keys.aclose()
    assert "/v1/" in caplog.text  # it was really turned up
    for secret in (KEY, held.value.reveal().decode(), secret_id):
        assert secret not in caplog.text


def test_what_is_secret_cannot_be_pickled_or_shown() -> None:
    secret = Secret(KEY)
    assert KEY not in f"{secret!r} {secret} {secret:>20} {[secret]}"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(secret, protocol)
    with pytest.raises(AttributeError):
        secret.value  # type: ignore[attr-defined]  # noqa: B018


def test_setup_asks_for_what_a_method_needs() -> None:
    for auth, binding in (("kubernetes", Binding(service_account="orgate")), ("jwt", Binding(subject="x"))):
        with pytest.raises(SetupError, match="Give"):
            steps(VaultSettings.model_validate({"auth": auth}), ACME, binding)
    with pytest.raises(SetupError, match=r"choose vault\.auth"):
        steps(VaultSettings(auth="token"), ACME, Binding())


@pytest.mark.parametrize(
    ("auth", "binding", "said"),
    [
        (
            "approle",
            Binding(service_account="gateways/orgate"),
            "--service-account goes with vault.auth = kubernetes",
        ),
        ("jwt", Binding("gateways/orgate", "x", "y"), "--service-account goes with .* it is jwt"),
        ("kubernetes", Binding("gateways/orgate", subject="x"), "--subject goes with vault.auth = jwt"),
        (
            "approle",
            Binding(audience="y"),
            "--audience goes with vault.auth = jwt or kubernetes, and it is approle",
        ),
    ],
)
def test_setup_refuses_what_a_method_has_no_use_for(auth: str, binding: Binding, said: str) -> None:
    """Silently left out, it would look as if only those pods could log in."""
    with pytest.raises(SetupError, match=said):
        steps(VaultSettings.model_validate({"auth": auth}), ACME, binding)


def test_the_policy_names_one_organization_and_nothing_broader() -> None:
    text = policy(VaultSettings(mount="kv/models"), ACME)
    paths = [line.split('"')[1] for line in text.splitlines() if line.startswith("path")]
    assert paths == [f"kv/models/{part}/orgs/acme/upstreams/*" for part in ("data", "metadata", "destroy")]
    assert "sudo" not in text
