"""`/oauth/introspect`: the introspection endpoint of RFC 7662 section 2."""

from __future__ import annotations

from typing import Any

from litestar import Response, post
from litestar.handlers import HTTPRouteHandler

from gateway.api.oauth.answers import json_answer
from gateway.api.oauth.client import authenticated
from gateway.api.oauth.forms import HttpRequest
from gateway.oauth.errors import InvalidRequestError
from gateway.oauth.service import OAuthService


class IntrospectionEndpoint:
    def __init__(self, service: OAuthService) -> None:
        self._service = service

    def __deepcopy__(self, memo: dict[int, Any]) -> IntrospectionEndpoint:
        return self  # Litestar copies its handlers and what they are bound to

    async def introspect(self, request: HttpRequest) -> Response[bytes]:
        form, client = await authenticated(self._service, request)
        if "token" not in form:
            raise InvalidRequestError("token is missing")
        return json_answer(await self._service.introspection.of(form["token"], client))


def introspect_route(service: OAuthService) -> HTTPRouteHandler:
    return post("/oauth/introspect", name="oauth-introspect")(IntrospectionEndpoint(service).introspect)
