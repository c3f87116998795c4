"""Posts over a Unix socket: what is kept open, and what is told when no whole answer comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.bus.posts import IDLE_MAX, Posts
from gateway.errors import UnavailableError

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


class Server:
    """Answers each post with what `answer` says for its number, from 1; None: says nothing and stays."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self.answer = answer
        self.connections = 0
        self.requests: list[bytes] = []
        self.heard = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                self.heard.set()
                answer = self.answer(len(self.requests))
                if answer is None:
                    await reader.read()
                    return
                writer.write(answer)
                if answer in (LAST, b""):
                    return
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()


@asynccontextmanager
async def served(folder: Path, server: Server) -> AsyncGenerator[Posts]:
    path = folder / "bus.sock"
    listening = await asyncio.start_unix_server(server, path)
    posts = Posts(path)
    try:
        yield posts
    finally:
        posts.close()
        listening.close()


async def test_posts_one_after_another_share_a_connection(tmp_path: Path) -> None:
    server = Server(lambda n: CHUNKED if n % 2 else OK)
    async with served(tmp_path, server) as posts:
        for _ in range(6):
            assert await posts.post("/x", b'{"a":1}', 5) == (200, b"{}")
    assert server.connections == 1
    assert server.requests[0].startswith(b"POST /x HTTP/1.1\r\n")
    assert server.requests[0].endswith(b'\r\n\r\n{"a":1}')


async def test_posts_at_once_do_not_wait_for_each_other(tmp_path: Path) -> None:
    server = Server(lambda n: None if n == 1 else OK)
    async with served(tmp_path, server) as posts:
        stuck = asyncio.ensure_future(posts.post("/slow", b"", 60))
        await server.heard.wait()
        assert await posts.post("/quick", b"", 5) == (200, b"{}")
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        assert await posts.post("/again", b"", 5) == (200, b"{}")
    assert server.connections == 2


async def test_a_crowd_leaves_few_connections_open(tmp_path: Path) -> None:
    async with served(tmp_path, Server(lambda _: OK)) as posts:
        await asyncio.gather(*(posts.post("/x", b"", 5) for _ in range(3 * IDLE_MAX)))
        assert len(posts._idle) <= IDLE_MAX


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", None]
)
async def test_no_whole_answer_is_said_and_the_connection_not_used_again(
    tmp_path: Path, answer: bytes | None
) -> None:
    server = Server(lambda n: answer if n == 1 else OK)
    async with served(tmp_path, server) as posts:
        with pytest.raises(UnavailableError, match="does not answer") as refusal:
            await posts.post("/x", b"", 0.05)
        assert refusal.value.retry_after_s == 1
        assert await posts.post("/x", b"", 5) == (200, b"{}")
    assert server.connections == 2


async def test_a_connection_that_the_other_side_ends_is_replaced(tmp_path: Path) -> None:
    server = Server(lambda _: LAST)
    async with served(tmp_path, server) as posts:
        for _ in range(3):
            assert await posts.post("/x", b"", 5) == (200, b"{}")
    assert server.connections == 3


async def test_nobody_listening_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        await Posts(tmp_path / "nothing.sock").post("/x", b"", 5)


async def test_closing_lets_what_is_under_way_end_and_keeps_nothing(tmp_path: Path) -> None:
    server = Server(lambda _: OK)
    async with served(tmp_path, server) as posts:
        await posts.post("/x", b"", 5)
        under_way = asyncio.ensure_future(posts.post("/x", b"", 5))
        await asyncio.sleep(0)
        posts.close()
        assert await under_way == (200, b"{}")
        assert not posts._idle
