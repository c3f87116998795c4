"""What a stolen token is worth at the running gateway, on both listeners: nothing."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.integration.oauth.certified.conftest import House
from tests.kit.dpop import ProofKey

KEY, THIEF = ProofKey.make(), ProofKey.make("Ed25519")
ALGS = "ES256 RS256 PS256 EdDSA Ed25519"


@pytest.fixture(scope="module")
def token(house: House) -> str:
    """A service account's access token, bound to `KEY`: the first proof learns the nonce."""
    url = house.gateway.url + "/oauth/token"
    form = {"grant_type": "client_credentials", "client_id": "acme.posting"}
    form["client_secret"] = house.secrets["posting"]

    def ask(**nonce: str) -> httpx.Response:
        proof = KEY.proof("POST", url, time.time(), **nonce)
        return house.gateway.http.post(url, data=form, headers={"dpop": proof})

    first = ask()
    assert (first.status_code, first.json()["error"]) == (400, "use_dpop_nonce")
    given = ask(nonce=first.headers["dpop-nonce"])
    assert (given.json()["token_type"], given.headers["dpop-nonce"]) == ("DPoP", first.headers["dpop-nonce"])
    return str(given.json()["access_token"])


def _get(house: House, path: str, *fields: tuple[str, str]) -> httpx.Response:
    return house.gateway.http.get(house.gateway.url + path, headers=list(fields))


def _proof(house: House, token: str, path: str = "/v1/models", key: ProofKey = KEY, **changes: Any) -> str:
    return key.proof("GET", house.gateway.url + path, time.time(), token=token, **changes)


def test_a_request_with_its_proof_is_answered_once(house: House, token: str) -> None:
    proof = _proof(house, token)
    shown = (("authorization", f"DPoP {token}"), ("dpop", proof))
    assert _get(house, "/v1/models", *shown).status_code == 200
    again = _get(house, "/v1/models", *shown)
    assert again.status_code == 401
    assert again.json()["error"]["code"] == "invalid_dpop_proof"
    assert again.headers["www-authenticate"] == f'DPoP error="invalid_dpop_proof", algs="{ALGS}"'


@pytest.mark.parametrize("path", ["/v1/models/a%2Fb", "/v1/models/a/b?x=1", "/v1/models/%7Ea"])
def test_a_proof_is_about_the_path_as_it_was_sent(house: House, token: str, path: str) -> None:
    def ask(about: str) -> int:
        proof = _proof(house, token, about)
        return _get(house, path, ("authorization", f"DPoP {token}"), ("dpop", proof)).status_code

    assert ask(path) == 404  # let in, and there is no such model
    assert ask("/v1/models") == 401


def test_a_stolen_token_is_worth_nothing(house: House, token: str) -> None:
    bearer = _get(house, "/v1/models", ("authorization", f"Bearer {token}"))
    assert bearer.status_code == 401
    assert bearer.headers["www-authenticate"] == f'DPoP error="invalid_token", algs="{ALGS}"'
    attempts: list[tuple[tuple[str, str], ...]] = [
        (),
        (("dpop", _proof(house, token, key=THIEF)),),
        (("dpop", _proof(house, token, iat=1)),),
        (("dpop", _proof(house, token, htm="POST")),),
        (("dpop", _proof(house, token, ath="x")),),
        (("dpop", "x" * 20_000),),
    ]
    for fields in attempts:
        answer = _get(house, "/v1/models", ("authorization", f"DPoP {token}"), *fields)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('DPoP error="invalid_dpop_proof"')
    twice = ("dpop", _proof(house, token)), ("dpop", _proof(house, token))
    assert _get(house, "/v1/models", ("authorization", f"DPoP {token}"), *twice).status_code == 400


def test_an_unbound_token_is_no_dpop_token(house: House) -> None:
    token = house.owner.access_token
    answer = _get(house, "/v1/models", ("authorization", f"DPoP {token}"), ("dpop", _proof(house, token)))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('DPoP error="invalid_token"')


def test_two_proofs_at_the_token_endpoint_are_refused(house: House) -> None:
    url = house.gateway.url + "/oauth/token"
    proofs = [("dpop", KEY.proof("POST", url, time.time())) for _ in range(2)]
    form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "orgate-cli"}
    answer = house.gateway.http.post(url, data=form, headers=proofs)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
