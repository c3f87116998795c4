"""`orgate key`: the keys of upstreams. A key goes in from stdin, a prompt or a file, and never comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from cli.command import command
from cli.errors import UsageError
from cli.examples import examples
from cli.keyinput import read_key
from cli.resources import Resource
from cli.serve import SettingsOption, settings_file
from cli.session import Session
from gateway.secret import Secret
from tenants.models import Upstream

app = typer.Typer(
    help="Keys of upstreams: set, replaced, never shown.",
    epilog=examples("orgate key set vllm", "orgate key rotate vllm", "orgate key vault-setup --org acme"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="The upstream whose key it is.", metavar="UPSTREAM")]


class KeyState(Struct, frozen=True):
    """What is known of a key without the key. `version` counts the keys set so far."""

    version: int
    set: bool = True


class _NewKey(Struct, frozen=True):
    key: Secret


def _at(session: Session, name: str) -> tuple[Resource[Upstream], str]:
    upstreams = session.resource("upstreams", Upstream, "upstream")
    return upstreams, upstreams.at(name, "key")


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


@command(app, examples("orgate key rotate vllm", "orgate key rotate vllm < new-key.txt"), writes=True)
def rotate(
    session: Session,
    upstream: Name,
    from_file: Annotated[Path | None, typer.Option(help="Read it from this file.", metavar="FILE")] = None,
) -> None:
    """Replace a key by one that was tried first; it is set back if the upstream refuses it after all."""
    path, what, body = _new(session, upstream, from_file)
    answer = session.client.write("POST", path, body, what=what)
    if answer is not None:
        session.wrote(answer.decode(KeyState), f"key of upstream '{upstream}' tried and set on every worker")


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
