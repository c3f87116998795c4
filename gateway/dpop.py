"""DPoP proofs (RFC 9449): a request shows that who sends it holds the key that its token is bound to.

Pure but for `Proofs`, which remembers what it has seen. What the authorization server and the resource servers do
with a proof is theirs: `gateway.oauth.dpop`, `gateway.authn.verify`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from msgspec import Struct

from gateway.errors import UnavailableError
from gateway.jws import MalformedError, VerifyingKey, decode, encode, parse_object, split, verifying_key

HEADER: Final = b"dpop"
MAX_PROOF_BYTES: Final = 4_096
"""With a key of 4,096 bits, its signature and a nonce a proof has 2,700."""

PAST_S: Final = 60
AHEAD_S: Final = 30
"""How old a proof may be, and how far the clock of who made it may be ahead."""

JKT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_TEXT: Final = re.compile(r"[\x21-\x7e]{1,128}")
_METHOD: Final = re.compile(r"[A-Z]{1,20}")
_HEADER_MEMBERS: Final = frozenset({"typ", "alg", "jwk"})
_ENCODED: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")  # RFC 3986 section 2.3
_PORTS: Final = {"https": 443, "http": 80}
_SPAN_S: Final = 30
_SPANS: Final = (PAST_S + AHEAD_S) // _SPAN_S + 1
_FLOOR: Final = 512
"""What part of the capacity an organization has whatever others do: one in so many."""


class ProofError(Exception):
    """The proof is none, or not one of this request. The reason is shown to its maker and has no value in it."""


class Presented(Struct, frozen=True):
    """A request's proof and what it must be about: the method, and the path as it was sent (percent-encoded)."""

    proof: bytes
    method: str
    path: str


class Proof(Struct, frozen=True):
    """What a proof says, its signature verified. `ath`, `nonce`: '' when it does not say."""

    jkt: str
    jti: str
    htm: str
    htu: str
    iat: float
    ath: str = ""
    nonce: str = ""


def read(proof: bytes) -> Proof:
    """Section 4.3, checks 2 to 7: well-formed, signed by the key it brings. Raises `ProofError`."""
    try:
        parts = split(proof, MAX_PROOF_BYTES)
        key = _key(parts.header)
        if not key.verify(parts.signature, parts.signed):
            _refuse("its signature is not that of its key")
        claims = parse_object(parts.payload)
    except MalformedError as error:
        raise ProofError(str(error)) from None
    return Proof(
        jkt=key.thumbprint,
        jti=_text(claims, "jti"),
        htm=_text(claims, "htm"),
        htu=_url(claims),
        iat=_instant(claims),
        ath=_text(claims, "ath") if "ath" in claims else "",
        nonce=_text(claims, "nonce") if "nonce" in claims else "",
    )


def judge(proof: Proof, *, method: str, targets: Iterable[str], now: float, ath: str = "") -> None:
    """Checks 8, 9, 11 and 12: made for this request, lately, and for the token whose `access_token_hash` is `ath`.
    `targets`: what this request's URL may be called. Raises `ProofError`."""
    if proof.htm != method or not _METHOD.fullmatch(method):
        _refuse("htm is not this request's method")
    if not any(proof.htu == target for target in targets):
        url = normalized(proof.htu)
        if not url or not any(url == normalized(target) for target in targets):
            _refuse("htu is not this request's URL")
    if not now - PAST_S <= proof.iat <= now + AHEAD_S:
        _refuse(f"iat is not within the last {PAST_S} seconds by this server's clock")
    if proof.ath != ath:
        _refuse("ath is not the hash of the access token")


def access_token_hash(token: bytes) -> str:
    """`ath`: section 4.2."""
    return encode(sha256(token).digest()).decode()


@lru_cache(maxsize=256)
def normalized(url: str) -> str:
    """`url` without query and fragment in the one spelling that RFC 3986 sections 6.2.2 and 6.2.3 give it; '' for
    what is no URL of HTTP."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc or not url.isascii() or not url.isprintable():
        return ""
    name = f"[{host}]" if ":" in host else host
    shown = "" if port in {None, _PORTS[parts.scheme]} else f":{port}"
    return f"{parts.scheme}://{name}{shown}{_path(parts.path)}"


def _path(path: str) -> str:
    """Percent-encodings that need not be are undone, the others in capitals; without dot segments."""
    found: list[str] = []
    segments = _ENCODED.sub(_plain, path).split("/")
    for place, segment in enumerate(segments, 1):
        if segment not in {".", ".."}:
            found.append(segment)
            continue
        if segment == ".." and len(found) > 1:
            found.pop()
        if place == len(segments):
            found.append("")
    return "/".join(found) or "/"


def _plain(encoded: re.Match[str]) -> str:
    letter = chr(int(encoded[0][1:], 16))
    return letter if _UNRESERVED.fullmatch(letter) else encoded[0].upper()


# A client's proofs begin with the same bytes each time: its key is read once, not 16 times a second.
@lru_cache(maxsize=1_024)
def _key(header: bytes) -> VerifyingKey:
    # Raises `MalformedError`, and `ProofError` for what is well-formed and no proof's. Errors are not cached.
    found = parse_object(decode(header))
    if not _HEADER_MEMBERS <= found.keys() <= _HEADER_MEMBERS | {"kid"}:
        # An allow-list: no jku, x5u, crit, b64 or whatever comes next can steer the verification.
        _refuse("its header has typ, alg and jwk, and nothing else")
    if found["typ"] != "dpop+jwt":
        _refuse("typ is dpop+jwt")
    jwk, alg = found["jwk"], found["alg"]
    if not isinstance(jwk, dict) or not isinstance(alg, str):
        _refuse("jwk is an object, and alg a text")
    return verifying_key(jwk, alg)


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        _refuse(f"{name} is 1 to 128 printable characters")
    return value


def _url(claims: dict[str, Any]) -> str:
    value = claims.get("htu")
    if not isinstance(value, str) or not 0 < len(value) <= 2_048:
        _refuse("htu is a URL")
    return value


def _instant(claims: dict[str, Any]) -> float:
    value = claims.get("iat")
    # bool is an int to Python; RFC 7519 section 2 allows fractions of seconds, and 1e308
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1 << 53:
        _refuse("iat is a time in seconds")
    return float(value)


def _refuse(reason: str) -> NoReturn:
    raise ProofError(reason)


class Proofs:
    """Remembers the proofs of the last minute and a half, so that each counts once (section 11.1). For one loop.

    `clock` gives Unix seconds. At most `capacity` are remembered: 262,144 take 25 MB, and are 2,900 a second.
    Without room a proof is refused: forgetting others would let those be used again. Who is refused is who fills
    their part. Three quarters are shared, of which an organization has at most a third of what the others leave
    (dynamic thresholds, as in the buffers of switches): a quarter of `capacity` when it is alone. The last quarter
    is kept for those who come when that is full: each has a 512th of `capacity` whatever others do, 128 of them.
    """

    def __init__(self, clock: Callable[[], float], capacity: int = 262_144) -> None:
        self._clock = clock
        self._capacity = capacity
        self._spans: deque[_Span] = deque(maxlen=_SPANS)

    def once(self, proof: Proof, org: str) -> None:
        """Take note of `proof`, which was judged to be good now. Raises `ProofError` when it was here before,
        `UnavailableError` when there is no room."""
        span = int(self._clock()) // _SPAN_S
        while self._spans and self._spans[0].number <= span - _SPANS:
            self._spans.popleft()
        if not self._spans or self._spans[-1].number < span:
            self._spans.append(_Span(span, set(), {}))
        key = blake2b(f"{org}\0{proof.jkt}\0{proof.jti}".encode(), digest_size=16).digest()
        if any(key in one.seen for one in self._spans):
            _refuse("it was used before; make a new one for each request")
        taken, mine = sum(len(one.seen) for one in self._spans), sum(one.of.get(org, 0) for one in self._spans)
        free = self._capacity - self._capacity // 4 - taken
        if taken >= self._capacity or mine >= max(free // 2, self._capacity // _FLOOR, 1):
            raise UnavailableError("too many requests with DPoP proofs at once", retry_after_s=1)
        last = self._spans[-1]
        last.seen.add(key)
        last.of[org] = last.of.get(org, 0) + 1


class _Span(Struct):
    """Thirty seconds: which proofs came, and how many of each organization."""

    number: int
    seen: set[bytes]
    of: dict[str, int]
