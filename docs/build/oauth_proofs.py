"""The part of oauth.md about tokens that are bound to keys."""

from __future__ import annotations

from docs.build.markdown import codes, table
from gateway.dpop import AHEAD_S, MAX_PROOF_BYTES, PAST_S
from gateway.jws import ALGORITHMS, RSA_BITS
from gateway.oauth.dpop import NONCE_S


def proofs() -> list[str]:
    return [
        "## Proofs of possession",
        "A header `DPoP` at `/oauth/token` and `/oauth/par` binds tokens to its key"
        " ([RFC 9449](https://www.rfc-editor.org/rfc/rfc9449)) where the organization wants it; `token_type` is"
        " then `DPoP`. A proof there needs the `nonce` that the header `DPoP-Nonce` of the answer before gave:"
        " without one the answer is `use_dpop_nonce`. With such a token requests send `Authorization: DPoP"
        " <token>` and a proof with `ath`, each proof once; a refusal is 401 with `WWW-Authenticate: DPoP`.",
        table(
            ("what", "value"),
            [
                ("algorithms", codes(ALGORITHMS)),
                ("RSA keys", f"{RSA_BITS[0]} to {RSA_BITS[-1]} bits, exponent 65537"),
                ("a proof's length", f"{MAX_PROOF_BYTES} bytes at most"),
                ("`iat`", f"{PAST_S} s old at most, {AHEAD_S} s ahead at most"),
                ("a nonce lives", f"{NONCE_S} to {2 * NONCE_S} s"),
                ("`jti`", "1 to 128 printable characters, another one each time"),
                ("`htu`", "`server.url` or `server.admin_url` and the path as it was sent, without the query"),
            ],
        ),
    ]
