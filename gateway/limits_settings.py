"""The settings `[limits]`: where the buckets are, and how Redis or Valkey is reached."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.loopback import is_loopback

_PREFIX: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?")
_USER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _address(text: str) -> str:
    found = host_and_port(text)
    if found is None:
        raise ValueError("must be host:port, or [address]:port for IPv6")
    return text


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError("must be 1 to 32 lower-case letters, digits, '.', '_' and '-'")
    return text


def _user(text: str) -> str:
    if text and not _USER.fullmatch(text):
        raise ValueError("must be 1 to 64 letters, digits, '.', '_' and '-'")
    return text


def host_and_port(text: str) -> tuple[str, int] | None:
    """`text` as it is connected to; None when it is no address."""
    try:
        parts = urlsplit("//" + text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or not port or parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return host, port


Address = Annotated[str, AfterValidator(_address)]
Prefix = Annotated[str, AfterValidator(_prefix)]
User = Annotated[str, AfterValidator(_user)]


class LimitsSettingsError(Exception):
    """A file that `[limits]` names cannot be used. The message says which and why, and holds no secret."""


class LimitsSettings(BaseModel):
    """Limits are counted by the control process of this node, or in Redis or Valkey for several nodes together.
    Passwords are in files of mode 0600 (or, for development, in the environment), never here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    store: Literal["embedded", "redis"] = Field(
        default="embedded", description="Where limits are counted: `embedded` in this node alone, or in `redis`."
    )
    topology: Literal["single", "sentinel", "cluster"] = Field(
        default="single",
        description="What `addresses` are: the one Redis; Sentinels, which say where the master is; or some nodes"
        " of a Redis Cluster, which know the others.",
    )
    addresses: tuple[Address, ...] = Field(
        default=(), description="`host:port` of each; in the environment a list with commas."
    )
    master: User = Field(default="", description="With `sentinel`: the name by which they know the master.")
    username: User = Field(default="", description="User of its ACL; empty: the default user.")
    password: str = Field(
        default="", description="Its password: a file of mode 0600, or `env:NAME`. Empty: none is asked for."
    )
    user_per_org: bool = Field(
        default=False,
        description="Sign in as `<username>-<organization>` for each organization (`platform` is one too), so that"
        " its user may touch its keys alone. The passwords are derived from `password`; `orgate limit acl --org`"
        " prints each user's line. A worker then holds a connection for each organization it serves.",
    )
    sentinel_username: User = Field(default="", description="User of the Sentinels' own ACL.")
    sentinel_password: str = Field(default="", description="Its password, as `password`.")
    tls: bool = Field(default=False, description="Speak TLS to it, and to the Sentinels.")
    ca: str = Field(
        default="", description="PEM file of the authority that signed its certificate; else the public ones."
    )
    certificate: str = Field(
        default="", description="PEM file of the gateway's own certificate, where one is asked for."
    )
    key: str = Field(default="", description="Its private key: PEM, mode 0600.")
    allow_plaintext: bool = Field(
        default=False, description="Allow no TLS to another machine: whoever is between can spend for anybody."
    )
    prefix: Prefix = Field(
        default="orgate",
        description="All keys begin with it: `<prefix>:{<organization>}:…`. Deployments that share a Redis and are"
        " to count apart have different ones.",
    )
    timeout_ms: int = Field(
        default=100,
        ge=5,
        le=5_000,
        description="How long an answer may take. What is later counts as an outage, and each limit's `on_outage`"
        " holds.",
    )
    connect_timeout_ms: int = Field(
        default=1_000, ge=5, le=10_000, description="How long a connection may take, TLS and sign-in included."
    )

    def hosts(self) -> list[tuple[str, int]]:
        """`addresses`, as they are connected to."""
        return [found for text in self.addresses if (found := host_and_port(text)) is not None]


def limits_faults(limits: LimitsSettings, home: Path) -> list[tuple[str, str, str]]:
    """What of `[limits]` does not fit together or with this machine, each as `(key, what is wrong, what to do)`.

    Relative paths are below `home`.
    """
    if limits.store == "embedded":
        return []
    faults = []
    if not limits.addresses:
        faults.append(("limits.addresses", "is empty", 'say where Redis is: addresses = ["redis.example:6379"]'))
    if limits.topology == "single" and len(limits.addresses) > 1:
        wrong = "names several servers, and one would be used"
        faults.append(("limits.addresses", wrong, "set limits.topology to sentinel or cluster, or name one"))
    if limits.topology == "sentinel" and not limits.master:
        faults.append(("limits.master", "is missing", "give the name that `sentinel monitor` was given"))
    elsewhere = [host for host, _ in limits.hosts() if not is_loopback(host)]
    if elsewhere and not limits.tls and not limits.allow_plaintext:
        wrong = f"is off, and {elsewhere[0]} is another machine: whoever is between could spend for anybody"
        faults.append(("limits.tls", wrong, "set it, or limits.allow_plaintext if that network is yours alone"))
    for name, file in (("ca", limits.ca), ("certificate", limits.certificate), ("key", limits.key)):
        if not file:
            continue
        if not limits.tls:
            faults.append((f"limits.{name}", "has no meaning without TLS", "set limits.tls, or remove it"))
        elif not (home / file).is_file():
            faults.append((f"limits.{name}", f"there is no file {home / file}", "put it there"))
    if bool(limits.certificate) != bool(limits.key):
        faults.append(("limits.key", "and limits.certificate belong together", "give both, or none"))
    return faults + _sign_in_faults(limits, home)


def _sign_in_faults(limits: LimitsSettings, home: Path) -> list[tuple[str, str, str]]:
    faults = []
    for name, user, password in (
        ("username", limits.username, limits.password),
        ("sentinel_username", limits.sentinel_username, limits.sentinel_password),
    ):
        key = "limits." + name.replace("username", "password")
        if user and not password:
            faults.append((f"limits.{name}", "has no password", f"name the file that holds it: {key}"))
        elif password and not password.startswith("env:") and not (home / password).is_file():
            faults.append((key, f"there is no file {home / password}", "put the password there, mode 0600"))
    if limits.user_per_org and not limits.username:
        fix = "set limits.username and limits.password, or remove it"
        faults.append(("limits.user_per_org", "needs a user and a password to derive from", fix))
    return faults
