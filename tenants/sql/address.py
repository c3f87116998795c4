"""Where the control store is, as `settings.store.url` spells it. Knows no driver: workers import it too."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

SQLITE: Final = "sqlite:"
POSTGRESQL: Final = "postgresql:"
SCHEMA: Final = "orgate"
"""Where in the database the tables are."""

_MAY: Final = ("host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "channel_binding")
_ASKS_WHO: Final = ("verify-full", "verify-ca")
_RULE: Final = "must be sqlite:PATH or postgresql://ROLE@HOST/DATABASE"


def is_postgres(url: str) -> bool:
    return url.startswith(POSTGRESQL)


def sqlite_path(url: str) -> str:
    """The path of `sqlite:PATH`. Raises ValueError."""
    path = url.removeprefix(SQLITE)
    if not url.startswith(SQLITE) or not path:
        raise ValueError(_RULE)
    return path


def parameters(url: str) -> dict[str, str]:
    """What libpq is told (its section "Parameter Key Words") for `postgresql://ROLE@HOST[:PORT],…/DATABASE?…`.

    Several hosts are the members of one cluster: the one that takes writes is sought. Raises ValueError, which
    repeats nothing of the URL: somebody may have written a password into it.
    """
    try:
        parts = urlsplit(url)
        asked = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError(_RULE) from None
    role, _, places = parts.netloc.rpartition("@")
    if ":" in role or "password" in asked:
        raise ValueError("must have no password: name its file in store.password")
    if parts.scheme != "postgresql" or not role or parts.fragment or not parts.path.strip("/"):
        raise ValueError(_RULE)
    if unknown := sorted(asked.keys() - set(_MAY)):
        raise ValueError(f"has '{unknown[0]}', which is none of {', '.join(_MAY)}")
    found = {"user": unquote(role), "dbname": unquote(parts.path.strip("/")), **asked}
    if places:
        hosts, ports = zip(*(_place(text) for text in places.split(",")), strict=True)
        found |= {"host": ",".join(hosts), "port": ",".join(ports)}
        if len(hosts) > 1:
            found["target_session_attrs"] = "read-write"
    if not found.get("host"):
        raise ValueError("must name a host, or a socket's folder: ?host=/run/postgresql")
    for host in found["host"].split(","):
        if not _is_here(host) and asked.get("sslmode") not in _ASKS_WHO:
            raise ValueError(f"leads to {host} and does not ask who that is: add ?sslmode=verify-full")
    return found


def with_role(url: str, role: str) -> str:
    """`url` for another role."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{role}@{rest.partition('@')[2]}"


def shown(url: str) -> str:
    """For logs and messages: where, and nothing of how."""
    return url.partition("?")[0]


def _place(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    port = port or "5432"
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError(_RULE)
    return unquote(host), port


def _is_here(host: str) -> bool:
    return host.startswith(("/", "127.")) or host in ("localhost", "::1")
