"""A secret that the settings name: in a file of its own, or in the environment."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.secret import Secret


class SecretSourceError(Exception):
    """The message says what is wrong with the source, and nothing of the secret."""


def read_secret(source: str, home: Path) -> Secret | None:
    """`source` is a file of mode 0600 (under `home` unless absolute), `env:NAME`, or '' for none.

    Raises `SecretSourceError`.
    """
    if not source:
        return None
    if source.startswith("env:"):
        value = os.environ.get(source.removeprefix("env:"), "")
        if not value:
            raise SecretSourceError(f"the environment has no {source.removeprefix('env:')}, or it is empty")
        return Secret(value)
    path = home / source
    try:
        if path.stat().st_mode & 0o077:
            raise SecretSourceError(f"{path} can be read by others: chmod 600 {path}")
        found = path.read_bytes().strip()
    except FileNotFoundError:
        raise SecretSourceError(f"{path} cannot be read: there is no file of that name") from None
    except OSError as error:
        raise SecretSourceError(f"{path} cannot be read ({error.strerror})") from None
    if not found:
        raise SecretSourceError(f"{path} is empty")
    return Secret(found)
