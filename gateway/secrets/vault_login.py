"""How an organization's role logs in to Vault: AppRole, Kubernetes, JWT, or a token for development.

A login is one call with what a file holds, read anew each time: service account tokens rotate, and an operator
may put a new secret id there. All of this runs in a thread, except what is kept of a wrapped secret id.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from gateway.secret import Secret
from gateway.secrets.store import StoreUnavailableError
from gateway.secrets.vault_client import VaultAnswerError, VaultServer
from gateway.vault_settings import ORG, VaultSettings
from tenants.ids import OrgId

MAX_CREDENTIAL: Final = 16 * 1024


class Token(Struct, frozen=True):
    """What a login gave. `lease_s` is how long it lives if it isn't renewed; 0: for ever."""

    value: Secret
    lease_s: float
    renewable: bool


def role_of(vault: VaultSettings, org: OrgId) -> str:
    return vault.role.replace(ORG, org)


def read_credential(vault: VaultSettings, home: Path, org: OrgId) -> Secret:
    """What the file for `org` holds. Raises `StoreUnavailableError`, which names the file."""
    path = home / vault.login_file.replace(ORG, org)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        hint = f"; `orgate key vault-setup --org {org}` makes it" if vault.auth == "approle" else ""
        raise StoreUnavailableError(f"vault.credential: {path}: {error.strerror}{hint}") from None
    try:
        # Kubernetes' own file is open to the pod's group, on a file system that only the pod sees.
        if vault.auth in ("approle", "token") and os.fstat(descriptor).st_mode & 0o077:
            raise StoreUnavailableError(f"vault.credential: others can read {path}; run `chmod 600 {path}`")
        found = Secret(os.read(descriptor, MAX_CREDENTIAL).strip())
    except OSError as error:
        raise StoreUnavailableError(f"vault.credential: {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if not found.reveal().isascii() or not 0 < len(found.reveal()) < MAX_CREDENTIAL:
        raise StoreUnavailableError(f"vault.credential: {path} is empty, too long or no ASCII text")
    return found


def log_in(server: VaultServer, vault: VaultSettings, org: OrgId, credential: Secret) -> Token:
    """Log in as the role of `org`. Raises `StoreUnavailableError`."""
    if vault.auth == "token":
        return Token(credential, 0, renewable=False)
    role, mount = role_of(vault, org), vault.login_mount

    def work(client: Any) -> Token:
        match vault.auth:
            case "approle":
                given = client.auth.approle.login(
                    role_id=role, secret_id=credential.reveal().decode(), use_token=False, mount_point=mount
                )
            case "kubernetes":
                given = client.auth.kubernetes.login(
                    role=role, jwt=credential.reveal().decode(), use_token=False, mount_point=mount
                )
            case _:
                given = client.auth.jwt.jwt_login(
                    role=role, jwt=credential.reveal().decode(), use_token=False, path=mount
                )
        return granted(given, server.address)

    try:
        return server.ask(org, None, work)
    except VaultAnswerError as error:
        if error.status not in (400, 401, 403, 404):
            raise
        refused = StoreUnavailableError(
            f"{error}: the login of role {role} at auth/{mount} is refused; its credential may have expired"
        )
    raise refused


def granted(answer: Any, address: str) -> Token:
    """The `auth` of an answer, to a login or to a renewal."""
    auth = answer.get("auth") if isinstance(answer, dict) else None
    match auth:
        case {"client_token": str(value), "lease_duration": int(lease_s), "renewable": bool(renewable)} if value:
            return Token(Secret(value), lease_s, renewable)
    raise StoreUnavailableError(f"the server at {address} answers a login with something else than a token")


def unwrap(server: VaultServer, vault: VaultSettings, org: OrgId, wrapping: Secret) -> Secret:
    """The secret id that `wrapping` wraps. It works once: whoever comes second learns that somebody came first.

    Raises `StoreUnavailableError`; for a token that was made for something else than this role's secret id too,
    which is what an exchanged one looks like.
    """
    wanted = f"auth/{vault.login_mount}/role/{role_of(vault, org)}/secret-id"

    def work(client: Any) -> Secret:
        told = client.adapter.post("/v1/sys/wrapping/lookup", json={"token": wrapping.reveal().decode()})
        path = told.get("data", {}).get("creation_path") if isinstance(told, dict) else None
        if not isinstance(path, str) or not (path == wanted or path.endswith("/" + wanted)):
            raise StoreUnavailableError(
                f"the wrapping token for {org} was not made at {wanted}: somebody may have exchanged it"
            )
        match client.sys.unwrap():
            case {"data": {"secret_id": str(secret_id)}} if secret_id:
                return Secret(secret_id)
        raise StoreUnavailableError(f"the wrapping token for {org} wraps no secret id")

    try:
        return server.ask(org, wrapping, work)  # it is the client's token too: without one there is no unwrapping
    except VaultAnswerError as error:
        if error.status not in (400, 403, 404):
            raise
        refused = StoreUnavailableError(
            f"{error}: the wrapping token for {org} has expired, or was unwrapped before; if not by this gateway,"
            " somebody has the secret id: destroy it and give a new one"
        )
    raise refused


def kept_name(org: OrgId) -> str:
    """Under which name of the sealed file the unwrapped secret id of `org` is kept."""
    return f"vault/{org}/secret-id"


def keep(wrapping: Secret, secret_id: Secret) -> Secret:
    """What is kept: the secret id, and by which wrapping token it came, so that a new token replaces it."""
    return Secret(_mark(wrapping) + secret_id.reveal())


def kept(found: Secret | None, wrapping: Secret) -> Secret | None:
    """The secret id that came by `wrapping`, if that is the one that was kept."""
    mark = _mark(wrapping)
    if found is None or not found.reveal().startswith(mark):
        return None
    return Secret(found.reveal().removeprefix(mark))


def _mark(wrapping: Secret) -> bytes:
    return hashlib.sha256(wrapping.reveal()).hexdigest().encode() + b":"
