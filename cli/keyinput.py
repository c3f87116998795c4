"""An upstream's key as somebody gives it: typed unseen, from stdin or from a file; what it is made of depends on
the upstream's `auth`. Whether it is right, the server judges."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import typer
from msgspec import Struct, json

from cli.errors import NOT_READABLE, UsageError
from gateway.secret import Secret
from tenants.models import CredentialKind, Upstream

LONGEST: Final = 8192
"""Characters of a key of one line; one of several fields may be written with spaces, up to twice as many."""


class _Field(Struct, frozen=True):
    """`hidden`: typed unseen. `default` None: it must be given."""

    name: str
    asked: str
    hidden: bool = False
    default: str | None = None


_FIELDS: Final[Mapping[CredentialKind, tuple[_Field, ...]]] = {
    CredentialKind.AWS_SIGV4: (
        _Field("access_key_id", "Access key id"),
        _Field("secret_access_key", "Secret access key", hidden=True),
        _Field("session_token", "Session token (empty: none)", hidden=True, default=""),
        _Field("region", "Region, for example us-east-1"),
        _Field("service", "Service", default="bedrock"),
    ),
    CredentialKind.OAUTH_CLIENT_CREDENTIALS: (
        _Field("token_url", "Token endpoint, https://…"),
        _Field("client_id", "Client id"),
        _Field("client_secret", "Client secret", hidden=True),
        _Field("scope", "Scope (empty: none)", default=""),
        _Field("audience", "Audience (empty: none)", default=""),
    ),
}


def read_key(upstream: Upstream, file: Path | None) -> Secret:
    """The key as the admin API takes it. Raises `UsageError`, which quotes nothing of it."""
    name = upstream.name
    if upstream.auth is CredentialKind.NONE:
        raise UsageError(
            f"upstream '{name}' takes no key: its auth is 'none'", f"`orgate upstream set {name} --auth bearer`"
        )
    fields = _FIELDS.get(upstream.auth)
    if file is not None:
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    elif not sys.stdin.isatty():
        raw = sys.stdin.buffer.read(2 * LONGEST + 1)
    elif fields is None:
        raw = getpass.getpass(f"Key of upstream '{name}': ").encode()
    else:
        raw = _typed(fields)
    try:
        text = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        raise UsageError(
            "the key has characters that no header can carry", "give the key alone, in ASCII"
        ) from None
    if not text:
        raise UsageError("no key was given", f"`orgate key set {name} < key.txt`, or --from-file")
    return Secret(_line(text) if fields is None else _object(text, upstream.auth, fields))


def _line(text: str) -> str:
    if len(text) > LONGEST or not text.isprintable():
        raise UsageError("that is no key: too long, or of more than one line", "give the key alone, on one line")
    return text


def _object(text: str, kind: CredentialKind, fields: tuple[_Field, ...]) -> str:
    try:
        found = json.decode(text) if len(text) <= 2 * LONGEST else None
    except NOT_READABLE:
        found = None
    if not isinstance(found, dict):
        needed = ", ".join(field.name for field in fields if field.default is None)
        raise UsageError(f"the key of a '{kind}' upstream is a JSON object", f"its fields: {needed}; see --help")
    return text


def _typed(fields: tuple[_Field, ...]) -> bytes:
    given: dict[str, str] = {}
    for field in fields:
        if field.hidden:
            value = getpass.getpass(f"{field.asked}: ")
        else:
            value = typer.prompt(field.asked, default=field.default, show_default=bool(field.default), err=True)
        if value:
            given[field.name] = value
    return json.encode(given)
