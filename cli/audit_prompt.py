"""`orgate audit prompt-hash`: find out whether a prompt was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct, json

from cli.command import command
from cli.errors import NOT_READABLE, UsageError
from cli.examples import examples
from cli.session import Session

_MEMBERS = ("prompt", "suffix", "messages", "input")


class PromptHash(Struct, frozen=True):
    """What the server answers."""

    prompt_hmac: str


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    said = examples(
        "orgate audit prompt-hash request.json",
        "orgate audit query --since 30d --output json | jq '.[] | select(.prompt_hmac == \"…\")'",
        "echo 'def main():' | orgate audit prompt-hash - --text",
    )
    command(app, said, name="prompt-hash")(prompt_hash)


def prompt_hash(
    session: Session,
    *,
    file: Annotated[Path, typer.Argument(help="The request as it was sent, JSON; - for stdin.", metavar="FILE")],
    text: Annotated[
        bool, typer.Option("--text", help="It is the text of a completion's prompt, not JSON.")
    ] = False,
) -> None:
    """Print the keyed hash that entries of requests with this prompt have, as `prompt_hmac`.

    They have one where the organization wants it (`orgate org set --audit-prompt-hash`). The server keeps the
    prompt nowhere; that you asked is an entry of its own.
    """
    body = {"prompt": _read(file).decode(errors="replace")} if text else _request(_read(file))
    where = f"/admin/v1/orgs/{session.org}/audit/prompt-hash"
    answer = b"".join(session.client.stream("POST", where, body, what="the prompt"))
    session.out.line(json.decode(answer, type=PromptHash).prompt_hmac)


def _read(file: Path) -> bytes:
    try:
        return typer.get_binary_stream("stdin").read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", "name a file with the request") from None


def _request(data: bytes) -> dict[str, Any]:
    try:
        found = json.decode(data, type=dict[str, Any])
    except NOT_READABLE:
        raise UsageError("this is no JSON object", "give a request's body, or --text for a prompt") from None
    asked = {name: found[name] for name in _MEMBERS if name in found}
    if not asked:
        raise UsageError("there is no prompt in it", f"it has one of {', '.join(_MEMBERS)}")
    return asked
