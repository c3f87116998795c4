"""Stage 1 of a token that is bound to a key: whoever sends it holds that key (RFC 9449 section 7). Local."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from gateway.dpop import Presented, ProofError, Proofs, access_token_hash, judge, read
from gateway.errors import InvalidProofError
from gateway.exchange import Principal

NO_PROOF: Final = "this access token is bound to a key: send a DPoP proof with it"
OTHER_KEY: Final = "the DPoP proof is not of the key that the access token is bound to"


class BoundTokens:
    """Judges the proofs that come with tokens. Belongs to one event loop, as `Proofs` do.

    `url` is what clients put before a path (scheme, host, port): what they see, not what a proxy made of it. The
    host names of the token's own organization do as well, with the same scheme and port.
    """

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        parts = urlsplit(url)
        self._url = url
        self._scheme = parts.scheme
        self._port = f":{parts.port}" if parts.port is not None else ""
        self._clock = clock
        self._proofs = Proofs(clock)

    def check(self, principal: Principal, token: bytes, presented: Presented | None, hosts: Iterable[str]) -> None:
        """Raises `InvalidProofError`; `UnavailableError` when too many proofs come at once.

        Called for good tokens alone: a stranger causes no verification of proofs, and takes no place among those
        remembered.
        """
        if presented is None:
            raise InvalidProofError(NO_PROOF)
        path = presented.path
        others = (f"{self._scheme}://{host}{self._port}{path}" for host in hosts)
        try:
            proof = read(presented.proof)
            if proof.jkt != principal.jkt:
                raise InvalidProofError(OTHER_KEY)
            judge(
                proof,
                method=presented.method,
                targets=(self._url + path, *others),
                now=self._clock(),
                ath=access_token_hash(token),
            )
            self._proofs.once(proof, principal.org)
        except ProofError as error:
            raise InvalidProofError(f"the DPoP proof is not good: {error}") from None
