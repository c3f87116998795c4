"""A store's failure in OAuth's words."""

from __future__ import annotations

from gateway.oauth.errors import OAuthError, TemporarilyUnavailableError
from tenants.store import StoreUnavailableError


def translated(error: OAuthError | StoreUnavailableError) -> OAuthError:
    """The store's own words name files: they are not for callers."""
    if isinstance(error, OAuthError):
        return error
    return TemporarilyUnavailableError("the authorization server cannot reach its store now", retry_after_s=2)
