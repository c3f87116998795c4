"""The settings `[vault]`: which server holds the upstream keys, and how each organization's role logs in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.loopback import is_loopback

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
"""Where Kubernetes puts a pod's own token (Kubernetes documentation, "Configure Service Accounts for Pods")."""

ORG: Final = "{org}"
"""Stands for the organization's id in a setting."""


def _address(text: str) -> str:
    if not text:
        return text
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("must be https://host or https://host:port")
    if parts.username or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError("must have no path and no name or password in it")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must have a port from 1 to 65535, or none")
    return text.rstrip("/")


def _path(text: str) -> str:
    """A path of Vault's: no dots, so that no part leads out of it, and nothing that a URL or a policy reads."""
    parts = text.replace(ORG, "org").strip("/").split("/")
    if not all(part.replace("-", "").replace("_", "").isalnum() and part.isascii() for part in parts):
        raise ValueError("must be letters, digits, '-' and '_', with '/' between parts")
    return text.strip("/")


def _path_or_none(text: str) -> str:
    return _path(text) if text else text


Address = Annotated[str, AfterValidator(_address)]
VaultPath = Annotated[str, AfterValidator(_path)]
OptionalPath = Annotated[str, AfterValidator(_path_or_none)]


class VaultSettings(BaseModel):
    """HashiCorp Vault or OpenBao, when `[secrets]` says so. An upstream's key is at
    `<mount>/data/orgs/<org>/upstreams/<name>` of a KV v2 engine. Each organization has a role and a policy of
    its own, so that a token of one reads nothing of another; `{org}` stands for its id. Transit is used as the
    role of the organization `platform`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    address: Address = Field(default="", description="`https://host` or `https://host:port`.")
    allow_http: bool = Field(
        default=False, description="Allow plain `http` to another machine: whoever is between reads every key."
    )
    ca: str = Field(
        default="", description="PEM file of the authority that signed its certificate; else the public ones."
    )
    namespace: OptionalPath = Field(
        default="",
        description="Namespace of mount, roles and policies, where the server has them; may hold `{org}`.",
    )
    mount: VaultPath = Field(default="orgate", description="Where the KV v2 engine is mounted.")
    auth: Literal["approle", "kubernetes", "jwt", "token"] = Field(
        default="approle",
        description="How the gateway logs in. `token` is one token for all organizations: for development only.",
    )
    auth_mount: OptionalPath = Field(default="", description="Where that method is mounted; else at its own name.")
    role: VaultPath = Field(
        default="orgate-{org}", description="Role of an organization; of AppRole, its `role_id` too."
    )
    credential: str = Field(
        default="",
        description="File to log in with, read at each login; may hold `{org}`. approle: the secret id, else"
        " `vault/{org}.secret-id`. kubernetes: else the pod's service account token. jwt: the JWT. token: the"
        " token.",
    )
    wrapped: bool = Field(
        default=False,
        description="approle: the file holds a response-wrapping token, which is unwrapped once; the secret id is"
        " kept in the sealed file.",
    )
    transit_mount: VaultPath = Field(default="transit", description="Where the Transit engine is mounted.")
    transit_key: VaultPath = Field(
        default="orgate", description="With `secrets.system = transit`: the key that wraps data keys."
    )
    signing_key: VaultPath = Field(
        default="orgate-signing", description="With `secrets.signing = transit`: the RSA key that signs tokens."
    )
    timeout_s: float = Field(default=2, gt=0, le=10, description="Seconds that one call may take in all.")

    @property
    def login_mount(self) -> str:
        return self.auth_mount or self.auth

    @property
    def login_file(self) -> str:
        """`credential`, or where the method has it by default. Holds `{org}` for approle."""
        defaults = {"approle": "vault/{org}.secret-id", "kubernetes": SERVICE_ACCOUNT}
        return self.credential or defaults.get(self.auth, "")


def vault_faults(vault: VaultSettings, home: Path) -> list[tuple[str, str, str]]:
    """What of `[vault]` does not fit together or with this machine, each as `(key, what is wrong, what to do)`.

    Relative paths are below `home`.
    """
    faults = []
    if not vault.address:
        faults.append(("vault.address", "is missing", "give the address of Vault or OpenBao: https://host:8200"))
    host = urlsplit(vault.address)
    if host.scheme == "http" and not vault.allow_http and not is_loopback(host.hostname or ""):
        wrong = "is plain http to another machine: whoever is between would read every key"
        faults.append(
            ("vault.address", wrong, "use https, or set vault.allow_http if that network is yours alone")
        )
    if vault.ca and not (home / vault.ca).is_file():
        faults.append(("vault.ca", f"there is no file {home / vault.ca}", "put the authority's certificate there"))
    if vault.auth == "token":
        if not vault.credential:
            faults.append(("vault.credential", "is missing", "name the file that holds the token"))
    elif ORG not in vault.role:
        wrong = "does not hold {org}: one role for all could read the keys of all"
        faults.append(("vault.role", wrong, "write for example orgate-{org}"))
    if vault.auth == "approle" and ORG not in vault.login_file:
        wrong = "does not hold {org}: a secret id belongs to one role"
        faults.append(("vault.credential", wrong, "write for example vault/{org}.secret-id"))
    if vault.auth == "jwt" and not vault.credential:
        faults.append(("vault.credential", "is missing", "name the file that holds the JWT"))
    if vault.wrapped and vault.auth != "approle":
        faults.append(("vault.wrapped", f"does not go with auth = {vault.auth}", "remove it"))
    return faults
