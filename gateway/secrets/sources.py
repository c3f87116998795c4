"""Upstream keys that somebody else puts there: mounted files (a Kubernetes secret), or the environment.

The gateway reads them and never writes: setting a key is refused in words that say where it comes from.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gateway.errors import UnavailableError
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.lease import STALE_IF_ERROR_S
from gateway.secrets.store import KeyReader, NoSuchSecretError, ReadOnlyKeys, StoreUnavailableError, upstream_path
from tenants.ids import OrgId

LONGEST: Final = 8192
LONGEST_FILE: Final = 4 * LONGEST
"""Of a key in several fields the JSON may be spread over lines; it is kept without them."""

LOOK_S: Final = 2.0
"""How old what a worker knows may get before it looks again, beside the requests."""
HELD_S: Final = 4.0
"""How old before a request waits for that look. A changed key is therefore on every worker within 5 s."""
READ_S: Final = 1.8
RETRY_S: Final = 2

ENVIRONMENT_PREFIX: Final = "ORGATE_KEY_"

log = logging.getLogger(__name__)


class MountedKeys(ReadOnlyKeys):
    """One file a key: `<folder>/<org>/<upstream>`. Versions are the file's time of change, in milliseconds.

    A secret of Kubernetes is mounted as links into `..data`, which is a link itself and is swapped whole: a
    reader that opens the name gets the old file or the new one. Trusted: whoever can write the folder decides
    whose key is used, and whoever can read it has them all.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, org: OrgId, upstream: str) -> Credential:
        """As the Protocol says. An empty file is a fault, not an absence: somebody may be writing it."""
        upstream_path(org, upstream)  # judges both names: neither leads out of its folder
        return await asyncio.to_thread(_read, self._folder / org / upstream)

    def whence(self, org: OrgId, upstream: str) -> str:
        return (
            f"the keys of upstreams come from mounted files here (secrets.upstream_keys): this one is the file"
            f" {org}/{upstream} in the folder secrets.mounted, and is changed there"
        )


def _read(path: Path) -> Credential:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchSecretError(f"there is no file {path}") from None
    except OSError as error:
        raise StoreUnavailableError(f"{path} cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StoreUnavailableError(f"{path} is not a regular file")
        raw = os.read(descriptor, LONGEST_FILE + 1)
    except OSError as error:
        raise StoreUnavailableError(f"{path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    return Credential(status.st_mtime_ns // 1_000_000, _key(raw, str(path)))


class EnvironmentKeys(ReadOnlyKeys):
    """`ORGATE_KEY_<ORG>__<UPSTREAM>`, in capitals, with `_` for everything that is no letter or digit. An
    organization's id has no two hyphens in a row, so no name can be read as another organization's.

    For development only. Trusted: whatever runs as this user, or below it, can read them all.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        log.warning(
            "upstream keys come from environment variables (%s...): for development only; every process of this"
            " user can read them",
            ENVIRONMENT_PREFIX,
        )

    async def get(self, org: OrgId, upstream: str) -> Credential:
        name = variable(org, upstream)
        found = self._environment.get(name)
        if found is None:
            raise NoSuchSecretError(f"the environment variable {name} is not set")
        return Credential(1, _key(found.encode("utf-8", "surrogateescape"), f"the environment variable {name}"))

    def whence(self, org: OrgId, upstream: str) -> str:
        return (
            "the keys of upstreams come from the environment here (secrets.upstream_keys): this one is"
            f" {variable(org, upstream)}, and is read when the gateway starts"
        )


def variable(org: OrgId, upstream: str) -> str:
    """Raises `tenants.ids.InvalidIdError`."""
    upstream_path(org, upstream)
    parts = ("".join(char if char.isalnum() else "_" for char in part.upper()) for part in (org, upstream))
    return ENVIRONMENT_PREFIX + "__".join(parts)


def _key(raw: bytes, where: str) -> Secret:
    """The key alone, as every other store has it. Raises `StoreUnavailableError`, quoting nothing of it."""
    text = raw.strip()
    if len(raw) <= LONGEST_FILE and text.startswith(b"{"):
        try:
            text = msgspec.json.format(text, indent=-1)
        except (msgspec.DecodeError, RecursionError):
            raise StoreUnavailableError(f"{where} begins as JSON and is none") from None
    if not 0 < len(text) <= LONGEST or not text.isascii() or not text.decode("ascii").isprintable():
        raise StoreUnavailableError(f"{where} does not hold 1 to {LONGEST} printable ASCII characters on one line")
    return Secret(text)


class _Held(Struct):
    """What a worker knows of a key. `fault` is for the log: said once, not at every look."""

    credential: Credential | None = None
    read_at: float = float("-inf")
    looked_at: float = float("-inf")
    fault: str = ""
    looking: asyncio.Task[Credential] | None = None


class SourceLeases:
    """The keys of one worker, where nobody announces a change: it looks by itself. The pipeline's `Keys`; the
    announced `key_version` says nothing here. `clock` gives monotonic seconds. Belongs to one event loop.

    A source that cannot be read is not felt for 15 minutes; a key that was taken away is gone at the next look.
    """

    def __init__(self, keys: KeyReader, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock
        self._held: dict[tuple[OrgId, str], _Held] = {}

    def peek(self, org: OrgId, upstream: str, key_version: int) -> Credential | None:
        """The key, if it was looked at within `HELD_S`; after `LOOK_S` a look begins beside."""
        held = self._held.get((org, upstream))
        if held is None or held.credential is None:
            return None
        age = self._clock() - held.looked_at
        if age >= HELD_S:
            return None
        if age >= LOOK_S and held.looking is None:
            self._look(held, org, upstream)
        return held.credential

    async def lease(self, org: OrgId, upstream: str, key_version: int) -> Credential:
        """The key as it is now. Raises `UnavailableError` when there is none, or none that can be read."""
        held = self._held.setdefault((org, upstream), _Held())
        looking = held.looking or self._look(held, org, upstream)
        try:
            async with asyncio.timeout(READ_S):
                return await asyncio.shield(looking)
        except NoSuchSecretError:
            raise UnavailableError(f"no key is set for upstream '{upstream}'", retry_after_s=RETRY_S) from None
        except (StoreUnavailableError, TimeoutError):
            stale = held.credential
            if stale is not None and self._clock() - held.read_at < STALE_IF_ERROR_S:
                return stale
            raise UnavailableError(
                f"the key for upstream '{upstream}' cannot be read now", retry_after_s=RETRY_S
            ) from None

    def refused(self, org: OrgId, upstream: str, version: int) -> None:
        """The upstream answered 401 to this version: the next request looks again first. At most once in 2 s, for
        a key may be wrong where it comes from, too."""
        held = self._held.get((org, upstream))
        if held is None or held.credential is None or held.credential.version != version:
            return
        if self._clock() - held.looked_at >= RETRY_S:
            held.looked_at = float("-inf")

    def keep(self, known: Container[tuple[OrgId, str]]) -> None:
        """Forget the keys of upstreams that are not in `known`."""
        for key in [key for key in self._held if key not in known]:
            del self._held[key]

    def outdone(self, org: OrgId, upstream: str, version: int) -> None:
        """Nobody is told: what is in the file was put there by another hand, and is not the gateway's to undo."""

    async def other(self, org: OrgId, upstream: str, version: int, key_version: int) -> Credential | None:
        """The key as it is now, if it is not `version`, which was refused."""
        try:
            now = await self.lease(org, upstream, key_version)
        except UnavailableError:
            return None
        return now if now.version != version else None

    def _look(self, held: _Held, org: OrgId, upstream: str) -> asyncio.Task[Credential]:
        held.looking = asyncio.ensure_future(self._fetch(held, org, upstream))
        held.looking.add_done_callback(_observe)
        return held.looking

    async def _fetch(self, held: _Held, org: OrgId, upstream: str) -> Credential:
        now = self._clock()
        try:
            credential = await self._keys.get(org, upstream)
        except NoSuchSecretError:
            self._held.pop((org, upstream), None)
            raise
        except StoreUnavailableError as error:
            held.looked_at = now  # whoever has a key is not made to wait for the next fault
            if str(error) != held.fault:
                # The source's own words name paths: they are for the operator's log, never for the caller.
                log.warning("the key of upstream %s of %s cannot be read: %s", upstream, org, error)
                held.fault = str(error)
            if held.credential is not None and now - held.read_at >= STALE_IF_ERROR_S:
                held.credential = None
            raise
        else:
            if held.credential is not None and held.credential.version != credential.version:
                log.info("the key of upstream %s of %s was changed", upstream, org)
            held.credential, held.read_at, held.looked_at, held.fault = credential, now, now, ""
            return credential
        finally:
            held.looking = None


def _observe(looking: asyncio.Task[Credential]) -> None:
    """A look that nobody waits for has already logged its failure: take the exception, so asyncio does not."""
    if not looking.cancelled():
        looking.exception()
