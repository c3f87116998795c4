"""The page that somebody left for another site, as they come back to it."""

from __future__ import annotations

from collections.abc import Mapping

from litestar import Response

from gateway.api.oauth.account import AccountPage
from gateway.api.oauth.authorize import AuthorizePage, authorize_page
from gateway.api.oauth.device import DevicePage
from gateway.api.oauth.steps import SignInPage
from gateway.oauth.errors import InvalidRequestError
from gateway.oauth.service import OAuthService


async def resumed(service: OAuthService, path: str, hidden: Mapping[str, str]) -> SignInPage:
    """The page at `path` whose forms carry `hidden`: both as that page had them. Raises `OAuthError`."""
    if path == AuthorizePage.path:
        page = authorize_page(service, await service.authorization(hidden), hidden)
        if not isinstance(page, Response):
            return page
    if path == DevicePage.path:
        return DevicePage(service, hidden)
    if path == AccountPage.path:
        return AccountPage(service)
    raise InvalidRequestError("this sign-in cannot go on; begin again")
