"""Passkeys: W3C Web Authentication, registration (section 7.1) and assertion (section 7.2).

The person is verified by the authenticator (a PIN, a finger): a passkey that was left lying about signs nobody in.
No attestation is asked for: which maker's key it is decides nothing here, and asking would name the device.
"""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from importlib import import_module
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from gateway.oauth.digests import ServerKey
from gateway.oauth.factors_store import Factor
from tenants.models import Member

CHALLENGE_BYTES: Final = 32
MAX_JSON: Final = 12 * 1024
MAX_ID: Final = 1_023
"""Bytes of a credential's id (section 4)."""

_TIMEOUT_MS: Final = 240_000  # within a ticket's five minutes

HARDWARE: Final = "hwk"
SOFTWARE: Final = "swk"
"""RFC 8176. A key that its maker copies to other devices is software's, whatever holds it."""

log = logging.getLogger("orgate.oauth")


class Created(Struct, frozen=True):
    """A new passkey. `key` and `credential` as in `Factor`."""

    key: str
    credential: str
    sign_count: int
    method: str


class Asserted(Struct, frozen=True):
    """A passkey was used. `sign_count`: what it says now."""

    sign_count: int
    method: str


class Passkeys:
    """Those of one public URL. `rp_id` is its host name: a passkey made for it works nowhere else, and not for the
    server at another name."""

    def __init__(self, base: str, key: ServerKey, random: Callable[[int], bytes]) -> None:
        parts = urlsplit(base)
        self.rp_id = parts.hostname or ""
        port = "" if parts.port in (None, 443) else f":{parts.port}"
        self._origin = f"{parts.scheme}://{self.rp_id}{port}"
        self._key = key
        self._random = random
        self._ready = False

    @property
    def available(self) -> bool:
        """Whether browsers make any for this server: not for an IP address (section 5.1.3: a valid domain)."""
        try:
            ip_address(self.rp_id)
        except ValueError:
            return bool(self.rp_id)
        return False

    async def ready(self) -> None:
        """Import what the rest needs: 0.25 s of CPU once, for who has passkeys, and not in the loop's way."""
        if not self._ready:
            await asyncio.to_thread(import_module, "webauthn")
            self._ready = True

    def challenge(self) -> str:
        return urlsafe_b64encode(self._random(CHALLENGE_BYTES)).rstrip(b"=").decode()

    def creation(self, member: Member, known: Sequence[Factor], challenge: str) -> str:
        """What the browser is told to make: `PublicKeyCredentialCreationOptions` as JSON (section 5.1.9)."""
        from webauthn import generate_registration_options, options_to_json  # noqa: PLC0415
        from webauthn.helpers import structs  # noqa: PLC0415

        options = generate_registration_options(
            rp_id=self.rp_id,
            rp_name="Orgate",
            user_name=f"{member.email} ({member.org})",
            user_display_name=member.name or member.email,
            user_id=self._user(member),
            challenge=_bytes(challenge),
            timeout=_TIMEOUT_MS,
            authenticator_selection=structs.AuthenticatorSelectionCriteria(
                resident_key=structs.ResidentKeyRequirement.PREFERRED,
                user_verification=structs.UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[_descriptor(factor) for factor in known],
        )
        return options_to_json(options)

    def request(self, known: Sequence[Factor], challenge: str) -> str:
        """What the browser is asked for: `PublicKeyCredentialRequestOptions` as JSON (section 5.1.10)."""
        from webauthn import generate_authentication_options, options_to_json  # noqa: PLC0415
        from webauthn.helpers import structs  # noqa: PLC0415

        options = generate_authentication_options(
            rp_id=self.rp_id,
            challenge=_bytes(challenge),
            timeout=_TIMEOUT_MS,
            allow_credentials=[_descriptor(factor) for factor in known],
            user_verification=structs.UserVerificationRequirement.REQUIRED,
        )
        return options_to_json(options)

    def created(self, text: str, challenge: str) -> Created | None:
        """The passkey that a browser made for `challenge`; None: it did not."""
        from webauthn import verify_registration_response  # noqa: PLC0415

        if (credential := _credential(text)) is None:
            return None
        try:
            made = verify_registration_response(
                credential=credential,
                expected_challenge=_bytes(challenge),
                expected_rp_id=self.rp_id,
                expected_origin=self._origin,
                require_user_verification=True,
            )
        except Exception as error:  # noqa: BLE001  # a stranger's CBOR: whatever the library raises of it is a no
            log.debug("a passkey was not made: %s", type(error).__name__)
            return None
        if len(made.credential_id) > MAX_ID:
            return None
        method = _method(str(made.credential_device_type.value))
        return Created(_text(made.credential_public_key), _text(made.credential_id), made.sign_count, method)

    def asserted(self, text: str, challenge: str, factor: Factor) -> Asserted | None:
        """`factor` as it was used for `challenge`; None: it was not, or it is a copy (section 6.1.1)."""
        from webauthn import verify_authentication_response  # noqa: PLC0415

        if (credential := _credential(text)) is None:
            return None
        try:
            used = verify_authentication_response(
                credential=credential,
                expected_challenge=_bytes(challenge),
                expected_rp_id=self.rp_id,
                expected_origin=self._origin,
                credential_public_key=_bytes(factor.key),
                credential_current_sign_count=factor.sign_count,
                require_user_verification=True,
            )
        except Exception as error:  # noqa: BLE001  # a stranger's CBOR: whatever the library raises of it is a no
            log.debug("a passkey was not used: %s", type(error).__name__)
            return None
        return Asserted(used.new_sign_count, _method(str(used.credential_device_type.value)))

    def _user(self, member: Member) -> bytes:
        """The user handle (section 14.6.1): the same for all passkeys of a member, and it says nothing of them."""
        return self._key.mac(b"webauthn user", f"{member.org}\0{member.id}".encode())


def credential_id(text: str) -> str:
    """Which passkey a browser's answer says it is, as in `Factor.credential`; '' for none."""
    found = _credential(text)
    named = found.get("rawId") if found is not None else None
    return named.rstrip("=") if isinstance(named, str) else ""


def _credential(text: str) -> dict[str, Any] | None:
    if len(text) > MAX_JSON:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _descriptor(factor: Factor) -> Any:
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor  # noqa: PLC0415

    return PublicKeyCredentialDescriptor(id=_bytes(factor.credential))


def _method(device_type: str) -> str:
    return SOFTWARE if device_type == "multi_device" else HARDWARE


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError):
        return b""
