"""The known attacks on JSON Web Tokens, made for one server: raw JSON, raw base64, raw signatures, and nothing of
the code under test.

From RFC 8725 and what it cites, from the tests of Authlib and Ory Hydra, and from reports: CVE-2015-9235 (alg
none, HMAC with the public key), CVE-2018-0114 (embedded jwk), CVE-2022-21449 (psychic signatures), CVE-2016-10555.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.kit.jwt_forged import FORGED
from tests.kit.jwt_signed import SIGNED
from tests.kit.jwt_target import Target


@dataclass(frozen=True)
class Attack:
    """`signed`: by the server's own key. Such a one shows how strictly a token is read; others anybody makes."""

    family: str
    token: str | bytes
    signed: bool = False


def attacks(target: Target) -> Iterator[Attack]:
    for families, by_server in ((FORGED, False), (SIGNED, True)):
        for name, make in families.items():
            for token in make(target):
                yield Attack(name, token, by_server)
