"""`orgate limit webhook`: who is told when a budget is nearly used up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from cli.client import Answer
from cli.command import command
from cli.errors import NotFoundError, RefusedError, UsageError
from cli.examples import examples
from cli.output import Format
from cli.session import Session

app = typer.Typer(
    help="Where notices of budgets go (Standard Webhooks).",
    epilog=examples("orgate limit webhook set https://hooks.example.com/orgate", "orgate limit webhook test"),
    no_args_is_help=True,
    rich_markup_mode=None,
)
LARGEST = 64 * 1024


class WebhookFacts(Struct, frozen=True):
    url: str
    ca_pem: str
    set_at: int
    delivered_at: int
    failure: str
    version: int


class WebhookMade(Struct, frozen=True):
    url: str
    secret: str
    version: int


class WebhookResult(Struct, frozen=True):
    ok: bool
    status: int
    ms: float
    detail: str


def _path(session: Session, *rest: str) -> str:
    return "/".join([f"/admin/v1/orgs/{session.org}/webhook", *rest])


@command(
    app,
    examples(
        "orgate limit webhook set https://hooks.example.com/orgate",
        "orgate limit webhook set https://hooks.intern.example --ca ca.pem",
    ),
    name="set",
    writes=True,
)
def set_(
    session: Session,
    url: Annotated[str, typer.Argument(help="Where to POST notices.", metavar="URL")],
    ca: Annotated[
        Path | None, typer.Option("--ca", help="The receiver's own CA, PEM; else the system's.", metavar="FILE")
    ] = None,
) -> None:
    """Tell URL when a budget is used to a percentage of its `--notify-at`; prints the secret that signs, once.

    Setting it anew makes a new secret. The receiver checks `webhook-signature` with it, see standardwebhooks.com.
    """
    body = {"url": url, "ca_pem": "" if ca is None else _certificates(ca)}
    answer = session.client.write("PUT", _path(session), body, what="the webhook")
    if answer is not None:
        session.wrote(answer.decode(WebhookMade), "webhook set; keep the secret, it is not shown again")


@command(app, examples("orgate limit webhook show"))
def show(session: Session) -> None:
    """Show where notices go, and how the last delivery went. Never the secret."""
    facts = session.client.read(_path(session), what="the webhook").decode(WebhookFacts)
    if not facts.url and session.out.form is Format.TABLE:
        session.out.say("no webhook is set")
        return
    session.out.item(facts)


@command(app, examples("orgate limit webhook test"), writes=True)
def test(session: Session) -> None:
    """Send a message of type `webhook.test` once, and show what it met. Exit code 1 when it failed."""
    answer = _write(session, "POST", "test")
    if answer is None:
        return
    result = answer.decode(WebhookResult)
    session.out.item(result)
    if not result.ok:
        raise RefusedError(f"the webhook failed: {result.detail}")


@command(app, examples("orgate limit webhook delete --yes"), writes=True)
def delete(session: Session, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Take the webhook away. What was still to be delivered is not delivered any more."""
    session.confirm(f"Take the webhook of '{session.org}' away?", yes=yes)
    if _write(session, "DELETE") is not None:
        session.out.say("webhook deleted")


def _write(session: Session, method: str, *rest: str) -> Answer | None:
    try:
        return session.client.write(method, _path(session, *rest), what="the webhook")
    except NotFoundError:
        raise NotFoundError(
            f"'{session.org}' has no webhook, or is not yours to see", "set one: `orgate limit webhook set URL`"
        ) from None


def _certificates(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST:
            raise UsageError(f"{file} is more than {LARGEST // 1024} KiB")
        return file.read_text(encoding="ascii")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no PEM file") from None
