"""`orgate init`: everything a first server needs, in one folder.

Order: certificates, master key, database with its first people, and the settings file last. A crash before
the end leaves no settings file, so `orgate init` can simply be run again: what exists is kept, and people
who exist are invited anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from gateway.backends import control_store, open_oauth
from gateway.clock import SystemClock
from gateway.oauth.signing import SigningKeys
from gateway.pki import write_development_tls
from gateway.secrets.masterkey import create_master_key, read_master_key
from gateway.secrets.sealed import SealedFile
from gateway.settings import Settings, SettingsError, validated
from policies.facts import Role
from tenants.fieldrules import is_dns_name
from tenants.ids import PLATFORM, MemberId, OrgId, new_member_id, org_id
from tenants.models import Member, Org
from tenants.store import Actor, AlreadyExistsError, OrgStore

SETTINGS_NAME = "orgate.toml"


class AlreadyInitializedError(Exception):
    """The folder has a settings file; `--force` writes settings and certificates again and keeps the rest."""


@dataclass(frozen=True)
class FirstPerson:
    """Somebody who may now sign in with an invitation code (RFC 8628 page or `orgate login --invitation`)."""

    org: OrgId
    email: str
    role: Role
    invitation: str


@dataclass(frozen=True)
class Installed:
    """What `initialize` wrote. Paths are absolute."""

    settings: Path
    ca: Path
    certificate: Path
    key: Path
    master_key: Path
    people: tuple[FirstPerson, ...]


def initialize(
    home: Path,
    *,
    operator_email: str,
    org: str,
    owner_email: str,
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    public_port: int = 8443,
    admin_port: int = 8444,
    force: bool = False,
) -> Installed:
    """Make `home` ready for `orgate serve`.

    Raises `AlreadyInitializedError`, `tenants.ids.InvalidIdError`, `tenants.store.InvalidItemError`, `OSError`.
    """
    home = home.resolve()
    file = home / SETTINGS_NAME
    if file.exists() and not force:
        raise AlreadyInitializedError(f"{file} exists; use --force to write settings and certificates again")
    first_org = org_id(org)
    for host in hosts:
        if not _is_host(host):
            raise ValueError(f"{host!r} is neither a host name nor an address")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    tls = write_development_tls(home / "tls", hosts, renew=force)
    master_key = home / "master.key"
    if not master_key.exists():
        create_master_key(master_key)
    text = _settings_text(hosts[0], public_port, admin_port)
    settings = _parsed(text, home)
    people = asyncio.run(_first_people(settings, operator_email, first_org, owner_email))
    _write(file, text)
    return Installed(file, tls.ca, tls.certificate, tls.key, master_key, people)


async def _first_people(
    settings: Settings, operator_email: str, org: OrgId, owner_email: str
) -> tuple[FirstPerson, ...]:
    clock = SystemClock()
    store = await control_store(settings, clock)
    try:
        sealed = SealedFile(
            settings.path(settings.secrets.path), read_master_key(settings.secrets.master_key, settings.home)
        )
        signing = await SigningKeys.load_or_create(sealed, clock.now)
        oauth = await open_oauth(settings, store, sealed, signing, clock)
        installer = Actor(org=PLATFORM, member="installer", client="orgate-init")
        with contextlib.suppress(AlreadyExistsError):  # a second run after a crash, or --force
            await store.orgs.create(Org(id=org, name=org), installer)
        people = []
        for where, email, role in ((PLATFORM, operator_email, Role.OPERATOR), (org, owner_email, Role.OWNER)):
            member = await _member(store.for_org(where), email, role, installer)
            invitation = await oauth.invite(where, member)
            people.append(FirstPerson(where, email, role, invitation.code))
        return tuple(people)
    finally:
        await store.close()


async def _member(store: OrgStore, email: str, role: Role, by: Actor) -> MemberId:
    try:
        made = await store.members.create(
            Member(org=store.org, id=new_member_id(), email=email, name=email.partition("@")[0], roles=(role,)), by
        )
    except AlreadyExistsError:
        return (await store.members.by_email(email)).id
    return made.id


def _is_host(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return text == "localhost" or is_dns_name(text)
    return True


def _settings_text(host: str, public_port: int, admin_port: int) -> str:
    return f"""\
# Orgate's settings. Every key may also come from the environment as ORGATE_<SECTION>__<KEY>.
# Paths are relative to this folder. Reference: docs/reference/settings.md

[server]
url = "https://{host}:{public_port}"        # issuer of tokens, and what clients put before /v1
admin_url = "https://{host}:{admin_port}"
workers = 1

[public]
host = "127.0.0.1"
port = {public_port}
certificate = "tls/server.pem"
key = "tls/server.key"

[admin]
host = "127.0.0.1"
port = {admin_port}
certificate = "tls/server.pem"
key = "tls/server.key"

[store]
url = "sqlite:control.db"

[secrets]
path = "secrets.sealed"
master_key = "master.key"                   # mode 0600; keep a copy apart from the backups of this folder

[audit]
path = "audit"

[upstreams]
allow_networks = ["127.0.0.0/8", "::1/128"]  # private networks that upstream URLs may lead to
"""


def _parsed(text: str, home: Path) -> Settings:
    try:
        return validated({**tomllib.loads(text), "home": home})
    except SettingsError as error:
        # The file is not written yet: these are faults of what the caller asked for.
        raise ValueError(str(error)) from None


def _write(file: Path, text: str) -> None:
    """Whole or not at all: written beside, then renamed."""
    beside = file.with_suffix(".tmp")
    with beside.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
