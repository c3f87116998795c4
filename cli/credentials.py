"""Somebody's login: one private file a profile, and the lock that keeps a refresh family alive.

A refresh token is used once: two processes that refresh at the same time would look like a thief and an owner,
and the server would end the family. So a refresh happens under a lock, after reading again what another
process may have written meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, json

from cli.errors import NOT_READABLE, NotAllowedError, RefusedError, UsageError
from cli.files import locked, write_private

_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AccessToken(Struct, frozen=True):
    """A bearer token and when it ends (Unix seconds)."""

    token: str
    expires_at: int

    def __repr__(self) -> str:
        return "AccessToken(***)"


class Login(Struct, frozen=True):
    """What signing in left: the refresh token, and access tokens by audience. `key`: what both are bound to, PEM;
    '' for bearer tokens."""

    refresh_token: str
    org: str = ""
    access: dict[str, AccessToken] = {}
    key: str = ""

    def __repr__(self) -> str:
        return f"Login(org={self.org!r}, ***)"


class CredentialStore:
    """Logins under `folder` (mode 0700), files of mode 0600. Who can read them can act as this person."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "credentials"

    def path(self, profile: str) -> Path:
        if not _PROFILE.fullmatch(profile):
            raise UsageError(f"a profile's name is letters, digits, '.', '_' and '-', not {profile!r}")
        return self._folder / f"{profile}.json"

    def load(self, profile: str, *, exposed: bool = False) -> Login | None:
        """The login, if there is one. A file that others can read is refused unless `exposed` (to end it)."""
        path = self.path(profile)
        try:
            mode = path.stat().st_mode
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RefusedError(f"{path} cannot be read: {error.strerror}") from None
        if mode & 0o077 and not exposed:
            raise NotAllowedError(
                f"{path} can be read by others (mode {mode & 0o777:04o}): its tokens may be known",
                f"run `orgate logout`, or `chmod 600 {path}` if you are sure",
            )
        try:
            return json.decode(raw, type=Login)
        except NOT_READABLE:
            raise RefusedError(
                f"{path} is damaged", f"remove it and run `orgate login --profile {profile}`"
            ) from None

    def save(self, profile: str, login: Login) -> None:
        write_private(self.path(profile), json.encode(login))

    def forget(self, profile: str) -> None:
        self.path(profile).unlink(missing_ok=True)

    @contextmanager
    def lock(self, profile: str) -> Iterator[None]:
        """Alone with this profile's login until the block ends, across processes."""
        with locked(self.path(profile).with_suffix(".lock")):
            yield
