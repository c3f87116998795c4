"""Signing in: the device flow, in a browser or, with a password, by driving its page from here."""

from __future__ import annotations

import getpass
import time
import webbrowser
from html.parser import HTMLParser
from typing import TextIO
from urllib.parse import urlsplit

import httpx
from msgspec import Struct, structs

from cli.connection import Connection
from cli.credentials import Login
from cli.errors import NotAllowedError, RefusedError, UsageError
from cli.oauth import DeviceAuthorization
from cli.output import printable
from cli.problems import problem_of
from cli.profiles import DEFAULT_PROFILE, Profile, admin_beside, origin
from cli.session import Session, display_available
from cli.tokens import remember
from gateway.secret import Secret

DEVICE_PAGE = "/oauth/device"
INVITATION_PAGE = "/oauth/invitation"


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
) -> str:
    """Sign in and save profile and login. Returns the profile's name."""
    name, profile = _profile(session, said)
    session.use(name, profile)
    session.credentials.path(name)  # a name that cannot be a file is refused before anything is asked
    server = session.authorization_server()
    profile = structs.replace(profile, resource=server.metadata.issuer.rstrip("/"))
    session.use(name, profile)
    server = session.authorization_server()
    audience = session.audience("v1")
    connection = session.connection(profile.server)
    if email and not profile.org:
        raise UsageError("which organization is this e-mail address of?", "add `--org ORG`")
    password = _password(email, new=bool(invitation), given=password_from) if email else None
    if invitation and password is not None:
        _accept_invitation(connection, invitation, password)
        session.out.say("the password is set")
    device = server.authorize_device(audience)
    if password is not None:
        _approve(connection, device, org=profile.org, email=email, password=password)
    else:
        _show(session, device, browser=browser)
    tokens = server.poll(device, audience, now=time.time, sleep=time.sleep)
    if not tokens.refresh_token:
        raise RefusedError("the server gave no refresh token", "is `orgate-cli` registered there as it should be?")
    with session.credentials.lock(name):
        login = Login(refresh_token=tokens.refresh_token, org=profile.org)
        session.credentials.save(name, remember(login, tokens, audience, time.time()))
    session.profiles.save(name, profile)
    return name


def _profile(session: Session, said: Addresses) -> tuple[str, Profile]:
    wanted = session.options.profile
    if wanted and not session.profiles.known(wanted):
        name, known = wanted, session.profiles.load(DEFAULT_PROFILE)[1]
        if not said.server:
            raise UsageError(f"profile {wanted!r} is new", "add `--server URL`")
    else:
        name, known = session.profiles.load(wanted)
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
            text = getpass.getpass(f"{'New password' if new else 'Password'} for {email}: ")
            if new and text != getpass.getpass("Once more: "):
                raise UsageError("the two passwords differ", "run `orgate login` again")
        except EOFError:
            text = ""
    if not text:
        raise UsageError("no password was given", "type it when asked, or pipe it in with `--password-stdin`")
    return Secret(text)


def _show(session: Session, device: DeviceAuthorization, *, browser: bool) -> None:
    session.out.say(f"Open {printable(device.verification_uri)}")
    session.out.say(f"and confirm the code {printable(device.user_code)}")
    page = device.verification_uri_complete or device.verification_uri
    if browser and display_available() and urlsplit(page).scheme in ("https", "http"):
        webbrowser.open(page)
    session.out.say("waiting ... (Ctrl-C to give up)")


def _approve(
    connection: Connection, device: DeviceAuthorization, *, org: str, email: str, password: Secret
) -> None:
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
        },
    )
    _accepted(answer, "the sign-in")


def _accept_invitation(connection: Connection, code: str, password: Secret) -> None:
    hidden = _hidden_fields(connection, INVITATION_PAGE, {"code": code})
    answer = connection.request(
        "POST",
        INVITATION_PAGE,
        headers={"accept": "application/json", "origin": connection.origin},
        form={**hidden, "code": code, "password": password.reveal().decode()},
    )
    _accepted(answer, "the invitation")


def _accepted(answer: httpx.Response, what: str) -> None:
    if answer.status_code < 300:
        return
    problem = problem_of(answer.status_code, answer.content)
    said = printable(problem.detail or problem.title)
    faults = "".join(f"\n  {printable(fault.field)}: {printable(fault.message)}" for fault in problem.errors)
    if answer.status_code in (401, 403):
        raise NotAllowedError(f"{what} was refused: {said}", "check organization, e-mail address and password")
    raise RefusedError(f"{what} was refused: {said}{faults}")


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
        _accepted(answer, f"the page {page}")
    form = _Form()
    form.feed(answer.text)
    return form.hidden
