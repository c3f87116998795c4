"""What stands in an entry for a member. Pure, standard library only: whoever verifies a pack can check it too."""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from typing import Final

from gateway.secret import Secret

PREFIX: Final = "per_"
ERASED: Final = "erased"
"""What a reader is shown for somebody whose key is gone, and what an entry says that comes after that."""
_MAC_BYTES: Final = 20
PSEUDONYM: Final = re.compile(r"\bper_[A-Za-z0-9_-]{27}")


def pseudonym(key: Secret, org: str, member: str) -> str:
    """`per_` and 160 bits, base64url: HMAC-SHA-256 (RFC 2104) under the person's naming key.

    To find another member or key that gives the same, for whoever would rather have meant somebody else, takes
    2^160 tries; for whoever chooses both beforehand, 2^80.
    """
    mac = hmac.digest(key.reveal(), f"{org}\n{member}".encode(), "sha256")
    return PREFIX + urlsafe_b64encode(mac[:_MAC_BYTES]).decode().rstrip("=")
