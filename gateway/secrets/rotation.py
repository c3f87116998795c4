"""Rotations of upstream keys: tried, switched, kept for an overlap, rolled back or destroyed. One per gateway, in
the control process; what is under way is in the key book, so that the next start goes on with it.

What a crash leaves after each step of `rotate`, and what `look` makes of it:

1. the new key is tried: everything as it was;
2. PENDING is written: nothing was put; the mark is taken away;
3. the new key is put, the one before kept: workers do not know it yet; it is announced and tried like any other;
4. OVERLAP is written, with its end: the same, and workers find the key within a minute by themselves;
5. it is announced: an ordinary overlap, ended in time, or rolled back when it is refused;
6. the overlap has ended and the key before is destroyed: destroyed once more, which changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol
from weakref import WeakValueDictionary

from msgspec import Struct, structs

from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.secrets.mint import Commands, MintError
from gateway.secrets.store import (
    NoSuchSecretError,
    ReadOnlyError,
    ReadOnlyKeys,
    StoreUnavailableError,
    UpstreamKeys,
)
from tenants.ids import PLATFORM, OrgId
from tenants.models import KeyState, Upstream, UpstreamKey
from tenants.store import Actor, ControlStore, StoreError, VersionMismatchError

OVERLAP_S: Final = 600
MAX_OVERLAP_S: Final = 30 * 86_400
LOOK_S: Final = 5.0
RETRY_S: Final = 3_600
"""A scheduled rotation that failed is tried again after this."""

REFUSALS: Final = frozenset({401, 403})
SYSTEM: Final = Actor(org=PLATFORM, member="system")
_ATTEMPTS: Final = 5

log = logging.getLogger(__name__)


class RotationError(Exception):
    """Base of what a rotation says no with. Safe to show."""


class NotTakenError(RotationError):
    """The new key did not pass: nothing was changed."""


class RolledBackError(RotationError):
    """The new key passed, was set, and was refused then: the one before is set again."""


class BusyError(RotationError):
    """The upstream keeps being changed by somebody else."""


class Tried(Protocol):
    """What a canary call met: `gateway.upstream.probe.ProbeResult`."""

    @property
    def ok(self) -> bool: ...
    @property
    def status(self) -> int: ...
    @property
    def detail(self) -> str: ...


class Rotated(Struct, frozen=True):
    """`version`: the announced one. `overlap_ends_at`: Unix seconds, when the key before is destroyed; 0: there is
    none."""

    version: int
    overlap_ends_at: int = 0


_EXPECTED: Final = (StoreUnavailableError, NoSuchSecretError, ReadOnlyError, StoreError, RotationError, MintError)


class KeyRotations:
    """All that changes an upstream's key, one change of a key at a time. Belongs to one event loop."""

    def __init__(
        self,
        *,
        store: ControlStore,
        keys: UpstreamKeys,
        probe: Callable[[Upstream, Credential | None], Awaitable[Tried]],
        live: Callable[[int], Awaitable[object]],
        judge: Callable[[Upstream, str], Secret],
        commands: Commands,
        count: Callable[[OrgId, str, str], None],
        clock: Callable[[], float],
    ) -> None:
        """`live`: wait until every worker serves this version of the store. `judge` makes a key of what a command
        printed, or raises `ValueError` quoting nothing of it. `count`: the outcome of a rotation of an upstream.
        `clock`: Unix seconds."""
        self._store = store
        self._keys = keys
        self._probe = probe
        self._live = live
        self._judge = judge
        self._commands = commands
        self._count = count
        self._clock = clock
        self._turns: WeakValueDictionary[tuple[OrgId, str], asyncio.Lock] = WeakValueDictionary()
        self._refusals: set[tuple[OrgId, str, int]] = set()
        self._hopeless: set[tuple[OrgId, str, int]] = set()
        self._wake = asyncio.Event()
        self._recovered = False

    # -- what an admin does -----------------------------------------------------------------------------------

    async def put(self, org: OrgId, name: str, secret: Secret, by: Actor) -> int:
        """Store the next version, untried, and return the announced one when every live worker has been told. What
        an earlier rotation had kept is destroyed."""
        async with self._turn(org, name):
            stored = await self._keys.put(org, name, secret)
            # A crash here leaves a newer key stored than announced, and no entry for it: workers go on with the
            # one they hold and find the newer one when its lease is renewed, a minute later at most. The caller
            # got no answer; doing it again stores and announces the next version.
            await self._write_set(await self._store.keys.get(org, name), stored, by)
            return await self._announce(org, name, stored, by)

    async def rotate(
        self, org: OrgId, name: str, secret: Secret, by: Actor, overlap_s: int = OVERLAP_S
    ) -> Rotated:
        """Try the key, switch every worker to it, try it again. The one before is kept for `overlap_s` seconds.

        Raises `NotTakenError` with nothing changed, `RolledBackError` with the key from before set again.
        """
        async with self._turn(org, name):
            return await self._rotate(org, name, secret, by, overlap_s)

    async def delete(self, org: OrgId, name: str, by: Actor) -> None:
        """Destroy the key with all that is known of it, its schedule too."""
        async with self._turn(org, name):
            await self._keys.delete(org, name)
            # A crash here: the key is gone, and workers that hold it serve for a minute more at most.
            await self._store.keys.put(UpstreamKey(org, name), ("key.delete", {}), by=by)
            await self._announce(org, name, 0, by)

    async def schedule(self, item: UpstreamKey, by: Actor) -> UpstreamKey:
        """Take over the schedule of `item`, all else stays. `every_s` 0 ends it. Raises `MintError` for a command
        that the operator does not allow."""
        for command in (item.command, item.revoke):
            if command:
                self._commands.check(command)
        async with self._turn(item.org, item.name):
            record = await self._store.keys.get(item.org, item.name)
            made = structs.replace(
                record,
                every_s=item.every_s,
                next_at=self._now() + item.every_s if item.every_s else 0,
                command=item.command,
                revoke=item.revoke,
                rotate_overlap_s=item.rotate_overlap_s,
                failure="",
            )
            action = "key.schedule" if item.every_s else "key.unschedule"
            detail: dict[str, str | int | bool | Sequence[str]] = {}
            if item.every_s:
                detail = {"every_s": item.every_s, "command": item.command}
            await self._store.keys.put(made, (action, detail), by=by)
            return made

    # -- what workers say -------------------------------------------------------------------------------------

    def refused(self, org: OrgId, name: str, version: int) -> None:
        """An upstream answered 401 or 403 to this stored version of its key. Quick; the rest follows later."""
        if (org, name, version) not in self._hopeless:
            self._refusals.add((org, name, version))
            self._wake.set()

    # -- what happens by itself -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Roll back, end overlaps and rotate on schedule, for ever."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                log.warning("rotations of keys wait for the control store: %s", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def look(self) -> None:
        """Do what is due now. Raises `StoreError` when the control store cannot be read."""
        self._wake.clear()
        while self._refusals:
            org, name, version = self._refusals.pop()
            await self._attempt(self._take_refusal, org, name, version)
        if not self._recovered:
            # What a crash broke off between the store of keys, the book and the announcement.
            everything = await self._store.keys.due(1 << 62)
            done = [
                await self._attempt(self._catch_up, record.org, record.name)
                for record in everything
                if record.state is KeyState.OVERLAP
            ]
            self._recovered = all(done)
        for record in await self._store.keys.due(self._now()):
            if record.state is KeyState.PENDING:
                await self._attempt(self._settle, record.org, record.name)
            elif record.state is KeyState.OVERLAP:
                await self._attempt(self._end_overlap, record.org, record.name)
            else:
                await self._attempt(self._run_schedule, record.org, record.name)

    async def _attempt(self, work: Callable[..., Awaitable[None]], org: OrgId, name: str, *more: int) -> bool:
        """One upstream's trouble is not another's. What failed is due again at the next look."""
        try:
            async with self._turn(org, name):
                await work(await self._store.keys.get(org, name), *more)
        except _EXPECTED as error:
            log.warning("the key of upstream %s of %s: %s", name, org, error)
            return False
        return True

    async def _take_refusal(self, record: UpstreamKey, version: int) -> None:
        if record.state is not KeyState.OVERLAP or record.stored != version:
            return  # nothing to go back to, or it was gone back already
        upstream = await self._upstream(record.org, record.name)
        kept = await self._keys.get_before(record.org, record.name, version)
        if (await self._probe(upstream, kept)).status in REFUSALS:
            # Going back to a key that is dead helps nobody, and would be tried each second.
            self._hopeless.add((record.org, record.name, version))
            said = "the new key is refused, and so is the one from before"
            await self._store.keys.put(
                structs.replace(record, failure=said), ("key.refuse", {"version": version}), by=SYSTEM
            )
            self._count(record.org, record.name, "refused")
            return
        await self._roll_back(record, SYSTEM)

    async def _roll_back(self, record: UpstreamKey, by: Actor) -> None:
        org, name = record.org, record.name
        kept = await self._keys.get_before(org, name, record.stored)
        stored = await self._keys.put(org, name, kept.secret)
        # A crash here: the store is ahead of the book. Workers find the key within a minute, `_catch_up` the rest.
        said = f"version {record.stored} was refused, and the key from before is set again"
        await self._write_set(record, stored, by, ("key.rollback", {"refused": record.stored}), failure=said)
        await self._announce(org, name, stored, by)
        self._count(org, name, "rolled_back")
        log.warning("the key of upstream %s of %s: %s", name, org, said)

    async def _catch_up(self, record: UpstreamKey) -> None:
        if record.state is not KeyState.OVERLAP:
            return
        held = await self._keys.get(record.org, record.name)
        if held.version > record.stored:
            await self._keys.forget_before(record.org, record.name, held.version)
            await self._write_set(record, held.version, SYSTEM)
        # Perhaps once more: whether it was announced before the crash, nobody wrote down.
        await self._announce(record.org, record.name, held.version, SYSTEM)

    async def _settle(self, record: UpstreamKey) -> None:
        """A rotation that was broken off, or whose put was not answered."""
        if record.state is not KeyState.PENDING:
            return
        held = await self._held(record.org, record.name)
        if held is None or held.version <= record.stored:
            state = KeyState.NONE if held is None else KeyState.SET
            await self._store.keys.put(structs.replace(record, state=state), by=SYSTEM)
            return
        await self._switch(record, held, SYSTEM)

    async def _end_overlap(self, record: UpstreamKey) -> None:
        if record.state is not KeyState.OVERLAP or record.overlap_ends_at > self._now():
            return
        org, name, failure = record.org, record.name, record.failure
        held = await self._keys.get(org, name)
        if record.revoke:
            with contextlib.suppress(NoSuchSecretError):  # it was destroyed, and so revoked, before a crash
                kept = await self._keys.get_before(org, name, held.version)
                try:
                    await self._commands.run(record.revoke, org, name, kept.secret)
                except MintError as error:
                    failure = f"revoke the key from before at the provider: {error}"
                    log.warning("the key of upstream %s of %s: %s", name, org, failure)
        # A crash here runs the command again: it must take a key that is revoked already.
        await self._keys.forget_before(org, name, held.version)
        await self._write_set(
            record, held.version, SYSTEM, ("key.destroy", {"before": held.version}), wrote=False, failure=failure
        )

    async def _run_schedule(self, record: UpstreamKey) -> None:
        """Once, however often it was missed."""
        if not record.every_s or record.next_at > self._now() or record.state not in (KeyState.SET, KeyState.NONE):
            return
        org, name = record.org, record.name
        upstream = await self._upstream(org, name)
        # Written first: a crash from here on, a minted key lost with it, tries again later and not in a circle.
        later = structs.replace(record, next_at=self._now() + min(record.every_s, RETRY_S))
        await self._store.keys.put(later, by=SYSTEM)
        try:
            printed = await self._commands.run(record.command, org, name)
            secret = self._judge(upstream, printed.reveal().decode("utf-8", "replace"))
            await self._rotate(org, name, secret, SYSTEM, record.rotate_overlap_s)
        except (*_EXPECTED, ValueError) as error:
            said = str(error)[:300]
            if not isinstance(error, RotationError):
                self._count(org, name, "failed")
            log.warning("the scheduled rotation of upstream %s of %s failed: %s", name, org, said)
            now = await self._store.keys.get(org, name)
            await self._store.keys.put(
                structs.replace(now, failure=said), ("key.rotate_fail", {"reason": said}), by=SYSTEM
            )
        else:
            now = await self._store.keys.get(org, name)
            await self._store.keys.put(structs.replace(now, next_at=self._now() + record.every_s), by=SYSTEM)

    # -- the steps --------------------------------------------------------------------------------------------

    async def _rotate(self, org: OrgId, name: str, secret: Secret, by: Actor, overlap_s: int) -> Rotated:
        upstream = await self._upstream(org, name)
        if isinstance(self._keys, ReadOnlyKeys):
            raise ReadOnlyError(self._keys.whence(org, name))
        before = await self._held(org, name)
        tried = await self._probe(upstream, Credential(0, secret))
        if not tried.ok:
            self._count(org, name, "not_taken")
            raise NotTakenError(
                f"The new key was tried and did not pass: {tried.detail} (status {tried.status})."
                " Nothing is changed."
            )
        record = await self._store.keys.get(org, name)
        stood = before.version if before is not None else 0
        pending = structs.replace(record, state=KeyState.PENDING, stored=stood, overlap_s=overlap_s)
        await self._store.keys.put(pending, by=by)
        stored = await self._keys.put(org, name, secret, keep=True)
        return await self._switch(pending, Credential(stored, secret), by)

    async def _switch(self, pending: UpstreamKey, new: Credential, by: Actor) -> Rotated:
        """From a key that is put to one that every worker uses, and that was tried again."""
        org, name = pending.org, pending.name
        if not pending.stored:  # the first key: there is none before
            await self._write_set(pending, new.version, by)
            self._count(org, name, "rotated")
            return Rotated(await self._announce(org, name, new.version, by))
        now = self._now()
        record = structs.replace(
            pending,
            state=KeyState.OVERLAP,
            stored=new.version,
            set_at=now,
            overlap_ends_at=now + pending.overlap_s,
            failure="",
        )
        await self._store.keys.put(record, ("key.write", {"version": new.version}), by=by)
        version = await self._announce(org, name, new.version, by)
        again = await self._probe(await self._upstream(org, name), Credential(new.version, new.secret))
        if again.status in REFUSALS:
            await self._roll_back(record, by)
            raise RolledBackError(
                f"The new key passed, was set, and then was refused with status {again.status}: the key from"
                " before is set again. Does the provider need time to make it known?"
            )
        self._count(org, name, "rotated")
        if not pending.overlap_s:
            with contextlib.suppress(StoreUnavailableError):  # done at a later look
                await self._end_overlap(record)
            return Rotated(version)
        return Rotated(version, record.overlap_ends_at)

    async def _write_set(
        self,
        record: UpstreamKey,
        stored: int,
        by: Actor,
        *notes: tuple[str, dict[str, int]],
        wrote: bool = True,
        failure: str = "",
    ) -> None:
        """One key, and none kept beside it. `wrote`: it is another than before."""
        made = structs.replace(
            record,
            state=KeyState.SET,
            stored=stored,
            set_at=self._now() if wrote else record.set_at,
            overlap_s=0,
            overlap_ends_at=0,
            failure=failure,
        )
        written = (("key.write", {"version": stored}),) if wrote else ()
        await self._store.keys.put(made, *written, *notes, by=by)

    async def _announce(self, org: OrgId, name: str, stored: int, by: Actor) -> int:
        """Raise the upstream's key version, so that every worker reads the key again. It never falls: a worker
        that had missed the fall would take the next rise for the key it holds."""
        upstreams = self._store.for_org(org).upstreams
        for _ in range(_ATTEMPTS):
            current = await upstreams.get(name)
            version = max(stored, current.key_version + 1)
            try:
                await upstreams.replace(structs.replace(current, key_version=version), current.version, by)
            except VersionMismatchError:
                continue
            try:
                await self._live(await self._store.version())
            except StoreError:
                log.warning("the key of upstream %s of %s is set, and the store's version unknown", name, org)
            return version
        raise BusyError("The upstream keeps being changed by somebody else; try again.")

    async def _upstream(self, org: OrgId, name: str) -> Upstream:
        return await self._store.for_org(org).upstreams.get(name)

    async def _held(self, org: OrgId, name: str) -> Credential | None:
        try:
            return await self._keys.get(org, name)
        except NoSuchSecretError:
            return None

    def _turn(self, org: OrgId, name: str) -> asyncio.Lock:
        turn = self._turns.get((org, name))
        if turn is None:
            turn = self._turns[org, name] = asyncio.Lock()
        return turn

    def _now(self) -> int:
        return int(self._clock())
