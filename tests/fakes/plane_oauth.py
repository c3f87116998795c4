"""The authorization server of the fake control plane: it signs people in, and ends a family of refresh tokens of
which one is used twice."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct, field

from tests.fakes.plane_answers import Answer, Place, Refused, Seen


def _oauth(status: int, error: str, description: str) -> Refused:
    """A failure as RFC 6749 section 5.2 says it."""
    refused = Refused(status, description)
    refused.body = {"error": error, "error_description": description}
    return refused


class Family(Struct):
    """The refresh tokens that one sign-in led to."""

    current: str
    used: set[str] = field(default_factory=set)
    alive: bool = True


class OAuthServer(Place):
    """`issuer`: when it is another than `origin`. `families` and `access` are the tokens that it gave."""

    def __init__(self) -> None:
        self.issuer = ""
        self.passwords = {("acme", "ann@acme.example"): "correct horse"}
        self.invitations = {"inv-1": ("acme", "new@acme.example")}
        self.devices: dict[str, dict[str, Any]] = {}
        self.families: list[Family] = []
        self.access: dict[str, str] = {}
        self.misuses = 0
        self.refreshes = 0
        self.expires_in = 900

    def sign_in(self, org: str = "acme") -> str:
        """A refresh token, as if somebody had signed in."""
        family = Family(current="rt_" + secrets.token_hex(8))
        self.families.append(family)
        return family.current

    def _oauth(self, seen: Seen) -> Answer:
        form = dict(parse_qsl(seen.body))
        match seen.method, seen.path:
            case "GET", "/.well-known/oauth-authorization-server":
                issuer = self.issuer or self.origin
                return (
                    200,
                    {
                        "issuer": issuer,
                        "token_endpoint": issuer + "/oauth/token",
                        "device_authorization_endpoint": issuer + "/oauth/device_authorization",
                        "revocation_endpoint": issuer + "/oauth/revoke",
                    },
                    {},
                )
            case "POST", "/oauth/device_authorization":
                device, user = secrets.token_hex(8), "BCDF-GHJK"
                self.devices[device] = {"user_code": user, "approved": False, "resource": form["resource"]}
                return (
                    200,
                    {
                        "device_code": device,
                        "user_code": user,
                        "verification_uri": self.origin + "/oauth/device",
                        "expires_in": 600,
                        "interval": 0,
                    },
                    {},
                )
            case "GET", ("/oauth/device" | "/oauth/invitation"):
                page = '<form><input type="hidden" name="csrf_token" value="c1"><input name="email"></form>'
                return (
                    200,
                    page,
                    {
                        "content-type": "text/html",
                        "set-cookie": "orgate_csrf=c1; Path=/; HttpOnly; SameSite=Strict",
                    },
                )
            case "POST", "/oauth/device":
                return self._approve(seen, form)
            case "POST", "/oauth/invitation":
                self._csrf(seen, form)
                person = (form.get("org", ""), form.get("email", ""))
                if form["password"] != form["password_again"] or len(form["password"]) < 12:
                    raise _oauth(400, "invalid_request", "a password has at least 12 characters")
                if self.invitations.get(form.get("code", "")) != person:
                    raise _oauth(400, "invalid_grant", "this invitation is not valid")
                del self.invitations[form["code"]]
                self.passwords[person] = form["password"]
                return 200, {"status": "accepted"}, {}
            case "POST", "/oauth/token":
                return self._token(form)
            case "POST", "/oauth/revoke":
                for family in self.families:
                    if family.current == form["token"]:
                        family.alive = False
                return 200, "", {}
        raise Refused(404, "not found")

    def _csrf(self, seen: Seen, form: dict[str, str]) -> None:
        if form.get("csrf_token") != "c1" or "orgate_csrf=c1" not in seen.headers.get("cookie", ""):
            raise _oauth(403, "invalid_request", "this page is no longer valid; load it again")
        if "application/json" not in seen.headers.get("accept", ""):
            raise _oauth(400, "invalid_request", "a program asks for JSON")

    def _approve(self, seen: Seen, form: dict[str, str]) -> Answer:
        self._csrf(seen, form)
        if self.passwords.get((form.get("org", ""), form.get("email", ""))) != form.get("password"):
            raise _oauth(403, "access_denied", "organization, e-mail or password is wrong")
        if form.get("action") != "approve":
            raise _oauth(400, "invalid_request", "action is approve or deny")
        for device in self.devices.values():
            if device["user_code"] == form.get("user_code"):
                device["approved"] = True
        return 200, {"status": "approved"}, {}

    def _token(self, form: dict[str, str]) -> Answer:
        if form.get("client_id") != "orgate-cli":
            return 400, {"error": "invalid_client"}, {}
        if form["grant_type"].endswith("device_code"):
            device = self.devices.get(form["device_code"])
            if device is None:
                return 400, {"error": "invalid_grant"}, {}
            if not device["approved"]:
                return 400, {"error": "authorization_pending"}, {}
            del self.devices[form["device_code"]]
            return self._issue(Family(current=""), form["resource"], new=True)
        self.refreshes += 1
        for family in self.families:
            if form["refresh_token"] in family.used:
                self.misuses += 1
                family.alive = False
            if form["refresh_token"] == family.current and family.alive:
                family.used.add(family.current)
                return self._issue(family, form["resource"])
        return 400, {"error": "invalid_grant", "error_description": "the refresh token has ended"}, {}

    def _issue(self, family: Family, resource: str, *, new: bool = False) -> Answer:
        family.current = "rt_" + secrets.token_hex(8)
        if new:
            self.families.append(family)
        token = "at_" + secrets.token_hex(8)
        self.access[token] = resource
        return (
            200,
            {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": self.expires_in,
                "refresh_token": family.current,
            },
            {"cache-control": "no-store"},
        )
