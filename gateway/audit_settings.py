"""The settings of where the audit log is kept, and for how long: the first half of `[audit]`."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.loopback import is_loopback

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

SEVEN_YEARS_DAYS: Final = 2_557


def _bucket(text: str) -> str:
    if text and not _BUCKET.fullmatch(text):
        raise ValueError("must be 3 to 63 lower-case letters, digits, '.' and '-'")
    return text


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError("must be 1 to 63 letters, digits, '.', '_' and '-', and begin with a letter or digit")
    return text


def _endpoint(text: str) -> str:
    if not text:
        return text
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.query:
        raise ValueError("must be https://host or https://host:port")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https: whoever is between could read the log and take the key's place")
    return text.rstrip("/")


class AuditStoreSettings(BaseModel):
    """Where logs are kept: files under `path`, or a PostgreSQL database that hands what is older to a bucket
    with Object Lock. Passwords and keys are in files of mode 0600 (or, for development, in the environment),
    never here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    store: Literal["files", "postgres+s3"] = Field(
        default="files",
        description="Where logs are kept: `files` of this machine, or a PostgreSQL database that hands whole"
        " segments to objects that nobody can change (`postgres+s3`).",
    )
    dsn: str = Field(
        default="",
        description="With `postgres+s3`: how PostgreSQL is reached (`host=… dbname=… user=… password=…` or a"
        " `postgresql://` URL): a file of mode 0600, or `env:NAME`. The role owns the database and is no"
        " superuser. To another machine `sslmode=verify-full` is needed.",
    )
    bucket: Annotated[str, AfterValidator(_bucket)] = Field(
        default="", description="With `postgres+s3`: the bucket, made with Object Lock."
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="orgate", description="Names of all objects begin with it: `<prefix>/<organization>/…`."
    )
    endpoint: Annotated[str, AfterValidator(_endpoint)] = Field(
        default="", description="Where the S3-compatible API is: `https://host`; empty: Amazon's, of `region`."
    )
    region: str = Field(default="us-east-1", min_length=1, max_length=64, description="Its region.")
    s3_key: str = Field(
        default="",
        description="The access key, `ID:SECRET`: a file of mode 0600, or `env:NAME`. Empty: what the machine has"
        " (its role, web identity, or AWS' own variables).",
    )
    s3_ca: str = Field(
        default="", description="PEM file of the authority behind the endpoint; else the public ones."
    )
    segment_bytes: int = Field(
        default=8 * 1024 * 1024,
        ge=64 * 1024,
        le=64 * 1024 * 1024,
        description="With `postgres+s3`: so many bytes of an organization's lines become one object.",
    )
    segment_age_s: int = Field(
        default=3_600,
        ge=1,
        le=86_400,
        description="With `postgres+s3`: the age at which lines become an object, however few they are. Until then"
        " whoever owns the database can still remove them.",
    )
    retention_days: int = Field(
        default=SEVEN_YEARS_DAYS,
        ge=1,
        le=36_500,
        description="How long entries are kept, unless their organization says otherwise. Objects are locked for"
        " as long when they are written.",
    )
    retention_floor_days: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="No organization may keep its entries for less.",
    )


def audit_store_faults(audit: AuditStoreSettings) -> list[tuple[str, str, str]]:
    """What does not fit together, each as `(key, what is wrong, what to do)`."""
    faults = []
    if audit.retention_days < audit.retention_floor_days:
        wrong = f"is less than audit.retention_floor_days, {audit.retention_floor_days}"
        faults.append(("audit.retention_days", wrong, "raise the one or lower the other"))
    if audit.store == "files":
        return faults
    if not audit.dsn:
        faults.append(("audit.dsn", "is empty", "name the file that says how PostgreSQL is reached"))
    if not audit.bucket:
        faults.append(("audit.bucket", "is empty", "name the bucket; it must have been made with Object Lock"))
    return faults
