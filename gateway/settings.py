"""Settings: one TOML file, overridden by `ORGATE_<SECTION>__<KEY>`. Parsed once, judged together.

`load` raises one `SettingsError` that lists every fault with its key and what to do. Trusted: whoever can
modify the settings file can point the gateway at another store, another key and another listener.
"""

from __future__ import annotations

import os
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.audit_settings import AuditStoreSettings, audit_store_faults
from gateway.limits_settings import LimitsSettings, limits_faults
from gateway.store_settings import StoreSettings
from gateway.vault_settings import VaultSettings, vault_faults
from gateway.witness_settings import AuditWitnessSettings, witness_faults
from tenants.sql.address import is_postgres, sqlite_path

ENV_PREFIX = "ORGATE_"
KEY_PREFIX = "ORGATE_KEY_"
"""Not settings, but keys of upstreams (`gateway.secrets.sources`)."""


class SettingsError(Exception):
    """`faults` are `(key, what is wrong, what to do)`; the message prints them all."""

    def __init__(self, faults: list[tuple[str, str, str]]) -> None:
        self.faults = faults
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = [f"  {key}: {wrong}; {fix}" for key, wrong, fix in faults]
        super().__init__("\n".join([f"{count} in the settings:", *lines]))


def _network(text: str) -> str:
    ip_network(text)
    return text


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("must be https://host or https://host:port")
    if parts.path not in ("", "/"):
        raise ValueError("must have no path")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must have a port from 1 to 65535, or none")
    return text.rstrip("/")


Origin = Annotated[str, AfterValidator(_origin)]
Port = Annotated[int, Field(ge=1, le=65535)]
Network = Annotated[str, AfterValidator(_network)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Listener(_Section):
    """An address served with TLS 1.3. `certificate` and `key` are PEM files (the key PKCS#8)."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Port
    certificate: Path = Field(default=Path("tls/server.pem"), description="Certificate chain, PEM.")
    key: Path = Field(default=Path("tls/server.key"), description="Its private key: PEM, PKCS#8, mode 0600.")


class PublicListener(Listener):
    """Completions, sign-in and health: what editors reach. TLS 1.3, HTTP/2 and HTTP/1.1."""

    port: Port = Field(default=8443, description="Port to listen on.")


class AdminListener(Listener):
    """The admin API, metrics and health of the control process. TLS 1.3, HTTP/2 and HTTP/1.1."""

    port: Port = Field(default=8444, description="Port to listen on; not the public one on the same host.")


class Server(_Section):
    """`url` is the issuer of tokens and what clients put before `/v1`; `admin_url` what the CLI talks to."""

    url: Origin = Field(
        default="https://127.0.0.1:8443",
        description="Issuer of tokens, part of their audiences, and what clients put before `/v1`: `https://host`"
        " or `https://host:port`. Changing it ends every access token.",
    )
    admin_url: Origin = Field(default="https://127.0.0.1:8444", description="Where clients find the admin API.")
    workers: int = Field(default=1, ge=1, le=256, description="Processes of the data plane.")
    scheduling: Literal["normal", "batch"] = Field(
        default="normal",
        description="How Linux schedules the workers' threads. `batch` (SCHED_BATCH) spends a seventh less CPU,"
        " and is for cores that do nothing else: beside other programs, answers wait for those.",
    )
    drain_delay_s: float = Field(
        default=0,
        ge=0,
        le=120,
        description="Seconds between the signal to stop and its beginning: `/readyz` says no, all is served."
        " Behind a load balancer a little longer than it takes to notice.",
    )
    drain_s: float = Field(
        default=30,
        gt=0,
        le=600,
        description="Seconds that streams have to end at a stop or a reload; those that remain are ended, and what"
        " is still connected is cut.",
    )
    max_body_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=1024,
        le=256 * 1024 * 1024,
        description="Longest request body; a longer one is answered 413.",
    )
    max_in_flight: int = Field(
        default=2_000,
        ge=1,
        description="Requests one worker serves at once; more are answered 503. One organization alone may hold"
        " four fifths of them.",
    )
    request_timeout_s: float = Field(
        default=300, gt=0, le=3600, description="Seconds from a request's head to its end; then 504."
    )
    body_timeout_s: float = Field(
        default=10, gt=0, le=600, description="Seconds in which a request's body must be there; then 408."
    )
    idle_timeout_s: float = Field(
        default=120,
        ge=1,
        description="Seconds after which a connection with no request in flight and no byte either way is ended."
        " HTTP/2 clients are sent a PING each minute, so this ends what never spoke HTTP, or is gone.",
    )
    max_connections: int = Field(
        default=8_192,
        ge=16,
        le=1_000_000,
        description="Connections one worker holds at once. When nine tenths are taken, those silent longest and"
        " without a request give way.",
    )
    max_staleness_s: float = Field(
        default=900,
        gt=0,
        description="Seconds a worker serves on while neither the control process nor the store can be reached.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is written to stderr."
    )


class Tokens(_Section):
    """Lifetimes in seconds. Access 10 to 30 minutes; refresh: the whole family."""

    access_s: int = Field(default=900, ge=600, le=1800, description="Life of an access token.")
    refresh_s: int = Field(
        default=7 * 86400,
        ge=3600,
        le=90 * 86400,
        description="Life of a sign-in: of all refresh tokens of one family together.",
    )
    signing_key_s: int = Field(
        default=90 * 86400,
        ge=86400,
        le=730 * 86400,
        description="Age at which the key that signs tokens gives way to the next one, by itself. One that is kept"
        " in Vault's Transit is rotated there.",
    )
    reuse_grace_s: int = Field(
        default=10,
        ge=0,
        le=10,
        description="How long a used refresh token is still given its successor, for an answer that got lost.",
    )


class Secrets(_Section):
    """`master_key` is a file with mode 0600, a passphrase, or `env:NAME` (development only, warned about)."""

    upstream_keys: Literal["sealed-file", "vault", "mounted-files", "environment"] = Field(
        default="sealed-file",
        description="Where the keys of upstreams are: in the sealed file, in Vault or OpenBao (`[vault]`), in"
        " files that something else mounts, or (development only) in variables `ORGATE_KEY_<ORG>__<UPSTREAM>`.",
    )
    mounted: Path = Field(
        default=Path("keys"),
        description="With `mounted-files`: their folder. A key is the file `<org>/<upstream>` in it.",
    )
    system: Literal["sealed-file", "transit"] = Field(
        default="sealed-file",
        description="How signing keys, the refresh tokens' key, the audit log's key and the one that wraps the"
        " organizations' data keys lie in the sealed file: as they are, or each wrapped by Vault's Transit too"
        " (`vault.transit_key`). They are unwrapped once.",
    )
    signing: Literal["memory", "transit"] = Field(
        default="memory",
        description="Where access tokens are signed: here, or inside Vault (`vault.signing_key`). Nobody signs in"
        " or renews then while Vault is away.",
    )
    mint_commands: tuple[Path, ...] = Field(
        default=(),
        description="Absolute paths of the commands that schedules may run to make or revoke a provider's key; in"
        " the environment a list with commas. They run as the gateway, with the organization and the upstream as"
        " arguments.",
    )
    mint_timeout_s: float = Field(
        default=60, gt=0, le=600, description="Seconds in which such a command must end; then it is killed."
    )
    path: Path = Field(
        default=Path("secrets.sealed"), description="The sealed file: upstream keys and signing keys, AES-256-GCM."
    )
    master_key: str = Field(
        default="master.key",
        min_length=1,
        description="What opens it: a file of mode 0600, or `env:NAME`. Or a passphrase, stretched by Argon2id:"
        " `passphrase:prompt` (typed at the start), `passphrase:systemd:NAME` (`LoadCredential=`) or"
        " `passphrase:FILE`.",
    )


class Audit(AuditStoreSettings, AuditWitnessSettings):
    """The audit log: one folder an organization, and the workers' spools."""

    path: Path = Field(default=Path("audit"), description="Folder of logs and spools.")
    spool_bytes: int = Field(
        default=8 * 1024 * 1024,
        ge=256 * 1024,
        description="Size of one spool segment, allocated in advance; a worker has 32 at most.",
    )
    fsync_ms: int = Field(
        default=50, ge=1, le=1000, description="Longest time an entry waits for a sync: what a power cut can cost."
    )
    stream_behind_s: int = Field(
        default=900,
        ge=60,
        le=604_800,
        description="From so many seconds behind the log on, a stream is told of: in the server's log, and to the"
        " organization's webhook.",
    )


class Web(_Section):
    """The audit log in a browser, on the admin listener (`<server.admin_url>/audit`)."""

    idle_s: int = Field(
        default=1_800, ge=60, le=86_400, description="Seconds after which a session that is not used ends."
    )
    session_s: int = Field(
        default=8 * 3_600,
        ge=300,
        le=7 * 86_400,
        description="Seconds after which a session ends however much it is used. One never outlives"
        " `tokens.refresh_s` either.",
    )


class Upstreams(_Section):
    """`allow_networks`: private or loopback networks that upstream URLs may lead to; others are refused."""

    allow_networks: tuple[Network, ...] = Field(
        default=(),
        description="CIDR networks, private or loopback, that upstream URLs may lead to; in the environment a list"
        " with commas.",
    )

    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(text) for text in self.allow_networks)


class Settings(_Section):
    """Relative paths are under `home`, the folder of the settings file."""

    home: Path = Path()
    server: Server = Server()
    public: PublicListener = PublicListener()
    admin: AdminListener = AdminListener()
    tokens: Tokens = Tokens()
    store: StoreSettings = StoreSettings()
    secrets: Secrets = Secrets()
    vault: VaultSettings = VaultSettings()
    limits: LimitsSettings = LimitsSettings()
    audit: Audit = Audit()
    web: Web = Web()
    upstreams: Upstreams = Upstreams()

    @model_validator(mode="after")
    def _listeners_apart(self) -> Settings:
        if (self.public.host, self.public.port) == (self.admin.host, self.admin.port):
            raise ValueError("is the public listener's address and port too")
        return self

    def path(self, relative: Path | str) -> Path:
        """`relative` under the settings file's folder; an absolute path stays as it is."""
        return self.home / relative

    @property
    def database(self) -> Path | None:
        """The control store's file; None when it is in PostgreSQL."""
        return None if is_postgres(self.store.url) else self.path(sqlite_path(self.store.url))

    @property
    def bus_socket(self) -> Path:
        return self.path("run/bus.sock")


def load(file: Path, environment: dict[str, str] | None = None) -> Settings:
    """Read `file` (TOML) and the environment. Raises `SettingsError` with every fault at once."""
    environ = dict(os.environ) if environment is None else environment
    try:
        found: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([(str(file), f"cannot be read ({error.strerror})", "run `orgate init`")]) from None
    except (ValueError, RecursionError) as error:  # also numbers too long, arrays too deep
        raise SettingsError([(str(file), f"is not TOML ({error})", "mend that line")]) from None
    faults = [(key, "is not known", "remove it or mend its name") for key in _override(found, environ)]
    if "home" in found:
        faults.append(("home", "is not known", "remove it: it is always the folder of this file"))
    found["home"] = file.resolve().parent
    try:
        settings = validated(found)
    except SettingsError as error:
        raise SettingsError(faults + error.faults) from None
    if faults:
        raise SettingsError(faults)
    return settings


def validated(found: dict[str, Any]) -> Settings:
    """Judge settings that were read, with `home` among them. Raises `SettingsError` with every fault at once."""
    try:
        settings = Settings.model_validate(found)
    except ValidationError as error:
        faults = [_fault(item) for item in error.errors(include_url=False, include_context=False)]
        raise SettingsError(faults) from None
    wrong = _secrets_faults(settings) + limits_faults(settings.limits, settings.home)
    wrong += witness_faults(settings.audit, settings.home)
    wrong += audit_store_faults(settings.audit)
    if wrong:
        raise SettingsError(wrong)
    return settings


def _secrets_faults(settings: Settings) -> list[tuple[str, str, str]]:
    """What of `[secrets]` and `[vault]` does not fit together or with this machine, each as in `SettingsError`."""
    secrets = settings.secrets
    faults = []
    if secrets.upstream_keys == "vault" or "transit" in (secrets.system, secrets.signing):
        faults += vault_faults(settings.vault, settings.home)
    if secrets.upstream_keys == "mounted-files" and not settings.path(secrets.mounted).is_dir():
        fix = "mount the keys there, or name the folder where they are"
        faults.append(("secrets.mounted", f"{settings.path(secrets.mounted)} is no folder", fix))
    for command in secrets.mint_commands:
        if not command.is_absolute():
            faults.append(("secrets.mint_commands", f"{command} is no absolute path", "write it from / on"))
    if secrets.master_key in ("env:", "passphrase:", "passphrase:systemd:"):
        faults.append(("secrets.master_key", f"names nothing after {secrets.master_key!r}", "say which one"))
    return faults


def _override(found: dict[str, Any], environ: dict[str, str]) -> list[str]:
    """Lay `ORGATE_SECTION__KEY` over what the file said; returns the names of sections that do not exist."""
    unknown = []
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX) or "__" not in name or name.startswith(KEY_PREFIX):
            continue
        section, key = name.removeprefix(ENV_PREFIX).lower().split("__", 1)
        if section not in Settings.model_fields or section == "home":
            unknown.append(name)
            continue
        table = found.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = (
                [part.strip() for part in value.split(",") if part.strip()]
                if key in ("addresses", "allow_networks", "mint_commands")
                else value
            )
    return unknown


def _fault(item: Any) -> tuple[str, str, str]:
    key = ".".join(str(part) for part in item["loc"])
    given = item.get("input")
    # A URL with a name and a password in it is not repeated into a log.
    shown = "" if isinstance(given, dict | Settings | None) or "@" in str(given) else f" (it is {given!r})"
    if item["type"] == "extra_forbidden":
        return key, "is not known", "remove it or mend its name"
    if not key:  # the one rule about the whole: `Settings._listeners_apart`
        key, fix = "admin.port", "give it another number"
    else:
        documented = ".".join(part for part in item["loc"] if isinstance(part, str))  # no place in a list
        fix = f"see docs/reference/settings.md for {documented}"
    if item["type"] in _WORDS:
        return key, _WORDS[item["type"]] + shown, fix
    message = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return key, message[0].lower() + message[1:] + shown, fix


_WORDS = {"model_type": "must be a table", "tuple_type": "must be a list", "path_type": "must be a path"}
"""Where pydantic would speak of Python."""
