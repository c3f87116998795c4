"""The client behind a request to an endpoint for clients."""

from __future__ import annotations

from gateway.api.oauth.forms import HttpRequest, authorization_of, caller_of, read_form
from gateway.oauth.clients import Client
from gateway.oauth.service import OAuthService


async def authenticated(service: OAuthService, request: HttpRequest) -> tuple[dict[str, str], Client]:
    """The form, and the client that sent it. Raises `OAuthError`, `StoreUnavailableError`."""
    form = await read_form(request)
    return form, await service.clients.client(form, caller_of(request), authorization_of(request))
