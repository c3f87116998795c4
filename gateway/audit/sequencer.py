"""The sequencer: the one writer of every organization's audit log. Lives in the control process.

Receipts come from the workers' spools, changes from the control store's outbox; each becomes exactly one
entry, in the log of its organization, durable before its sender is told. What a crash leaves at each step of
a commit is written in `gateway.audit.orglog`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway.audit.disk import Disk
from gateway.audit.entry import Draft, Pair, from_change, from_receipt, people_in, person_in
from gateway.audit.files import SEGMENT_BYTES, FileLogs
from gateway.audit.log import Ids, Pseudonyms
from gateway.audit.log_store import LogStores, Rule
from gateway.audit.orglog import OrgLog
from gateway.audit.signer import Signer
from gateway.errors import UnavailableError
from gateway.exchange import SpoolUp
from tenants.ids import OrgId, org_id
from tenants.store import Change

log = logging.getLogger(__name__)

CHECKPOINT_S = 5.0
"""Between looks for logs whose checkpoint is behind: with the time it takes, well under 10 s."""
APART_S = 1.0
"""Between two checkpoints of one log, however often somebody asks for one."""
ASKED_S = 5.0
"""How long somebody who asks for a checkpoint waits for a new one, before they get the one there is."""
AT_ONCE = 4
"""Logs whose checkpoints are written at the same time."""
OUTBOX_S = 1.0
"""Between looks at the outbox for what another process committed; what this one does is told by `nudge`."""
RETRY_S = 1.0

T = TypeVar("T")


class Outbox(Protocol):
    """The part of the control store that the sequencer empties (`tenants.store.ControlStore`)."""

    async def outbox(self, limit: int = 500) -> tuple[Change, ...]: ...
    async def outbox_done(self, upto: int) -> None: ...


class Published(Protocol):
    """Told of every checkpoint, on the event loop, after it was saved: a witness may cosign it, others may see it.

    Returns at once. Cosignatures that come of it go to `Sequencer.cosigned`.
    """

    def __call__(self, org: OrgId, note: str) -> None: ...


class OrgState:
    """A log, who may write it now, and what to wake when it grows. `signing`: held while a checkpoint is made;
    `signed_at`: when the last one was, on the sequencer's clock."""

    __slots__ = ("fault", "grown", "lock", "log", "signed_at", "signing")

    def __init__(self, log: OrgLog) -> None:
        self.log = log
        self.lock = asyncio.Lock()
        self.grown = asyncio.Event()
        self.fault = ""
        self.signing = asyncio.Lock()
        self.signed_at = -inf


class Sequencer:
    """`place` is where the logs are: a store, or `<audit>`, for files under `<audit>/orgs/`. One process at a
    time: the control process.

    `people` gives what stands for members in the entries.
    """

    def __init__(
        self,
        place: Path | LogStores,
        signer: Signer,
        *,
        people: Pseudonyms | None = None,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.signer = signer
        self.published: Published | None = None
        self._clock, self._pause = clock, pause
        self._people = people or Ids()
        if isinstance(place, Path):
            place = FileLogs(place, disk=disk, segment_bytes=segment_bytes)
        self._stores: LogStores = place
        self._logs: dict[OrgId, OrgState] = {}
        self._commits: set[asyncio.Task[Any]] = set()
        self._nudged = asyncio.Event()
        self._nameless = ""
        self._opening = asyncio.Lock()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._long = asyncio.Lock()
        self._closing = False

    async def open(self) -> None:
        """Recover every log there is. Raises `DamagedError` for one that lost or changed entries, `InUseError`,
        OSError."""
        for org in await asyncio.to_thread(self._stores.orgs):
            await self._log(org)

    # -- what is asked from outside -------------------------------------------------------------------------

    async def append_receipts(self, up: SpoolUp) -> int:
        """Make entries of receipts; returns the last `seq`, all of them durable.

        Repeats of (boot, seq) change nothing, also after a restart. Raises `UnavailableError` when any could
        not be made durable: send them all again. Cancelled: the commit ends all the same. Intents of a dead worker
        (outcome `unknown`) come last and in one call.
        """
        if not up.receipts:
            return 0
        people = await self._pseudonyms({person_in(item.receipt) for item in up.receipts})
        by_org: defaultdict[OrgId, list[Draft]] = defaultdict(list)
        for item in up.receipts:
            draft = from_receipt(item.receipt, up.boot, item.seq, people, item.intent)
            by_org[draft.org].append(draft)
        await self._commit_all(by_org)
        return up.receipts[-1].seq

    async def drain_once(self, store: Outbox) -> int:
        """Make entries of the changes that wait in the outbox, then forget them there; how many those were.

        Crash between the two: the changes are read again, and the log knows their documents.
        """
        changes = await store.outbox()
        if not changes:
            return 0
        people = await self._pseudonyms(set().union(*map(people_in, changes)))
        by_org: defaultdict[OrgId, list[Draft]] = defaultdict(list)
        for change in changes:
            draft = from_change(change, people)
            by_org[draft.org].append(draft)
        await self._commit_all(by_org)
        await store.outbox_done(changes[-1].seq)
        return len(changes)

    async def drain_outbox(self, store: Outbox) -> None:
        """Empty the outbox whenever there is something in it, until cancelled. `nudge` makes it look at once."""
        while True:
            self._nudged.clear()
            try:
                pause = 0.0 if await self.drain_once(store) else OUTBOX_S
            except Exception as error:  # noqa: BLE001  # a store or disk that is down: changes wait in the outbox
                log.warning("audit: the outbox waits (%s)", type(error).__name__)
                pause = RETRY_S
            if pause:
                await self._sleep(pause)

    def nudge(self) -> None:
        """There is something in the outbox now."""
        self._nudged.set()

    async def run(self) -> None:
        """Keep the checkpoints at most 10 s behind, until cancelled."""
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            for org, state in list(self._logs.items()):
                signed_lately = self._clock() < state.signed_at + APART_S
                if state.log.behind and not signed_lately and not state.signing.locked():
                    self._keep(self._publish(org, state, APART_S))  # no log waits for another's disk

    async def save_checkpoints(self, *, closing: bool = False) -> None:
        """Write the checkpoints that are behind. A disk that refuses makes the log unhealthy, not the caller.
        `closing`: at once, whenever the one before was."""
        apart_s = 0 if closing else APART_S
        behind = [one for one in self._logs.items() if one[1].log.behind]
        await asyncio.gather(*[self._publish(org, state, apart_s) for org, state in behind])

    async def checkpoint(self, org: OrgId) -> str:
        """A signed note, as a rule over every entry that is durable when it is asked for; that may take `APART_S`.
        An older one when no newer can be saved now. Raises `UnavailableError` when there is none at all."""
        state = await self._log(org)
        size = state.log.size
        if state.log.behind:
            saved = self._keep(self._catch_up(org, state, size))
            done, _ = await asyncio.wait({saved}, timeout=ASKED_S)
            for task in done:
                task.result()
        if not (note := state.log.checkpoint()):
            raise UnavailableError("the audit log has no checkpoint yet", retry_after_s=1)
        return note

    async def cosigned(self, org: OrgId, note: str) -> bool:
        """Keep `note`, a checkpoint with others' signatures under its own, in place of the same without them.
        False when a newer one was saved meanwhile. Raises `NoteError`, OSError."""
        state = await self._log(org)
        async with state.lock:
            return await self._thread(lambda: state.log.cosigned(note))

    # -- retention ------------------------------------------------------------------------------------------

    def known(self) -> Sequence[OrgId]:
        """Whose logs are open."""
        return list(self._logs)

    async def tend(self, org: OrgId, rule: Rule, now_ms: int) -> None:
        """As `LogStore.tend`, beside commits. Raises OSError."""
        log = (await self._log(org)).log
        await self._thread(lambda: log.store.tend(rule, log.checkpoint().encode(), now_ms))

    async def due(self, org: OrgId, before_ms: int) -> int:
        """The first entry that would be left if what is older than `before_ms` went; 0 when nothing would go."""
        store = (await self._log(org)).log.store
        begin = await self._thread(lambda: store.due(before_ms))
        return begin if begin > store.begin else 0

    async def expire(self, org: OrgId, before_ms: int) -> int:
        """As `OrgLog.expire`, beside commits. Raises OSError."""
        state = await self._log(org)
        async with state.signing:
            return await self._thread(lambda: state.log.expire(before_ms))

    async def close(self) -> None:
        """Let commits end, write the last checkpoints, close the logs. Tiles of an old log that are not there yet
        are left to the next start, and so is its checkpoint."""
        self._closing = True
        while self._commits:
            await asyncio.wait(self._commits)
        await self.save_checkpoints(closing=True)
        for state in self._logs.values():
            state.log.close()
        self._logs.clear()
        self._stores.close()

    @property
    def healthy(self) -> bool:
        return not self.reason

    @property
    def reason(self) -> str:
        """What is wrong, for `/readyz`: '' when each log's last commit succeeded and everybody had a name."""
        faults = [f"audit log of {org}: {s.fault}" for org, s in self._logs.items() if s.fault]
        return "; ".join([*faults, *([self._nameless] if self._nameless else [])])

    @property
    def orgs(self) -> tuple[OrgId, ...]:
        """Whose logs are open: all there are, once `open` has been awaited."""
        return tuple(self._logs)

    async def opened(self, org: OrgId) -> OrgState:
        """The log of `org` for readers; an empty one is not made on disk."""
        return await self._log(org)

    # -- inside ---------------------------------------------------------------------------------------------

    async def _pseudonyms(self, pairs: set[Pair]) -> Mapping[Pair, str]:
        """Without them nothing is written: an entry with somebody's id in it could never be taken back."""
        try:
            found = await self._people.of(pairs)
        except UnavailableError as error:
            if self._nameless != error.message:
                log.error("audit: entries wait: %s", error.message)  # noqa: TRY400  # the message is all there is
            self._nameless = error.message
            raise
        self._nameless = ""
        return found

    async def _log(self, org: OrgId) -> OrgState:
        state = self._logs.get(org)
        if state is None:
            async with self._opening:  # recovery may cut a log: never while another has it open
                state = self._logs.get(org) or OrgState(await asyncio.to_thread(self._open, org_id(org)))
                self._logs[org] = state
        return state

    def _open(self, org: OrgId) -> OrgLog:
        return OrgLog(self._stores.open(org), org, self.signer)

    async def _commit_all(self, by_org: dict[OrgId, list[Draft]]) -> None:
        """Commit to each log; a log whose disk refuses does not keep the others from theirs."""
        commits = [self._keep(self._commit(org, drafts)) for org, drafts in by_org.items()]
        results = await asyncio.gather(*(asyncio.shield(task) for task in commits), return_exceptions=True)
        for result in results:
            if isinstance(result, OSError):
                raise UnavailableError("the audit log cannot be written now", retry_after_s=1) from result
            if isinstance(result, BaseException):
                raise result

    async def _commit(self, org: OrgId, drafts: Sequence[Draft]) -> None:
        state = await self._log(org)
        async with state.lock:
            try:
                added = await self._thread(lambda: state.log.append(drafts))
            except OSError as error:
                self._fail(org, state, error)
                raise
            state.fault = ""
        if added:
            grown, state.grown = state.grown, asyncio.Event()
            grown.set()

    async def _catch_up(self, org: OrgId, state: OrgState, size: int) -> None:
        """Save checkpoints until one is over `size` entries and their tiles are there, or one fails."""
        log = state.log
        while min(log.signed_size, log.tiles.size) < size and await self._publish(org, state, APART_S):
            pass

    async def _publish(self, org: OrgId, state: OrgState, apart_s: float) -> bool:
        """Save a checkpoint, if the log is behind still when it is `apart_s` after the one before."""
        async with state.signing:
            if not state.log.behind:
                return True
            if (wait := state.signed_at + apart_s - self._clock()) > 0:
                await self._pause(wait)
            try:
                while state.log.trailing:
                    if self._closing:
                        return False
                    async with self._long:  # other logs have the rest of the threads, and commits go on
                        await self._thread(state.log.follow)
                async with self._places, state.lock:
                    note = await self._thread(state.log.save_checkpoint)
            except OSError as error:
                self._fail(org, state, error)
                return False
            state.signed_at = self._clock()
        if self.published is not None:
            self.published(org, note)
        return True

    def _fail(self, org: OrgId, state: OrgState, error: OSError) -> None:
        reason = error.strerror or "input/output error"
        if state.fault != reason:
            log.error("audit log of %s: %s; nothing is acknowledged until it can be written", org, reason)
        state.fault = reason

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of its own, so that a cancelled caller cannot leave a log half moved on."""
        task = asyncio.ensure_future(work)
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        return task

    async def _thread(self, call: Callable[[], T]) -> T:
        return await asyncio.to_thread(call)

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._nudged.wait(), seconds)
        except TimeoutError:
            return
