"""AWS Signature Version 4: one request, signed. Pure, but for the key of the day that it keeps.

As in "Create a signed AWS API request" of AWS's IAM user guide, for every service but S3 (whose paths are coded
once). Only what an upstream may rely on is signed: `host`, `content-type` and `x-amz-*`; the rest may change on
the way.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from gateway.secret import Secret
from gateway.upstream.fields import Header

ALGORITHM: Final = b"AWS4-HMAC-SHA256"
_SIGNED: Final = frozenset((b"content-type",))


class Signer:
    """Signs for one access key, region, service and host."""

    def __init__(
        self, key_id: str, secret: Secret, region: str, service: str, *, host: bytes, token: Secret | None = None
    ) -> None:
        """`host`: as `host` or `:authority` says it. `token`: of temporary credentials."""
        self._key_id = key_id.encode()
        self._secret = secret
        self._region = region.encode()
        self._service = service.encode()
        self._host = host
        self._token = token
        self._second = 0
        self._stamp = b""
        self._day = b""
        self._scope = b""
        self._day_key = Secret(b"")

    def sign(
        self, method: bytes, target: bytes, headers: Sequence[Header], body: bytes, at: float
    ) -> tuple[Header, ...]:
        """The header fields to add. `headers`: those sent besides, lower-case; `at`: Unix seconds."""
        added: list[Header] = [(b"x-amz-date", self._at(int(at)))]
        if self._token is not None:
            added.append((b"x-amz-security-token", self._token.reveal()))
        signed = [header for header in headers if header[0] in _SIGNED]
        value = self.authorization(method, target, [*signed, (b"host", self._host), *added], body, at)
        return ((b"authorization", value), *added)

    def authorization(
        self, method: bytes, target: bytes, headers: Sequence[Header], body: bytes, at: float
    ) -> bytes:
        """The field's value, with all of `headers` signed."""
        stamp = self._at(int(at))
        text, names = canonical(method, target, headers, body)
        to_sign = b"\n".join((ALGORITHM, stamp, self._scope, sha256(text).hexdigest().encode()))
        signature = hmac.digest(self._day_key.reveal(), to_sign, "sha256").hex().encode()
        return b"%b Credential=%b/%b, SignedHeaders=%b, Signature=%b" % (
            ALGORITHM,
            self._key_id,
            self._scope,
            names,
            signature,
        )

    def _at(self, second: int) -> bytes:
        if second != self._second:
            self._stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second)).encode()
            self._second = second
            if self._stamp[:8] != self._day:
                self._day = self._stamp[:8]
                self._scope = b"/".join((self._day, self._region, self._service, b"aws4_request"))
                self._day_key = Secret(self._derived())
        return self._stamp

    def _derived(self) -> bytes:
        key = hmac.digest(b"AWS4" + self._secret.reveal(), self._day, "sha256")
        for part in (self._region, self._service, b"aws4_request"):
            key = hmac.digest(key, part, "sha256")
        return key


def canonical(method: bytes, target: bytes, headers: Sequence[Header], body: bytes) -> tuple[bytes, bytes]:
    """The canonical request, and the names of `headers`, which are all signed."""
    path, _, query = target.partition(b"?")
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(b" ".join(value.split()))
    names = sorted(values)
    signed = b";".join(names)
    lines = [b"%b:%b\n" % (name, b",".join(values[name])) for name in names]
    digest = sha256(body).hexdigest().encode()
    return b"\n".join((method, _path(path), _query(query), b"".join(lines), signed, digest)), signed


@lru_cache(maxsize=256)  # a few endpoints of each upstream
def _path(path: bytes) -> bytes:
    """Without empty and dot segments, each coded once more than it is sent."""
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(quote_from_bytes(segment, safe="-_.~").encode())
    end = b"/" if kept and path.endswith((b"/", b"/.", b"/..")) else b""
    return b"/" + b"/".join(kept) + end


def _query(query: bytes) -> bytes:
    pairs: list[tuple[str, str]] = []
    for part in query.split(b"&") if query else ():
        name, _, value = part.partition(b"=")
        pairs.append((_coded(name), _coded(value)))
    return "&".join([f"{name}={value}" for name, value in sorted(pairs)]).encode()


def _coded(text: bytes) -> str:
    return quote_from_bytes(unquote_to_bytes(text), safe="-_.~")
