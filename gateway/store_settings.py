"""The settings of the control store: `[store]`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.secret_source import SecretSourceError, read_secret
from tenants.sql.address import is_postgres, parameters, sqlite_path
from tenants.store import StoreUnavailableError


def _url(text: str) -> str:
    if is_postgres(text):
        parameters(text)
    else:
        sqlite_path(text)
    return text


class StoreSettings(BaseModel):
    """Organizations, members, upstreams, models, limits, rules, accounts: in a file of this machine, or in
    PostgreSQL, where several nodes meet. A password is in a file of mode 0600 (or, for development, in the
    environment), never here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    url: Annotated[str, AfterValidator(_url)] = Field(
        default="sqlite:control.db",
        description="`sqlite:` and a file, or `postgresql://ROLE@HOST[:PORT]/DATABASE`. The role serves and owns"
        " nothing: `orgate store migrate` makes the tables as another. To another machine `?sslmode=verify-full`"
        " is needed (and `&sslrootcert=FILE`, `&sslcert=FILE&sslkey=FILE`). A socket's folder:"
        " `?host=/run/postgresql`.",
    )
    password: str = Field(
        default="",
        description="With PostgreSQL: the role's password: a file of mode 0600, or `env:NAME`. It is read anew for"
        " each connection. Empty: the server knows the role otherwise (a certificate, its socket).",
    )
    connections: int = Field(
        default=8,
        ge=2,
        le=64,
        description="Connections of the control process at once, at most. With PostgreSQL one more listens.",
    )
    timeout_ms: int = Field(
        default=5_000,
        ge=100,
        le=60_000,
        description="How long a write waits for another one, in milliseconds; then it is refused as 503.",
    )


def store_password(store: StoreSettings, home: Path) -> Callable[[], str] | None:
    """What reads it, each time; that raises `StoreUnavailableError`. None: there is none."""
    if not store.password:
        return None

    def read() -> str:
        try:
            found = read_secret(store.password, home)
        except SecretSourceError as error:
            raise StoreUnavailableError(f"store.password: {error}") from None
        return "" if found is None else found.reveal().decode()

    return read
