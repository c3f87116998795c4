"""`orgate upstream cert`: what the gateway shows to an upstream that asks who is calling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.session import Session
from gateway.secret import Secret
from tenants.models import Upstream

SET = "orgate upstream cert set vllm --cert gateway.pem --key gateway.key"

app = typer.Typer(
    help="Client certificates: what the gateway shows to an upstream that asks for one.",
    short_help="Client certificates for upstreams.",
    epilog=examples(SET, "orgate upstream cert show vllm"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="The upstream that it is shown to.", metavar="UPSTREAM")]
LARGEST = 64 * 1024


class CertState(Struct, frozen=True):
    """What is known of a certificate without its key. Times in Unix seconds."""

    version: int
    set: bool
    subject: str = ""
    issuer: str = ""
    serial: str = ""
    not_before: int = 0
    not_after: int = 0


class _Version(Struct, frozen=True):
    version: int


class _NewCert(Struct, frozen=True):
    cert: str
    key: Secret


def _at(session: Session, name: str) -> tuple[str, str]:
    """The path, and what it is about."""
    upstreams = session.resource("upstreams", Upstream, "upstream")
    return upstreams.at(name, "cert"), f"the client certificate of {upstreams.what(name)}"


def _pem(path: Path, option: str) -> str:
    try:
        raw = path.read_bytes()
        text = raw.decode("ascii")
    except OSError as error:
        raise UsageError(f"{option}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option}: {path} is no PEM file", "convert it: `openssl x509 -inform der`") from None
    if len(raw) > LARGEST:
        raise UsageError(f"{option}: {path} has more than {LARGEST // 1024} KiB", "give PEM files")
    return text


@command(app, examples(SET), name="set", writes=True)
def set_(
    session: Session,
    *,
    upstream: Name,
    cert: Annotated[
        Path,
        typer.Option("--cert", help="PEM file: the gateway's certificate, then what issued it.", metavar="FILE"),
    ],
    key: Annotated[Path, typer.Option("--key", help="PEM file: its private key, not encrypted.", metavar="FILE")],
) -> None:
    """Set or replace the certificate that the gateway shows to an upstream, with its private key."""
    path, what = _at(session, upstream)
    body = _NewCert(_pem(cert, "--cert"), Secret(_pem(key, "--key")))
    answer = session.client.write("PUT", path, body, what=what)
    if answer is not None:
        session.wrote(
            answer.decode(_Version),
            f"client certificate of upstream '{upstream}' set; next: `orgate upstream test {upstream}`",
        )


@command(app, examples("orgate upstream cert show vllm", "orgate upstream cert show vllm --output json"))
def show(session: Session, upstream: Name) -> None:
    """Show whose certificate it is, who issued it and how long it is in force; never the key."""
    path, what = _at(session, upstream)
    session.out.item(session.client.read(path, what=what).decode(CertState))


@command(app, examples("orgate upstream cert remove vllm --yes"), writes=True)
def remove(
    session: Session, upstream: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Remove the certificate and its key. New connections to the upstream show none."""
    path, what = _at(session, upstream)
    session.confirm(f"Remove the client certificate of upstream '{upstream}'?", yes=yes)
    if session.client.write("DELETE", path, what=what) is not None:
        session.out.say(f"client certificate of upstream '{upstream}' removed")
