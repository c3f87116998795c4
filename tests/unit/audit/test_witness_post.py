"""Asking a witness over HTTP: TLS that is verified, no redirects, answers and waits that are bounded."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.audit import witness_post
from gateway.audit.witness_answer import ANSWER_MAX, Reply, WitnessError
from gateway.audit.witness_post import WitnessPost
from tests.kit.certs import make_pki

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def says(text: bytes) -> Answer:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(text)

    return write


def response(status: str, body: bytes = b"", *fields: str) -> Answer:
    head = "".join(f"{field}\r\n" for field in (f"HTTP/1.1 {status}", f"content-length: {len(body)}", *fields))
    return says(head.encode() + b"\r\n" + body)


@asynccontextmanager
async def server(answer: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers every request with `answer`; gives its address and the heads it was sent, body included."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            heard.append(head + await reader.readexactly(length))
            await answer(writer)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"{'https' if context else 'http'}://127.0.0.1:{port}", heard


async def test_a_submission_goes_where_the_specification_says() -> None:
    post = WitnessPost()
    async with server(response("200 OK", b"line\n", "content-type: text/plain")) as (url, heard):
        for prefix in (url, f"{url}/", f"{url}/w/1"):
            assert await post.ask(prefix, b"old 0\n\nnote") == Reply(200, b"line\n", "text/plain")
    assert [head.split(b" ")[:2] for head in heard] == [
        [b"POST", b"/add-checkpoint"],
        [b"POST", b"/add-checkpoint"],
        [b"POST", b"/w/1/add-checkpoint"],
    ]
    assert all(head.endswith(b"old 0\n\nnote") for head in heard)
    await post.aclose()


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    post = WitnessPost()
    async with server(response("302 Found", b"", "location: http://127.0.0.1:1/")) as (url, heard):
        assert (await post.ask(url, b"x")).status == 302
    assert len(heard) == 1
    await post.aclose()


async def test_an_answer_is_not_inflated_and_leaves_nothing_behind() -> None:
    """Whoever answers could else fill our memory: at once with zeros, or with cookies little by little."""
    post, bomb = WitnessPost(), gzip.compress(bytes(16 * 1024**2))
    assert len(bomb) < ANSWER_MAX
    async with server(response("200 OK", bomb, "content-encoding: gzip", "set-cookie: a=b")) as (url, heard):
        for _ in range(2):
            assert (await post.ask(url, b"x")).body == bomb
    assert all(b"accept-encoding: identity\r\n" in head.lower() for head in heard)
    assert not any(b"cookie" in head.lower() for head in heard)
    await post.aclose()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (response("200 OK", b"x" * (ANSWER_MAX + 1)), "too long"),
        (says(b"nonsense\r\n\r\n"), "broke off"),
        (says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"), "broke off"),
        (says(b""), "broke off"),
    ],
)
async def test_what_is_no_answer_is_said_in_our_words(answer: Answer, said: str) -> None:
    post = WitnessPost()
    async with server(answer) as (url, _):
        with pytest.raises(WitnessError, match=said):
            await post.ask(url, b"x")
    await post.aclose()


@pytest.mark.parametrize("url", ["https://xn--/", "https://-ä-/", "https://[v1.a]/"])
async def test_a_url_that_names_no_host_is_a_fault_of_that_witness(url: str) -> None:
    post = WitnessPost()
    with pytest.raises(WitnessError, match="its URL names no host"):
        await post.ask(url, b"x")
    await post.aclose()


async def test_an_answer_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness_post, "TIMEOUT_S", 0.05)
    gone = asyncio.Event()

    async def never(_: asyncio.StreamWriter) -> None:
        await gone.wait()

    post = WitnessPost()
    async with server(never) as (url, _):
        with pytest.raises(WitnessError, match="no answer in"):
            await post.ask(url, b"x")
        gone.set()
    with pytest.raises(WitnessError, match="cannot be reached"):
        await post.ask(url, b"x")
    await post.aclose()


async def test_its_certificate_is_verified(tmp_path: Path) -> None:
    ours, theirs = make_pki(tmp_path / "a"), make_pki(tmp_path / "b")
    trusting, strange = WitnessPost(ours.ca_pem), WitnessPost(theirs.ca_pem)
    async with server(response("200 OK", b"line\n"), ours.server_context(("http/1.1",))) as (url, heard):
        assert (await trusting.ask(url, b"x")).body == b"line\n"
        for post in (strange, WitnessPost()):
            with pytest.raises(WitnessError, match="not trusted"):
                await post.ask(url, b"x")
            await post.aclose()
        assert len(heard) == 1
    await trusting.aclose()


async def test_no_proxy_of_the_environment_comes_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    post = WitnessPost()
    async with server(response("200 OK", b"line\n")) as (url, _):
        assert (await post.ask(url, b"x")).status == 200
    await post.aclose()
