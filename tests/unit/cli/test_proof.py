"""Proofs that the command line makes, as the server judges them."""

from __future__ import annotations

import time

from cli.credentials import Login
from cli.proof import ProofKey
from gateway.dpop import access_token_hash, judge, read

URL = "https://gateway.example:8444/admin/v1/orgs/acme"


def test_a_proof_is_one_that_the_server_takes() -> None:
    key = ProofKey.new()
    for _ in range(20):  # a number of the signature is shorter now and then
        proof = read(key.proof("GET", URL + "?after=x", token="the token", nonce="n").encode())
        judge(proof, method="GET", targets=[URL], now=time.time(), ath=access_token_hash(b"the token"))
        assert (proof.jkt, proof.nonce) == (key.thumbprint, "n")
    again = ProofKey(key.pem)
    assert (again.thumbprint, read(again.proof("POST", URL).encode()).jkt) == (key.thumbprint, key.thumbprint)


def test_each_proof_has_an_identifier_of_its_own() -> None:
    key = ProofKey.new()
    assert len({read(key.proof("GET", URL).encode()).jti for _ in range(50)}) == 50


def test_a_key_is_not_shown() -> None:
    key = ProofKey.new()
    assert "PRIVATE" not in f"{key!r}{Login('rt', 'acme', {}, key.pem)!r}"
