"""What every connection to PostgreSQL is told. Knows no driver."""

from __future__ import annotations

from typing import Final

from tenants.sql.address import SCHEMA, parameters

SETTING: Final = "orgate.org"
"""What the policies of row-level security look at (`tenants.sql.rowlevel`)."""
EVERY_ORG: Final = "*"

_TIMES: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


def connect_parameters(url: str, *, timeout_ms: int, application: str) -> dict[str, str]:
    """For libpq, without the password. `timeout_ms`: how long a statement waits for a lock. Raises ValueError."""
    options = {
        "search_path": SCHEMA,
        "lock_timeout": timeout_ms,
        "statement_timeout": max(2 * timeout_ms, 10_000),
        "idle_in_transaction_session_timeout": max(2 * timeout_ms, 10_000),
        # Of a machine that is gone the locks come back in half a minute.
        "tcp_keepalives_idle": 10,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
    }
    said = " ".join(f"-c {name}={value}" for name, value in options.items())
    return {**_TIMES, **parameters(url), "options": said, "application_name": application}
