"""`orgate login`, `logout`, `whoami`, `token`: a person and their editor."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer
from msgspec import Struct

from cli.command import command
from cli.errors import CliError, RefusedError, UsageError
from cli.examples import examples
from cli.session import Session

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@command(
    app,
    examples(
        "orgate login --server https://gateway.example:8443 --ca ca.pem --org acme",
        "orgate login --org acme --email ann@acme.example",
        "orgate login --org acme --email ann@acme.example --invitation CODE",
        "orgate login --dpop",
    ),
)
def login(
    session: Session,
    *,
    server: Annotated[str | None, typer.Option(help="The gateway's public address.", metavar="URL")] = None,
    admin_url: Annotated[
        str | None, typer.Option(help="Its admin address; else the next port of --server.", metavar="URL")
    ] = None,
    ca: Annotated[
        str | None, typer.Option(help="PEM file of the authority that signed it.", metavar="FILE")
    ] = None,
    email: Annotated[str | None, typer.Option(help="Sign in here, with a password, without a browser.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from stdin.")
    ] = False,
    invitation: Annotated[
        str | None, typer.Option(help="A one-time code: sets the password first.", metavar="CODE")
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page when there is a display.")
    ] = True,
    dpop: Annotated[
        bool,
        typer.Option(
            "--dpop",
            help="Bind the login to a key made here (RFC 9449). For this command line alone: an editor cannot use"
            " such a login's tokens.",
        ),
    ] = False,
) -> None:
    """Sign in and keep the login in a profile.

    Opens the gateway's page in a browser; where there is none, shows an address and a code to confirm elsewhere
    (RFC 8628). With --email the password is asked here.
    """
    from cli.signin import Addresses, sign_in

    if invitation and not email:
        raise UsageError("--invitation sets a password, which is done here", "add `--email ADDRESS`")
    if password_stdin and not email:
        raise UsageError("--password-stdin needs to know whose password it is", "add `--email ADDRESS`")
    signed = sign_in(
        session,
        Addresses(server=server or "", admin=admin_url or "", ca=ca or ""),
        email=email or "",
        invitation=invitation or "",
        password_from=sys.stdin if password_stdin else None,
        browser=browser,
        dpop=dpop,
    )
    session.out.say(f"signed in at {session.profile.server} (profile '{signed}')")
    editor = "" if dpop else "; an editor gets its token with `orgate token`"
    session.out.say(f"next: `orgate whoami`{editor}")


@command(app, examples("orgate logout", "orgate logout --profile staging"))
def logout(session: Session) -> None:
    """End the login on the server and forget it here."""
    name = session.profile_name
    with session.credentials.lock(name):
        held = session.credentials.load(name, exposed=True)
        if held is None:
            session.out.say(f"nobody is signed in (profile '{name}')")
            return
        try:
            server = session.authorization_server()
            server.revoke(held.refresh_token)
            # What an editor was given goes on for a quarter of an hour unless it is taken back as well.
            for access in held.access.values():
                if access.expires_at > time.time():
                    server.revoke(access.token, "access_token")
        except CliError as error:
            # Here it is forgotten all the same; that the server still knows it must be said and acted on.
            session.credentials.forget(name)
            raise type(error)(
                f"forgotten here, but not ended on the server: {error.message}",
                "ask an admin for `orgate member revoke`, or wait for the login to end by itself",
            ) from None
        session.credentials.forget(name)
    session.out.say(f"signed out (profile '{name}')")


class Identity(Struct, frozen=True):
    """What `whoami` shows."""

    org: str
    id: str
    email: str
    name: str
    roles: list[str]
    teams: list[str]
    leads: list[str]
    profile: str
    server: str
    admin: str


@command(app, examples("orgate whoami", "orgate whoami --output json"))
def whoami(session: Session) -> None:
    """Show who is signed in, where, with which roles."""
    me: dict[str, Any] = session.client.read("/admin/v1/me", what="your own account").decode(dict)
    who = me["member"] if isinstance(me.get("member"), dict) else me
    session.out.item(
        Identity(
            org=str(who.get("org", "")),
            id=str(who.get("id", "")),
            email=str(who.get("email", "")),
            name=str(who.get("name", "")),
            roles=list(who.get("roles", [])),
            teams=list(who.get("teams", [])),
            leads=list(who.get("leads", [])),
            profile=session.profile_name,
            server=session.profile.server,
            admin=session.profile.admin,
        )
    )


@command(
    app,
    examples(
        "orgate token",
        'curl --cacert ca.pem -H "$(orgate token --header)" https://gateway.example:8443/v1/models',
        "orgate token --admin",
        "orgate token --renew",
    ),
)
def token(
    session: Session,
    admin: Annotated[bool, typer.Option("--admin", help="For the admin API instead of completions.")] = False,
    header: Annotated[bool, typer.Option("--header", help="As a whole `Authorization:` header.")] = False,
    renew: Annotated[
        bool, typer.Option("--renew", help="A new one: the gateway answered 401 to the last.")
    ] = False,
) -> None:
    """Print a fresh access token, for an editor or a script.

    It is good for two minutes or more, and renewed when needed; many processes may ask at once.
    """
    source = session.tokens("admin" if admin else "v1")
    if source.bound:
        raise RefusedError(
            "this login is bound to a key, and whoever is given a token of it has no proofs to go with it",
            "for an editor, sign in without --dpop in another profile: `orgate login --profile editor`",
        )
    fresh = source.renewed() if renew else source.token()
    session.out.line(f"Authorization: Bearer {fresh}" if header else fresh)
