"""`orgate key`: the keys of upstreams. A key goes in from stdin, a prompt or a file, and never comes out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final

import typer
from msgspec import Struct

from cli import signing
from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.keyinput import read_key
from cli.output import Column, instant
from cli.resources import Resource
from cli.serve import SettingsOption, settings_file
from cli.session import Session
from cli.spans import seconds, span
from gateway.secret import Secret
from tenants.models import Upstream

LONGEST_OVERLAP_S: Final = 30 * 86_400
SHORTEST_EVERY_S: Final = 3_600
"""Bounds of the server, told here in the words of the options."""

app = typer.Typer(
    help="Keys of upstreams: set, replaced, rotated on schedule, never shown.",
    epilog=examples(
        "orgate key set vllm", "orgate key rotate vllm", "orgate key list", "orgate key vault-setup --org acme"
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.add_typer(signing.app, name="signing")

Name = Annotated[str, typer.Argument(help="The upstream whose key it is.", metavar="UPSTREAM")]


class KeyState(Struct, frozen=True):
    """What is known of a key without the key. `version` counts the keys set so far."""

    version: int
    set: bool = True


class Rotated(Struct, frozen=True):
    """`overlap_ends_at`: when the key before is destroyed."""

    version: int
    overlap_ends_at: int = 0


class Facts(Struct, frozen=True):
    """One upstream's key in a list. Times in Unix seconds."""

    upstream: str
    kind: str
    state: str
    version: int
    stored: int
    set_at: int
    used_at: int
    overlap_ends_at: int
    next_at: int
    failure: str


class Schedule(Struct, frozen=True):
    every_s: int
    command: str
    revoke: str
    overlap_s: int
    next_at: int
    failure: str


class _NewKey(Struct, frozen=True, omit_defaults=True):
    key: Secret
    overlap_s: int | None = None


COLUMNS = [
    Column("UPSTREAM", "upstream"),
    Column("KIND", "kind"),
    Column("VERSION", "version"),
    Column("AGE", "set_at", lambda at: span(time.time() - at) if at else ""),
    Column("LAST USED", "used_at", instant),
    Column("NEXT ROTATION", "next_at", instant),
    Column("STATE", "state"),
    Column("TROUBLE", "failure"),
]
Overlap = Annotated[
    str, typer.Option(help="How long the key before is kept, to go back to: 0s, 10m, 2d.", metavar="SPAN")
]


def _at(session: Session, name: str) -> tuple[Resource[Upstream], str]:
    upstreams = session.resource("upstreams", Upstream, "upstream")
    return upstreams, upstreams.at(name, "key")


def _overlap_s(text: str) -> int:
    if (amount := seconds(text)) > LONGEST_OVERLAP_S:
        raise UsageError(f"--overlap {text} is too long", "30d at most")
    return amount


def _every_s(text: str) -> int:
    if (amount := seconds(text)) < SHORTEST_EVERY_S:
        raise UsageError(f"--every {text} is too often", "1h at least")
    return amount


def _new(session: Session, name: str, file: Path | None) -> tuple[str, str, _NewKey]:
    """Where a new key goes, what it is, and the key, asked for as the upstream's `auth` wants it."""
    upstreams, path = _at(session, name)
    return path, f"the key of {upstreams.what(name)}", _NewKey(read_key(upstreams.get(name)[0], file))


@command(
    app,
    examples(
        "orgate key set vllm", "pass show acme/vllm | orgate key set vllm", "orgate key set vllm --from-file k"
    ),
    name="set",
    writes=True,
    secretive=True,
)
def set_(
    session: Session,
    upstream: Name,
    from_file: Annotated[Path | None, typer.Option(help="Read it from this file.", metavar="FILE")] = None,
) -> None:
    """Set or replace an upstream's key: typed unseen, from stdin or from a file; never an argument.

    Where the upstream's --auth is aws-sigv4 or oauth-client-credentials it is a JSON object, or asked field by
    field.
    """
    path, what, body = _new(session, upstream, from_file)
    answer = session.client.write("PUT", path, body, what=what)
    if answer is not None:
        session.wrote(answer.decode(KeyState), f"key of upstream '{upstream}' set")


@command(
    app,
    examples(
        "orgate key rotate vllm", "orgate key rotate vllm < new-key.txt", "orgate key rotate vllm --overlap 2h"
    ),
    writes=True,
    secretive=True,
)
def rotate(
    session: Session,
    upstream: Name,
    from_file: Annotated[Path | None, typer.Option(help="Read it from this file.", metavar="FILE")] = None,
    overlap: Overlap = "10m",
) -> None:
    """Replace a key by one that was tried first; it is set back if the upstream refuses it after all.

    The key before is kept for the overlap, then destroyed. If the upstream begins to refuse the new one meanwhile,
    the one before is set again by itself, and no request fails for it.
    """
    overlap_s = _overlap_s(overlap)
    path, what, body = _new(session, upstream, from_file)
    answer = session.client.write("POST", path, _NewKey(body.key, overlap_s), what=what)
    if answer is not None:
        session.wrote(answer.decode(Rotated), f"key of upstream '{upstream}' tried and set on every worker")


@command(
    app,
    examples(
        "orgate key schedule vllm",
        "orgate key schedule vllm --every 90d --command /etc/orgate/mint-vllm",
        "orgate key schedule vllm --every 30d --command /etc/orgate/mint --revoke /etc/orgate/revoke",
        "orgate key schedule vllm --off",
    ),
    writes=True,
)
def schedule(
    session: Session,
    upstream: Name,
    *,
    every: Annotated[str, typer.Option(help="How often: 36h, 90d.", metavar="SPAN")] = "",
    run: Annotated[
        str,
        typer.Option("--command", help="What prints the new key; one of secrets.mint_commands.", metavar="PATH"),
    ] = "",
    revoke: Annotated[
        str,
        typer.Option(help="What revokes the key before, given on its stdin, after the overlap.", metavar="PATH"),
    ] = "",
    overlap: Overlap = "10m",
    off: Annotated[bool, typer.Option("--off", help="End the schedule; the key stays.")] = False,
) -> None:
    """Rotate a key by itself, show when it is next, or end that.

    The server runs the command with the organization and the upstream as arguments, and rotates to what it prints
    just as `orgate key rotate` does. A rotation that was missed is made up for once.
    """
    upstreams, key = _at(session, upstream)
    path, what = f"{key}/schedule", f"the schedule of {upstreams.what(upstream)}"
    if off:
        if every or run or revoke:
            raise UsageError("--off goes alone", f"orgate key schedule {upstream} --off")
        if session.client.write("DELETE", path, what=what) is not None:
            session.out.say(f"key of upstream '{upstream}' is not rotated by itself any more")
        return
    if not every and not run:
        session.out.item(session.client.read(path, what=what).decode(Schedule))
        return
    if not every or not run:
        raise UsageError("a schedule needs both --every and --command", "for example --every 90d --command PATH")
    body = {"every_s": _every_s(every), "command": run, "revoke": revoke, "overlap_s": _overlap_s(overlap)}
    answer = session.client.write("PUT", path, body, what=what)
    if answer is not None:
        session.wrote(answer.decode(Schedule), f"key of upstream '{upstream}' is rotated every {every}")


@command(app, examples("orgate key list", "orgate key list -o json"), name="list")
def list_(session: Session) -> None:
    """List each upstream's key: version, age, last use, next rotation; never the key.

    STATE is `overlap` while the key before is kept after a rotation, `pending` while one is under way.
    """
    keys = Resource(session.client, f"/admin/v1/orgs/{session.org}/keys", Facts, "key", session.out)
    session.out.items(keys.list(), COLUMNS, empty="no upstreams")


@command(app, examples("orgate key show vllm"))
def show(session: Session, upstream: Name) -> None:
    """Show whether an upstream has a key, and which version; never the key."""
    upstreams, path = _at(session, upstream)
    session.out.item(session.client.read(path, what=f"the key of {upstreams.what(upstream)}").decode(KeyState))


@command(app, examples("orgate key delete vllm --yes"), writes=True)
def delete(
    session: Session, upstream: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete an upstream's key. Calls that need it are refused from then on."""
    upstreams, path = _at(session, upstream)
    session.confirm(f"Delete the key of upstream '{upstream}'?", yes=yes)
    if session.client.write("DELETE", path, what=f"the key of {upstreams.what(upstream)}") is not None:
        session.out.say(f"key of upstream '{upstream}' deleted")


@command(
    app,
    examples(
        "orgate key vault-setup --org acme",
        "orgate key vault-setup --org acme --apply",
        "orgate key vault-setup --org acme --apply --new-secret-id",
        "orgate key vault-setup --org acme --apply --service-account gateways/orgate",
    ),
)
def vault_setup(
    session: Session,
    *,
    settings: SettingsOption = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it, with VAULT_TOKEN or a token typed unseen; else only show it.")
    ] = False,
    new_secret_id: Annotated[
        bool, typer.Option("--new-secret-id", help="AppRole: replace the secret id that is there.")
    ] = False,
    wrap: Annotated[
        str,
        typer.Option(
            help="AppRole with wrapped = true: life of the wrapping token, for example 1h.", metavar="TTL"
        ),
    ] = "",
    service_account: Annotated[
        str, typer.Option(help="Kubernetes: the gateway's own.", metavar="NAMESPACE/NAME")
    ] = "",
    subject: Annotated[str, typer.Option(help="JWT: the `sub` that may log in.", metavar="SUB")] = "",
    audience: Annotated[str, typer.Option(help="JWT and Kubernetes: the `aud` it must have.", metavar="AUD")] = "",
) -> None:
    """Show or make what an organization's keys in Vault need: engine, policy, role, secret id."""
    from cli.vault import set_up
    from gateway.secrets.vault_setup import Binding

    if not session.options.org:
        raise UsageError("which organization's keys?", "add `--org ORG`")
    set_up(
        session,
        settings_file(settings),
        Binding(service_account, subject, audience),
        write=apply,
        renew=new_secret_id,
        wrap=wrap,
    )


@command(
    app,
    examples(
        "orgate key migrate --from file --to vault",
        "orgate key migrate --from file --to vault --clear",
        "orgate key migrate --from vault --to file",
    ),
)
def migrate(
    session: Session,
    *,
    source: Annotated[str, typer.Option("--from", help="file or vault.", metavar="STORE")],
    target: Annotated[str, typer.Option("--to", help="vault or file.", metavar="STORE")],
    settings: SettingsOption = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Then delete from the first store what the second holds just so.")
    ] = False,
) -> None:
    """Copy all upstreams' keys from the sealed file to Vault or back, and verify them. The server must stand."""
    from cli.migrate import migrate as move

    move(session, settings_file(settings), source, target, clearing=clear)


@command(
    app,
    examples(
        "orgate key reseal --to passphrase:prompt",
        "orgate key reseal --to new.key",
        "orgate key reseal --to passphrase:systemd:orgate",
    ),
)
def reseal(
    session: Session,
    *,
    to: Annotated[
        str, typer.Option("--to", help="As secrets.master_key: a key file, or passphrase:…", metavar="SOURCE")
    ],
    settings: SettingsOption = None,
) -> None:
    """Seal the sealed file anew, with another master key or a passphrase. The server must stand."""
    from cli.reseal import reseal as seal

    seal(session, settings_file(settings), to)


@command(app, examples("orgate key unwrap"))
def unwrap(session: Session, *, settings: SettingsOption = None) -> None:
    """Take the platform's own keys out of Transit's envelopes: the way back from system = "transit"."""
    from cli.reseal import unwrap as take_out

    take_out(session, settings_file(settings))
