"""What `orgate key migrate` does: upstream keys from the sealed file to Vault or back, while the server stands."""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.errors import RefusedError, UsageError
from cli.output import Column
from cli.progress import Bar, progress
from cli.session import Session
from cli.vault import load_with_vault
from gateway.fallback import store_reader
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.migrate import Moved, Outcome, clear, copy
from gateway.secrets.sealed import SealedFile
from gateway.secrets.store import StoreUnavailableError, UpstreamKeys
from gateway.secrets.vault import VaultKeys
from gateway.settings import Settings
from tenants.ids import OrgId
from tenants.store import StoreError

STORES = ("file", "vault")


def migrate(session: Session, file: Path, source: str, target: str, *, clearing: bool) -> None:
    """Copy, verify and, with `clearing`, take away from `source` what `target` holds."""
    if {source, target} != set(STORES):
        raise UsageError("from where to where?", "`--from file --to vault`, or the other way round")
    settings = load_with_vault(file)
    with standing_still(settings):
        try:
            moved, cleared = asyncio.run(_move(settings, source, target, clearing=clearing))
        except StoreUnavailableError as error:
            raise RefusedError(str(error), "mend that, then run it again: it goes on where it was") from None
        except StoreError as error:
            raise RefusedError(str(error), "is that the settings file of this server?") from None
    session.out.items(
        moved,
        [Column("ORG", "org"), Column("UPSTREAM", "upstream"), Column("OUTCOME", "outcome")],
        empty="no upstreams",
    )
    different = [one for one in moved if one.outcome is Outcome.DIFFERENT]
    if different:
        raise RefusedError(
            f"{len(different)} keys in {target} differ from those in {source}; nothing was cleared",
            "delete the wrong one of each with `orgate key delete`, then run it again",
        )
    if clearing:
        session.out.say(f"keys cleared from {source}: {cleared}")
    kind = "vault" if target == "vault" else "sealed-file"
    if settings.secrets.upstream_keys != kind:
        session.out.say(f'next: upstream_keys = "{kind}" under [secrets] of {file}, then `orgate serve`')


async def _move(settings: Settings, source: str, target: str, *, clearing: bool) -> tuple[list[Moved], int]:
    sealed = SealedFile(
        settings.path(settings.secrets.path), read_master_key(settings.secrets.master_key, settings.home)
    )
    stores: dict[str, UpstreamKeys] = {
        "file": sealed,
        "vault": VaultKeys(settings.vault, settings.home, sealed, time.monotonic),
    }
    upstreams = _upstreams(settings)
    try:
        with progress("keys", len(upstreams)) as bar:
            moved = [one async for one in _counted(copy(stores[source], stores[target], upstreams), bar)]
        if not clearing or any(one.outcome is Outcome.DIFFERENT for one in moved):
            return moved, 0
        return moved, len([gone async for gone in clear(stores[source], stores[target], upstreams)])
    finally:
        for store in stores.values():
            await store.aclose()


async def _counted(moves: AsyncIterator[Moved], bar: Bar) -> AsyncIterator[Moved]:
    done = 0
    async for one in moves:
        done += 1
        bar.advance(done)
        yield one


def _upstreams(settings: Settings) -> list[tuple[OrgId, str]]:
    """Every upstream of every organization, as the control store has them."""
    reader = store_reader(settings, time.time)
    try:
        _, records, _ = reader.load()
    finally:
        reader.close()
    return [(record.org.id, upstream.name) for record in records for upstream in record.upstreams]


@contextmanager
def standing_still(settings: Settings) -> Iterator[None]:
    """Hold the lock that `orgate serve` holds: a key that is set meanwhile would be left behind."""
    path = settings.bus_socket.parent / "serve.lock"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        held = path.open("w", encoding="ascii")
    except OSError as error:
        raise RefusedError(f"{path} cannot be opened: {error.strerror}") from None
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"`orgate serve` runs on {settings.home}", "stop it first; models are asked again once it is back"
            ) from None
        yield
