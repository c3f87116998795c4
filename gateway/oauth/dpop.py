"""DPoP at the token endpoint (RFC 9449 sections 5, 8 and 10): which key the tokens are bound to, if any.

Proofs need a nonce of ours here, so that nobody makes them ahead: whoever had a client's key in their hands for a
moment cannot refresh with it later. One nonce serves for five to ten minutes, on every node that has the server's
key; nothing is remembered of it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import structs

from gateway.dpop import Proof, ProofError, Proofs, judge, read
from gateway.errors import UnavailableError
from gateway.jws import encode
from gateway.oauth.caller import Caller
from gateway.oauth.digests import ServerKey
from gateway.oauth.errors import (
    InvalidDpopProofError,
    InvalidGrantError,
    TemporarilyUnavailableError,
    UseDpopNonceError,
)
from tenants.ids import OrgId
from tenants.models import Dpop
from tenants.store import ControlStore

NONCE_S: Final = 300
_NONCE_BYTES: Final = 18


def for_key(form: Mapping[str, str], jkt: str) -> Mapping[str, str]:
    """A pushed authorization request whose code is for the key `jkt`, if there is one. Raises
    `InvalidDpopProofError` where the request names another (section 10.1)."""
    if jkt and form.get("dpop_jkt", jkt) != jkt:
        raise InvalidDpopProofError("dpop_jkt is not the key of the DPoP proof")
    return {**form, "dpop_jkt": jkt} if jkt else form


class Possession:
    """Judges proofs and says what tokens are bound to. `base` is what endpoints' URLs begin with; `clock`: Unix
    seconds. One control process's."""

    def __init__(self, base: str, key: ServerKey, control: ControlStore, clock: Callable[[], float]) -> None:
        self._base = base
        self._key = key
        self._control = control
        self._clock = clock
        self._proofs = Proofs(clock)

    def proven(self, caller: Caller) -> Caller:
        """`caller` with the thumbprint of the key that it holds; as it was when it shows no proof.

        Raises `InvalidDpopProofError`, `UseDpopNonceError`, `TemporarilyUnavailableError`.
        """
        shown = caller.presented
        if shown is None:
            return caller
        try:
            proof = read(shown.proof)
            judge(proof, method=shown.method, targets=(self._base + shown.path,), now=self._clock())
            self._must_be_ours(proof)
            # By address, and not by organization, which is not known yet: nobody takes the room of the others.
            self._proofs.once(proof, caller.address)
        except ProofError as error:
            raise InvalidDpopProofError(f"the DPoP proof is not good: {error}") from None
        except UnavailableError as error:
            raise TemporarilyUnavailableError(error.message, retry_after_s=error.retry_after_s) from None
        return structs.replace(caller, jkt=proof.jkt)

    async def binding(self, caller: Caller, org: OrgId, bound_to: str = "") -> str:
        """The thumbprint that a token of `org` for `caller` is bound to, '' for a bearer token. `bound_to`: what
        the code or the refresh token is bound to. Nothing is used up when this raises `InvalidDpopProofError`
        (no proof where there has to be one) or `InvalidGrantError` (another key's)."""
        if bound_to and not caller.jkt:
            raise InvalidDpopProofError("this grant is bound to a key: send a DPoP proof of it")
        if bound_to and not hmac.compare_digest(bound_to, caller.jkt):
            raise InvalidGrantError("this grant is bound to another key than that of the DPoP proof")
        wanted = (await self._control.orgs.get(org)).dpop
        if wanted is Dpop.REQUIRED and not caller.jkt and not caller.inside:
            raise InvalidDpopProofError("this organization binds tokens to keys: send a DPoP proof")
        return "" if wanted is Dpop.OFF and not bound_to else caller.jkt

    def nonce(self) -> str:
        """What the next proof has to have in it (section 8)."""
        return self._nonce(int(self._clock()) // NONCE_S)

    def _must_be_ours(self, proof: Proof) -> None:
        now = int(self._clock()) // NONCE_S
        good = (self._nonce(span) for span in (now, now - 1))
        if not any(hmac.compare_digest(one, proof.nonce) for one in good):
            raise UseDpopNonceError(self.nonce())

    def _nonce(self, span: int) -> str:
        return encode(self._key.mac(b"dpop nonce", b"%d" % span)[:_NONCE_BYTES]).decode()
