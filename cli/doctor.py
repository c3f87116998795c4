"""The checks of `orgate doctor`. Each looks at one thing, changes nothing, says what it saw and what to do."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct

from cli.connection import Connection
from cli.errors import CliError
from gateway.settings import Listener, Settings, SettingsError, load

OK, WARNING, FAILED = "ok", "warning", "failed"
RENEW_SOON = timedelta(days=30)
SPARE_BYTES = 256 * 1024 * 1024


class Finding(Struct, frozen=True):
    """One row: `result` is ok, warning or failed."""

    check: str
    result: str
    seen: str
    fix: str = ""


def examine(file: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> list[Finding]:
    """Every check of the installation whose settings are `file`; those without settings end after the first."""
    try:
        settings = load(file)
    except SettingsError as error:
        return [Finding("settings", FAILED, f"{key}: {wrong}", fix) for key, wrong, fix in error.faults]
    found = [Finding("settings", OK, str(file))]
    found += [check(settings) for check in (_master_key, _secrets, _database, _audit, _bus)]
    found += _sources(settings)
    if settings.secrets.upstream_keys == "vault" or "transit" in (
        settings.secrets.system,
        settings.secrets.signing,
    ):
        found.append(_vault(settings))
    if settings.limits.store == "redis":
        found += _redis(settings)
    if settings.audit.store != "files":
        found += _audit_store(settings)
    if settings.audit.witness_policy:
        found += _witnesses(settings)
    for name, listener in (("public", settings.public), ("admin", settings.admin)):
        found += _tls(name, settings, listener, now())
        found += _server(name, settings, listener)
    return found


def _master_key(settings: Settings) -> Finding:
    from gateway.secrets.masterkey import MasterKeyError, read_master_key

    source = settings.secrets.master_key
    try:
        read_master_key(source, settings.home)
    except MasterKeyError as error:
        return Finding("master key", FAILED, str(error), "restore it from your copy; `chmod 600` it")
    if source.startswith("env:"):
        return Finding("master key", WARNING, f"comes from the environment ({source})", "use a file of mode 0600")
    if source.startswith("passphrase:"):
        return Finding("master key", OK, f"a passphrase ({source})")
    return Finding("master key", OK, f"{settings.path(source)}, mode 0600")


def _secrets(settings: Settings) -> Finding:
    import asyncio

    from gateway.secrets.masterkey import MasterKeyError, read_master_key
    from gateway.secrets.sealed import SealedFile
    from gateway.secrets.store import StoreUnavailableError

    path = settings.path(settings.secrets.path)
    if not path.exists():
        return Finding("secret store", FAILED, f"{path} does not exist", "run `orgate init`, or restore it")
    if mode := path.stat().st_mode & 0o077:
        return Finding("secret store", FAILED, f"{path} is open to others ({mode:03o})", f"chmod 600 {path}")
    try:
        key = read_master_key(settings.secrets.master_key, settings.home)
        asyncio.run(SealedFile(path, key).load("doctor"))
    except MasterKeyError:
        return Finding("secret store", FAILED, "not tried: no master key", "mend the master key first")
    except StoreUnavailableError as error:
        return Finding("secret store", FAILED, str(error), "restore the sealed file and its master key together")
    return Finding("secret store", OK, f"{path} opens with the master key")


def _sources(settings: Settings) -> Iterator[Finding]:
    """Where upstream keys come from, when somebody else puts them there."""
    match settings.secrets.upstream_keys:
        case "mounted-files":
            folder = settings.path(settings.secrets.mounted)
            if not os.access(folder, os.R_OK | os.X_OK):
                fix = "let the user that serves read it"
                yield Finding("upstream keys", FAILED, f"{folder} cannot be read", fix)
            else:
                count = sum(1 for file in folder.glob("*/*") if not file.name.startswith(".") and file.is_file())
                yield Finding("upstream keys", OK, f"{count} files in {folder}")
        case "environment":
            count = sum(1 for name in os.environ if name.startswith("ORGATE_KEY_"))
            seen = f"{count} variables ORGATE_KEY_… in this environment"
            yield Finding(
                "upstream keys", WARNING, seen, "for development only: use another secrets.upstream_keys"
            )


def _audit_store(settings: Settings) -> Iterator[Finding]:
    from gateway.audit.log_store import StoreAwayError
    from gateway.audit.stores import check_bucket, check_server

    audit = settings.audit
    for name, look, seen, fix in (
        ("audit head", check_server, f"PostgreSQL answers ({audit.dsn})", "look at audit.dsn and the server"),
        ("audit objects", check_bucket, f"bucket {audit.bucket} locks", "look at audit.bucket and s3_key"),
    ):
        try:
            look(audit, settings.home)
        except StoreAwayError as error:
            yield Finding(name, FAILED, str(error), fix)
        else:
            yield Finding(name, OK, seen)


def _vault(settings: Settings) -> Finding:
    from gateway.secrets.store import StoreUnavailableError
    from gateway.secrets.vault_client import VaultServer

    vault = settings.vault
    try:
        server = VaultServer(vault, settings.home, threads=1)
        try:
            health = server.ask(None, None, lambda client: client.adapter.get("/v1/sys/health"))
        finally:
            server.close()
    except StoreUnavailableError as error:
        return Finding("vault", FAILED, str(error), "look at [vault], and at the server")
    seen = f"{vault.address} is unsealed and active, version {health.get('version', 'unknown')}"
    if vault.auth == "token":
        return Finding("vault", WARNING, f"{seen}; one token for all", "log in by approle, kubernetes or jwt")
    return Finding("vault", OK, seen)


def _redis(settings: Settings) -> Iterator[Finding]:
    import asyncio

    from gateway.redis_check import examine_redis

    for seen in asyncio.run(examine_redis(settings.limits, settings.home)):
        yield Finding(f"redis {seen.server}", seen.verdict, seen.seen, seen.fix)


def _witnesses(settings: Settings) -> Iterator[Finding]:
    import asyncio

    from gateway.witness_check import examine_witnesses

    for one in asyncio.run(examine_witnesses(settings)):
        yield Finding(f"witness {one.witness}" if one.witness else "witnesses", one.verdict, one.seen, one.fix)


def _database(settings: Settings) -> Finding:
    path = settings.database
    if path is None:
        return _postgres(settings)
    if not path.exists():
        return Finding("database", FAILED, f"{path} does not exist", "run `orgate init`, or restore it")
    try:
        # Opened for reading only and closed at once: a running server is not disturbed.
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2)
        try:
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        return Finding("database", FAILED, f"{path}: {error}", "restore it from a backup; is it readable to you?")
    if not tables:
        return Finding("database", FAILED, f"{path} is empty", "run `orgate init`")
    return Finding("database", OK, f"{path}, {tables} tables")


def _postgres(settings: Settings) -> Finding:
    from gateway.store_settings import store_password
    from tenants.sql.looking import look
    from tenants.store import StoreError

    try:
        seen, wrong, fix = look(settings.store.url, store_password(settings.store, settings.home))
    except StoreError as error:
        return Finding("database", FAILED, str(error), "look at [store], and at the server")
    return Finding("database", FAILED if wrong else OK, wrong or seen, fix)


def _audit(settings: Settings) -> Finding:
    path = settings.path(settings.audit.path)
    folder = next(parent for parent in (path, *path.parents) if parent.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("audit log", FAILED, f"{folder} is not writable", "give it to the user that serves")
    free = shutil.disk_usage(folder).free
    seen = f"{path}, {free // (1024 * 1024)} MiB free"
    needed = settings.audit.spool_bytes * (settings.server.workers + 1) + SPARE_BYTES
    if free < needed:
        return Finding(
            "audit log",
            FAILED,
            seen,
            f"free {(needed - free) // (1024 * 1024) + 1} MiB: without room, requests are refused",
        )
    return Finding("audit log", OK, seen)


def _bus(settings: Settings) -> Finding:
    path = settings.bus_socket
    # sockaddr_un holds 108 bytes on Linux (unix(7)), the last one 0.
    if len(os.fsencode(path.resolve())) > 107:
        return Finding(
            "bus socket", FAILED, f"{path} is too long for a socket", "move the folder to a shorter path"
        )
    return Finding("bus socket", OK, str(path))


def _tls(name: str, settings: Settings, listener: Listener, now: datetime) -> Iterator[Finding]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    check = f"{name} certificate"
    certificate_path, key_path = settings.path(listener.certificate), settings.path(listener.key)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        raw_key = key_path.read_bytes()
        key = load_pem_private_key(raw_key, None)
    except OSError as error:
        yield Finding(
            check, FAILED, f"{error.filename}: {error.strerror}", f"mend {name}.certificate and {name}.key"
        )
        return
    except (ValueError, TypeError):
        yield Finding(
            check, FAILED, f"{certificate_path} or {key_path} is no PEM", "give PEM files, no passphrase"
        )
        return
    if certificate.public_key() != key.public_key():
        yield Finding(check, FAILED, f"{key_path} belongs to another certificate", "give the pair that fits")
    elif b"BEGIN PRIVATE KEY" not in raw_key:
        fix = f"openssl pkcs8 -topk8 -nocrypt -in {key_path} -out new.key"
        yield Finding(check, FAILED, f"{key_path} is not PKCS#8", fix)
    elif key_path.stat().st_mode & 0o077:
        yield Finding(check, FAILED, f"{key_path} can be read by others", f"chmod 600 {key_path}")
    elif not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        seen = f"valid {certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
        yield Finding(check, FAILED, seen, "renew it; check this machine's clock")
    elif certificate.not_valid_after_utc - now < RENEW_SOON:
        yield Finding(check, WARNING, f"ends {certificate.not_valid_after_utc:%Y-%m-%d}", "renew it now")
    else:
        yield Finding(check, OK, f"valid to {certificate.not_valid_after_utc:%Y-%m-%d}")


def _server(name: str, settings: Settings, listener: Listener) -> Iterator[Finding]:
    """The port is free, or Orgate answers on it: then it must be alive and ready."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.host, listener.host)  # noqa: S104 - compared, not bound
    address = f"{host}:{listener.port}"
    if not _listening(host, listener.port):
        fault = _cannot_bind(listener)
        if fault:
            yield Finding(f"{name} port", FAILED, f"{address}: {fault}", f"change {name}.host or {name}.port")
        else:
            yield Finding(f"{name} port", OK, f"{address} is free: the server does not run")
        return
    ca = settings.path("tls/ca.pem")
    url = settings.server.url if name == "public" else settings.server.admin_url
    try:
        connection = Connection(url, ca=str(ca) if ca.exists() else "")
    except CliError as error:
        yield Finding(f"{name} server", FAILED, error.message, error.fix)
        return
    for path, meaning in (("/livez", "alive"), ("/readyz", "ready")):
        try:
            status = connection.request("GET", path).status_code
        except CliError as error:
            yield Finding(f"{name} server", FAILED, error.message, error.fix)
            break
        if status == 200:
            yield Finding(f"{name} server", OK, f"{url} is {meaning}")
        else:
            fix = "look at its log" if path == "/readyz" else f"{address} is another program's: stop it"
            yield Finding(f"{name} server", FAILED, f"{url}{path} answers {status}", fix)
    connection.close()


def _listening(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def _cannot_bind(listener: Listener) -> str:
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((listener.host, listener.port))
    except OSError as error:
        return error.strerror or str(error)
    return ""
