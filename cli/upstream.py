"""`orgate upstream`: the model servers an organization may use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct, structs

from cli import cert
from cli.command import command
from cli.errors import RefusedError, UsageError
from cli.examples import examples
from cli.output import Column
from cli.resources import Resource, body_of
from cli.session import Session
from tenants.ids import OrgId
from tenants.models import CredentialKind, Upstream, WireProtocol

app = typer.Typer(
    help="Model servers an organization may use.",
    epilog=examples("orgate upstream create vllm --url https://models.acme.example", "orgate upstream test vllm"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.add_typer(cert.app, name="cert")

COLUMNS = [
    Column("NAME", "name"),
    Column("URL", "base_url"),
    Column("PROTOCOL", "protocol"),
    Column("AUTH", "auth"),
    Column("CONNECTIONS", "connections"),
    Column("KEY VERSION", "key_version"),
]
Name = Annotated[str, typer.Argument(help="The upstream's name.")]
Url = Annotated[
    str | None, typer.Option("--url", help="All that stands before /v1, e.g. https://api.example.com.")
]
Protocol = Annotated[WireProtocol | None, typer.Option(help="What to speak to it; auto: by ALPN.")]
Auth = Annotated[CredentialKind | None, typer.Option(help="What kind of key it takes.")]
Ca = Annotated[
    Path | None, typer.Option("--upstream-ca", help="PEM file of its own authority.", exists=True, dir_okay=False)
]
Connections = Annotated[int | None, typer.Option(help="HTTP/2 connections a worker holds.", min=1)]
ConnectTimeout = Annotated[int | None, typer.Option(help="Milliseconds to connect.", min=1)]
FirstByteTimeout = Annotated[int | None, typer.Option(help="Milliseconds to its first byte.", min=1)]
MaxInFlight = Annotated[
    int | None,
    typer.Option(help="Requests a worker may have there at once; 0: as many as the connections take.", min=0),
]
MaxQueue = Annotated[
    int | None, typer.Option(help="Requests of one lane that may wait for it, before 503.", min=0)
]
ConnectionAge = Annotated[
    int | None, typer.Option(help="Seconds after which a connection is replaced; 0: never.", min=0)
]
ConnectionResets = Annotated[
    int | None,
    typer.Option(help="Cancelled requests before which a connection is replaced; 0: never.", min=0),
]
IdleTimeout = Annotated[int | None, typer.Option(help="Milliseconds between two bytes.", min=1)]
TotalTimeout = Annotated[
    int | None,
    typer.Option(help="Milliseconds of a whole call, from its arrival; 0: as long as the caller's.", min=0),
]


class Tried(Struct, frozen=True):
    """What the gateway saw when it asked the upstream for its models. `ms` milliseconds."""

    ok: bool
    status: int = 0
    ms: float = 0
    detail: str = ""


def _upstreams(session: Session) -> Resource[Upstream]:
    return session.resource("upstreams", Upstream, "upstream")


def _given(**options: Any) -> dict[str, Any]:
    found = {key: value for key, value in options.items() if value is not None}
    if "ca_pem" in found:
        try:
            found["ca_pem"] = found["ca_pem"].read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--upstream-ca: {error}", "give a PEM file") from None
    return found


@command(app, examples("orgate upstream list", "orgate upstream list --output json"), name="list")
def list_(session: Session) -> None:
    """List the organization's upstreams."""
    session.out.items(_upstreams(session).list(), COLUMNS, empty="no upstreams yet: `orgate upstream create`")


@command(
    app,
    examples(
        "orgate upstream create vllm --url https://models.acme.example",
        "orgate upstream create local --url http://127.0.0.1:9000 --protocol h2c --auth none",
        "orgate upstream create azure --url https://acme.openai.azure.com/openai --auth api-key",
    ),
    writes=True,
)
def create(
    session: Session,
    *,
    name: Name,
    url: Annotated[str, typer.Option("--url", help="All that stands before /v1, e.g. https://api.example.com.")],
    protocol: Protocol = None,
    auth: Auth = None,
    upstream_ca: Ca = None,
    connections: Connections = None,
    max_in_flight: MaxInFlight = None,
    max_queue: MaxQueue = None,
    connection_age_s: ConnectionAge = None,
    connection_resets: ConnectionResets = None,
    connect_timeout_ms: ConnectTimeout = None,
    first_byte_timeout_ms: FirstByteTimeout = None,
    idle_timeout_ms: IdleTimeout = None,
    total_timeout_ms: TotalTimeout = None,
) -> None:
    """Add an upstream. Its key follows with `orgate key set`."""
    given = _given(
        protocol=protocol,
        auth=auth,
        ca_pem=upstream_ca,
        connections=connections,
        max_in_flight=max_in_flight,
        max_queue=max_queue,
        connection_age_s=connection_age_s,
        connection_resets=connection_resets,
        connect_timeout_ms=connect_timeout_ms,
        first_byte_timeout_ms=first_byte_timeout_ms,
        idle_timeout_ms=idle_timeout_ms,
        total_timeout_ms=total_timeout_ms,
    )
    key = "" if auth is CredentialKind.NONE else f"`orgate key set {name}`, "
    made = Upstream(org=OrgId(session.org), name=name, base_url=url.rstrip("/"), **given)
    session.wrote(
        _upstreams(session).create(body_of(made), name),
        f"upstream '{name}' created; next: {key}`orgate upstream test {name}`",
    )


@command(app, examples("orgate upstream show vllm"))
def show(session: Session, name: Name) -> None:
    """Show one upstream."""
    session.out.item(_upstreams(session).get(name)[0])


@command(
    app,
    examples(
        "orgate upstream set vllm --connections 8",
        "orgate upstream set vllm --max-in-flight 32 --max-queue 16",
        "orgate upstream set vllm --url https://new.acme.example",
    ),
    name="set",
    writes=True,
)
def set_(
    session: Session,
    *,
    name: Name,
    url: Url = None,
    protocol: Protocol = None,
    auth: Auth = None,
    upstream_ca: Ca = None,
    connections: Connections = None,
    max_in_flight: MaxInFlight = None,
    max_queue: MaxQueue = None,
    connection_age_s: ConnectionAge = None,
    connection_resets: ConnectionResets = None,
    connect_timeout_ms: ConnectTimeout = None,
    first_byte_timeout_ms: FirstByteTimeout = None,
    idle_timeout_ms: IdleTimeout = None,
    total_timeout_ms: TotalTimeout = None,
) -> None:
    """Change an upstream."""
    given = _given(
        base_url=url.rstrip("/") if url else None,
        protocol=protocol,
        auth=auth,
        ca_pem=upstream_ca,
        connections=connections,
        max_in_flight=max_in_flight,
        max_queue=max_queue,
        connection_age_s=connection_age_s,
        connection_resets=connection_resets,
        connect_timeout_ms=connect_timeout_ms,
        first_byte_timeout_ms=first_byte_timeout_ms,
        idle_timeout_ms=idle_timeout_ms,
        total_timeout_ms=total_timeout_ms,
    )
    if not given:
        raise UsageError("nothing to change", "give at least one option; see --help")
    changed = _upstreams(session).change(name, lambda was: structs.replace(was, **given))
    session.wrote(changed, f"upstream '{name}' changed")


@command(app, examples("orgate upstream delete vllm --yes"), writes=True)
def delete(
    session: Session, name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete an upstream, its key and its client certificate. Refused while a model leads to it."""
    session.confirm(f"Delete upstream '{name}', its key and its client certificate?", yes=yes)
    if _upstreams(session).delete(name):
        session.out.say(f"upstream '{name}' deleted")


@command(app, examples("orgate upstream test vllm"))
def test(session: Session, name: Name) -> None:
    """Let the gateway ask the upstream for its models, with the key; exit code 1 if it cannot."""
    upstreams = _upstreams(session)
    tried: Tried = upstreams.act(name, "test", Tried)
    session.out.item(tried)
    if not tried.ok:
        raise RefusedError(
            f"upstream '{name}' does not work: {tried.detail or f'HTTP {tried.status}'}",
            f"check its URL with `orgate upstream show {name}` and its key with `orgate key set {name}`",
        )
