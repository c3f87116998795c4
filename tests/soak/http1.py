"""A few clients on HTTP/1.1 beside the storm: they have no stream to reset and close their connection instead."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.soak.storm import CANCEL, FAIL, WHOLE, Done, Principal

CANCELLED = 0.45
EVENTS = 12
GIVE_UP_S = 0.03
"""Before the head: within so long after asking."""


@dataclass
class Http1Clients:
    """`numbers` are shared: each takes the next until there are none. One request at a time on a connection."""

    port: int
    ca: Path
    principals: list[Principal]
    numbers: Iterator[int]
    seed: int

    def __post_init__(self) -> None:
        self.done: dict[int, Done] = {}
        self._tls = ssl.create_default_context(cafile=str(self.ca))
        self._tls.set_alpn_protocols(["http/1.1"])

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self._client(number) for number in range(clients)))

    async def _client(self, which: int) -> None:
        dice = random.Random(f"{self.seed} {which}")
        principal = self.principals[which % len(self.principals)]
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for number in self.numbers:
            if connection is None:
                connection = await asyncio.open_connection(
                    "127.0.0.1", self.port, ssl=self._tls, server_hostname="localhost"
                )
            give_up = dice.choice(["before the head", "in mid-stream"]) if dice.random() < CANCELLED else ""
            outcome, status = await self._ask(*connection, principal, number, give_up, dice)
            self.done[number] = Done(outcome, status)
            if outcome != WHOLE:
                connection[1].transport.abort()
                connection = None
        if connection is not None:
            connection[1].close()

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        principal: Principal,
        number: int,
        give_up: str,
        dice: random.Random,
    ) -> tuple[str, int]:
        wait = 8 if give_up == "before the head" else dice.randrange(4)
        body = {
            "model": principal.model,
            "user": f"soak-{wait}-{EVENTS}-1-{number}",
            "stream": True,
            "messages": [{"role": "user", "content": "def merge(left, right):"}],
        }
        content = json.dumps(body).encode()
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {principal.token}\r\n"
            f"content-type: application/json\r\nx-request-id: soak-{number:08}\r\n"
            f"content-length: {len(content)}\r\n\r\n".encode()
            + content
        )
        if give_up == "before the head":
            await asyncio.sleep(dice.random() * GIVE_UP_S)
            return CANCEL, 0
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status != 200:
                return FAIL, status
            text, last = b"", b"#%d#" % dice.randint(1, EVENTS // 2)
            async for chunk in _chunks(reader):
                text += chunk
                if give_up and last in text:
                    return CANCEL, status
        except (asyncio.IncompleteReadError, ConnectionError):
            return FAIL, 0
        if give_up:
            return FAIL, status  # it ended before the event it was to be given up at
        found = [int(part) for part in text.split(b"#")[1::2]]
        return (WHOLE if found == list(range(1, EVENTS + 1)) and b"[DONE]" in text else FAIL), status


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """A chunked body's parts (RFC 9112 section 7.1)."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
