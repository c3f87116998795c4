"""How a stream paces itself: pauses that grow, entries that are waited for, and none of it more than is said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import UnavailableError
from gateway.streaming.batch import Batch
from gateway.streaming.sender import SendError
from gateway.streaming.stream import FIRST_PAUSE_S, JITTER, LAST_PAUSE_S, Stream
from tenants.store import StoreUnavailableError
from tenants.streams import AuditStream, StreamFormat, StreamKind, StreamPlace
from tests.fakes.audit import ACME
from tests.unit.streaming.bed import BY, Bed, open_bed

STREAM = AuditStream(ACME, "siem", StreamKind.NDJSON, "https://x.example", StreamFormat.JSONL, from_start=True)


class Stop(Exception):  # noqa: N818  # no error: what ends a stream that never ends
    """Enough has been seen."""


class FakeSender:
    """Takes what it gets, or fails as it was told to; ends the stream when nothing is planned any more."""

    certain = True
    most = 10
    most_bytes = 1_000_000
    gather_s = 0.0

    def __init__(self, *plan: SendError | int) -> None:
        self.plan = list(plan)
        self.got: list[tuple[int, int]] = []
        self.closed = 0

    async def send(self, batch: Batch) -> int:
        if not self.plan:
            raise Stop
        step = self.plan.pop(0)
        if isinstance(step, SendError):
            raise step
        self.got.append((batch.first, batch.end))
        return step

    async def alive(self) -> bool:
        return True

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    async with open_bed(tmp_path) as made:
        yield made


async def run(bed: Bed, sender: FakeSender, stream: AuditStream = STREAM) -> tuple[Stream, list[float]]:
    """Run to the end of the plan; the stream, and how long it slept each time."""
    slept: list[float] = []

    async def make() -> FakeSender:
        return sender

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await bed.store.for_org(ACME).audit_streams.create(stream, BY)
    made = Stream(
        stream,
        bed.reader,
        bed.store.streams,
        make,
        ctx=bed.ctx,
        now=lambda: 0.0,
        clock=bed.clock.now,
        random=lambda: 1.0,
        sleep=sleep,
    )
    with pytest.raises(Stop):
        await made.run()
    return made, slept


async def test_pauses_grow_up_to_a_minute_and_begin_anew_after_a_success(bed: Bed) -> None:
    await bed.log(30)
    fails = [SendError("no")] * 9
    sender = FakeSender(*fails, 0, SendError("no"))
    _, slept = await run(bed, sender)
    wanted = [min(FIRST_PAUSE_S * 2**n, LAST_PAUSE_S) * (1 - JITTER) for n in range(9)]
    assert slept == [*wanted, FIRST_PAUSE_S * (1 - JITTER)]
    assert sender.got == [(0, 10)]
    assert sender.closed == 11


async def test_a_receiver_says_how_long_it_wants_to_be_left_alone(bed: Bed) -> None:
    await bed.log(1)
    _, slept = await run(bed, FakeSender(SendError("busy", wait_s=120)))
    assert slept == [120]


@pytest.mark.parametrize(("count", "slept"), [(5, [60.0]), (28, [])])
async def test_entries_are_gathered_unless_there_are_plenty(bed: Bed, count: int, slept: list[float]) -> None:
    """Of 28 the first two batches are full, and what follows them is not waited for."""
    await bed.log(count)
    sender = FakeSender(*[0] * (count // 10))
    sender.gather_s = 60.0
    assert (await run(bed, sender))[1] == slept
    assert len(sender.got) == count // 10


async def test_what_is_rejected_is_counted_and_passed_over(bed: Bed) -> None:
    await bed.log(20)
    stream, _ = await run(bed, FakeSender(3))
    assert stream.place is not None
    assert (stream.place.rejected, stream.place.position) == (3, 10)


async def test_a_store_that_is_away_sends_nothing_twice_by_itself(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bed.log(30)
    moved = bed.store.streams.moved
    failing = [True]

    async def sometimes(place: StreamPlace) -> bool:
        if place.position == 10 and failing:
            failing.pop()
            raise StoreUnavailableError("locked")
        return await moved(place)

    monkeypatch.setattr(bed.store.streams, "moved", sometimes)
    sender = FakeSender(0, 0, 0)
    await bed.log(5)
    stream, slept = await run(bed, sender)
    assert sender.got == [(0, 10), (10, 20), (20, 30)]
    assert len(slept) == 1
    assert stream.place is not None
    assert stream.place.position == 30


async def test_a_log_that_cannot_be_read_is_waited_for(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    await bed.log(5)
    size, failing = bed.reader.size, [True]

    async def sometimes(org: object) -> int:
        if failing:
            failing.pop()
            raise UnavailableError("away")
        return await size(ACME)

    monkeypatch.setattr(bed.reader, "size", sometimes)
    sender = FakeSender(0)
    await bed.log(1)
    sender.most = 3
    _, slept = await run(bed, sender)
    assert (len(slept), sender.got) == (1, [(0, 3)])
