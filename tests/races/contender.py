"""One node of a race: a process of its own, on the store that all of them share.

    python -m tests.races.contender URL sound|broken

It reads an order a line (`Order`, JSON) and answers each with a line (`Answer`s, one a race).
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import uvloop
from msgspec import Struct
from sqlalchemy import update

from gateway.oauth.digests import ServerKey
from gateway.oauth.refresh import RefreshTokens, ReusedError
from gateway.oauth.sql import SqlOAuthStore
from gateway.oauth.store import Consumed, Family
from gateway.oauth.tables import families
from gateway.secret import Secret
from tenants.ids import MemberId, OrgId
from tenants.sql.store import open_store
from tenants.store import StoreError

ORG, MEMBER = OrgId("acme"), MemberId("mem_racer")
NOW, GRACE_S = 1_800_000_000.0, 10
BUSY_MS = 30_000


class Order(Struct, frozen=True):
    """`what`: begin, race, reuse (of the first token, when the grace is over), or refuse (of `tokens`, one a
    race). `races` are their numbers; `each`: how many refresh at once, here."""

    what: str
    races: tuple[int, ...]
    each: int = 0
    tokens: tuple[str, ...] = ()


class Answer(Struct):
    """Of one race, seen from one node. `won`: how often the store said that a token gave way; `got`: the
    successors; `refused`: how many got none; `failed`: what else happened; `at`: when it was over."""

    won: int = 0
    got: list[str] = []
    refused: int = 0
    failed: list[str] = []
    at: float = 0


class ReadThenWrite(SqlOAuthStore):
    """A store with a fault: it looks whether the token is current still, and then it writes."""

    async def rotate(self, family: Family, successor: str, consumed: tuple[Consumed, ...]) -> bool:
        found = await self.family(family.id)
        if found is None or found.ended_at or found.current != family.current:
            return False
        async with self._write(family.org) as connection:
            await connection.execute(
                update(families)
                .where(families.c.id == family.id)
                .values(current=successor, recent=msgspec.json.encode(consumed).decode())
            )
        return True


class Counting:
    """An `OAuthStore` that counts, for each family, how often a token gave way."""

    def __init__(self, store: SqlOAuthStore) -> None:
        self._store = store
        self.won: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def rotate(self, family: Family, successor: str, consumed: tuple[Consumed, ...]) -> bool:
        done = await self._store.rotate(family, successor, consumed)
        if done:
            self.won[family.id] = self.won.get(family.id, 0) + 1
        return done


class Contender:
    def __init__(self, store: SqlOAuthStore) -> None:
        self._store = Counting(store)
        # The clock stands: on a machine that is busy with other things a race may take longer than the grace.
        self._tokens = self._made(lambda: NOW)
        self._late = self._made(lambda: NOW + GRACE_S + 1)

    def _made(self, clock: Callable[[], float], random: Callable[[int], bytes] = bytes) -> RefreshTokens:
        return RefreshTokens(
            store=self._store,
            key=ServerKey(Secret(b"races for one refresh token, all")),
            clock=clock,
            random=random,
            lifetime_s=86_400,
            grace_s=GRACE_S,
        )

    def _first(self, race: int) -> tuple[str, Family]:
        """The family of a race and its first token: the same in every process."""
        calls = 0

        def random(length: int) -> bytes:
            nonlocal calls
            calls += 1
            return hashlib.sha256(f"{race} {calls}".encode()).digest()[:length]

        return self._made(lambda: NOW, random).begin(ORG, MEMBER, "orgate-cli")

    async def obey(self, order: Order) -> list[Answer]:
        tokens = order.tokens or ("",) * len(order.races)
        pairs = zip(order.races, tokens, strict=True)
        return list(await asyncio.gather(*(self._one(order, race, later) for race, later in pairs)))

    async def _one(self, order: Order, race: int, later: str) -> Answer:
        token, family = self._first(race)
        answer = Answer()
        match order.what:
            case "begin":
                await self._store.begin_family(family)
            case "race":
                await asyncio.gather(*(self._refresh(self._tokens, token, answer) for _ in range(order.each)))
                answer.won = self._store.won.pop(family.id, 0)
                answer.got = sorted(set(answer.got))
            case "reuse":
                await self._refresh(self._late, token, answer)
            case "refuse":
                await self._refresh(self._tokens, later, answer)
        answer.at = time.time()
        return answer

    async def _refresh(self, tokens: RefreshTokens, token: str, answer: Answer) -> None:
        """As the token endpoint does it (`gateway.oauth.service`)."""
        try:
            family = await tokens.find(token)
            successor = None if family is None else await tokens.rotate(token, family)
        except ReusedError:
            successor = None
        except StoreError as error:
            answer.failed.append(f"{type(error).__name__}: {error}")
            return
        if successor is None:
            answer.refused += 1
        else:
            answer.got.append(successor)


async def main(arguments: Sequence[str]) -> None:
    url, build = arguments
    control = await open_store(url, busy_timeout_ms=BUSY_MS)
    kind = ReadThenWrite if build == "broken" else SqlOAuthStore
    contender = Contender(await kind.open(control.engine))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        answers = await contender.obey(msgspec.json.decode(line, type=Order))
        sys.stdout.buffer.write(msgspec.json.encode(answers) + b"\n")
        sys.stdout.buffer.flush()
    await control.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
