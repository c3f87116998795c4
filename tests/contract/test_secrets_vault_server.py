"""What Orgate relies on in a Vault, one answer at a time: on the fake, and on a real server when there is one.

Where these differ, the fake is wrong.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.vault_places import place as place  # noqa: PLC0414 - a fixture
from tests.kit.vault import VaultPlace

PATH = "orgs/acme/upstreams/openai"


def login(place: VaultPlace, org: str = "acme") -> str:
    secret_id = (place.home / f"vault/{org}.secret-id").read_text()
    body = {"role_id": f"{place.prefix}-{org}", "secret_id": secret_id}
    answer = place.call("POST", "auth/approle/login", body, token="")
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["auth"]["client_token"]
    return token


@pytest.fixture
def ready(place: VaultPlace) -> VaultPlace:
    place.prepare("acme", "globex")
    return place


def errors(answer: Any) -> list[str]:
    found: list[str] = answer.json()["errors"]
    return found


def test_a_login_gives_a_token_with_its_life(ready: VaultPlace) -> None:
    body = {"role_id": f"{ready.prefix}-acme", "secret_id": (ready.home / "vault/acme.secret-id").read_text()}
    auth = ready.call("POST", "auth/approle/login", body, token="").json()["auth"]
    assert (auth["lease_duration"], auth["renewable"]) == (1200, True)
    assert auth["policies"] == sorted(["default", f"{ready.prefix}-acme"])


def test_a_wrong_secret_id_is_a_400(ready: VaultPlace) -> None:
    for body, said in (({"secret_id": "x"}, "invalid role or secret ID"), ({}, "missing secret_id")):
        answer = ready.call("POST", "auth/approle/login", {"role_id": f"{ready.prefix}-acme", **body}, token="")
        assert (answer.status_code, errors(answer)) == (400, [said])


def test_versions_count_and_carry_metadata(ready: VaultPlace) -> None:
    token = login(ready)
    for version in (1, 2):
        written = ready.call("POST", f"{ready.prefix}/data/{PATH}", {"data": {"key": f"v{version}"}}, token=token)
        assert written.status_code == 200
        assert written.json()["data"]["version"] == version
    read = ready.call("GET", f"{ready.prefix}/data/{PATH}", token=token).json()["data"]
    assert read["data"] == {"key": "v2"}
    assert set(read["metadata"]) == {"created_time", "custom_metadata", "deletion_time", "destroyed", "version"}
    known = ready.call("GET", f"{ready.prefix}/metadata/{PATH}", token=token).json()["data"]
    assert known["current_version"] == 2
    assert set(known["versions"]) == {"1", "2"}
    assert set(known["versions"]["1"]) == {"created_time", "deletion_time", "destroyed"}


def test_only_ten_versions_are_kept(ready: VaultPlace) -> None:
    token = login(ready)
    for number in range(12):
        ready.call("POST", f"{ready.prefix}/data/{PATH}", {"data": {"key": str(number)}}, token=token)
    first = ready.call("GET", f"{ready.prefix}/data/{PATH}?version=1")
    assert first.status_code == 404


def test_what_is_not_there_is_a_404_without_words(ready: VaultPlace) -> None:
    for kind in ("data", "metadata"):
        answer = ready.call("GET", f"{ready.prefix}/{kind}/orgs/acme/upstreams/none", token=login(ready))
        assert (answer.status_code, errors(answer)) == (404, [])
    nothing = ready.call("PUT", f"{ready.prefix}/destroy/orgs/acme/upstreams/none", {"versions": [1]})
    assert nothing.status_code == 204


def test_deleting_is_soft_and_destroying_is_not(ready: VaultPlace) -> None:
    data = f"{ready.prefix}/data/{PATH}"
    ready.call("POST", data, {"data": {"key": "v"}})
    assert ready.call("DELETE", data).status_code == 204
    soft = ready.call("GET", data)
    assert soft.status_code == 404
    assert soft.json()["data"]["data"] is None
    assert soft.json()["data"]["metadata"]["deletion_time"]
    assert ready.call("POST", f"{ready.prefix}/undelete/{PATH}", {"versions": [1]}).status_code == 204
    assert ready.call("GET", data).json()["data"]["data"] == {"key": "v"}
    assert ready.call("PUT", f"{ready.prefix}/destroy/{PATH}", {"versions": [1, 7]}).status_code == 204
    hard = ready.call("GET", data)
    assert hard.status_code == 404
    assert hard.json()["data"]["metadata"]["destroyed"] is True
    assert ready.call("POST", f"{ready.prefix}/undelete/{PATH}", {"versions": [1]}).status_code == 204
    assert ready.call("GET", data).status_code == 404


def test_an_engine_that_is_not_there_is_a_404_with_words(ready: VaultPlace) -> None:
    answer = ready.call("GET", "nowhere/data/x")
    assert answer.status_code == 404
    assert "no handler for route" in errors(answer)[0]


def test_a_second_mount_at_a_path_says_so(ready: VaultPlace) -> None:
    answer = ready.call("POST", f"sys/mounts/{ready.prefix}", {"type": "kv", "options": {"version": "2"}})
    assert (answer.status_code, errors(answer)) == (400, [f"path is already in use at {ready.prefix}/"])


def test_an_engine_of_the_first_version_has_no_config(ready: VaultPlace) -> None:
    ready.call("POST", f"sys/mounts/{ready.prefix}-one", {"type": "kv", "options": {"version": "1"}})
    answer = ready.call("GET", f"{ready.prefix}-one/config")
    assert (answer.status_code, errors(answer)) == (404, [])


@pytest.mark.parametrize("path", ["data/orgs/globex/upstreams/openai", "metadata/orgs", "data/x", "config"])
def test_what_the_policy_does_not_name_is_a_403(ready: VaultPlace, path: str) -> None:
    answer = ready.call("GET", f"{ready.prefix}/{path}", token=login(ready))
    assert (answer.status_code, errors(answer)) == (403, ["1 error occurred:\n\t* permission denied\n\n"])


@pytest.mark.parametrize("token", ["", "s.nobody"])
def test_a_token_that_is_not_known_is_a_403(ready: VaultPlace, token: str) -> None:
    answer = ready.call("GET", f"{ready.prefix}/data/{PATH}", token=token)
    assert (answer.status_code, errors(answer)) == (403, ["permission denied"])


def test_a_token_can_be_renewed_and_given_back(ready: VaultPlace) -> None:
    token = login(ready)
    renewed = ready.call("POST", "auth/token/renew-self", {}, token=token).json()["auth"]
    assert (renewed["client_token"], renewed["lease_duration"], renewed["renewable"]) == (token, 1200, True)
    assert ready.call("POST", "auth/token/revoke-self", {}, token=token).status_code == 204
    assert ready.call("POST", "auth/token/renew-self", {}, token=token).status_code == 403


def test_a_wrapping_token_opens_once_and_only_for_its_bearer(ready: VaultPlace) -> None:
    path = f"auth/approle/role/{ready.prefix}-acme/secret-id"
    wrapped = ready.call("POST", path, {}, x_vault_wrap_ttl="60s").json()
    assert wrapped["data"] is None
    token = wrapped["wrap_info"]["token"]
    looked = ready.call("POST", "sys/wrapping/lookup", {"token": token}, token="")
    assert looked.json()["data"]["creation_path"] == path
    anonymous = ready.call("POST", "sys/wrapping/unwrap", {"token": token}, token="")
    assert (anonymous.status_code, errors(anonymous)) == (403, ["permission denied"])
    assert "secret_id" in ready.call("POST", "sys/wrapping/unwrap", {}, token=token).json()["data"]
    again = ready.call("POST", "sys/wrapping/unwrap", {}, token=token)
    assert (again.status_code, errors(again)) == (400, ["wrapping token is not valid or does not exist"])
    gone = ready.call("POST", "sys/wrapping/lookup", {"token": token}, token="")
    assert (gone.status_code, errors(gone)) == (400, ["wrapping token is not valid or does not exist"])


def test_a_namespace_that_is_not_there_is_a_404_with_words(ready: VaultPlace) -> None:
    answer = ready.call("GET", f"{ready.prefix}/config", x_vault_namespace="nowhere")
    assert (answer.status_code, errors(answer)) == (404, ["namespace not found"])


def test_a_policy_that_does_not_parse_is_a_400(ready: VaultPlace) -> None:
    answer = ready.call("PUT", "sys/policies/acl/bad", {"policy": "path {"})
    assert answer.status_code == 400
    assert errors(answer)[0].startswith("failed to parse policy: ")
    empty = ready.call("PUT", "sys/policies/acl/bad", {"policy": ""})
    assert (empty.status_code, errors(empty)) == (400, ["'policy' parameter not supplied or empty"])


def test_a_role_that_is_not_there_is_a_404_with_words(ready: VaultPlace) -> None:
    answer = ready.call("POST", f"auth/approle/role/{ready.prefix}-none/secret-id", {})
    assert (answer.status_code, errors(answer)) == (404, [f'role "{ready.prefix}-none" does not exist'])


def test_check_and_set_holds(ready: VaultPlace) -> None:
    data = f"{ready.prefix}/data/{PATH}"
    ready.call("POST", data, {"data": {"key": "v"}})
    answer = ready.call("POST", data, {"data": {"key": "w"}, "options": {"cas": 0}})
    assert (answer.status_code, errors(answer)) == (
        400,
        ["check-and-set parameter did not match the current version"],
    )


def test_sealed_is_a_503_for_everything(ready: VaultPlace) -> None:
    token = login(ready)
    assert ready.call("GET", "sys/health", token="").status_code == 200
    with ready.sealed():
        health = ready.call("GET", "sys/health", token="")
        assert (health.status_code, health.json()["sealed"]) == (503, True)
        for method, path in (("GET", f"{ready.prefix}/data/{PATH}"), ("POST", "auth/approle/login")):
            answer = ready.call(method, path, {}, token=token)
            assert (answer.status_code, errors(answer)) == (503, ["Vault is sealed"])
    assert ready.call("GET", f"{ready.prefix}/data/{PATH}", token=token).status_code == 404
