"""What `orgate key reseal` and `orgate key unwrap` do: the sealed file, while the server stands."""

from __future__ import annotations

import asyncio
import getpass
import sys
import time
from pathlib import Path

from cli.errors import RefusedError, UsageError
from cli.migrate import standing_still
from cli.session import Session
from cli.vault import load_with_vault
from gateway.ownkeys import NAMES
from gateway.secret import Secret
from gateway.secrets.envelope import unwrap_all
from gateway.secrets.masterkey import PASSPHRASE_SOURCE, PROMPT, create_master_key, read_master_key
from gateway.secrets.passphrase import LONGEST, SHORTEST, Passphrase
from gateway.secrets.sealed import SealedFile
from gateway.secrets.store import StoreUnavailableError
from gateway.secrets.transit import Transit
from gateway.settings import Settings, SettingsError, load


def reseal(session: Session, file: Path, target: str) -> None:
    """Seal everything anew with what `target` names, in the words of `secrets.master_key`."""
    try:
        settings = load(file)
    except SettingsError as error:
        raise UsageError(str(error), f"mend {file}") from None
    if target.startswith("env:") or not target:
        raise UsageError("a key file or a passphrase seals it", "`--to new.key`, or `--to passphrase:prompt`")
    with standing_still(settings):
        try:
            sealed = _sealed(settings)
            count = asyncio.run(sealed.reseal(_wanted(settings, target)))
        except StoreUnavailableError as error:
            raise RefusedError(str(error), "nothing was sealed anew") from None
    session.out.say(f"entries sealed anew: {count}")
    session.out.say(f'next: master_key = "{target}" under [secrets] of {file}, then `orgate serve`')


def unwrap(session: Session, file: Path) -> None:
    """Take the platform's own secrets out of their envelopes, so that Vault is not needed for them any more."""
    settings = load_with_vault(file)
    with standing_still(settings):
        try:
            count = asyncio.run(_unwrap(settings))
        except StoreUnavailableError as error:
            raise RefusedError(str(error), "mend that, then run it again: it goes on where it was") from None
    session.out.say(f"secrets taken out of their envelopes: {count}")
    if settings.secrets.system == "transit":
        session.out.say(f'next: system = "sealed-file" under [secrets] of {file}, then `orgate serve`')


async def _unwrap(settings: Settings) -> int:
    sealed = _sealed(settings)
    transit = Transit(settings.vault, settings.home, sealed, time.monotonic)
    try:
        return await unwrap_all(sealed, transit, NAMES)
    finally:
        await transit.aclose()


def _sealed(settings: Settings) -> SealedFile:
    key = read_master_key(settings.secrets.master_key, settings.home)
    return SealedFile(settings.path(settings.secrets.path), key)


def _wanted(settings: Settings, target: str) -> Secret:
    """The new key: asked for twice, read, or made where its file is not there yet. Raises `UsageError`."""
    if target == PASSPHRASE_SOURCE + PROMPT:
        return _typed()
    if not target.startswith(PASSPHRASE_SOURCE) and not settings.path(target).exists():
        create_master_key(settings.path(target))
    return read_master_key(target, settings.home)


def _typed() -> Passphrase:
    if not sys.stdin.isatty():
        raise UsageError("a new passphrase is typed, and there is no terminal", "or `--to passphrase:FILE`")
    typed = getpass.getpass("New passphrase of the sealed file: ")
    if not SHORTEST <= len(typed.encode()) <= LONGEST:
        raise UsageError(f"a passphrase has {SHORTEST} to {LONGEST} characters")
    if getpass.getpass("Once more: ") != typed:
        raise UsageError("the two are not the same")
    return Passphrase(typed)
