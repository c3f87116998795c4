"""What `orgate key vault-setup` does: the writes that an organization's keys in Vault need, shown or made.

It speaks to Vault itself, with the token of a Vault administrator, and never to the gateway.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from cli.errors import CliError, RefusedError, UnreachableError, UsageError
from cli.files import write_private
from cli.output import Column, Format
from cli.session import Session
from gateway.secret import Secret
from gateway.secrets.store import StoreUnavailableError
from gateway.secrets.vault_client import VaultAnswerError, VaultServer
from gateway.secrets.vault_login import log_in, read_credential, role_of
from gateway.secrets.vault_setup import Binding, SetupError, Step, apply, new_secret_id, steps
from gateway.settings import Settings, SettingsError, load
from gateway.vault_settings import ORG, VaultSettings, vault_faults
from tenants.ids import OrgId

ENVIRONMENT = ("VAULT_TOKEN", "BAO_TOKEN")


def set_up(session: Session, file: Path, binding: Binding, *, write: bool, renew: bool, wrap: str) -> None:
    """Show the writes for the organization of `session`; with `write`, make them and check that the role works."""
    settings = load_with_vault(file)
    vault, org = settings.vault, OrgId(session.org)
    try:
        todo = steps(vault, org, binding)
    except SetupError as error:
        raise UsageError(str(error)) from None
    if vault.auth != "approle" and (renew or wrap):
        raise UsageError(f"vault.auth is {vault.auth}, which has no secret ids")
    if bool(wrap) != vault.wrapped and (wrap or renew):
        raise UsageError(
            f"vault.wrapped is {str(vault.wrapped).lower()}",
            "give --wrap just when the settings say wrapped = true",
        )
    if not write:
        _show(session, vault, org, todo, settings.home)
        return
    token = _administrator()
    server = VaultServer(vault, settings.home, threads=1)
    try:
        for step in apply(server, vault, org, token, todo):
            session.out.say(f"{step.what}: {step.path}")
        if vault.auth == "approle":
            _give_secret_id(session, server, settings, org, token, renew=renew, wrap=wrap)
        if not vault.wrapped:  # unwrapping is the gateway's: it works once
            _try(session, server, settings, org)
    except StoreUnavailableError as error:
        raise _said(error) from None
    finally:
        server.close()


def load_with_vault(file: Path) -> Settings:
    """The settings, whose section [vault] has been judged whether it is in use already or not."""
    try:
        settings = load(file)
        if wrong := vault_faults(settings.vault, settings.home):
            raise SettingsError(wrong)
    except SettingsError as error:
        raise UsageError(str(error), f"mend {file}: section [vault]") from None
    return settings


def _show(session: Session, vault: VaultSettings, org: OrgId, todo: list[Step], home: Path) -> None:
    rows = [{"what": step.what, "path": step.path, "command": step.command()} for step in todo]
    if vault.auth == "approle":
        path = f"auth/{vault.login_mount}/role/{role_of(vault, org)}/secret-id"
        target = home / vault.login_file.replace(ORG, org)
        wrapped = "-wrap-ttl=1h -field=wrapping_token" if vault.wrapped else "-field=secret_id"
        command = f"(umask 077; mkdir -p {target.parent}; vault write -f {wrapped} {path} > {target})"
        rows.append({"what": "a secret id", "path": path, "command": command})
    if session.out.form is not Format.TABLE:
        session.out.items(rows, [Column(name.upper(), name) for name in ("what", "path", "command")])
        return
    if vault.namespace:
        session.out.line(f"export VAULT_NAMESPACE={vault.namespace.replace(ORG, org)}")
    for row in rows:
        session.out.line(f"# {row['what']}\n{row['command']}")
    session.out.say("\nnothing was written; `--apply` does it with the token of a Vault administrator")


def _administrator() -> Secret:
    for name in ENVIRONMENT:
        if found := os.environ.get(name, "").strip():
            return _token(found)
    typed = sys.stdin.isatty()
    found = getpass.getpass("Token of a Vault administrator: ") if typed else sys.stdin.readline(4096)
    if not found.strip():
        raise UsageError("no Vault token was given", f"type it, pipe it in, or set {ENVIRONMENT[0]}")
    return _token(found.strip())


def _token(text: str) -> Secret:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError("that is no Vault token", "give the token alone, on one line")
    return Secret(text)


def _give_secret_id(
    session: Session, server: VaultServer, settings: Settings, org: OrgId, token: Secret, *, renew: bool, wrap: str
) -> None:
    path = settings.home / settings.vault.login_file.replace(ORG, org)
    if path.exists() and not renew:
        session.out.say(f"its secret id: kept, {path} is there; `--new-secret-id` replaces it")
        return
    if settings.vault.wrapped and not wrap:
        raise UsageError("vault.wrapped is true", "say how long the wrapping token lives: `--wrap 1h`")
    secret_id = new_secret_id(server, settings.vault, org, token, wrap)
    # A crash here leaves a secret id in Vault that nobody holds; run it again.
    try:
        write_private(path, secret_id.reveal() + b"\n")
    except OSError as error:
        raise RefusedError(f"{path} cannot be written: {error.strerror}") from None
    session.out.say(f"its secret id{', wrapped' if wrap else ''}: {path}, mode 0600")


def _try(session: Session, server: VaultServer, settings: Settings, org: OrgId) -> None:
    token = log_in(server, settings.vault, org, read_credential(settings.vault, settings.home, org))
    server.ask(org, token.value, lambda client: client.auth.token.revoke_self())
    session.out.say(f"tried: {role_of(settings.vault, org)} logs in")


def _said(error: StoreUnavailableError) -> CliError:
    if isinstance(error, VaultAnswerError):
        fix = "is that the token of an administrator, and good here?" if error.status == 403 else ""
        return RefusedError(str(error), fix)
    if "no connection" in str(error) or "no answer" in str(error) or "certificate" in str(error):
        return UnreachableError(str(error), "look at [vault] in the settings, and whether it runs")
    return RefusedError(str(error))
