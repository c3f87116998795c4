"""What callers are told of a credential that is not taken. A client reads the status; a person reads these."""

from __future__ import annotations

from typing import Final

MISSING: Final = "no access token: send it as 'Authorization: Bearer <token>'"
EXPIRED: Final = "the access token has expired"
INVALID: Final = "the access token is not valid"
"""Said of everything else, so that a forger learns nothing: forged, foreign, revoked, its organization deleted."""

BOUND: Final = "this access token is bound to a key: send it as 'Authorization: DPoP <token>', with a proof"
UNBOUND: Final = "this access token is bound to no key: send it as 'Authorization: Bearer <token>'"
REQUIRED: Final = "your organization takes only access tokens that are bound to a key (DPoP): sign in with one"

NO_KEYS: Final = "the keys that verify access tokens are not known yet; send the request again"
"""No judgement of the token: a client told 401 would throw a good one away."""

SUSPENDED_RULE: Final = "organization-suspended"
