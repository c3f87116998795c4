"""What `orgate audit copy` does: logs from one store to another, while the server is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from cli.errors import RefusedError, UsageError
from cli.migrate import standing_still
from cli.output import Column
from cli.progress import progress
from cli.session import Session
from gateway.audit.copying import CopyError, copy_log, opened
from gateway.audit.log_store import DamagedError, InUseError, LogStores, StoreAwayError
from gateway.audit.note import NoteError, VerifierKey, parse_key
from gateway.audit.signer import KEY_NAME, Signer
from gateway.audit.stores import open_stores
from gateway.secrets.envelope import BareSecrets
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.sealed import SealedFile
from gateway.secrets.store import StoreUnavailableError
from gateway.settings import Settings, load
from tenants.ids import OrgId, org_id


class Copied(Struct, frozen=True):
    """One organization's log: how many entries there are, and how many of them were copied just now."""

    org: str
    entries: int
    copied: int


def copy(session: Session, file: Path, source: str, target: str, key: str) -> None:
    settings = load(file)
    with standing_still(settings), _said(), ExitStack() as stack:
        keys = _Keys(settings, key)
        stores = []
        for kind in (source, target):
            found = open_stores(settings.audit, settings.path(settings.audit.path), settings.home, kind)
            stack.callback(found.close)
            stores.append(found)
        orgs = stores[0].orgs()
        if session.options.org:
            orgs = [org for org in orgs if org == session.options.org]
        done = [_copy(stores[0], stores[1], org, keys) for org in orgs]
    columns = [Column("ORG", "org"), Column("ENTRIES", "entries"), Column("COPIED", "copied")]
    session.out.items(done, columns, empty=f"no logs in {source}")
    if done and settings.audit.store != target:
        session.out.say(f'next: store = "{target}" under [audit] of {file}, then `orgate serve`')


def _copy(source: LogStores, target: LogStores, org: OrgId, keys: _Keys) -> Copied:
    with progress(f"{org}: read", 0) as bar:
        one = opened(source.open(org_id(org)), bar.advance)
    with closing(one), progress(f"{org}: copy", one.size) as bar:
        other = opened(target.open(org))
        with closing(other):
            try:
                count = copy_log(one, other, org, keys.of(org), bar.advance)
            except CopyError as error:
                raise RefusedError(f"the log of {org} was not copied: {error}") from None
            return Copied(org, other.size, count)


class _Keys:
    """The keys that checkpoints are verified with: of the sealed file, or one that was given."""

    def __init__(self, settings: Settings, given: str) -> None:
        self._given: VerifierKey | None = None
        self._signer: Signer | None = None
        if given:
            try:
                self._given = parse_key(given)
            except NoteError as error:
                raise UsageError(f"--key: {error}", "give what `orgate audit key` printed") from None
            return
        sealed = SealedFile(
            settings.path(settings.secrets.path), read_master_key(settings.secrets.master_key, settings.home)
        )
        try:
            secret = asyncio.run(BareSecrets(sealed).load(KEY_NAME))
        except StoreUnavailableError as error:
            raise RefusedError(str(error), "or give --key, as `orgate audit key` printed it") from None
        if secret is None:
            raise RefusedError("there is no key of the audit log in the sealed file", "start the server once")
        host = urlsplit(settings.server.url).netloc
        self._signer = Signer(host, Ed25519PrivateKey.from_private_bytes(secret.reveal()))

    def of(self, org: OrgId) -> VerifierKey:
        if self._signer is not None:
            return self._signer.key(org)
        assert self._given is not None  # noqa: S101  # one of the two, as it was made
        return self._given


@contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except StoreAwayError as error:
        raise RefusedError(str(error), "mend that, then run it again: it goes on where it was") from None
    except (DamagedError, InUseError) as error:
        raise RefusedError(str(error)) from None
    except OSError as error:
        raise RefusedError(
            f"{error.filename or 'a store'}: {error.strerror}",
            "mend that, then run it again: it goes on where it was",
        ) from None
