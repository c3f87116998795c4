"""The receiving end of AWS Signature Version 4: takes a request as it arrived and says whether AWS would.

Written from AWS's description for the verifying side, not from the gateway's signer.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from tests.kit.upstream import Request

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)


def fault(request: Request, secret: str, *, service: str, region: str, now: datetime) -> str:
    """What is wrong with a request's signature, '' for nothing. Clocks may differ by five minutes."""
    found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        return "IncompleteSignature"
    _, day, its_region, its_service, names, signature = found.groups()
    if (its_region, its_service) != (region, service):
        return "Credential should be scoped to a valid region and service"
    stamp = request.headers.get("x-amz-date", "")
    at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if abs(now - at) > timedelta(minutes=5) or stamp[:8] != day:
        return "Signature expired"
    headers = {**request.headers, "host": request.headers.get("host") or request.headers[":authority"]}
    signed = names.split(";")
    must = {"host"} | {name for name in headers if name == "content-type" or name.startswith("x-amz-")}
    if signed != sorted(signed) or not must <= set(signed):
        return "SignedHeaders do not cover the request"
    path, _, query = request.path.partition("?")
    text = "\n".join(
        [
            request.method,
            quote(path, safe="/-_.~"),
            query,
            *(f"{name}:{headers[name].strip()}" for name in signed),
            "",
            names,
            hashlib.sha256(bytes(request.body)).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(text.encode()).hexdigest()])
    key = b"AWS4" + secret.encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    right = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    return "" if hmac.compare_digest(right, signature) else "SignatureDoesNotMatch"
