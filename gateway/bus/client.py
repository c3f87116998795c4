"""A worker's end of the bus: keeps the snapshot current, whatever happens to the control process."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, TypeVar

import httpx
import msgspec
from msgspec import Struct

from gateway.bus.messages import (
    ACK,
    KEY_USES,
    METRICS,
    PROMPT_KEY,
    REFUSED,
    SLICES,
    SPOOL,
    STREAM,
    TOUCH_S,
    AckUp,
    Beat,
    DeltaDown,
    Down,
    KeyUsesUp,
    MetricsUp,
    PromptKey,
    PromptKeyAsk,
    RefusedUp,
    ResetDown,
    SpoolAck,
    SpoolUp,
)
from gateway.bus.posts import Posts
from gateway.clock import Clock
from gateway.errors import UnavailableError
from gateway.secret import Secret
from tenants.ids import OrgId
from tenants.snapshot import Snapshot

log = logging.getLogger("orgate.bus")

POLL_S = 0.25
FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 1.0
POST_TIMEOUT_S = 2.0
SLICES_TIMEOUT_S = 0.5
RELAY_TIMEOUT_S = 30.0

_down: msgspec.json.Decoder[Down] = msgspec.json.Decoder(Down)
T = TypeVar("T")


class StoreReader(Protocol):
    """Read-only access to the control store, for when the bus is silent.

    Synchronous, and called from one thread only: a connection of SQLite belongs to the thread that opened it.
    """

    def data_version(self) -> int:
        """Changes whenever somebody else committed; means nothing else. Microseconds."""

    def load(self) -> Snapshot:
        """The world as the store has it. `jwks` may be ''. Milliseconds."""


class Touch(Struct, frozen=True):
    """How a worker knows what it knows. `seconds`: how old that knowledge may be.

    `live`: from the bus. `polling`: the bus is silent, the store is read instead. `stale`: neither answers.
    """

    kind: Literal["live", "polling", "stale"]
    seconds: float


class Relayed(Struct, frozen=True):
    """The control process's answer to a relayed request."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class OutOfStepError(Exception):
    """The stream skipped a change: begin again with the whole."""


class BusClient:
    """Also the pipeline's `World`: `snapshot` and `accepting`.

    One loop's own. `on_snapshot` and `on_reset` are called on it, in order, before the version is
    acknowledged, and must not raise. A worker that has heard nothing for a second does not accept until it
    has tried the store, so that one whose loop or process stood still cannot serve what was taken back in
    the meantime. Trusted: whoever owns the socket's folder decides what this worker believes.
    """

    def __init__(
        self,
        socket: Path,
        worker_id: str,
        on_snapshot: Callable[[Snapshot], None],
        on_reset: Callable[[OrgId, str], None],
        *,
        clock: Clock,
        reader: StoreReader | None = None,
        max_staleness_s: float = 900.0,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.worker_id = worker_id
        self._on_snapshot = on_snapshot
        self._on_reset = on_reset
        self._clock = clock
        self._reader = reader
        self._max_staleness_us = int(max_staleness_s * 1e6)
        self._quick_us = min(int(TOUCH_S * 1e6), self._max_staleness_us)
        self._spread = spread
        self._transport = httpx.AsyncHTTPTransport(uds=str(socket), retries=0)
        self._posts = Posts(socket)
        self._snapshot = Snapshot()
        self._known = asyncio.Event()  # set once there is a snapshot
        self._keyed = asyncio.Event()  # set once one had keys: the store's own has none, only the bus brings them
        self._heard_us: int | None = None  # the last message
        self._polled_us: int | None = None  # the last time the store confirmed what is held here
        self._tried_us: int | None = None  # the last time the store was asked, whatever it said
        self._data_version: int | None = None
        self._acked = -1
        self._ack_due = asyncio.Event()
        self._attached = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-reader")

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    @property
    def state(self) -> Touch:
        now = self._clock.monotonic_us()
        if _within(now, self._heard_us, TOUCH_S):
            return Touch("live", _age(now, self._heard_us))
        if _within(now, self._polled_us, TOUCH_S):
            return Touch("polling", _age(now, self._polled_us))
        return Touch("stale", self._age_us(now) / 1e6)

    @property
    def accepting(self) -> bool:
        """Whether this worker may take requests: its knowledge is recent enough, and it has just looked."""
        if not self._known.is_set():
            return False
        now = self._clock.monotonic_us()
        if self._heard_us is not None and now - self._heard_us <= self._quick_us:
            return True  # asked for every request, and nearly always so
        looked = _within(now, self._heard_us, TOUCH_S) or _within(now, self._tried_us, TOUCH_S)
        return looked and self._age_us(now) <= self._max_staleness_us

    async def known(self) -> None:
        """Wait for the first snapshot."""
        await self._known.wait()

    async def keyed(self) -> None:
        """Wait for the first keys that verify access tokens."""
        await self._keyed.wait()

    def start(self) -> None:
        """Begin listening, acknowledging and (when out of touch) polling."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work()) for work in (self._listen, self._acknowledge, self._poll)]
        for task in self._tasks:
            task.add_done_callback(_ended)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._reading.shutdown(wait=False, cancel_futures=True)
        self._posts.close()
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Up. Each raises `UnavailableError` when the control process does not answer; then it may have read the
    # message or not, so every message is safe to repeat.

    async def send_spool(self, spool: SpoolUp) -> SpoolAck:
        return await self._call(SPOOL, spool, SpoolAck)

    async def send_metrics(self, metrics: MetricsUp) -> None:
        await self._post(METRICS, msgspec.json.encode(metrics))

    async def send_refused(self, refused: RefusedUp) -> None:
        await self._post(REFUSED, msgspec.json.encode(refused))

    async def send_key_uses(self, uses: KeyUsesUp) -> None:
        await self._post(KEY_USES, msgspec.json.encode(uses))

    async def prompt_key(self, org: OrgId) -> Secret:
        """What hashes the prompts of `org` (`gateway.audit.prompt`). Raises `UnavailableError`."""
        return Secret((await self._call(PROMPT_KEY, PromptKeyAsk(org), PromptKey)).key)

    async def ask_slices(self, ask: Struct, answer: type[T]) -> T:
        """Ask the owner of the limits; the messages are the limits' own. Requests wait for the answer."""
        return await self._call(SLICES, ask, answer, SLICES_TIMEOUT_S)

    async def relay(
        self, method: str, path_qs: str, headers: Mapping[str, str] | list[tuple[str, str]], body: bytes
    ) -> Relayed:
        """Pass a request for `/oauth` or `/.well-known` on, once. Never retried: a code may be consumed by it."""
        status, fields, answer = await self._send(method, path_qs, headers, body, RELAY_TIMEOUT_S)
        return Relayed(status, tuple((name.lower(), value) for name, value in fields), answer)

    async def _call(self, path: str, message: Struct, answer: type[T], timeout_s: float = POST_TIMEOUT_S) -> T:
        body = await self._post(path, msgspec.json.encode(message), timeout_s)
        try:
            return msgspec.json.decode(body, type=answer)
        except msgspec.DecodeError:
            raise UnavailableError("the control process gave an answer that cannot be read") from None

    async def _post(self, path: str, body: bytes, timeout_s: float = POST_TIMEOUT_S) -> bytes:
        status, answer = await self._posts.post(path, body, timeout_s)
        if status // 100 != 2:
            raise UnavailableError(f"the control process answered {status} to {path}", retry_after_s=1)
        return answer

    async def _send(
        self,
        method: str,
        path_qs: str,
        headers: Mapping[str, str] | list[tuple[str, str]],
        body: bytes,
        timeout_s: float,
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        # Straight to the transport: `AsyncClient.send` costs another 85 µs and adds only redirects and cookies.
        request = httpx.Request(
            method, "http://bus" + path_qs, headers=headers, content=body, extensions=_timeouts(timeout_s)
        )
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._transport.handle_async_request(request)
                try:
                    answer = await response.aread()
                finally:
                    await response.aclose()
        except (httpx.TransportError, TimeoutError):
            raise UnavailableError("the control process does not answer", retry_after_s=1) from None
        return response.status_code, response.headers.raw, answer

    # Down.

    async def _listen(self) -> None:
        backoff = FIRST_BACKOFF_S
        while True:
            before = self._heard_us
            try:
                await self._stream()
                reason = "it ended the stream"
            except (httpx.TransportError, TimeoutError) as error:
                reason = type(error).__name__
            except (OutOfStepError, msgspec.DecodeError) as error:
                reason = str(error)
            if self._heard_us is not None:  # before the first contact both are still starting
                log.info("out of touch with the control process: %s", reason)
            backoff = FIRST_BACKOFF_S if self._heard_us != before else min(backoff * 2, LAST_BACKOFF_S)
            # Spread, so that the workers of a node do not all come back in the same instant.
            await asyncio.sleep(backoff * (0.5 + self._spread()))

    async def _stream(self) -> None:
        """One stream, until it ends, skips a change or falls silent for `TOUCH_S`."""
        extensions = _timeouts(TOUCH_S)
        request = httpx.Request("GET", f"http://bus{STREAM}?worker={self.worker_id}", extensions=extensions)
        response = await self._transport.handle_async_request(request)
        try:
            if response.status_code != 200:
                raise OutOfStepError(f"it answered {response.status_code}")
            self._acked = -1  # to a new stream everything is said anew
            parts: list[bytes] = []  # of a line that has not ended: a first one may be megabytes long
            async for data in response.aiter_raw():
                *lines, rest = data.split(b"\n")
                for line in lines:
                    await self._take(_down.decode(b"".join([*parts, line])))
                    parts.clear()
                parts.append(rest)
        finally:
            await response.aclose()

    async def _take(self, message: Down) -> None:
        match message:
            case DeltaDown(delta=delta) if delta.full:
                if delta.version < self._snapshot.version and await self._store_confirms():
                    # Polling was quicker than the publisher: keep the newer world, take only the keys.
                    self._adopt(_with_keys(self._snapshot, delta.jwks))
                else:
                    self._adopt(Snapshot().apply(delta))
            case DeltaDown(delta=delta):
                if delta.version >= self._snapshot.version:
                    self._adopt(self._snapshot.apply(delta))
                elif delta.jwks:
                    self._adopt(_with_keys(self._snapshot, delta.jwks))
            case ResetDown(org=org, member=member):
                self._on_reset(org, member)
            case Beat(version=version):
                if version > self._snapshot.version:
                    raise OutOfStepError(f"version {version} was announced and never came")
        self._heard_us = self._clock.monotonic_us()
        if self._acked < self._snapshot.version or isinstance(message, DeltaDown):
            self._ack_due.set()

    def _adopt(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._on_snapshot(snapshot)
        self._known.set()
        if snapshot.jwks:
            self._keyed.set()

    async def _acknowledge(self) -> None:
        while True:
            await self._ack_due.wait()
            self._ack_due.clear()
            version = self._snapshot.version
            try:
                await self._post(ACK, msgspec.json.encode(AckUp(self.worker_id, version)))
            except UnavailableError as error:
                log.debug("version %d is not acknowledged yet: %s", version, error)  # the next beat tries again
            else:
                self._acked = version

    # Out of touch.

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            if self._reader is None or _within(self._clock.monotonic_us(), self._heard_us, TOUCH_S):
                self._data_version = None  # what the bus said meanwhile was not seen from here
                continue
            await self.look()

    async def look(self) -> bool:
        """Bring the snapshot up to the store's state; False when the store cannot be read."""
        reader = self._reader
        if reader is None:
            return False
        asked_us = self._clock.monotonic_us()
        try:
            at = await self._read(reader.data_version)
            if at != self._data_version:
                found = await self._read(reader.load)
                if _within(self._clock.monotonic_us(), self._heard_us, TOUCH_S):
                    return True  # the bus came back while the store was read, and knows more
                if found.version != self._snapshot.version or not self._known.is_set():
                    self._adopt(_with_keys(found, found.jwks or self._snapshot.jwks))
                self._data_version = at
        except Exception as error:  # noqa: BLE001 - whatever the driver raises: the store cannot be read
            log.info("the control store cannot be read: %s", type(error).__name__)
            return False
        else:
            self._polled_us = asked_us
            return True
        finally:
            self._tried_us = self._clock.monotonic_us()

    async def _store_confirms(self) -> bool:
        """Whether the store itself is at our version: then a publisher that says less is behind."""
        if self._reader is None:
            return False
        try:
            return (await self._read(self._reader.load)).version >= self._snapshot.version
        except Exception:  # noqa: BLE001 - a store that cannot be read confirms nothing
            return False

    async def _read(self, read: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, read)

    def _age_us(self, now: int) -> int:
        times = [at for at in (self._heard_us, self._polled_us) if at is not None]
        return now - max(times) if times else now


def _ended(task: asyncio.Task[None]) -> None:
    """These tasks end by being cancelled. Any other end is a fault of ours, and is said at once."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the bus's client stopped: %s", type(error).__name__, exc_info=error)


def _with_keys(snapshot: Snapshot, jwks: str) -> Snapshot:
    if jwks == snapshot.jwks:
        return snapshot
    return Snapshot(
        snapshot.version, snapshot.records.values(), snapshot.revocations, jwks, reuse=snapshot.tenants
    )


def _timeouts(seconds: float) -> dict[str, dict[str, float]]:
    return {"timeout": {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}}


def _within(now_us: int, at_us: int | None, seconds: float) -> bool:
    return at_us is not None and now_us - at_us <= seconds * 1e6


def _age(now_us: int, at_us: int | None) -> float:
    return 0.0 if at_us is None else (now_us - at_us) / 1e6
