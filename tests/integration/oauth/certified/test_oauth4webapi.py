"""oauth4webapi (certified) against the running gateway: it also judges our access tokens, as a resource server."""

from __future__ import annotations

import pytest

from tests.integration.oauth.certified.conftest import House
from tests.integration.oauth.certified.library import Library

KEYS = [(None, "bearer"), ("ES256", "dpop"), ("Ed25519", "dpop")]


@pytest.mark.parametrize(
    ("alg", "kind", "push"), [(None, "bearer", False), ("ES256", "dpop", True), ("Ed25519", "dpop", False)]
)
def test_code_with_pkce_refresh_and_revocation(
    oauth4webapi: Library, alg: str | None, kind: str, push: bool
) -> None:
    found = oauth4webapi.run("code", client="acme.app", alg=alg, push=push)
    assert (found["kind"], found["revoked"]) == (kind, "invalid_grant")
    assert found["judged"] == found["renewed"]
    assert found["judged"].pop("sub").startswith("mem_")
    assert found["judged"] == {"status": 200, "client": "acme.app", "bound": kind == "dpop"}


def test_a_person_who_says_no(oauth4webapi: Library) -> None:
    assert oauth4webapi.run("refused", client="acme.app") == "access_denied"


@pytest.mark.parametrize(("alg", "kind"), KEYS)
def test_the_device_flow(oauth4webapi: Library, alg: str | None, kind: str) -> None:
    found = oauth4webapi.run("device", client="orgate-cli", alg=alg)
    assert (found["pending"], found["hasty"], found["twice"]) == (
        "authorization_pending",
        "slow_down",
        "invalid_grant",
    )
    assert (found["kind"], found["judged"]["bound"]) == (kind, kind == "dpop")


@pytest.mark.parametrize(("alg", "kind"), KEYS)
def test_client_credentials_and_introspection(
    oauth4webapi: Library, house: House, alg: str | None, kind: str
) -> None:
    found = oauth4webapi.run("credentials", client="acme.backend", secret=house.secrets["backend"], alg=alg)
    assert (found["kind"], found["active"], found["judged"]["sub"]) == (kind, True, house.service)
