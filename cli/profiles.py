"""Profiles: which gateway, under which name. Kept in `config.toml`, which holds nothing secret."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct, convert, structs

from cli.errors import NOT_READABLE, RefusedError, UsageError, unreadable
from cli.files import locked, private_folder, write_private

DEFAULT_PROFILE = "default"
DEFAULT_SERVER = "https://127.0.0.1:8443"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Profile(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One gateway as one person uses it.

    `server` and `admin` are origins (`https://host:port`), `ca` a PEM file ('' = the system's authorities).
    `org` is the organization commands act on, `resource` the issuer that access tokens are asked for
    (RFC 8707): `<resource>/v1` for completions, `<resource>/admin` for administration.
    """

    server: str
    admin: str
    ca: str = ""
    org: str = ""
    resource: str = ""


class _Config(Struct, omit_defaults=True):
    default_profile: str = DEFAULT_PROFILE
    profiles: dict[str, Profile] = {}


def config_folder(environment: Mapping[str, str] | None = None) -> Path:
    """ORGATE_CONFIG_DIR, else XDG_CONFIG_HOME/orgate, else ~/.config/orgate."""
    environ = os.environ if environment is None else environment
    if chosen := environ.get("ORGATE_CONFIG_DIR"):
        return Path(chosen)
    if base := environ.get("XDG_CONFIG_HOME"):
        return Path(base) / "orgate"
    return Path.home() / ".config" / "orgate"


def origin(text: str, option: str) -> str:
    """Parse `https://host[:port]`. Plain http is for loopback alone: a token never crosses a network in clear."""
    parts = urlsplit(text if "//" in text else f"https://{text}")
    try:
        port = parts.port
    except ValueError:
        raise UsageError(f"{option} {text!r} has a port that is no number from 0 to 65535") from None
    if (
        parts.scheme not in ("https", "http")
        or not parts.hostname
        or parts.username
        or parts.query
        or parts.fragment
    ):
        raise UsageError(f"{option} {text!r} is not an address like https://gateway.example:8443")
    if parts.path not in ("", "/"):
        raise UsageError(f"{option} {text!r} has a path; give the address alone, https://host:port")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UsageError(f"{option} {text!r} would send tokens in clear text", "use https://")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def admin_beside(server: str) -> str:
    """Where the admin listener is when nobody said: the same host, one port up (8443 → 8444)."""
    parts = urlsplit(server)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.netloc.rsplit('@')[-1].removesuffix(f':{parts.port}')}:{port + 1}"


class ProfileStore:
    """`config.toml` under `folder`. Whoever can modify it can send this person's password elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "config.toml"

    def load(self, name: str = "") -> tuple[str, Profile]:
        """(its name, the profile called `name`). Without a name: the default one, else the only one there is,
        else the local gateway."""
        config = self._read()
        chosen = name or config.default_profile
        if not name and chosen not in config.profiles and len(config.profiles) == 1:
            (chosen,) = config.profiles
        if chosen in config.profiles:
            return chosen, config.profiles[chosen]
        if name and name != DEFAULT_PROFILE:
            known = ", ".join(sorted(config.profiles)) or "none yet"
            raise UsageError(
                f"there is no profile {name!r} (known: {known})",
                f"run `orgate login --profile {name} --server URL`",
            )
        return chosen, Profile(server=DEFAULT_SERVER, admin=admin_beside(DEFAULT_SERVER))

    def for_login(self, name: str = "") -> tuple[str, Profile | None]:
        """(the name a login is kept under, the profile if it exists): never one that was not asked for."""
        config = self._read()
        chosen = name or config.default_profile
        return chosen, config.profiles.get(chosen)

    def save(self, name: str, profile: Profile) -> None:
        """Add or replace one profile."""
        private_folder(self.folder)
        with locked(self.folder / "config.lock"):
            config = self._read()
            config.profiles[name] = profile
            write_private(self.path, _toml(config).encode())

    def _read(self) -> _Config:
        try:
            return convert(tomllib.loads(self.path.read_text(encoding="utf-8")), _Config)
        except FileNotFoundError:
            return _Config()
        except OSError as error:
            raise RefusedError(f"{self.path} cannot be read: {error.strerror}") from None
        except NOT_READABLE as error:  # msgspec's among them
            raise RefusedError(
                f"{self.path} is damaged: {unreadable(error)}",
                "mend that line, or remove the file and run `orgate login`",
            ) from None


def _toml(config: _Config) -> str:
    lines = [f"default_profile = {_string(config.default_profile)}"]
    for name, profile in sorted(config.profiles.items()):
        lines += ["", f"[profiles.{_string(name)}]"]
        lines += [f"{key} = {_string(value)}" for key, value in structs.asdict(profile).items() if value]
    return "\n".join([*lines, ""])


def _string(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which only TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
