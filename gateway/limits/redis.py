"""The store of the limits in Redis or Valkey: one message, one atomic call of the library."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from gateway.errors import UnavailableError
from gateway.limits.awaylog import AwayLog
from gateway.limits.protocol import Part, SliceAnswer, SliceAsk, Standings
from gateway.limits.redis_library import Library, library
from gateway.limits.redis_route import Route
from gateway.limits.redis_wire import Argument, ReplyError, WireError, shown
from tenants.ids import OrgId
from tenants.models import LimitUnit

log = logging.getLogger("orgate.limits")

WORDS: Final = {
    "NOAUTH": "it asks for a password and none is set",
    "WRONGPASS": "it refuses the name or the password",
    "NOPERM": "its ACL does not allow what is needed",
    "OOM": "its memory is full (maxmemory)",
    "LOADING": "it is loading its data",
    "BUSY": "a script keeps it busy",
    "CLUSTERDOWN": "the Cluster is down",
    "MASTERDOWN": "it has lost its master",
    "READONLY": "it is a replica",
    "MISCONF": "it cannot write its data to disk and refuses writes",
    "NOREPLICAS": "it has fewer replicas than it wants",
    "TRYAGAIN": "the slot is being moved",
    "MOVED": "it is a node of a Cluster, and limits.topology does not say so",
}
"""What an error means, by its code."""

FORGET_S: Final = 60.0
"""An organization that could not be asked for, and has not been since, is not out of reach any more."""

_encode = msgspec.msgpack.Encoder().encode
_answer = msgspec.msgpack.Decoder(SliceAnswer).decode
_standings = msgspec.msgpack.Decoder(tuple[str, tuple[Standings, ...]]).decode
_names = msgspec.msgpack.Decoder(tuple[str, tuple[str, ...]]).decode
T = TypeVar("T")


class RedisSlices:
    """`SliceStore` and `SliceAdmin` (see there). One loop's own; any number of tasks.

    Exact as Redis is durable: a failover to a replica that lags forgets what it had not been sent, at most as much
    as the workers have in their hands; a Redis that comes back empty begins a new epoch.
    `clock_us`: for tests, with a `library` that takes the time as an argument; else Redis' own clock counts.
    Trusted: whoever can write below `prefix` decides how much anybody may spend. Nothing secret is written.
    """

    def __init__(
        self,
        route: Route,
        *,
        prefix: str = "orgate",
        text: Library | None = None,
        clock_us: Callable[[], int] | None = None,
    ) -> None:
        self._route = route
        self._prefix = prefix
        self._clock_us = clock_us
        self._failing: dict[str, tuple[str, float]] = {}
        self._outages = AwayLog(log, "limits: Redis cannot be used: %s", "limits: Redis answers again")
        self.text = text or library()

    @property
    def prefix(self) -> str:
        return self._prefix

    @property
    def failing(self) -> str:
        """Why the last call failed; '' when it did not. Where some organizations fail and others do not, of one
        that does."""
        return next((why for why, _ in reversed(self._failing.values())), "")

    async def warm(self) -> None:
        """Connect, and load the library everywhere. Whatever fails now is logged, and tried again when needed."""
        try:
            for _, server in await self._route.servers():
                await server.load()
        except (WireError, ReplyError) as error:
            self._failed("", error)

    async def state(self) -> str:
        """Whether every server that is written to answers, and took the last call: '', or what is wrong. One that
        is full, or whose ACL allows too little, answers PING all the same."""
        try:
            for _, server in await self._route.servers():
                await server.command("PING")
        except (WireError, ReplyError) as error:
            return reason(error)
        self._forget(time.monotonic())
        return self.failing

    async def aclose(self) -> None:
        self._route.close()

    async def ask(self, message: SliceAsk) -> SliceAnswer:
        nonce = secrets.token_hex(8)
        session = message.session or nonce
        names = ["s:" + session, "h:" + session, *["b:" + bucket_name(part) for part in message.parts]]
        return _answer(await self._run("ask", message.org, names, _encode(message), nonce))

    async def usage(self, org: OrgId) -> Sequence[Standings]:
        found: dict[tuple[object, ...], Standings] = {}
        async for page in self._pages("usage", org, (), _standings):
            # A bucket may be on two pages.
            found.update({(one.limit, one.subject, one.unit, one.starts_s): one for one in page})
        return tuple(found.values())

    async def reset(self, org: OrgId, limit: str, subject: str | None = None) -> int:
        done: set[str] = set()
        async for page in self._pages("reset", org, (limit, subject or "", subject is None), _names):
            done.update(page)
        return len(done)

    async def seed(self, org: OrgId, used: Sequence[Standings]) -> None:
        names = ["b:" + bucket_name(one) for one in used]
        await self._run("seed", org, names, _encode(tuple(used)), secrets.token_hex(8))

    async def _pages(
        self, call: str, org: OrgId, more: tuple[object, ...], decode: Callable[[bytes], tuple[str, Sequence[T]]]
    ) -> AsyncIterator[Sequence[T]]:
        cursor = "0"
        while True:
            answer = await self._run(call, org, (), _encode((cursor, *more)), secrets.token_hex(8))
            cursor, page = decode(answer)
            yield page
            if cursor == "0":
                return

    async def _run(self, call: str, org: OrgId, names: Sequence[str], message: bytes, nonce: str) -> Any:
        """One call of the library. All keys that can be named are, so that a slot on its way is left alone."""
        base = f"{self._prefix}:{{{org}}}:"
        keys = [base + "account", base + "sessions", base + "index", *[base + name for name in names]]
        arguments: list[Argument] = [call, message, nonce]
        if self._clock_us is not None:
            arguments.append(self._clock_us())
        try:
            answer = await self._route.run(org, keys, arguments)
        except (ReplyError, WireError) as error:
            self._failed(org if self._route.apart else "", error)
            raise UnavailableError("limits cannot be asked", retry_after_s=1) from None
        if self._failing or self._outages.away:
            self._worked(org if self._route.apart else "")
        return answer

    def _failed(self, where: str, error: ReplyError | WireError) -> None:
        """However many requests see it, and however many organizations, and for whatever causes: see `AwayLog`."""
        why, now = reason(error), time.monotonic()
        self._forget(now)
        more = self._failing.pop(where, None) is None
        self._failing[where] = why, now
        self._outages.failed(why, more=more)

    def _worked(self, where: str) -> None:
        self._forget(time.monotonic())
        self._failing.pop("", None)
        self._failing.pop(where, None)
        if not self._failing:
            self._outages.worked()

    def _forget(self, now: float) -> None:
        """Who has not asked for long may not ask again."""
        for where in [where for where, (_, at) in self._failing.items() if now - at > FORGET_S]:
            del self._failing[where]


def bucket_name(part: Part | Standings) -> str:
    """As `name_of` in redis_buckets.lua. A limit's name has no ':' in it. Where this one counts another unit the
    library has one more, which is not named: it is hardly ever there, and while a slot is on its way, a key that
    is named and not there keeps all others from being used."""
    kind = "s" if part.unit is LimitUnit.CONCURRENCY else "b" if part.ends_s > 0 else "r"
    return f"{kind}:{part.limit}:{part.starts_s}:{part.subject}"


def reason(error: ReplyError | WireError) -> str:
    """For the log and for operators: what is wrong, in words where the words of Redis do not say it."""
    if isinstance(error, WireError):
        return str(error)
    if "can't run this command" in str(error) or "can't access at least one" in str(error):
        return WORDS["NOPERM"]  # inside the library, where Redis 7.0 says no more than this and the line's number
    words = WORDS.get(error.code)
    return f"{words} ({shown(error)})" if words else shown(error)
