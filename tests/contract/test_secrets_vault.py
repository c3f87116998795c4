"""Upstream keys in Vault beyond what every store does: roles, tokens, wrapping, sealing. On the fake and, when
there is one, on a real server."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from gateway.secret import Secret
from gateway.secrets.store import NoSuchSecretError, StoreUnavailableError
from gateway.secrets.vault import VaultKeys
from gateway.secrets.vault_client import VaultServer
from gateway.secrets.vault_setup import Binding, apply, new_secret_id, steps
from gateway.vault_settings import VaultSettings
from tenants.ids import OrgId
from tests.contract.test_secrets_vault_server import login
from tests.contract.vault_places import place as place  # noqa: PLC0414 - a fixture
from tests.kit.vault import VaultPlace

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
ORGS = [OrgId(name) for name in ("acme", "acme-two", "globex", "initech", "umbrella")]

Open = Callable[[VaultSettings], VaultKeys]


@pytest.fixture
async def opened(place: VaultPlace) -> AsyncIterator[Open]:
    made: list[VaultKeys] = []

    def open_one(vault: VaultSettings) -> VaultKeys:
        made.append(place.keys(vault))
        return made[-1]

    yield open_one
    for keys in made:
        await keys.aclose()


async def test_no_role_reads_or_changes_another_organization_s_keys(place: VaultPlace, opened: Open) -> None:
    vault = place.prepare(*ORGS)
    keys = opened(vault)
    for org in ORGS:
        await keys.put(org, "openai", Secret(f"sk-of-{org}"))
    tokens = {org: login(place, org) for org in ORGS}
    tried = 0
    for mine, theirs in itertools.product(ORGS, ORGS):
        path = f"orgs/{theirs}/upstreams/openai"
        for method, kind, body in (
            ("GET", "data", None),
            ("GET", "metadata", None),
            ("POST", "data", {"data": {"key": "stolen"}}),
            ("PUT", "destroy", {"versions": [1]}),
        ):
            if mine == theirs and kind == "destroy":
                continue
            answer = place.call(method, f"{place.prefix}/{kind}/{path}", body, token=tokens[mine])
            assert (answer.status_code == 403) == (mine != theirs), (mine, theirs, kind, answer.text)
            assert mine == theirs or f"sk-of-{theirs}" not in answer.text
            tried += 1
        for kind in ("delete", "undelete", "subkeys"):
            answer = place.call("POST", f"{place.prefix}/{kind}/{path}", {"versions": [1]}, token=tokens[mine])
            assert answer.status_code == 403, (mine, theirs, kind, answer.text)
            tried += 1
        listing = place.call("LIST", f"{place.prefix}/metadata/orgs/{theirs}/upstreams", token=tokens[mine])
        assert listing.status_code == 403
        removal = place.call("DELETE", f"{place.prefix}/metadata/{path}", token=tokens[mine])
        assert removal.status_code == 403
    assert tried == 7 * len(ORGS) ** 2 - len(ORGS)


async def test_a_path_that_climbs_out_leads_nowhere(place: VaultPlace) -> None:
    place.prepare(ACME, GLOBEX)
    place.call("POST", f"{place.prefix}/data/orgs/globex/upstreams/openai", {"data": {"key": "sk-globex"}})
    token = login(place, "acme")
    for path in ("orgs/acme/upstreams/../../globex/upstreams/openai", "orgs/acme/upstreams/%2e%2e/%2e%2e/globex"):
        answer = place.call("GET", f"{place.prefix}/data/{path}", token=token)
        assert answer.status_code in (400, 403, 404)
        assert "sk-globex" not in answer.text


async def test_the_older_versions_are_destroyed(place: VaultPlace, opened: Open) -> None:
    keys = opened(place.prepare(ACME))
    for n in range(1, 5):
        await keys.put(ACME, "openai", Secret(f"sk-{n}"))
    known = place.call("GET", f"{place.prefix}/metadata/orgs/acme/upstreams/openai").json()["data"]["versions"]
    assert {number: state["destroyed"] for number, state in known.items()} == {
        "1": True,
        "2": True,
        "3": True,
        "4": False,
    }


async def test_a_key_deleted_softly_by_another_hand_is_gone_until_it_is_back(
    place: VaultPlace, opened: Open
) -> None:
    keys = opened(place.prepare(ACME))
    await keys.put(ACME, "openai", Secret("sk-1"))
    path = "orgs/acme/upstreams/openai"
    place.call("DELETE", f"{place.prefix}/data/{path}")
    with pytest.raises(NoSuchSecretError):
        await keys.get(ACME, "openai")
    place.call("POST", f"{place.prefix}/undelete/{path}", {"versions": [1]})
    assert (await keys.get(ACME, "openai")).version == 1
    place.call("DELETE", f"{place.prefix}/data/{path}")
    with pytest.raises(NoSuchSecretError):
        await keys.delete(ACME, "openai")  # it was gone; now it cannot come back either
    place.call("POST", f"{place.prefix}/undelete/{path}", {"versions": [1]})
    with pytest.raises(NoSuchSecretError):
        await keys.get(ACME, "openai")


@pytest.mark.parametrize("where", [{"mount": "nowhere"}, {"namespace": "nowhere"}])
async def test_an_engine_or_a_namespace_that_is_not_there_takes_no_key_away(
    place: VaultPlace, opened: Open, where: dict[str, str]
) -> None:
    token = place.home / "token"
    token.write_text(place.root)
    token.chmod(0o600)
    keys = opened(place.settings(auth="token", credential="token", **where))
    for attempt in (keys.get(ACME, "openai"), keys.delete(ACME, "openai"), keys.put(ACME, "openai", Secret("sk"))):
        with pytest.raises(StoreUnavailableError, match="has nothing there"):
            await attempt


@pytest.mark.parametrize(
    "data", [{"api_key": "sk"}, {"key": ""}, {"key": 7}, {"key": "a\nb"}, {"key": "x" * 8193}, {"key": "ключ"}, {}]
)
async def test_a_secret_that_holds_no_key_is_a_fault_and_not_an_absence(
    place: VaultPlace, opened: Open, data: object
) -> None:
    keys = opened(place.prepare(ACME))
    place.call("POST", f"{place.prefix}/data/orgs/acme/upstreams/openai", {"data": data})
    with pytest.raises(StoreUnavailableError, match="has no field 'key'"):
        await keys.get(ACME, "openai")


async def test_a_secret_of_a_megabyte_is_refused_unread(place: VaultPlace, opened: Open) -> None:
    keys = opened(place.prepare(ACME))
    huge = {"data": {"key": "sk", "note": "x" * 2**20}}
    assert place.call("POST", f"{place.prefix}/data/orgs/acme/upstreams/openai", huge).status_code == 200
    with pytest.raises(StoreUnavailableError, match="more than 64 KiB"):
        await keys.get(ACME, "openai")
    with pytest.raises(ValueError, match="8192"):
        await keys.put(ACME, "openai", Secret("x" * 2**20))


async def test_a_token_that_was_revoked_is_replaced(place: VaultPlace, opened: Open) -> None:
    keys = opened(place.prepare(ACME))
    await keys.put(ACME, "openai", Secret("sk-1"))
    held = keys._roles[ACME].token
    assert held is not None
    assert place.call("POST", "auth/token/revoke-self", token=held.value.reveal().decode()).status_code == 204
    assert (await keys.get(ACME, "openai")).version == 1


async def test_tokens_are_renewed_and_replaced_near_their_maximum(place: VaultPlace, opened: Open) -> None:
    vault = place.prepare(ACME)
    role = f"auth/approle/role/{place.prefix}-acme"
    lives = {"token_ttl": "2s", "token_max_ttl": "4s", "token_policies": [f"{place.prefix}-acme"]}
    assert place.call("POST", role, lives).status_code == 204
    keys = opened(vault)
    await keys.put(ACME, "openai", Secret("sk-1"))
    first = keys._roles[ACME].token
    assert first is not None
    end = time.monotonic() + 60
    current = first
    while current.value.reveal() == first.value.reveal():
        assert time.monotonic() < end, "never replaced"
        assert (await keys.get(ACME, "openai")).version == 1
        latest = keys._roles[ACME].token
        assert latest is not None
        current = latest
        await asyncio.sleep(0.05)
    assert current.lease_s == 2


async def test_a_secret_id_that_was_taken_back_is_named(place: VaultPlace, opened: Open) -> None:
    vault = place.prepare(ACME)
    path = f"auth/approle/role/{place.prefix}-acme/secret-id/destroy"
    secret_id = (place.home / "vault/acme.secret-id").read_text()
    assert place.call("POST", path, {"secret_id": secret_id}).status_code == 204
    with pytest.raises(StoreUnavailableError, match=f"role {place.prefix}-acme .* may have expired"):
        await opened(vault).get(ACME, "openai")


async def test_a_role_without_its_policy_is_told_so(place: VaultPlace, opened: Open) -> None:
    vault = place.prepare(ACME)
    nothing = {"policy": 'path "elsewhere/*" {\n  capabilities = ["read"]\n}\n'}
    assert place.call("PUT", f"sys/policies/acl/{place.prefix}-acme", nothing).status_code == 204
    keys = opened(vault)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="denies permission"):
            await keys.get(ACME, "openai")


async def test_sealed_it_is_unavailable_and_unsealed_it_serves(place: VaultPlace, opened: Open) -> None:
    keys = opened(place.prepare(ACME))
    await keys.put(ACME, "openai", Secret("sk-1"))
    with place.sealed():
        for attempt in (keys.get(ACME, "openai"), keys.put(ACME, "openai", Secret("sk-2"))):
            with pytest.raises(StoreUnavailableError, match="sealed"):
                await attempt
    assert (await keys.get(ACME, "openai")).secret.reveal() == b"sk-1"


async def test_a_wrapped_secret_id_is_unwrapped_once_and_kept(place: VaultPlace, opened: Open) -> None:
    vault = place.prepare(ACME, wrap="60s", wrapped=True)
    await opened(vault).put(ACME, "openai", Secret("sk-1"))
    assert (await opened(vault).get(ACME, "openai")).version == 1  # a restart
    (place.home / "secrets.sealed").unlink()
    with pytest.raises(StoreUnavailableError, match="was unwrapped before"):
        await opened(vault).get(ACME, "openai")
    server = VaultServer(vault, place.home, threads=1)
    place.credential(ACME, new_secret_id(server, vault, ACME, Secret(place.root), "60s"))
    assert (await opened(vault).get(ACME, "openai")).version == 1
    server.close()


async def test_a_wrapping_token_of_something_else_is_refused(place: VaultPlace, opened: Open) -> None:
    vault = place.prepare(ACME, GLOBEX, wrap="60s", wrapped=True)
    exchanged = (place.home / "vault/globex.secret-id").read_bytes()
    place.credential(ACME, Secret(exchanged))
    with pytest.raises(StoreUnavailableError, match="somebody may have exchanged it"):
        await opened(vault).get(ACME, "openai")


class Issuer:
    """Signs JWTs, and is known to the server at its own mount."""

    def __init__(self, place: VaultPlace) -> None:
        self.mount = place.prefix + "-jwt"
        self._key = RSAKey.generate_key(2048)
        self._path = place.home / "identity"
        self._place = place

    def configure(self) -> None:
        config = {"jwt_validation_pubkeys": [self._key.as_pem(private=False).decode()]}
        assert self._place.call("POST", f"auth/{self.mount}/config", config).status_code == 204

    def sign(self, key: RSAKey | None = None, **claims: object) -> None:
        now = int(time.time())
        whole = {"sub": "gateway@ci", "aud": "vault", "iat": now, "exp": now + 600, **claims}
        self._path.write_text(jwt.encode({"alg": "RS256"}, whole, key or self._key))


async def test_one_jwt_logs_in_as_the_role_of_each_organization(place: VaultPlace, opened: Open) -> None:
    issuer = Issuer(place)
    vault = place.settings(auth="jwt", auth_mount=issuer.mount, credential="identity")
    server = VaultServer(vault, place.home, threads=1)
    for org in (ACME, GLOBEX):
        binding = Binding(subject="gateway@ci", audience="vault")
        list(apply(server, vault, org, Secret(place.root), steps(vault, org, binding)))
    server.close()
    issuer.configure()
    issuer.sign()
    keys = opened(vault)
    for org in (ACME, GLOBEX):
        await keys.put(org, "openai", Secret(f"sk-{org}"))
    for org, other in ((ACME, GLOBEX), (GLOBEX, ACME)):
        held = keys._roles[org].token
        assert held is not None
        path = f"{place.prefix}/data/orgs/{other}/upstreams/openai"
        assert place.call("GET", path, token=held.value.reveal().decode()).status_code == 403
    for wrong in ({"sub": "somebody"}, {"aud": "elsewhere"}, {"exp": int(time.time()) - 3600, "iat": 1}):
        issuer.sign(**wrong)
        with pytest.raises(StoreUnavailableError, match="may have expired"):
            await opened(vault).get(ACME, "openai")
    issuer.sign(RSAKey.generate_key(2048))
    with pytest.raises(StoreUnavailableError, match="no known key"):
        await opened(vault).get(ACME, "openai")


async def test_processes_that_start_together_share_one_unwrapping(place: VaultPlace, opened: Open) -> None:
    vault = place.prepare(ACME, wrap="60s", wrapped=True)
    stores = [opened(vault) for _ in range(4)]
    answers = await asyncio.gather(*(store.get(ACME, "openai") for store in stores), return_exceptions=True)
    assert any(isinstance(answer, NoSuchSecretError) for answer in answers)  # logged in: there is no key yet
    for store in stores:  # whoever came second finds what the first has kept
        with pytest.raises(NoSuchSecretError):
            await store.get(ACME, "openai")


async def test_a_namespace_is_a_world_of_its_own(place: VaultPlace, opened: Open) -> None:
    if place.call("POST", f"sys/namespaces/{place.prefix}", {}).status_code != 200:
        pytest.skip("this server has no namespaces")
    keys = opened(place.prepare(ACME, namespace=place.prefix, auth_mount="apps"))
    await keys.put(ACME, "openai", Secret("sk-1"))
    assert (await keys.get(ACME, "openai")).secret.reveal() == b"sk-1"
    inside = {"x_vault_namespace": place.prefix}
    path = f"{place.prefix}/data/orgs/acme/upstreams/openai"
    assert place.call("GET", path, **inside).status_code == 200
    assert place.call("GET", path).status_code == 404


async def test_setting_up_twice_is_harmless(place: VaultPlace, opened: Open) -> None:
    place.prepare(ACME)
    keys = opened(place.prepare(ACME))
    assert await keys.put(ACME, "openai", Secret("sk-1")) == 1


async def test_an_engine_of_the_first_version_is_refused_at_setup(place: VaultPlace) -> None:
    place.call("POST", f"sys/mounts/{place.prefix}", {"type": "kv", "options": {"version": "1"}})
    with pytest.raises(StoreUnavailableError, match="no KV v2 engine"):
        place.prepare(ACME)


async def test_a_setup_without_rights_says_so(place: VaultPlace) -> None:
    vault = place.prepare(ACME)
    server = VaultServer(vault, place.home, threads=1)
    with pytest.raises(StoreUnavailableError, match="denies permission"):
        list(apply(server, vault, ACME, Secret(login(place)), steps(vault, ACME, Binding())))
    server.close()


async def test_tokens_are_given_back_at_the_end(place: VaultPlace, opened: Open) -> None:
    keys = opened(place.prepare(ACME))
    await keys.put(ACME, "openai", Secret("sk-1"))
    held = keys._roles[ACME].token
    assert held is not None
    await keys.aclose()
    assert place.call("POST", "auth/token/renew-self", {}, token=held.value.reveal().decode()).status_code == 403
