"""People in the audit log: each under a pseudonym that only their own key leads back from (crypto-shredding).

An entry never holds a member's id. In its place stands `per_…`: HMAC-SHA-256 over the organization and the id,
under a key of that one person. So the pseudonym says nothing without the key; and with it, it proves who was
meant: the operator cannot give it to somebody else later. Key and id lie in the control store alone, the
key wrapped under the organization's data key, the id under the key. Destroying that row erases the person from
every log, pack and copy there is, and changes no byte of them (docs/design/0015-person-keys.md).

A pseudonym is made once for a person and organization, before the first entry that has it is written. Crash in
between: a row that nothing names yet, and that the next entry takes.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import UnavailableError
from gateway.secret import Secret
from tenants.ids import PLATFORM, OrgId, is_member_id
from tenants.persons import Person, PersonBook
from tenants.store import Actor, StoreUnavailableError

ERASED: Final = "erased"
"""What a reader is shown for somebody whose key is gone, and what an entry says that comes after that."""
PREFIX: Final = "per_"
MOST: Final = 65_536
"""People whose pseudonyms are remembered, and as many whose names are: about 200 bytes each."""
RETRY_S: Final = 1
KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_MAC_BYTES: Final = 20

# RFC 5869: `info` binds a derived key to its one use.
_NAMES: Final = b"orgate person, pseudonym, HMAC-SHA-256, version 1"
_HOLDS: Final = b"orgate person, member id, AES-256-GCM, version 1"

Pair = tuple[str, str]
"""An organization and the id of a member of it, as they stand in a receipt or a change."""


class OrgKey(Protocol):
    """An organization's data key (`gateway.secrets.datakeys.DataKey`)."""

    def wrap(self, name: str, plain: Secret) -> str: ...
    def unwrap(self, name: str, wrapped: str) -> Secret:
        """Raises `ValueError` for what it did not wrap under `name`."""

    def finder(self, text: str) -> str: ...


class OrgKeys(Protocol):
    """Where the data keys come from (`gateway.secrets.datakeys.DataKeys`): made when first asked for."""

    async def get(self, org: OrgId) -> OrgKey: ...


class Known(NamedTuple):
    """Who a pseudonym stands for. `key` (hexadecimal) proves it to whoever has the entry: see `pseudonym`."""

    person: str
    member: str
    key: str


class Persons:
    """One per control process. `clock` gives Unix seconds. Raises `UnavailableError` where keys or the store are
    away: entries of people who are not known yet wait then, those of all others are written.
    """

    def __init__(
        self,
        book: PersonBook,
        keys: OrgKeys,
        clock: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
        *,
        most: int = MOST,
    ) -> None:
        self._book = book
        self._keys = keys
        self._clock = clock
        self._random = random
        self._most = most
        self._pseudonyms: dict[Pair, str] = {}
        self._members: dict[Pair, Known] = {}
        self._turn = asyncio.Lock()

    # -- writing --------------------------------------------------------------------------------------------

    async def of(self, pairs: Collection[Pair]) -> Mapping[Pair, str]:
        """The pseudonyms of at least those that are members; made for those who have none yet."""
        known = self._pseudonyms
        if any(pair not in known and is_member_id(pair[1]) for pair in pairs):
            async with self._turn:
                known = self._pseudonyms
                missing = [pair for pair in pairs if pair not in known and is_member_id(pair[1])]
                await self._learn(missing, pairs)
                known = self._pseudonyms
        return known

    async def _learn(self, missing: Sequence[Pair], wanted: Collection[Pair]) -> None:
        if len(self._pseudonyms) + len(missing) > self._most:
            old = self._pseudonyms
            self._pseudonyms = {pair: old[pair] for pair in wanted if pair in old}
        by_org: defaultdict[OrgId, list[str]] = defaultdict(list)
        for org, member in missing:
            by_org[OrgId(org)].append(member)
        with _unavailable():
            for at, members in by_org.items():
                rows = await self._rows(at, await self._keys.get(at), members)
                self._pseudonyms.update({(at, member): person for member, person in rows.items()})

    async def _rows(self, org: OrgId, key: OrgKey, members: Sequence[str]) -> dict[str, str]:
        finders = {key.finder(member): member for member in members}
        found = {finders[row.finder]: row for row in await self._book.by_finder(org, finders)}
        for member, row in found.items():
            if _open(row, key).member != member:
                raise _tampered(row)
        made = {member: row.id for member, row in found.items()}
        if len(made) == len(finders):
            return made
        gone = await self._book.erased(org, [finder for finder, member in finders.items() if member not in made])
        new = []
        for finder, member in finders.items():
            if finder in gone:
                made[member] = ERASED
            elif member not in made:
                new.append(self._make(org, key, finder, member))
                made[member] = new[-1].id
        await self._book.add(new)
        return made

    def _make(self, org: OrgId, key: OrgKey, finder: str, member: str) -> Person:
        own = Secret(self._random(KEY_BYTES))
        person = pseudonym(_derived(own, _NAMES), org, member)
        nonce = self._random(_NONCE_BYTES)
        box = nonce + AESGCM(_derived(own, _HOLDS).reveal()).encrypt(nonce, member.encode(), _aad(org, person))
        return Person(
            org, person, finder, key.wrap(_name(person), own), b64encode(box).decode(), int(self._clock())
        )

    # -- reading --------------------------------------------------------------------------------------------

    async def known(self, org: OrgId, ids: Iterable[str]) -> dict[str, Known]:
        """Who these pseudonyms in `org` are: without those that are erased, or were never any."""
        found, missing = {}, []
        for person in ids:
            if (known := self._members.get((org, person))) is not None:
                found[person] = known
            else:
                missing.append(person)
        if missing:
            with _unavailable():
                fresh = await self._opened(org, await self._book.by_id(org, missing))
            found.update({one.person: one for one in fresh})
            if len(self._members) + len(found) > self._most:
                self._members = {}
            self._members.update({(org, person): known for person, known in found.items()})
        return found

    async def page(self, org: OrgId, after: str, limit: int) -> tuple[list[Known], str]:
        """Everybody who is known in the log of `org`, by pseudonym: (people, where to go on, '' at the end)."""
        with _unavailable():
            rows, following = await self._book.page(org, after=after, limit=limit)
            return await self._opened(org, rows), following

    async def named(self, org: OrgId, text: str) -> frozenset[tuple[OrgId, str]]:
        """What stands for the member `text` in the log of `org`: themselves (entries from before there were
        pseudonyms), and their pseudonyms. An operator's are the platform's, in every log. Makes none."""
        found = {(org, text), (PLATFORM, text)}
        if is_member_id(text):
            with _unavailable():
                for at in {org, PLATFORM}:
                    finder = (await self._keys.get(at)).finder(text)
                    found.update((at, row.id) for row in await self._book.by_finder(at, [finder]))
        return frozenset(found)

    async def show(self, org: OrgId, entries: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
        """The entries of `org` with ids of members where the pseudonyms of people stand who are known."""
        wanted: defaultdict[OrgId, set[str]] = defaultdict(set)
        for entry in entries:
            for at, text in _people_in(org, entry):
                wanted[at].add(text)
        known = {at: await self.known(at, people) for at, people in wanted.items()}

        def shown(at: OrgId, text: str) -> str:
            found = known.get(at, {}).get(text)
            return ERASED if found is None else found.member

        return [_replaced(org, entry, shown) for entry in entries]

    # -- erasing --------------------------------------------------------------------------------------------

    async def erase(self, org: OrgId, member: str, by: Actor) -> str:
        """Destroy the key and all that is kept of `member` here; returns their pseudonym, '' for a repeat.

        Raises as `PersonBook.erase`. What is in memory goes with it; `PersonBook.scrub` sees to the file.
        """
        async with self._turn:
            key = await self._keys.get(org)
            person = await self._book.erase(org, member, key.finder(member), by)
            self._pseudonyms = {pair: one for pair, one in self._pseudonyms.items() if pair != (org, member)}
            self._members = {pair: one for pair, one in self._members.items() if one.member != member}
        return person

    async def _opened(self, org: OrgId, rows: Sequence[Person]) -> list[Known]:
        key = await self._keys.get(org) if rows else None
        return [] if key is None else [_open(row, key) for row in rows]


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except StoreUnavailableError as error:
        raise UnavailableError("the control store cannot be asked for people", retry_after_s=RETRY_S) from error


def pseudonym(key: Secret, org: str, member: str) -> str:
    """`per_` and 160 bits, base64url: HMAC-SHA-256 (RFC 2104) under the person's naming key.

    To find another member or key that gives the same, for whoever would rather have meant somebody else, takes
    2^160 tries; for whoever chooses both beforehand, 2^80.
    """
    mac = hmac.digest(key.reveal(), f"{org}\n{member}".encode(), "sha256")
    return PREFIX + urlsafe_b64encode(mac[:_MAC_BYTES]).decode().rstrip("=")


def _open(row: Person, key: OrgKey) -> Known:
    """Who a row is about. Raises `UnavailableError` for one that was changed by somebody else."""
    try:
        own = key.unwrap(_name(row.id), row.key)
        box = b64decode(row.member, validate=True)
        cipher = AESGCM(_derived(own, _HOLDS).reveal())
        member = cipher.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], _aad(row.org, row.id)).decode()
    except (InvalidTag, ValueError):
        raise _tampered(row) from None
    naming = _derived(own, _NAMES)
    if pseudonym(naming, row.org, member) != row.id:
        raise _tampered(row)
    return Known(row.id, member, naming.reveal().hex())


def _tampered(row: Person) -> UnavailableError:
    return UnavailableError(f"the record of {row.id} in the control store was tampered with", retry_after_s=60)


def _people_in(org: OrgId, entry: Mapping[str, object]) -> list[tuple[OrgId, str]]:
    found: list[tuple[OrgId, str]] = []

    def take(at: OrgId, text: str) -> str:
        found.append((at, text))
        return text

    _replaced(org, entry, take)
    return found


def _replaced(org: OrgId, entry: Mapping[str, object], shown: Callable[[OrgId, str], str]) -> Mapping[str, object]:
    """`entry` with `shown` for each pseudonym in it. An actor is of their own organization, all others are of the
    log's."""
    actor, target, detail = entry.get("actor"), entry.get("target"), entry.get("detail")
    changed: dict[str, object] = {}
    if isinstance(actor, str) and actor.startswith(PREFIX):
        changed["actor"] = shown(OrgId(str(entry.get("actor_org", org))), actor)
    if isinstance(target, str) and target.startswith(PREFIX):
        changed["target"] = shown(org, target)
    if isinstance(detail, Mapping):
        told = {name: _told(org, value, shown) for name, value in detail.items()}
        if told != detail:
            changed["detail"] = told
    return {**entry, **changed} if changed else entry


def _told(org: OrgId, value: object, shown: Callable[[OrgId, str], str]) -> object:
    if isinstance(value, str) and value.startswith(PREFIX):
        return shown(org, value)
    if isinstance(value, list):
        return [_told(org, one, shown) for one in value]
    return value


def _name(person: str) -> str:
    return f"orgate person key 1\n{person}"


def _aad(org: str, person: str) -> bytes:
    return f"orgate person member 1\n{org}\n{person}".encode()


def _derived(key: Secret, info: bytes) -> Secret:
    return Secret(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key.reveal()))
