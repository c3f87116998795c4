"""`orgate audit stream`: where the log is sent as it grows."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from msgspec import Struct, structs

from cli.command import command
from cli.errors import NotFoundError, RefusedError, UsageError
from cli.examples import examples
from cli.output import Column, Format, instant
from cli.resources import Resource
from cli.session import Session
from gateway.secret import Secret
from tenants.streams import FORMATS, AuditStream, StreamFormat, StreamKind

app = typer.Typer(
    help="Send the log to a SIEM as it grows: syslog over TLS, Splunk, HTTP, OpenTelemetry, S3.",
    short_help="Send the log to a SIEM as it grows.",
    epilog=examples(
        "orgate audit stream set siem --kind splunk --url https://splunk.example:8088 --secret-from token",
        "orgate audit stream set syslog --kind syslog --url tls://logs.example:6514 --receiver-ca ca.pem",
        "orgate audit stream test siem",
        "orgate audit stream list",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

LONGEST: Final = 4_096
LARGEST: Final = 256 * 1024
Name = Annotated[str, typer.Argument(help="The stream's name.")]
COLUMNS: Final = [
    Column("NAME", "name"),
    Column("KIND", "kind"),
    Column("URL", "url"),
    Column("STATE", "state"),
    Column("BEHIND", "lag_entries"),
    Column("SECONDS", "lag_s"),
    Column("DELIVERED", "delivered_at", instant),
    Column("FAILURE", "failure"),
]


class State(Struct, frozen=True):
    """As the admin API tells it."""

    name: str
    kind: str
    state: str
    position: int
    lag_entries: int
    lag_s: int
    delivered_at: int
    failing_since: int
    failure: str
    skipped: int
    rejected: int


class States(Struct, frozen=True):
    items: list[State]


class Tested(Struct, frozen=True):
    ok: bool
    ms: float
    detail: str


class SecretVersion(Struct, frozen=True):
    version: int


class _Secret(Struct, frozen=True):
    secret: Secret


class _Pair(Struct, frozen=True):
    cert: str
    key: Secret


def _streams(session: Session) -> Resource[AuditStream]:
    return session.resource("audit-streams", AuditStream, "stream")


def _states(session: Session) -> dict[str, State]:
    path = f"/admin/v1/orgs/{session.org}/audit-streams-state"
    found = session.client.read(path, what="the state of the streams").decode(States)
    return {state.name: state for state in found.items}


@command(
    app,
    examples(
        "orgate audit stream set siem --kind splunk --url https://splunk.example:8088 --secret-from token",
        "orgate audit stream set syslog --kind syslog --url tls://logs.example --cert client.pem --key client.key",
        "orgate audit stream set lake --kind s3 --url https://s3.eu-central-1.amazonaws.com/acme-audit"
        " --region eu-central-1 --format ocsf",
        "orgate audit stream set siem --format ocsf",
    ),
    name="set",
    writes=True,
)
def set_(
    session: Session,
    *,
    name: Name,
    kind: Annotated[StreamKind | None, typer.Option(help="What to speak; a new stream needs it.")] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Where to: tls://host:port for syslog, https://host/bucket for s3, else https://…."),
    ] = None,
    form: Annotated[
        StreamFormat | None, typer.Option("--format", help="How entries are spelt; else as is usual there.")
    ] = None,
    receiver_ca: Annotated[
        Path | None,
        typer.Option("--receiver-ca", help="PEM file of the receiver's own authority.", metavar="FILE"),
    ] = None,
    index: Annotated[str | None, typer.Option(help="Splunk's index; else the token's.")] = None,
    sourcetype: Annotated[str | None, typer.Option(help="Splunk's source type.")] = None,
    ack: Annotated[bool | None, typer.Option(help="Wait for Splunk's indexer to acknowledge.")] = None,
    region: Annotated[str | None, typer.Option(help="S3's region; else us-east-1.")] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the first entry, not with the next.")
    ] = False,
    secret_from: Annotated[
        Path | None,
        typer.Option(
            help="File with the secret, - for stdin: Splunk's token, the value of Authorization, or ID:SECRET.",
            metavar="FILE",
        ),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(help="PEM file: the client certificate for syslog.", metavar="FILE")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file: its private key.", metavar="FILE")] = None,
) -> None:
    """Make a stream, or change what is given of one; then set its secret, if one is given.

    The secret is read from a file or stdin, never from an argument, and never shown again.
    """
    if (cert is None) != (key is None):
        raise UsageError("--cert and --key belong together", "give both")
    given: dict[str, Any] = {
        field: value
        for field, value in (
            ("url", url),
            ("format", form),
            ("ca_pem", None if receiver_ca is None else _pem(receiver_ca, "--receiver-ca")),
            ("index", index),
            ("sourcetype", sourcetype),
            ("ack", ack),
            ("region", region),
        )
        if value is not None
    }
    secret = _secret(secret_from, cert, key)
    streams = _streams(session)
    try:
        current, _ = streams.get(name)
    except NotFoundError:
        if kind is None or url is None:
            raise UsageError(
                f"there is no stream '{name}' yet, and a new one needs --kind and --url",
                f"kinds are {', '.join(StreamKind)}",
            ) from None
        fresh = {"name": name, "kind": kind, "from_start": from_start, **given}
        made = streams.create({**fresh, "format": form or FORMATS[kind][0]}, name)
    else:
        if from_start or kind not in (None, current.kind):
            raise UsageError("--kind and --from-start are for a new stream", f"delete '{name}' first")
        made = streams.change(name, lambda now: structs.replace(now, **given)) if given else current
    if secret is not None:
        session.client.write("PUT", streams.at(name, "secret"), secret, what=f"the secret of stream '{name}'")
        if made is not None:
            made, _ = streams.get(name)  # with the version of its secret
    if made is not None:
        if session.out.form is Format.TABLE and made.ca_pem:
            made = structs.replace(made, ca_pem="set")
        session.wrote(made, f"stream '{name}' set; next: `orgate audit stream test {name}`")


@command(app, examples("orgate audit stream list", "orgate audit stream list --output json"), name="list")
def list_(session: Session) -> None:
    """List the streams, and how far behind each is. BEHIND counts entries that the receiver does not have yet."""
    states = _states(session)
    rows = []
    for stream in _streams(session).list():
        state = states.get(stream.name)
        rows.append({**structs.asdict(stream), **({} if state is None else structs.asdict(state))})
    session.out.items(rows, COLUMNS, empty="no streams yet: `orgate audit stream set`")


@command(app, examples("orgate audit stream show siem"))
def show(session: Session, name: Name) -> None:
    """Show a stream: where it leads, how far it has come, and why it waits. Never its secret."""
    stream, _ = _streams(session).get(name)
    state = _states(session).get(name)
    shown = {**structs.asdict(stream), **({} if state is None else structs.asdict(state))}
    if session.out.form is Format.TABLE:
        shown["ca_pem"] = "set" if stream.ca_pem else ""
        if state is not None:
            shown["failing_since"] = instant(state.failing_since) if state.failing_since else ""
    session.out.item(shown)


@command(app, examples("orgate audit stream test siem"), writes=True)
def test(session: Session, name: Name) -> None:
    """Send an event that is no entry of the log, and show what it met. Exit code 1 when it failed."""
    result: Tested | None = _streams(session).act(name, "test", Tested)
    if result is None:
        return
    session.out.item(result)
    if not result.ok:
        raise RefusedError(f"stream '{name}' failed: {result.detail}")


@command(app, examples("orgate audit stream pause siem"), writes=True)
def pause(session: Session, name: Name) -> None:
    """Stop sending. Entries wait in the log, and the stream keeps its place."""
    if _streams(session).act(name, "pause", AuditStream) is not None:
        session.out.say(f"stream '{name}' paused")


@command(app, examples("orgate audit stream resume siem"), writes=True)
def resume(session: Session, name: Name) -> None:
    """Go on where the stream was."""
    if _streams(session).act(name, "resume", AuditStream) is not None:
        session.out.say(f"stream '{name}' resumed")


@command(app, examples("orgate audit stream delete siem --yes"), writes=True)
def delete(
    session: Session, name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete a stream, its place and its secret. What the receiver has, it keeps."""
    session.confirm(f"Delete the stream '{name}'?", yes=yes)
    if _streams(session).delete(name):
        session.out.say(f"stream '{name}' deleted")


def _secret(file: Path | None, cert: Path | None, key: Path | None) -> Struct | None:
    if cert is not None and key is not None:
        return _Pair(_pem(cert, "--cert"), Secret(_pem(key, "--key")))
    if file is None:
        return None
    try:
        if str(file) != "-":
            raw = file.read_bytes()
        elif sys.stdin.isatty():
            raw = getpass.getpass("Secret: ").encode()
        else:
            raw = sys.stdin.buffer.read(2 * LONGEST)
    except OSError as error:
        raise UsageError(f"--secret-from: {file} cannot be read: {error.strerror}") from None
    try:
        text = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        raise UsageError("the secret has characters that no header can carry") from None
    if not text or len(text) > LONGEST:
        raise UsageError(f"the secret has 1 to {LONGEST} characters", "give it alone in the file")
    return _Secret(Secret(text))


def _pem(path: Path, option: str) -> str:
    try:
        raw = path.read_bytes()
        text = raw.decode("ascii")
    except OSError as error:
        raise UsageError(f"{option}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option}: {path} is no PEM file") from None
    if len(raw) > LARGEST:
        raise UsageError(f"{option}: {path} has more than {LARGEST // 1024} KiB")
    return text
