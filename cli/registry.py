"""`orgate client`: programs of the organization's own that ask for tokens."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from msgspec import Struct, structs

from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.output import Column, Format, instant
from cli.resources import Resource
from cli.service import service_id_of
from cli.session import Session
from cli.spans import seconds
from tenants.clientrules import MAX_JWKS
from tenants.clients import SECRET_METHODS, AuthMethod, GrantType, OAuthClient, Plane

app = typer.Typer(
    help="Programs of the organization's own that ask for tokens: OAuth clients.",
    epilog=examples(
        "orgate client create portal --title 'The Portal' --redirect-uri https://portal.example/cb",
        "orgate client create ci --title 'Our CI' --service ci",
        "orgate client list",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _grants(grants: Any) -> str:
    """Their short names: the standard's own are long."""
    return ", ".join(GrantType(grant).name.lower() for grant in grants)


COLUMNS: Final = [
    Column("CLIENT ID", "client_id"),
    Column("TITLE", "title"),
    Column("AUTHENTICATES", "auth_method"),
    Column("GRANTS", "grant_types", _grants),
    Column("PLANES", "planes"),
    Column("STATE", "state"),
    Column("CREATED", "created_at", instant),
]


class Grant(StrEnum):
    """The grants by their short names."""

    AUTHORIZATION_CODE = "authorization_code"
    DEVICE_CODE = "device_code"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105  # the standard's word, not a secret
    CLIENT_CREDENTIALS = "client_credentials"
    TOKEN_EXCHANGE = "token_exchange"  # noqa: S105  # the same


class NewSecret(Struct, frozen=True):
    """As the admin API shows it, once."""

    client_id: str
    secret: str
    created_at: int


class KnownSecret(Struct, frozen=True):
    created_at: int
    expires_at: int


class KnownSecrets(Struct, frozen=True):
    items: list[KnownSecret]


class Ended(Struct, frozen=True):
    ended: int


Name = Annotated[str, typer.Argument(help="The client's name: what stands behind ORG. in its id.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Title = Annotated[str | None, typer.Option(help="What sign-in pages call it.")]
Auth = Annotated[AuthMethod | None, typer.Option(help="How it authenticates; none is a public client.")]
Grants = Annotated[list[Grant] | None, typer.Option(help="What it may ask with; may be repeated.")]
Planes = Annotated[list[Plane] | None, typer.Option(help="v1 for models, admin for the admin API; repeatable.")]
Redirects = Annotated[
    list[str] | None,
    typer.Option("--redirect-uri", help="Where sign-ins go back to; may be repeated.", metavar="URI"),
]
Jwks = Annotated[
    Path | None, typer.Option(help="File with its public keys (a JWK Set), for private_key_jwt.", metavar="FILE")
]
ServiceOption = Annotated[
    str | None, typer.Option(help="The service account its client_credentials tokens are for.", metavar="SERVICE")
]


def _clients(session: Session) -> Resource[OAuthClient]:
    return session.resource("clients", OAuthClient, "client")


def _row(client: OAuthClient) -> dict[str, Any]:
    return {"client_id": client.client_id, **structs.asdict(client)}


@command(app, examples("orgate client list", "orgate client list --output json"), name="list")
def list_(session: Session) -> None:
    """List the organization's clients. Those that come with Orgate are everybody's, and not among them."""
    rows = [_row(client) for client in _clients(session).list()]
    session.out.items(rows, COLUMNS, empty="no clients yet: `orgate client create`")


@command(
    app,
    examples(
        "orgate client create portal --title 'The Portal' --auth client_secret_basic"
        " --redirect-uri https://portal.example/cb",
        "orgate client create ide --title 'Our Editor' --redirect-uri http://127.0.0.1/cb",
        "orgate client create ci --title 'Our CI' --service ci",
        "orgate client create ci --title 'Our CI' --service ci --auth private_key_jwt --jwks keys.json",
    ),
    writes=True,
)
def create(
    session: Session,
    *,
    name: Name,
    title: Title = None,
    auth: Auth = None,
    grant: Grants = None,
    plane: Planes = None,
    redirect_uri: Redirects = None,
    jwks: Jwks = None,
    service: ServiceOption = None,
    require_par: Annotated[
        bool, typer.Option("--require-par", help="Requests are pushed first (RFC 9126).")
    ] = False,
) -> None:
    """Register a client, and print its secret once where it has one: keep it where only the program reads it.

    With --service it is a program that asks in its own name, and authenticates; else it signs people in, and is
    public unless --auth says otherwise.
    """
    usual = AuthMethod.PRIVATE_KEY_JWT if jwks else AuthMethod.CLIENT_SECRET_BASIC if service else AuthMethod.NONE
    grants = grant or ([Grant.CLIENT_CREDENTIALS] if service else [Grant.AUTHORIZATION_CODE, Grant.REFRESH_TOKEN])
    body = {
        "name": name,
        "title": title or name,
        "auth_method": auth or usual,
        "grant_types": [GrantType[one.name] for one in grants],
        "planes": plane or [Plane.DATA],
        "redirect_uris": redirect_uri or [],
        "jwks": _read(jwks),
        "service": service_id_of(session, service) if service else "",
        "require_par": require_par,
    }
    clients = _clients(session)
    made = clients.create(body, name)
    if made is None:
        return
    secret = None
    if made.auth_method in SECRET_METHODS:
        answer = session.client.write("POST", clients.at(name, "secret"), {}, what=clients.what(name))
        secret = None if answer is None else answer.decode(NewSecret)
    session.out.say(f"client '{made.client_id}' registered")
    if session.out.form is Format.TABLE:
        session.out.item(_row(made))
        if secret is not None:
            _show(session, secret)
    else:
        session.out.item({**_row(made), **({} if secret is None else {"secret": secret.secret})})


@command(app, examples("orgate client show portal"))
def show(session: Session, name: Name) -> None:
    """Show a client, and when its secrets were made. Never a secret."""
    clients = _clients(session)
    client, _ = clients.get(name)
    found = session.client.read(clients.at(name, "secret"), what=clients.what(name)).decode(KnownSecrets)
    if session.out.form is Format.TABLE:
        shown = [
            instant(one.created_at) + (f" until {instant(one.expires_at)}" if one.expires_at else "")
            for one in found.items
        ]
        session.out.item({**_row(client), "jwks": "set" if client.jwks else "", "secrets": shown})
    else:
        session.out.item({**_row(client), "secrets": [structs.asdict(one) for one in found.items]})


@command(
    app,
    examples(
        "orgate client set portal --redirect-uri https://portal.example/cb --redirect-uri http://127.0.0.1/cb",
        "orgate client set portal --require-par",
        "orgate client set ci --jwks keys.json",
    ),
    name="set",
    writes=True,
)
def set_(
    session: Session,
    *,
    name: Name,
    title: Title = None,
    auth: Auth = None,
    grant: Grants = None,
    plane: Planes = None,
    redirect_uri: Redirects = None,
    jwks: Jwks = None,
    service: ServiceOption = None,
    require_par: Annotated[
        bool | None, typer.Option("--require-par/--no-require-par", help="Requests are pushed first (RFC 9126).")
    ] = None,
) -> None:
    """Change what is given of a client; a list replaces all of it.

    What it may do no more ends the access tokens that it got.
    """
    given: dict[str, Any] = {
        "title": title,
        "auth_method": auth,
        "grant_types": tuple(GrantType[one.name] for one in grant) if grant else None,
        "planes": tuple(plane) if plane else None,
        "redirect_uris": tuple(redirect_uri) if redirect_uri else None,
        "jwks": None if jwks is None else _read(jwks),
        "service": None if service is None else service_id_of(session, service) if service else "",
        "require_par": require_par,
    }
    if auth not in (None, AuthMethod.PRIVATE_KEY_JWT):
        given["jwks"] = ""
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise UsageError("nothing to change", "`orgate client set --help` shows what can be")
    made = _clients(session).change(name, lambda was: structs.replace(was, **changes))
    session.wrote(None if made is None else _row(made), f"client '{name}' changed")


@command(
    app,
    examples(
        "orgate client secret portal",
        "orgate client secret portal --overlap 7d",
        "orgate client secret portal --end-overlap",
    ),
    writes=True,
)
def secret(
    session: Session,
    name: Name,
    overlap: Annotated[
        str, typer.Option(help="How long the secret in force stays good: 0s, 36h, 7d.", metavar="SPAN")
    ] = "1d",
    end_overlap: Annotated[
        bool, typer.Option("--end-overlap", help="Make none: end the one before the one in force now.")
    ] = False,
) -> None:
    """Make another secret and print it, once. The one in force stays good for a while: nobody is cut off."""
    clients = _clients(session)
    if end_overlap:
        answer = session.client.write("DELETE", clients.at(name, "secret"), what=clients.what(name))
        if answer is not None:
            ended = answer.decode(Ended).ended
            session.out.say("the old secret is good for nothing now" if ended else "there is only one secret")
        return
    body = {"overlap_s": seconds(overlap)}
    answer = session.client.write("POST", clients.at(name, "secret"), body, what=clients.what(name))
    if answer is None:
        return
    made = answer.decode(NewSecret)
    if session.out.form is Format.TABLE:
        _show(session, made)
    else:
        session.out.item(made)
    if body["overlap_s"]:
        session.out.say(f"the secret before stays good for {overlap}; `--end-overlap` ends it earlier")
    else:
        session.out.say("the secret before is good for nothing now")


@command(app, examples("orgate client suspend portal --yes"), writes=True)
def suspend(session: Session, name: Name, yes: Yes = False) -> None:
    """Shut a client out within a second: unknown from now on, its tokens refused, its sign-ins ended."""
    session.confirm(f"Suspend client '{name}'?", yes=yes)
    made = _clients(session).act(name, "suspend", OAuthClient)
    session.wrote(None if made is None else _row(made), f"client '{name}' suspended")


@command(app, examples("orgate client resume portal"), writes=True)
def resume(session: Session, name: Name) -> None:
    """Let a suspended client ask again. People sign in anew; its secrets are those of before."""
    made = _clients(session).act(name, "resume", OAuthClient)
    session.wrote(None if made is None else _row(made), f"client '{name}' active")


@command(app, examples("orgate client delete portal --yes"), writes=True)
def delete(session: Session, name: Name, yes: Yes = False) -> None:
    """Delete a client: its tokens are refused within a second, and sign-ins with it have ended."""
    session.confirm(f"Delete client '{name}'?", yes=yes)
    if _clients(session).delete(name):
        session.out.say(f"client '{name}' deleted")


def _show(session: Session, secret: NewSecret) -> None:
    session.out.line(f"secret  {secret.secret}")
    session.out.say("it is not shown again: keep it where only the program reads it")


def _read(path: Path | None) -> str:
    """The file's JSON, or ''."""
    if path is None:
        return ""
    try:
        text = path.read_bytes().decode("ascii").strip()
    except OSError as error:
        raise UsageError(f"--jwks: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--jwks: {path} is no JWK Set") from None
    if len(text) > MAX_JWKS:
        raise UsageError(f"--jwks: {path} has more than {MAX_JWKS // 1024} KiB")
    return text
