"""The witness's HTTP application: routes, methods, and what one caller can use of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.witness_wire import BODY_MAX, SIZE_TYPE
from gateway.witness import app as module
from gateway.witness.app import AT_ONCE, WitnessApp
from gateway.witness.folder import WitnessFolder, make
from gateway.witness.protocol import Witness
from tests.fakes.growinglog import GrowingLog
from tests.kit.wait import eventually

ACME = GrowingLog()


@pytest.fixture
def app(tmp_path: Path) -> WitnessApp:
    make(tmp_path / "w", "w1.example")
    kept = WitnessFolder(tmp_path / "w")
    kept.add(ACME.key)
    return WitnessApp(Witness(kept, lambda: 1_763_690_000))


async def call(
    app: WitnessApp, path: str, pieces: Iterable[bytes] = (), method: str = "POST", *, ended: bool = True
) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request; unless `ended`, the body never ends."""
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting += [{"type": "http.request"}] if ended else []
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)

    await app({"type": "http", "method": method, "path": path}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def test_a_body_in_pieces_is_one_submission(app: WitnessApp) -> None:
    body = ACME.submission(0, 20)
    status, headers, said = await call(app, "/add-checkpoint", [body[:7], body[7:], b""])
    assert status == 200
    assert headers[b"content-length"] == b"%d" % len(said)
    assert said.startswith("— w1.example ".encode())
    assert (await call(app, f"/{'0' * 64}/checkpoint", method="GET"))[0] == 404


async def test_a_conflict_says_the_size_in_its_own_type(app: WitnessApp) -> None:
    await call(app, "/add-checkpoint", [ACME.submission(0, 20)])
    status, headers, said = await call(app, "/add-checkpoint", [ACME.submission(10, 30)])
    assert (status, headers[b"content-type"], said) == (409, SIZE_TYPE.encode(), b"20\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/add-checkpoint", 405),
        ("POST", f"/{'0' * 64}/checkpoint", 405),
        ("POST", "/", 404),
        ("GET", "/sign-subtree", 404),
        ("GET", "/../key", 404),
        ("GET", "/a/b/checkpoint", 404),
    ],
)
async def test_there_is_nothing_else(app: WitnessApp, method: str, path: str, status: int) -> None:
    found, headers, _ = await call(app, path, method=method)
    assert found == status
    assert (b"allow" in headers) is (status == 405)


async def test_a_body_that_is_too_long_is_not_read_to_its_end(app: WitnessApp) -> None:
    assert (await call(app, "/add-checkpoint", [b"x" * BODY_MAX, b"x"], ended=False))[0] == 413


async def test_a_body_that_does_not_come_is_given_up(app: WitnessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_S", 0.0)
    assert (await call(app, "/add-checkpoint", [b"old 0\n"], ended=False))[0] == 408


async def test_only_so_many_are_heard_at_once(app: WitnessApp) -> None:
    slow = [asyncio.create_task(call(app, "/add-checkpoint", ended=False)) for _ in range(AT_ONCE)]
    await eventually(lambda: app._at_once == AT_ONCE, "all of them wait")
    assert (await call(app, "/add-checkpoint", [ACME.submission(0, 20)]))[0] == 503
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert (await call(app, "/add-checkpoint", [ACME.submission(0, 20)]))[0] == 200


async def test_a_caller_who_leaves_is_told_nothing(app: WitnessApp) -> None:
    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def send(event: MutableMapping[str, Any]) -> None:
        raise AssertionError(event)

    await app({"type": "http", "method": "POST", "path": "/add-checkpoint"}, receive, send)
    await app({"type": "lifespan"}, receive, send)
