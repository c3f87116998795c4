"""`WWW-Authenticate` on both planes: RFC 6750 section 3 and, for tokens bound to a key, RFC 9449 section 7.1."""

from __future__ import annotations

from gateway.errors import ProofNeededError, UnauthenticatedError
from gateway.jws import ALGORITHMS


def challenge(error: UnauthenticatedError) -> str:
    """What a client is told whose token was refused: renew it, or make another proof. It does not on a 403."""
    algs = f', algs="{" ".join(ALGORITHMS)}"' if isinstance(error, ProofNeededError) else ""
    return f'{error.scheme} error="{error.code}"{algs}'
