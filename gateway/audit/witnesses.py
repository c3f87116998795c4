"""The log's side of witnesses: each new checkpoint is shown to all of them, and what they cosign is kept.

Nothing waits for it: entries are acknowledged and checkpoints signed whether witnesses answer or not. For each
organization there are rounds: one checkpoint is shown to every witness, and only when all have answered or failed
the newest one begins the next round, so that slow witnesses come to cosign the same tree. Who fails is asked again
after growing pauses. All of this is memory; a restart begins with the checkpoints there are, and a witness that
knows more than it is told says so (409).
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from msgspec import Struct

from gateway.audit.cosignature import CosignerKey
from gateway.audit.note import Checkpoint, VerifierKey, parse_checkpoint, split_note
from gateway.audit.policy import NONE, Policies, Policy, Witness
from gateway.audit.proofs import consistency
from gateway.audit.sequencer import Sequencer
from gateway.audit.witness_answer import Cosignature, WitnessError, understood
from gateway.audit.witness_post import Ask
from gateway.audit.witness_wire import submission
from gateway.audit.witnessed import WitnessedNotes
from tenants.ids import OrgId

log = logging.getLogger("orgate.witnesses")

PAUSES_S: Final = (1.0, 5.0, 15.0, 60.0, 300.0)
"""After the first failure, the second, …; the last one repeats."""
AT_ONCE: Final = 8
"""Organizations whose checkpoints one witness is shown at the same time."""
JITTER: Final = 0.2
_TRIES: Final = 3


class Seen(Struct):
    """What one witness has made of one log. Unix seconds, 0 for never; `at` is by the witness's clock."""

    size: int = 0
    at: int = 0
    fault: str = ""
    fault_at: int = 0


class Standing(Struct, frozen=True):
    """`size`: of the newest checkpoint; `witnessed_size`: of the newest that has its quorum, -1 for none.
    `late_s`: for how long there has been a newer one without, 0 when there is none."""

    size: int
    witnessed_size: int
    late_s: float
    seen: Mapping[str, Seen]


class _Pause:
    """When somebody who failed is asked again."""

    __slots__ = ("failed", "until")

    def __init__(self) -> None:
        self.failed = 0
        self.until = 0.0


class _Desk:
    """One organization: its newest checkpoint, the one whose round it is, what came of it."""

    __slots__ = (
        "begun",
        "changed",
        "known",
        "late",
        "lines",
        "newest",
        "pauses",
        "policy",
        "round",
        "saving",
        "seen",
        "witnessed",
    )

    def __init__(self, policy: Policy, witnessed: str) -> None:
        self.policy = policy
        self.changed = asyncio.Event()
        self.newest = ""
        self.round = ""
        self.begun = 0.0
        self.lines: dict[str, Cosignature] = {}
        self.witnessed = witnessed
        self.late: float | None = None
        self.saving = asyncio.Lock()
        self.known = {witness.name: 0 for witness in policy.witnesses}
        self.pauses = {witness.name: _Pause() for witness in policy.witnesses}
        self.seen = {witness.name: Seen() for witness in policy.witnesses}


class Witnesses:
    """`await run()` beside the servers. `clock`: Unix seconds; `monotonic`: seconds; `random`: 0 to 1, spreads
    retries. `count` is told of each attempt: the witness's name, and `cosigned` or `failed`."""

    def __init__(
        self,
        policies: Policies,
        sequencer: Sequencer,
        ask: Ask,
        kept: WitnessedNotes,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        random: Callable[[], float],
        count: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._policies = policies
        self._sequencer = sequencer
        self._ask = ask
        self._kept = kept
        self._clock, self._monotonic, self._random = clock, monotonic, random
        self._count = count
        self._desks: dict[OrgId, _Desk] = {}
        self._pauses: defaultdict[CosignerKey, _Pause] = defaultdict(_Pause)
        self._slots: defaultdict[CosignerKey, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        self._following: dict[OrgId, asyncio.Task[None]] = {}
        self._running = False

    # -- what is asked from outside -------------------------------------------------------------------------

    def published(self, org: OrgId, note: str) -> None:
        """A checkpoint was saved: `Sequencer.published`."""
        desk = self._desk(org)
        desk.newest = _bare(note, self._sequencer.signer.key(org))
        if _head(note).size < _size(desk.witnessed):
            log.error("audit log of %s: it is shorter than a checkpoint that witnesses have cosigned", org)
            desk.witnessed = ""
        if desk.late is None and desk.policy.quorum != NONE and _head(note).size > _size(desk.witnessed):
            desk.late = self._monotonic()
        desk.changed.set()
        self._follow(org, desk)

    def witnessed(self, org: OrgId) -> str:
        """The newest checkpoint with a quorum of cosignatures under it; '' for none, and when none is asked."""
        desk = self._desk(org)
        return "" if desk.policy.quorum == NONE else desk.witnessed

    def policy(self, org: OrgId) -> Policy:
        """Whose cosignatures this organization's log is to have."""
        return self._policies.of(org)

    def standing(self, org: OrgId) -> Standing:
        desk = self._desk(org)
        size = _size(desk.newest)
        return Standing(max(size, 0), _size(desk.witnessed), self._late(desk), desk.seen)

    def late(self) -> Mapping[OrgId, float]:
        """Seconds for which the checkpoints of each organization have been without a quorum."""
        return {org: self._late(desk) for org, desk in self._desks.items()}

    async def run(self) -> None:
        """Show checkpoints to witnesses until cancelled, those first that there are now. Closes `ask` then."""
        self._running = True
        try:
            for org in self._sequencer.orgs:
                note = (await self._sequencer.opened(org)).log.checkpoint()
                if note and _head(note).size:
                    self.published(org, note)
                await asyncio.sleep(0)  # each reads a file and verifies signatures: others have their turns
            await asyncio.Event().wait()
        finally:
            self._running = False
            following = list(self._following.values())
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
            await self._ask.aclose()

    # -- rounds ---------------------------------------------------------------------------------------------

    def _desk(self, org: OrgId) -> _Desk:
        desk = self._desks.get(org)
        if desk is None:
            policy = self._policies.of(org)
            kept = self._kept.load(org, self._sequencer.signer.key(org), policy)
            desk = self._desks[org] = _Desk(policy, kept)
        return desk

    def _late(self, desk: _Desk) -> float:
        return 0.0 if desk.late is None else max(self._monotonic() - desk.late, 0.0)

    def _follow(self, org: OrgId, desk: _Desk) -> None:
        if self._running and org not in self._following:
            task = self._following[org] = asyncio.create_task(self._rounds(org, desk))
            task.add_done_callback(partial(self._ended, org))

    def _ended(self, org: OrgId, done: asyncio.Task[None]) -> None:
        """It never ends by itself: what it met was unforeseen. The next checkpoint begins it again."""
        self._following.pop(org, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("audit log of %s: its witnesses were not asked", org, exc_info=error)

    async def _rounds(self, org: OrgId, desk: _Desk) -> None:
        while True:
            desk.changed.clear()
            if desk.round != desk.newest:
                desk.round, desk.lines, desk.begun = desk.newest, {}, self._monotonic()
            lacking = [witness for witness in desk.policy.witnesses if witness.name not in desk.lines]
            now = self._monotonic()
            due = [witness for witness in lacking if self._until(desk, witness) <= now]
            await asyncio.gather(*(self._show(org, desk, witness) for witness in due))
            if desk.round == desk.newest:
                await self._rest(desk)

    async def _rest(self, desk: _Desk) -> None:
        """Until there is a new checkpoint, or somebody who has not cosigned may be asked again."""
        lacking = [witness for witness in desk.policy.witnesses if witness.name not in desk.lines]
        pause: float | None = None
        if lacking:
            pause = max(min(self._until(desk, witness) for witness in lacking) - self._monotonic(), 0.0)
        try:
            async with asyncio.timeout(pause):
                await desk.changed.wait()
        except TimeoutError:
            return

    def _until(self, desk: _Desk, witness: Witness) -> float:
        return max(desk.pauses[witness.name].until, self._pauses[witness.key].until)

    async def _show(self, org: OrgId, desk: _Desk, witness: Witness) -> None:
        """Show the round's checkpoint to one witness; what comes of it is written down, nothing is raised."""
        async with self._slots[witness.key]:
            if self._until(desk, witness) > self._monotonic():
                return  # it failed for another organization while this one waited for its turn
            try:
                found = await self._cosignature(org, desk, witness)
            except WitnessError as error:
                self._failed(org, desk, witness, error)
                return
            except OSError as error:  # of the log's own tiles
                fault = WitnessError(f"no proof can be made: {error.strerror or 'input/output error'}", own=True)
                self._failed(org, desk, witness, fault)
                return
        await self._cosigned(org, desk, witness, found)

    async def _cosignature(self, org: OrgId, desk: _Desk, witness: Witness) -> Cosignature:
        text, head = split_note(desk.round)[0], _head(desk.round)
        tiles = (await self._sequencer.opened(org)).log.tiles
        for _ in range(_TRIES):
            old = desk.known[witness.name]
            if old > head.size:
                desk.known[witness.name] = 0  # the next time it is asked anew
                raise WitnessError(
                    f"it has seen {old} entries, and there are {head.size}: either it is wrong, or this log was"
                    " put back from an older copy, and entries are gone",
                    own=True,
                )
            proof = await asyncio.to_thread(consistency, tiles, old, head.size)
            reply = await self._ask.ask(witness.url, submission(old, proof, desk.round))
            answer = understood(reply, text, witness.key)
            if isinstance(answer, Cosignature):
                return answer
            if answer.size == old:
                raise WitnessError(f"it says it knows {old} entries, and refuses the proof from there", own=True)
            desk.known[witness.name] = answer.size
        raise WitnessError("it says another size each time it is asked", own=True)

    def _failed(self, org: OrgId, desk: _Desk, witness: Witness, error: WitnessError) -> None:
        self._count(witness.name, "failed")
        seen = desk.seen[witness.name]
        if seen.fault != str(error):
            log.warning("audit log of %s: witness %s: %s", org, witness.name, error)
        seen.fault, seen.fault_at = str(error), int(self._clock())
        pause = desk.pauses[witness.name] if error.own else self._pauses[witness.key]
        wait = PAUSES_S[min(pause.failed, len(PAUSES_S) - 1)]
        pause.failed += 1
        pause.until = self._monotonic() + wait * (1 + JITTER * self._random())

    async def _cosigned(self, org: OrgId, desk: _Desk, witness: Witness, found: Cosignature) -> None:
        self._count(witness.name, "cosigned")
        head = _head(desk.round)
        desk.known[witness.name] = head.size
        desk.lines[witness.name] = found
        desk.seen[witness.name] = Seen(head.size, found.at)
        desk.pauses[witness.name] = _Pause()
        self._pauses[witness.key] = _Pause()
        if not desk.policy.met(desk.lines):
            return
        note = desk.round + "".join(
            desk.lines[one.name].line for one in desk.policy.witnesses if one.name in desk.lines
        )
        desk.witnessed = note
        desk.late = None if desk.round == desk.newest else desk.begun
        async with desk.saving:
            if desk.witnessed is not note:
                return  # one with a line more waits behind this one
            try:
                await self._sequencer.cosigned(org, note)
                await asyncio.to_thread(self._kept.save, org, note)
            except OSError as error:  # it is served from memory, and written again with the next one
                log.warning("audit log of %s: its cosignatures cannot be written: %s", org, error.strerror)


def _bare(note: str, key: VerifierKey) -> str:
    """A checkpoint with the log's own signature alone."""
    text, lines = split_note(note)
    return f"{text}\n" + "".join(str(line) for line in lines if (line.name, line.raw[:4]) == (key.name, key.id))


def _head(note: str) -> Checkpoint:
    return parse_checkpoint(split_note(note)[0])


def _size(note: str) -> int:
    return _head(note).size if note else -1
