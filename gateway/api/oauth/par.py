"""`/oauth/par`: the pushed authorization request endpoint of RFC 9126 section 2."""

from __future__ import annotations

from typing import Any

from litestar import Response, post
from litestar.handlers import HTTPRouteHandler

from gateway.api.oauth.answers import json_answer, with_nonce
from gateway.api.oauth.client import authenticated
from gateway.api.oauth.forms import HttpRequest, caller_of
from gateway.oauth.dpop import for_key
from gateway.oauth.service import OAuthService


class PushedAuthorization:
    def __init__(self, service: OAuthService) -> None:
        self._service = service

    def __deepcopy__(self, memo: dict[int, Any]) -> PushedAuthorization:
        return self  # Litestar copies its handlers and what they are bound to

    async def push(self, request: HttpRequest) -> Response[bytes]:
        form, client = await authenticated(self._service, request)
        # Which key proves itself here is the one that the code will be for (RFC 9449 section 10.1).
        caller = self._service.possession.proven(caller_of(request))
        answer = json_answer(await self._service.par.push(for_key(form, caller.jkt), client, caller), 201)
        return with_nonce(answer, self._service, caller)


def par_route(service: OAuthService) -> HTTPRouteHandler:
    return post("/oauth/par", name="oauth-par")(PushedAuthorization(service).push)
