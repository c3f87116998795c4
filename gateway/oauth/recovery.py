"""Recovery codes: for whoever has lost the phone. Ten, each good once, shown once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.oauth.digests import ServerKey
from tenants.ids import MemberId, OrgId

CODES: Final = 10
LETTERS: Final = 16
"""Five bits each: 80 bits, which nobody tries out."""

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_READ_AS: Final = str.maketrans("OIL", "011")  # as Crockford says they are misread


def new_codes(random: Callable[[int], bytes]) -> tuple[str, ...]:
    """As they are shown: `XXXX-XXXX-XXXX-XXXX`."""
    return tuple(_code(random(LETTERS)) for _ in range(CODES))


def digest(key: ServerKey, org: OrgId, member: MemberId, code: str) -> str:
    """How a code is stored. Under the server's key: a copy of the database is nothing to try codes out against."""
    return key.mac(b"recovery code", f"{org}\0{member}\0{_letters(code)}".encode()).hex()


def is_code(text: str) -> bool:
    letters = _letters(text)
    return len(letters) == LETTERS and all(letter in _ALPHABET for letter in letters)


def _letters(text: str) -> str:
    return "".join(letter for letter in text.upper() if letter not in " -").translate(_READ_AS)


def _code(raw: bytes) -> str:
    letters = "".join(_ALPHABET[byte % 32] for byte in raw)
    return "-".join(letters[at : at + 4] for at in range(0, LETTERS, 4))
