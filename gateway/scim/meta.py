"""What every resource says of itself: when it was made, where it is, which version this is."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any


def meta(kind: str, location: str, created: int, modified: int, version: str) -> dict[str, Any]:
    """RFC 7643 section 3.1. `modified` 0: nobody knows."""
    told = {"lastModified": instant(modified)} if modified else {}
    return {
        "resourceType": kind,
        "created": instant(created),
        **told,
        "location": location,
        **({"version": version} if version else {}),
    }


def instant(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def etag(version: int, beside: list[str]) -> str:
    """Weak (RFC 7644 section 3.14): the version of what was written, and a digest of what comes from
    elsewhere."""
    told = sha256("\n".join(beside).encode()).hexdigest()[:12] if beside else ""
    return f'W/"{version}{"-" if told else ""}{told}"'
