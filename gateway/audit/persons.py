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
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from gateway.audit.entry import Pair
from gateway.audit.personkeys import Known, OrgKey, OrgKeys, make_person, open_person, tampered
from gateway.audit.pseudonym import ERASED, PREFIX, PSEUDONYM
from gateway.errors import UnavailableError
from gateway.secret import Secret
from tenants.ids import PLATFORM, OrgId, is_member_id
from tenants.persons import Person, PersonBook
from tenants.store import Actor, StoreUnavailableError

log = logging.getLogger(__name__)

MOST: Final = 65_536
"""People whose pseudonyms are remembered, and as many whose names are: about 200 bytes each."""
RETRY_S: Final = 1


class Persons:
    """One per control process. `clock` gives Unix seconds. Its methods raise `UnavailableError` while the store is
    away, and for a row that was tampered with; who is known already is known without it.
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

    async def prompt_key(self, org: OrgId) -> Secret:
        """What hashes the prompts of `org` (`gateway.audit.prompt`)."""
        with _unavailable():
            return (await self._keys.get(org)).prompts

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
            if open_person(row, key).member != member:
                raise tampered(row)
        made = {member: row.id for member, row in found.items()}
        if len(made) == len(finders):
            return made
        gone = await self._book.erased(org, [finder for finder, member in finders.items() if member not in made])
        new = []
        for finder, member in finders.items():
            if finder in gone:
                made[member] = ERASED
            elif member not in made:
                new.append(make_person(org, member, key, int(self._clock()), self._random))
                made[member] = new[-1].id
        await self._book.add(new)
        return made

    # -- reading --------------------------------------------------------------------------------------------

    async def known(self, org: OrgId, ids: Iterable[str]) -> dict[str, Known]:
        """Who these pseudonyms in `org` are: without those that are erased, or were never any. One whose row was
        tampered with stands for itself."""
        found, missing = {}, []
        for person in ids:
            if (known := self._members.get((org, person))) is not None:
                found[person] = known
            else:
                missing.append(person)
        if missing:
            # One at a time with `erase`: what is remembered here must not come from a row that is being destroyed.
            async with self._turn:
                with _unavailable():
                    fresh = await self._opened(org, await self._book.by_id(org, missing))
                if len(self._members) + len(fresh) > self._most:
                    self._members = {}
                self._members.update({(org, one.person): one for one in fresh if one.key})
            found.update({one.person: one for one in fresh})
        return found

    async def page(self, org: OrgId, after: str, limit: int) -> tuple[list[Known], str]:
        """Everybody who is known in the log of `org`, by pseudonym: (people, where to go on, '' at the end)."""
        with _unavailable():
            rows, following = await self._book.page(org, after=after, limit=limit)
            return [one for one in await self._opened(org, rows) if one.key], following

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
        if not rows:
            return []
        key, known = await self._keys.get(org), []
        for row in rows:
            try:
                known.append(open_person(row, key))
            except UnavailableError as error:
                log.error("audit: %s", error.message)  # noqa: TRY400  # the message is all there is to say
                known.append(Known(row.id, row.id, ""))
        return known


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except StoreUnavailableError as error:
        raise UnavailableError("the control store cannot be asked for people", retry_after_s=RETRY_S) from error


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
    changed: dict[str, object] = {}
    for name in ("actor", "target", "detail"):
        value = entry.get(name)
        told = _told(OrgId(str(entry.get("actor_org", org))) if name == "actor" else org, value, shown)
        if told != value:
            changed[name] = told
    return {**entry, **changed} if changed else entry


def _told(org: OrgId, value: object, shown: Callable[[OrgId, str], str]) -> object:
    if isinstance(value, str):
        return PSEUDONYM.sub(lambda found: shown(org, found[0]), value) if PREFIX in value else value
    if isinstance(value, list):
        return [_told(org, one, shown) for one in value]
    if isinstance(value, Mapping):
        return {name: _told(org, one, shown) for name, one in value.items()}
    return value
