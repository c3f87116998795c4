"""`orgate login --dpop` and everything after it against the running gateway."""

from __future__ import annotations

from pathlib import Path

from tests.integration.oauth.certified.conftest import House
from tests.kit.gateway import PASSWORD
from tests.kit.orgate import Orgate


def test_an_organization_that_requires_proofs_is_run_with_a_bound_login(house: House, tmp_path: Path) -> None:
    orgate = Orgate(tmp_path / "config")
    gateway = house.gateway
    where = ("--server", gateway.url, "--admin-url", gateway.admin_url, "--ca", str(gateway.ca), "--org", "acme")
    login = ("login", *where, "--email", house.person.email, "--password-stdin")

    orgate(*login, "--dpop", given=PASSWORD + "\n")
    assert "key" in orgate("token", expect=1)
    orgate("org", "set", "--dpop", "required")
    try:
        assert "login --dpop" in Orgate(tmp_path / "other").run(*login, given=PASSWORD + "\n").stderr
        refused = gateway.http.get(f"{gateway.url}/v1/models", headers=house.owner.bearer)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith('DPoP error="invalid_token"')
        orgate("audit", "export", str(tmp_path / "log.jsonl"), "--format", "jsonl")  # whose answer is a stream
        assert "org.update" in (tmp_path / "log.jsonl").read_text()
    finally:
        orgate("org", "set", "--dpop", "optional")
    assert gateway.http.get(f"{gateway.url}/v1/models", headers=house.owner.bearer).status_code == 200


def test_where_no_token_is_bound_the_login_says_so(house: House, tmp_path: Path) -> None:
    operator = next(one for one in house.gateway.installed.people if one.org == "platform")
    refused = Orgate(tmp_path / "config").run(
        *("login", "--server", house.gateway.url, "--admin-url", house.gateway.admin_url),
        *("--ca", str(house.gateway.ca), "--org", "platform", "--email", operator.email),
        *("--invitation", operator.invitation, "--password-stdin", "--dpop"),
        given=PASSWORD + "\n",
    )
    assert (refused.returncode, "orgate org set --dpop optional" in refused.stderr) == (1, True)
