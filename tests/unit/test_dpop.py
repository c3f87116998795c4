"""RFC 9449 section 4.3: what is a proof, what it is a proof of, and that it counts once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dpop import (
    AHEAD_S,
    MAX_PROOF_BYTES,
    PAST_S,
    Proof,
    ProofError,
    Proofs,
    access_token_hash,
    judge,
    normalized,
    read,
)
from gateway.errors import UnavailableError
from gateway.jws import verifying_key
from tests.kit.dpop import ProofKey, b64, number, rsa_key

NOW = 1_800_000_000.0
URL = "https://gateway.example/v1/completions"
KEY = ProofKey.make()


def made(**changes: Any) -> str:
    return KEY.proof("POST", URL, NOW, **changes)


def check(proof: str, *, method: str = "POST", url: str = URL, now: float = NOW, token: str = "") -> Proof:
    found = read(proof.encode())
    judge(found, method=method, targets=[url], now=now, ath=access_token_hash(token.encode()) if token else "")
    return found


@pytest.mark.parametrize("alg", ["ES256", "RS256", "PS256", "EdDSA", "Ed25519"])
def test_a_good_proof_names_its_key(alg: str) -> None:
    key = ProofKey.make(alg)
    proof = check(key.proof("POST", URL, NOW, token="the token", nonce="n-1"), token="the token")
    assert (proof.jkt, proof.nonce) == (key.jkt, "n-1")


def test_the_thumbprint_is_that_of_the_rfc() -> None:
    """RFC 9449 section 6.1 confirms with it the key of its example in section 4.1."""
    jwk = {
        "kty": "EC",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        "crv": "P-256",
    }
    assert verifying_key(jwk, "ES256").thumbprint == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.parametrize(
    "changes",
    [
        {"head": {"typ": "JWT"}},
        {"head": {"typ": "DPOP+JWT"}},
        {"head": {"typ": ...}},
        {"head": {"alg": "none"}},
        {"head": {"alg": "HS256"}},
        {"head": {"alg": "RS256"}},
        {"head": {"alg": "EdDSA"}},
        {"head": {"alg": ["ES256"]}},
        {"head": {"jwk": ...}},
        {"head": {"jwk": "x"}},
        {"head": {"jwk": KEY.jwk | {"d": "AAAA"}}},
        {"head": {"jwk": {"kty": "oct", "k": "AAAA"}}},
        {"head": {"jwk": KEY.jwk | {"crv": "P-384"}}},
        {"head": {"jwk": KEY.jwk | {"x": KEY.jwk["y"]}}},
        {"head": {"jwk": KEY.jwk | {"x": "AAAA"}}},
        {"head": {"jwk": KEY.jwk | {"x": 7}}},
        {"head": {"jwk": KEY.jwk | {"use": "enc"}}},
        {"head": {"jwk": KEY.jwk | {"alg": "ES384"}}},
        {"head": {"jku": "https://attacker.example/jwks"}},
        {"head": {"crit": ["exp"], "exp": 1}},
        {"head": {"b64": False}},
        {"jti": ...},
        {"jti": ""},
        {"jti": "x" * 129},
        {"jti": "with space"},
        {"jti": 7},
        {"htm": ...},
        {"htm": "post"},
        {"htm": "GET"},
        {"htu": ...},
        {"htu": "https://gateway.example/v1/chat/completions"},
        {"htu": "https://gateway.example:8443/v1/completions"},
        {"htu": "http://gateway.example/v1/completions"},
        {"htu": "https://gateway.example@attacker.example/v1/completions"},
        {"htu": "https://attacker@gateway.example/v1/completions"},
        {"htu": "https://gateway.example/v1%2Fcompletions"},
        {"htu": "/v1/completions"},
        {"htu": ""},
        {"htu": [URL]},
        {"iat": ...},
        {"iat": NOW - PAST_S - 1},
        {"iat": NOW + AHEAD_S + 1},
        {"iat": str(int(NOW))},
        {"iat": True},
        {"iat": -1},
        {"iat": 1e308},
        {"ath": "x"},
        {"nonce": 7},
    ],
)
def test_what_is_no_proof_of_this_request(changes: dict[str, Any]) -> None:
    with pytest.raises(ProofError):
        check(made(**changes))


@pytest.mark.parametrize("bits", [1024, 1536])
def test_a_weak_rsa_key_is_refused(bits: int) -> None:
    with pytest.raises(ProofError, match="RSA"):
        check(ProofKey("RS256", rsa_key(bits)).proof("POST", URL, NOW))


def test_an_rsa_key_has_one_spelling_and_the_usual_exponent() -> None:
    key = ProofKey.make("RS256")
    public = rsa_key().public_key().public_numbers()
    padded = b64(b"\0" + public.n.to_bytes(256, "big"))
    for jwk in (key.jwk | {"n": padded}, key.jwk | {"e": number(3)}, key.jwk | {"e": number(2**64 + 1)}):
        with pytest.raises(ProofError):
            check(key.proof("POST", URL, NOW, head={"jwk": jwk}))


def test_the_signature_is_that_of_the_embedded_key() -> None:
    with pytest.raises(ProofError, match="signature"):
        check(made(head={"jwk": ProofKey.make().jwk}))
    text = made()
    for place in (0, 40, len(text) // 2, len(text) - 1):
        other = "A" if text[place] != "A" else "B"
        with pytest.raises(ProofError):
            check(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize("text", ["", ".", "..", "a.b", "a.b.c.d", "é.é.é", made() + ".", made() + "=", "x" * 999])
def test_what_is_no_jws(text: str) -> None:
    with pytest.raises(ProofError):
        read(text.encode())


def test_members_come_once_and_the_size_is_bounded() -> None:
    body = f'{{"jti":"a","jti":"b","htm":"POST","htu":"{URL}","iat":{int(NOW)}}}'
    with pytest.raises(ProofError, match="twice"):
        check(KEY.sign(KEY.header(), body))
    with pytest.raises(ProofError, match="longer"):
        check(made(pad="x" * MAX_PROOF_BYTES))
    with pytest.raises(ProofError):
        check(KEY.sign(KEY.header(), "[" * 1_500))


def test_what_a_proof_says_beyond_the_rfc_is_passed_over() -> None:
    check(made(extra={"a": 1}, iat=NOW - 0.5, head={"kid": "k"}))


@pytest.mark.parametrize("iat", [NOW - PAST_S, NOW + AHEAD_S, NOW])
def test_a_clock_may_be_a_little_off(iat: float) -> None:
    check(made(iat=iat))


def test_the_token_s_hash_is_there_when_there_is_a_token_and_only_then() -> None:
    check(made(token="t"), token="t")
    for proof, token in ((made(), "t"), (made(token="other"), "t"), (made(token="t"), "")):
        with pytest.raises(ProofError, match="ath"):
            check(proof, token=token)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("HTTPS://Gateway.Example:443/v1/completions?a=1#b", URL),
        ("https://gateway.example/v1/./x/../completions", URL),
        ("https://gateway.example/%76%31/completions", URL),
        ("https://gateway.example/v1/a%2fb", "https://gateway.example/v1/a%2Fb"),
        ("http://gateway.example:80", "http://gateway.example/"),
        ("https://[2001:DB8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
        ("https://gateway.example/a/..", "https://gateway.example/"),
        ("https://gateway.example/../../a", "https://gateway.example/a"),
    ],
)
def test_urls_are_compared_in_one_spelling(given: str, meant: str) -> None:
    """RFC 3986 sections 6.2.2 and 6.2.3."""
    assert normalized(given) == meant
    check(made(htu=given), url=meant)


@pytest.mark.parametrize(
    "url", ["ftp://x/", "https://", "https://x:99999/", "https://[::1", "https://x/ü", "", "x"]
)
def test_what_is_no_url_is_nobody_s(url: str) -> None:
    assert normalized(url) == ""
    with pytest.raises(ProofError):
        check(made(htu=url or "-"))


@given(st.text(max_size=60), st.sampled_from(["", "https://h", "https://h:443/"]))
def test_normalizing_is_settled_after_one_time(path: str, before: str) -> None:
    once = normalized(before + path)
    assert once == "" or normalized(once) == once


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    for text in (noise, noise + b".." + noise, b".".join([made().encode().split(b".")[0], noise, noise])):
        with pytest.raises(ProofError):
            read(text)


scalars = st.none() | st.booleans() | st.floats() | st.text()


@settings(max_examples=30)
@given(st.recursive(scalars, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5))
def test_any_json_in_the_place_of_a_claim_is_refused_or_read(value: Any) -> None:
    for name in ("jti", "htm", "htu", "iat", "nonce", "ath"):
        try:
            proof = check(made(**{name: value}))
        except ProofError:
            continue
        assert name in {"jti", "nonce", "iat"}
        assert getattr(proof, name) == value


# -- once ---------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, capacity: int = 1_000) -> None:
        self.now = NOW
        self.proofs = Proofs(lambda: self.now, capacity)

    def use(self, jti: str, org: str = "acme", jkt: str = "k") -> None:
        self.proofs.once(Proof(jkt, jti, "POST", URL, self.now), org)

    def used(self, jti: str, **who: str) -> bool:
        try:
            self.use(jti, **who)
        except ProofError:
            return True
        return False


def test_a_proof_counts_once_as_long_as_it_is_good() -> None:
    bench = Bench()
    bench.use("a")
    for _ in range(PAST_S + AHEAD_S):
        assert bench.used("a")
        bench.now += 1
    bench.now += 60
    assert not bench.used("a")


def test_another_key_or_organization_may_choose_the_same_identifier() -> None:
    bench = Bench()
    bench.use("a")
    assert not bench.used("a", jkt="other")
    assert not bench.used("a", org="globex")


def test_without_room_a_proof_is_refused_and_none_is_forgotten() -> None:
    bench = Bench(capacity=8)
    for n in range(2):
        bench.use(f"a{n}")
    with pytest.raises(UnavailableError) as caught:
        bench.use("a2")
    assert caught.value.retry_after_s
    for org in "bcdefg":
        bench.use("x", org=org)
    with pytest.raises(UnavailableError):
        bench.use("x", org="h")  # eight are eight
    assert bench.used("a0")
    assert bench.used("a1")
    bench.now += 120
    bench.use("a2")


def fill(bench: Bench, org: str) -> int:
    """How many proofs of `org` are taken until one is not."""
    for taken in range(10_000):
        try:
            bench.use(str(taken), org=org)
        except UnavailableError:
            return taken
    raise AssertionError("it has no bound")


def test_organizations_that_fill_their_parts_leave_others_theirs() -> None:
    bench = Bench(capacity=10_240)
    assert fill(bench, "filler-0") == 10_240 // 4
    assert fill(bench, "filler-1") < 10_240 // 4
    for turn in range(2, 100):
        assert fill(bench, f"filler-{turn}") >= 20
    for org in ("newcomer", "another"):
        assert fill(bench, org) == 20  # a 512th, as it was before anybody came
    for turn in range(100):
        with pytest.raises(UnavailableError):
            bench.use("one more", org=f"filler-{turn}")


def test_what_is_remembered_is_bounded_whatever_the_number_of_organizations() -> None:
    bench = Bench(capacity=1_024)
    assert sum(fill(bench, f"org-{turn}") for turn in range(1_000)) == 1_024


def test_who_is_below_the_bound_goes_on_beside_those_who_are_at_it() -> None:
    bench = Bench(capacity=10_000)
    for turn in range(200):
        bench.use(str(turn), org="steady")
    for turn in range(4):
        fill(bench, f"filler-{turn}")
    for turn in range(200, 400):
        bench.use(str(turn), org="steady")
        with pytest.raises(UnavailableError):
            bench.use("one more", org="filler-0")


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    bench = Bench()
    bench.use("a")
    bench.now -= 100
    assert bench.used("a")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60))
def test_under_any_history_nothing_counts_twice_while_it_is_good(history: list[tuple[int, int]]) -> None:
    bench = Bench()
    last: dict[int, float] = {}
    for jti, passed in history:
        bench.now += passed
        replayed = bench.used(str(jti))
        if jti in last and bench.now - last[jti] <= PAST_S + AHEAD_S:
            assert replayed
        if not replayed:
            last[jti] = bench.now
