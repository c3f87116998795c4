"""Signing in: in a browser here, with a code in a browser elsewhere or, with a password, by driving that page."""

from __future__ import annotations

import getpass
import secrets
import time
import warnings
import webbrowser
from base64 import urlsafe_b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import TextIO
from urllib.parse import urlsplit

import httpx
from msgspec import Struct, structs

from cli.connection import Connection
from cli.credentials import Login
from cli.errors import NotAllowedError, RefusedError, UsageError
from cli.loopback import Loopback
from cli.oauth import PASSING, AuthorizationServer, DeviceAuthorization, OAuthError, Tokens, oauth_error
from cli.output import printable
from cli.profiles import DEFAULT_PROFILE, DEFAULT_SERVER, Profile, admin_beside, origin
from cli.proof import ProofKey
from cli.session import Session, display_available
from cli.tokens import remember
from gateway.secret import Secret

DEVICE_PAGE = "/oauth/device"
SECOND_FACTOR = "insufficient_user_authentication"  # RFC 9470 section 3
INVITATION_PAGE = "/oauth/invitation"
SIGN_IN_S = 600.0
"""How long somebody may take at the page: as long as a device code lives."""


class Addresses(Struct, frozen=True):
    """What was said on the command line; '' = as the profile has it."""

    server: str
    admin: str
    ca: str


def sign_in(
    session: Session,
    said: Addresses,
    *,
    email: str,
    invitation: str,
    password_from: TextIO | None,
    browser: bool,
    dpop: bool = False,
) -> str:
    """Sign in and save profile and login. Returns the profile's name. `dpop`: bind it to a new key."""
    name, profile = _profile(session, said)
    session.use(name, profile)
    session.credentials.path(name)  # a name that cannot be a file is refused before anything is asked
    server = session.authorization_server()
    profile = structs.replace(profile, resource=server.metadata.issuer.rstrip("/"))
    if server.metadata.orgate_admin_url and not said.admin:
        profile = structs.replace(
            profile, admin=origin(server.metadata.orgate_admin_url, "the server's admin URL")
        )
    session.use(name, profile)
    server = session.authorization_server()
    audience = session.audience("v1")
    connection = session.connection(profile.server)
    if email and not profile.org:
        raise UsageError("which organization is this e-mail address of?", "add `--org ORG`")
    password = _password(email, new=bool(invitation), given=password_from) if email else None
    if invitation and password is not None:
        _accept_invitation(connection, invitation, org=profile.org, email=email, password=password)
        session.out.say("the password is set")
    key = ProofKey.new() if dpop else None
    tokens = None
    if password is None and browser and display_available() and server.metadata.authorization_endpoint:
        tokens = _in_browser(session, server, audience, key, org=profile.org)
    if tokens is None:
        device = server.authorize_device(audience)
        if password is None:
            _show(session, device, browser=browser)
        elif not _approve(connection, device, org=profile.org, email=email, password=password):
            session.out.say("this account signs in with a second factor, which a browser asks for")
            _show(session, device, browser=browser)
        tokens = server.poll(device, audience, now=time.time, sleep=time.sleep, key=key)
    if not tokens.refresh_token:
        raise RefusedError("the server gave no refresh token", "is `orgate-cli` registered there as it should be?")
    if key is not None and tokens.token_type.lower() != "dpop":
        server.revoke(tokens.refresh_token)
        raise RefusedError(
            "the organization does not bind tokens to keys", "an admin can: `orgate org set --dpop optional`"
        )
    with session.credentials.lock(name):
        login = Login(refresh_token=tokens.refresh_token, org=profile.org, key=key.pem if key is not None else "")
        session.credentials.save(name, remember(login, tokens, audience, time.time()))
    session.profiles.save(name, profile)
    return name


def _profile(session: Session, said: Addresses) -> tuple[str, Profile]:
    name, saved = session.profiles.for_login(session.options.profile)
    if saved is None and name != DEFAULT_PROFILE and not said.server:
        raise UsageError(f"profile {name!r} is new", "add `--server URL`")
    known = saved or Profile(server=DEFAULT_SERVER, admin=admin_beside(DEFAULT_SERVER))
    server = origin(said.server, "--server") if said.server else known.server
    moved = server != known.server
    admin = origin(said.admin, "--admin-url") if said.admin else admin_beside(server) if moved else known.admin
    ca = said.ca or ("" if moved else known.ca)
    if said.ca:
        from pathlib import Path

        ca = str(Path(said.ca).expanduser().resolve())
    org = session.options.org or ("" if moved else known.org)
    return name, Profile(server=server, admin=admin, ca=ca, org=org, resource="" if moved else known.resource)


def _password(email: str, *, new: bool, given: TextIO | None) -> Secret:
    if given is not None:
        text = given.readline().rstrip("\r\n")
    else:
        try:
            text = _unseen(f"{'New password' if new else 'Password'} for {email}: ")
            if new and text != _unseen("Once more: "):
                raise UsageError("the two passwords differ", "run `orgate login` again")
        except EOFError:
            text = ""
    if not text:
        raise UsageError("no password was given", "type it when asked, or pipe it in with `--password-stdin`")
    return Secret(text)


def _unseen(question: str) -> str:
    """What is typed at the terminal. Without one `getpass` would warn, and read what everybody sees."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(question)
        except getpass.GetPassWarning:
            raise UsageError("there is no terminal to type a password at", "add `--password-stdin`") from None


def _in_browser(
    session: Session, server: AuthorizationServer, audience: str, key: ProofKey | None, *, org: str
) -> Tokens | None:
    """The authorization code flow with a listener on this machine. None: no browser would open."""
    verifier, state = secrets.token_urlsafe(32), secrets.token_urlsafe(16)
    challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    with Loopback(state, server.metadata.issuer) as listener:
        uri = listener.redirect_uri
        page = server.authorization_url(
            redirect_uri=uri, state=state, challenge=challenge, resource=audience, key=key, org=org
        )
        if not webbrowser.open(page):
            return None
        session.out.say("sign in in the browser that has opened, or else at")
        session.out.say(printable(page))
        session.out.say("waiting ... (Ctrl-C to give up; --no-browser signs in with a code instead)")
        code = listener.code(SIGN_IN_S)
    return server.redeem(code, verifier=verifier, redirect_uri=uri, resource=audience, key=key)


def _show(session: Session, device: DeviceAuthorization, *, browser: bool) -> None:
    session.out.say(f"Open {printable(device.verification_uri)}")
    session.out.say(f"and confirm the code {printable(device.user_code)}")
    page = device.verification_uri_complete or device.verification_uri
    if browser and display_available() and urlsplit(page).scheme in ("https", "http"):
        webbrowser.open(page)
    session.out.say("waiting ... (Ctrl-C to give up)")


def _approve(
    connection: Connection, device: DeviceAuthorization, *, org: str, email: str, password: Secret
) -> bool:
    """Sign the device in with a password. False: that is right, and not enough."""
    hidden = _hidden_fields(connection, DEVICE_PAGE, {"user_code": device.user_code})
    answer = connection.request(
        "POST",
        DEVICE_PAGE,
        headers={"accept": "application/json", "origin": connection.origin},
        form={
            **hidden,
            "user_code": device.user_code,
            "org": org,
            "email": email,
            "password": password.reveal().decode(),
            "action": "approve",
        },
    )
    if answer.status_code == 403:
        error = oauth_error(answer)
        if isinstance(error, OAuthError) and error.error == SECOND_FACTOR:
            return False
        if isinstance(error, OAuthError) and "single sign-on" in error.message:
            _accepted(
                answer, "the sign-in", "sign in without --email: `orgate login` opens the page that offers it"
            )
    _accepted(answer, "the sign-in", "check organization, e-mail address and password")
    return True


def _accept_invitation(connection: Connection, code: str, *, org: str, email: str, password: Secret) -> None:
    hidden = _hidden_fields(connection, INVITATION_PAGE, {"org": org, "email": email})
    answer = connection.request(
        "POST",
        INVITATION_PAGE,
        headers={"accept": "application/json", "origin": connection.origin},
        form={
            **hidden,
            "org": org,
            "email": email,
            "code": code,
            "password": password.reveal().decode(),
            "password_again": password.reveal().decode(),
        },
    )
    if answer.status_code >= 300:
        error = oauth_error(answer)
        if isinstance(error, OAuthError) and error.error == "invalid_request":
            # Said of what was typed, before the invitation is looked at.
            raise RefusedError(
                f"the password was not set: {error.message}",
                "the invitation was not used: run the command again with another password",
            )
    _accepted(answer, "the invitation", "ask an admin for a new one: `orgate member invite`")


def _accepted(answer: httpx.Response, what: str, fix: str) -> None:
    if answer.status_code < 300:
        return
    error = oauth_error(answer)
    if isinstance(error, OAuthError) and error.error not in PASSING:
        refused = NotAllowedError if error.error in ("access_denied", "invalid_grant") else RefusedError
        raise refused(f"{what} was refused: {error.message}", fix)
    raise error


class _Form(HTMLParser):
    """Collects the hidden inputs of a page: what a browser would send back without showing it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input" and given.get("type") == "hidden" and given.get("name"):
            self.hidden[str(given["name"])] = given.get("value") or ""


def _hidden_fields(connection: Connection, page: str, params: dict[str, str]) -> dict[str, str]:
    """The page's hidden inputs, its CSRF token among them. Its cookie stays in the connection."""
    answer = connection.request("GET", page, params=params, headers={"accept": "text/html"})
    if answer.status_code != 200:
        raise oauth_error(answer)
    form = _Form()
    form.feed(answer.text)
    return form.hidden
