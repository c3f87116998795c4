"""Authenticator apps: time-based one-time passwords, RFC 6238, with SHA-1, six digits and 30 seconds: what every
app does."""

from __future__ import annotations

import hmac
from base64 import b32encode, b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from io import BytesIO
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.oauth.digests import ServerKey
from gateway.secret import Secret

STEP_S: Final = 30
DIGITS: Final = 6
SKEW: Final = (0, -1, 1)
"""Steps that a phone's clock may be off (RFC 6238 section 5.2), the likeliest first."""

_SECRET_BYTES: Final = 20  # RFC 4226 section 4: 160 bits
_NONCE_BYTES: Final = 12


def new_secret(random: Callable[[int], bytes]) -> str:
    """Base 32, as people type it and apps take it. 32 letters."""
    return b32encode(random(_SECRET_BYTES)).decode()


def uri(secret: str, email: str, issuer: str) -> str:
    """What the QR code says: an app shows `issuer` and `email`. It holds the secret."""
    import pyotp  # noqa: PLC0415  # for who signs in with a code, in the control process

    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=issuer)


def picture(text: str) -> str:
    """`text` as a QR code, inline SVG. In black on white whatever the page's colours: cameras want that."""
    import segno  # noqa: PLC0415  # takes 60 ms to import, for an enrolment now and then

    out = BytesIO()
    segno.make(text, error="m").save(
        out, kind="svg", scale=4, border=4, dark="#000", light="#fff", xmldecl=False, svgclass=None, lineclass=None
    )
    return out.getvalue().decode()


def step_of(secret: Secret, code: str, now: float) -> int:
    """The time step that `code` is of, at most one away from now; -1: none. Takes the same time for all."""
    import pyotp  # noqa: PLC0415

    made = pyotp.HOTP(secret.reveal().decode(), digits=DIGITS)
    present, found = int(now) // STEP_S, -1
    for off in SKEW:
        if hmac.compare_digest(made.at(present + off), code) and found < 0:
            found = present + off
    return found


def is_code(text: str) -> bool:
    return len(text) == DIGITS and text.isascii() and text.isdecimal()


class TotpSecrets:
    """Seals secrets for the store: AES-256-GCM under a key of the server's.

    In the control store lies the sealed secret; among the platform's own secrets (the sealed file, wrapped by
    Vault's Transit where that is chosen) the HMAC key that this key is made from; in the person's phone the secret
    itself. A copy of the database alone opens none. Bound to organization, member and factor: a row that is copied
    to somebody else opens no more.
    """

    def __init__(self, key: ServerKey, random: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(key.mac(b"totp secrets, AES-256-GCM", b""))
        self._random = random

    def seal(self, secret: str, *bound: str) -> str:
        nonce = self._random(_NONCE_BYTES)
        return b64encode(nonce + self._cipher.encrypt(nonce, secret.encode(), _aad(bound))).decode()

    def open(self, sealed: str, *bound: str) -> Secret | None:
        """None: not sealed for that, or under another key (the store and the secrets are not of one backup)."""
        try:
            raw = b64decode(sealed, validate=True)
            return Secret(self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _aad(bound)))
        except (Base64Error, ValueError, InvalidTag):
            return None


def _aad(bound: tuple[str, ...]) -> bytes:
    return "\n".join(bound).encode()
