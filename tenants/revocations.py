"""When a token stops being believed: the one place that turns "now" into a not-before time."""

from __future__ import annotations

from math import floor

from tenants.ids import OrgId
from tenants.models import Revocation

LONGEST_TOKEN_S = 1_800
"""The longest life of an access token that settings allow, seconds."""

LEEWAY_S = 60
"""More than the clock skew any verifier forgives, so that no forgotten revocation brings a token back."""


def not_before(now: float) -> int:
    """The first whole second after `now`.

    `iat` counts whole seconds, so a token of this very second may be older than the decision: it is refused
    too. Whoever issues the next one may set its `iat` to this instant.
    """
    return floor(now) + 1


def revoke_tokens(org: OrgId, now: float, *, member: str = "", token: str = "") -> Revocation:
    """Refuse every access token issued so far to `org`, or to one `member` of it, or the one with id `token`."""
    instant = not_before(now)
    forgotten = instant + LONGEST_TOKEN_S + LEEWAY_S
    return Revocation(org=org, member=member, token_id=token, not_before=instant, expires_at=forgotten)
