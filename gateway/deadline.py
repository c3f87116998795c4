"""How long a caller lets its request take: `x-request-timeout-ms` and gRPC's `grpc-timeout`.

What cannot be read is refused, never ignored: a caller that set a deadline counts on it.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import BadRequestError

TIMEOUT_MS: Final = b"x-request-timeout-ms"
GRPC_TIMEOUT: Final = b"grpc-timeout"

_MILLISECONDS = re.compile(rb"[0-9]{1,10}")
_GRPC = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS: Final = {b"H": 3_600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
"""Units of `grpc-timeout` (gRPC over HTTP/2, "Requests"): `M` is minutes, `m` milliseconds."""


def timeout_s(milliseconds: bytes | None, grpc: bytes | None) -> float | None:
    """Seconds from the request's arrival; of two the smaller, None when the caller sets none.

    Raises `BadRequestError`: a value that is no positive number in the header's own format.
    """
    if milliseconds is None and grpc is None:
        return None
    given = []
    if milliseconds is not None:
        if _MILLISECONDS.fullmatch(milliseconds) is None or not int(milliseconds):
            raise _malformed(TIMEOUT_MS, "a positive whole number of milliseconds, such as 1500")
        given.append(int(milliseconds) / 1000)
    if grpc is not None:
        found = _GRPC.fullmatch(grpc)
        if found is None or not int(found[1]):
            raise _malformed(GRPC_TIMEOUT, "1 to 8 digits, not all 0, and one of H M S m u n, such as 1500m")
        given.append(int(found[1]) * _SECONDS[found[2]])
    return min(given)


def _malformed(header: bytes, form: str) -> BadRequestError:
    name = header.decode()
    return BadRequestError(f"the header '{name}' must be {form}", param=name)
